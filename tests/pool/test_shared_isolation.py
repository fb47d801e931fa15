"""Leases in one Chromium at the same time see nothing of each other (``leases_per_browser``).

The concurrent twin of test_isolation.py, with its table of traces.  Each control is a WebDriver session
of Selenium's own that has no context of its own: it finds the traces of the lease.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.support.expected_conditions import alert_is_present

from browserkeeper import BrowserPool, ConfigError, Lease
from browserkeeper.session.session import control_of
from fixtures.server import Site
from tests.pool.test_isolation import (
    CHROMIUM_TRACES,
    TRACES,
    Trace,
    a_field,
    actions,
    add_an_authenticator,
    authenticators,
    cdp,
    copy,
    download,
    leave_an_alert,
    logged,
    module_pool,
    paste_the_selected,
    wait,
    with_control,
)
from tests.support.hanging import hang
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome
Driver = webdriver.Remote
Leases = tuple[Lease[Any], Lease[Any]]


# ------------------------------------------------------------------ two leases, and the control


def logging_options() -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    wanted = dict.fromkeys(("browser", "driver", "performance"), "ALL")
    options.set_capability("goog:loggingPrefs", wanted)
    return options


@pytest.fixture(scope="module")
def shared() -> Iterator[BrowserPool[Any]]:
    with module_pool("chrome", leases_per_browser=3, min_idle=3, options=logging_options()) as pool:
        yield pool


@pytest.fixture
def leases(shared: BrowserPool[Any]) -> Iterator[Leases]:
    """Two leases at the same time, in the same browser."""
    while True:
        shared.wait(300)
        with shared.lease() as one, shared.lease() as other:
            # An overloaded machine may be too slow for a browser, which the pool then replaces.
            if one.session.pid == other.session.pid:
                yield one, other
                return


@contextlib.contextmanager
def without_a_context(lease: Lease[Any], window: str = "") -> Iterator[Driver]:
    """A further WebDriver session of the same browser, in this window or the current one."""
    config = ClientConfig(lease.driver.command_executor.client_config.remote_server_addr, timeout=300)
    options = logging_options()
    seat: Any = control_of(lease.session).attempt  # its capabilities have an address that is closed
    options.debugger_address = seat.shared.address
    driver = Plain(config, options)
    try:
        driver.switch_to.window(window or lease.driver.current_window_handle)
        yield driver
    finally:
        driver.quit()


class Plain(webdriver.Chrome):
    """Selenium's Chrome, whose ChromeDriver and browser run already."""

    def __init__(self, config: ClientConfig, options: webdriver.ChromeOptions):
        from selenium.webdriver.chrome.remote_connection import ChromeRemoteConnection

        executor = ChromeRemoteConnection(config.remote_server_addr, client_config=config)
        webdriver.Remote.__init__(self, executor, options=options)
        self._is_remote = False

    def quit(self) -> None:
        webdriver.Remote.quit(self)


# ------------------------------------------------------------------ no trace is left to a neighbour


OF_THE_SESSION = frozenset(
    (
        *("timeouts", "network conditions", "frame", "console", "driver's log", "performance log"),
        *("key held down", "mouse button held down", "virtual authenticator", "window's name"),
    )
)
"""Traces that no other WebDriver session finds, not even in the same window.  Their control is that the
lease itself finds them."""
REFUSED = frozenset({"clipboard", "selected text"})
"""A browser has one clipboard; see the tests below."""
SHARED_TRACES = {
    **{name: trace for name, trace in CHROMIUM_TRACES.items() if name not in REFUSED},
    "virtual authenticator": Trace(add_an_authenticator, authenticators),
    "performance log": Trace(
        lambda driver, site: driver.get(site.url_for("about")), logged("performance", "/about")
    ),
    **{name: trace for name, trace in TRACES.items() if name not in REFUSED},
}


@pytest.mark.parametrize("name", SHARED_TRACES)
def test_a_neighbour_finds_no_trace(leases: Leases, site: Site, name: str) -> None:
    one, other = (lease.driver for lease in leases)
    trace = SHARED_TRACES[name]
    with without_a_context(leases[0]) as plain:
        clean = trace.look(one, site)
        trace.leave(one, site)
        assert trace.look(one, site) != clean  # the control
        trace.leave(one, site)  # looking may have removed it
        assert trace.look(other, site) == clean
        if name not in OF_THE_SESSION:
            assert trace.look(plain, site) != clean  # the control without a context of its own


@pytest.mark.parametrize("name", ["device metrics", "time zone", "user agent", "zoom"])
def test_neighbours_emulate_different_things(leases: Leases, site: Site, name: str) -> None:
    """What one has set is there after the other has set and removed the like."""
    one, other = (lease.driver for lease in leases)
    trace = SHARED_TRACES[name]
    trace.leave(one, site)
    mine = trace.look(one, site)
    trace.leave(other, site)
    assert trace.look(other, site) == mine
    leases[1].release()
    assert trace.look(one, site) == mine


WORKER = (
    "new SharedWorker('data:text/javascript,' + `self.ports = []; onconnect = e => {"
    "ports.push(e.ports[0]); ports.forEach(port => port.postMessage(ports.length)) }`).port"
)
"""A worker that tells all of its pages how many they are."""
CHANNELS: dict[str, tuple[str, str]] = {
    "BroadcastChannel": (
        "window.got = []; new BroadcastChannel('x').onmessage = e => got.push(e.data)",
        "new BroadcastChannel('x').postMessage(1)",
    ),
    "storage event": ("window.got = []; onstorage = e => got.push(e.key)", "localStorage.k = 1"),
    "named window": (
        "name = 'target'; window.got = []; onmessage = e => got.push(1)",
        "window.open('', 'target').postMessage(1, '*')",
    ),
    "lock": (
        "window.got = []; navigator.locks.request('x', () => new Promise(() => {}))",
        "navigator.locks.request('x', {ifAvailable: true}, lock => { window.free = !!lock })",
    ),
    "shared worker": (
        f"window.got = []; {WORKER}.onmessage = e => e.data > 1 && got.push(e.data)",
        f"{WORKER}.start()",
    ),
}
"""Ways of a page to other pages of its site: how one listens, and how another sends."""


@pytest.mark.parametrize("way", CHANNELS)
def test_pages_of_one_site_reach_no_page_of_a_neighbour(leases: Leases, site: Site, way: str) -> None:
    one, other = (lease.driver for lease in leases)
    listen, send = CHANNELS[way]

    one.get(site.url)
    one.execute_script(listen)
    other.get(site.url)
    other.execute_script(send)
    if way == "lock":
        assert wait_until(lambda: other.execute_script("return window.free") is True)
    # The control comes from the same lease, later: by then a message of the neighbour would be there.
    first = one.current_window_handle
    one.execute_script("window.open('/')")
    assert wait_until(lambda: len(one.window_handles) == 2)
    (second,) = {*one.window_handles} - {first}
    one.switch_to.window(second)
    wait(one, lambda driver: driver.title)
    one.execute_script(send)
    if way == "lock":
        assert wait_until(lambda: one.execute_script("return window.free") is False)
        return
    one.switch_to.window(first)
    assert wait_until(lambda: bool(one.execute_script("return got")))
    assert len(one.execute_script("return got")) == 1


# ------------------------------------------------------------------ at the same time


STATE = "return [document.hasFocus(), document.visibilityState]"
COUNT = (
    "const done = arguments[0]; let timers = 0, frames = 0;"
    "const timer = setInterval(() => timers++, 10);"
    "const draw = () => { frames++; if (frames < 10) requestAnimationFrame(draw); else {"
    "clearInterval(timer); done([frames, timers > 0]) } }; requestAnimationFrame(draw)"
)


def test_each_window_has_the_focus_and_runs_at_full_rate(leases: Leases, site: Site) -> None:
    one, other = (lease.driver for lease in leases)
    for driver in (one, other):
        a_field(driver, site)
        driver.execute_script(
            "window.events = []; for (const kind of ['blur', 'visibilitychange', 'pagehide'])"
            "for (const each of [window, document]) each.addEventListener(kind, () => events.push(kind))"
        )
    a_click = one.find_element(By.ID, "field").click
    for disturb in (
        a_click,
        one.minimize_window,
        lambda: one.set_window_rect(0, 0, 400, 300),
        one.close,
    ):
        disturb()
        assert other.execute_script(STATE) == [True, "visible"]
        assert other.execute_script("return document.activeElement.id") == "field"
        assert other.execute_async_script(COUNT) == [10, True]
        assert other.execute_script("return events") == []


def test_control_a_window_of_the_same_lease_takes_the_focus(leases: Leases, site: Site) -> None:
    driver = leases[0].driver
    driver.get(site.url)
    driver.execute_script("window.events = []; onblur = () => events.push('blur')")
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.switch_to.window(first)
    assert wait_until(lambda: driver.execute_script("return events") == ["blur"])


def type_by_actions(driver: Driver, letter: str) -> None:
    actions(driver).send_keys(letter).perform()


def type_by_keys(driver: Driver, letter: str) -> None:
    driver.find_element(By.ID, "field").send_keys(letter)


def shifted(driver: Driver, letter: str) -> None:
    actions(driver).key_down(Keys.SHIFT).send_keys(letter).key_up(Keys.SHIFT).perform()


def double_click(driver: Driver, letter: str) -> None:
    """A click adds the letter: two clicks of one lease are a double click, those of two are not."""
    field = driver.find_element(By.ID, "field")
    driver.execute_script(
        "arguments[0].onclick = () => { arguments[0].value += arguments[1] }", field, letter
    )
    actions(driver).click(field).perform()


WAYS_TO_TYPE: dict[str, Callable[[Driver, str], None]] = {
    "actions": type_by_actions,
    "send_keys": type_by_keys,
    "shift": shifted,
    "clicks": double_click,
}


@pytest.mark.parametrize("way", WAYS_TO_TYPE)
def test_input_at_the_same_time_reaches_the_own_page(leases: Leases, site: Site, way: str) -> None:
    letters = ("a", "B")

    def work(number: int) -> str:
        driver = leases[number].driver
        field = a_field(driver, site)
        for _ in range(20):
            WAYS_TO_TYPE[way](driver, letters[number])
        return str(field.get_property("value"))

    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(work, range(2)))
    assert seen == [("A" if way == "shift" else "a") * 20, "B" * 20]


def test_pictures_at_the_same_time_show_the_own_page(leases: Leases, site: Site) -> None:
    def paint(number: int) -> set[str]:
        driver = leases[number].driver
        driver.get(site.url)
        colour = ("red", "blue")[number]
        driver.execute_script(f"document.documentElement.innerHTML = '<body style=background:{colour}>'")
        return {driver.get_screenshot_as_base64() for _ in range(8)}

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(paint, range(2))
    assert len(one) == len(other) == 1
    assert one != other


def test_downloads_of_the_same_name_at_the_same_time(leases: Leases, site: Site) -> None:
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda lease: download(lease, site), leases)
    assert one != other
    leases[0].release()
    assert wait_until(lambda: not one.exists())
    assert [path.name for path in other.iterdir()] == ["leaky-shelf.csv"]


# ------------------------------------------------------------------ the clipboard


def paste_by_keys(driver: Driver, site: Site) -> None:
    a_field(driver, site).send_keys(Keys.CONTROL, "v")


def paste_by_actions(driver: Driver, site: Site) -> None:
    a_field(driver, site)
    with_control(driver, "v")


READS: dict[str, Callable[[Any, Site], object]] = {
    "keys": paste_by_keys,
    "actions": paste_by_actions,
    "DevTools": cdp("Input.dispatchKeyEvent", type="rawKeyDown", commands=["paste"]),
    "permission": lambda driver, site: driver.set_permissions("clipboard-read", "granted"),
    "permission by DevTools": cdp("Browser.grantPermissions", permissions=["clipboardReadWrite"]),
}


def test_a_neighbour_s_clipboard_cannot_be_read(leases: Leases, site: Site) -> None:
    """test_paste_keys.py has all ways; the control, in test_isolation.py, pastes what another copied."""
    one, other = (lease.driver for lease in leases)
    copy(one, site)
    for read in READS.values():
        with pytest.raises(ConfigError, match=r"one clipboard.*leases_per_browser=1"):
            read(other, site)
    assert paste_the_selected(other, site) == ""
    assert other.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, () => done('refused'))"
    ) in ("refused", "")


# ------------------------------------------------------------------ a neighbour in trouble


def loop_for_ever(driver: Driver, site: Site) -> None:
    hang(driver, site.url)


def loop_in_a_popup(driver: Driver, site: Site) -> None:
    driver.execute_script("window.popup = window.open('/about')")
    assert wait_until(
        lambda: (
            driver.execute_script("return popup.location.pathname + popup.document.readyState")
            == "/aboutcomplete"
        )
    )
    hang(driver, site.url, "popup")


def crash(driver: Driver, site: Site) -> None:
    with pytest.raises(WebDriverException, match="crashed"):
        driver.get("chrome://crash")


def pause_in_the_debugger(driver: Any, site: Site) -> None:
    driver.execute_cdp_cmd("Debugger.enable", {})
    driver.execute_script("setTimeout(() => { debugger }, 0)")


def load_for_ever(driver: Driver, site: Site) -> None:
    """From a second window: a command of the first one would wait for the page."""
    first = driver.current_window_handle
    driver.execute_script("open('/about')")
    assert wait_until(lambda: len(driver.window_handles) == 2)
    (second,) = set(driver.window_handles) - {first}
    driver.switch_to.window(second)
    driver.execute_script("opener.location = '/never'")
    site.wait_for("/never")
    driver.switch_to.window(first)


def ask_before_leaving(driver: Driver, site: Site) -> None:
    driver.get(site.url_for("beforeunload"))
    driver.find_element(By.ID, "touch").click()
    driver.execute_script("setTimeout(() => { location = '/about' }, 0)")


def request_synchronously(driver: Driver, site: Site) -> None:
    driver.execute_script(
        "fetch('/slow?seconds=2').then(() => { const request = new XMLHttpRequest();"
        "request.open('GET', '/never', false); request.send() })"
    )
    site.wait_for("/never")


TROUBLES: dict[str, Callable[[Any, Site], None]] = {
    "alert": leave_an_alert,
    "question before leaving": ask_before_leaving,
    "endless loop": loop_for_ever,
    "endless loop of a popup": loop_in_a_popup,
    "crashed tab": crash,
    "paused in the debugger": pause_in_the_debugger,
    "endless page": load_for_ever,
    "synchronous request": request_synchronously,
    "all windows closed": lambda driver, site: driver.close(),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_window_in_trouble_stops_no_neighbour(
    shared: BrowserPool[Any], site: Site, trouble: str
) -> None:
    """Not its commands about windows, nor the renewal of its place, nor its next lease."""
    with shared.lease() as one:
        one.driver.get(site.url)
        TROUBLES[trouble](one.driver, site)
        for _ in range(2):
            with shared.lease() as other:
                assert other.session.pid == one.session.pid
                driver = other.driver
                driver.get(site.url_for("about"))
                first = driver.current_window_handle
                driver.switch_to.new_window("window")
                assert len(driver.window_handles) == 2
                driver.close()
                driver.switch_to.window(first)
                assert driver.window_handles == [first]
                assert driver.get_screenshot_as_png()
                with pytest.raises(WebDriverException, match="no such alert"):
                    _ = driver.switch_to.alert.text
            with shared.lease(), shared.lease():  # both places are renewed beside the trouble
                pass
    with shared.lease() as again:
        again.driver.get(site.url)
        assert again.driver.title


def test_a_page_that_asks_before_leaving_is_left(shared: BrowserPool[Any], site: Site) -> None:
    """By a script and by a command, as with a plain driver: the question is answered once."""
    with shared.lease() as lease:
        driver = lease.driver
        for _ in range(8):
            ask_before_leaving(driver, site)
            assert wait_until(lambda: driver.current_url.endswith("/about"))
            driver.get(site.url_for("beforeunload"))
            driver.find_element(By.ID, "touch").click()
            driver.get(site.url)
            assert driver.current_url == site.url


@pytest.mark.parametrize("way", ["alert", "unhandled"])
def test_an_alert_is_the_own_page_s(leases: Leases, site: Site, way: str) -> None:
    one, other = (lease.driver for lease in leases)
    for driver, text in ((one, "one"), (other, "other")):
        driver.get(site.url)
        driver.execute_script(f"setTimeout(() => alert('{text}'), 0)")
    for driver, text in ((other, "other"), (one, "one")):
        wait(driver, alert_is_present())
        if way == "alert":
            assert driver.switch_to.alert.text == text
            driver.switch_to.alert.accept()
        else:
            with pytest.raises(WebDriverException, match=text):
                _ = driver.title


def test_a_slow_command_delays_no_neighbour(leases: Leases, site: Site) -> None:
    """The command of the one ends only when the neighbour, in the meantime, has done its work."""
    one, other = (lease.driver for lease in leases)
    for driver in (one, other):
        driver.get(site.url)
    one.set_script_timeout(300)
    window = one.current_window_handle
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.append(
            one.execute_async_script("setTimeout(() => { window.end = arguments[0] }, 0)")
        ),
        daemon=True,
    )
    thread.start()
    for _ in range(5):
        other.get(site.url_for("about"))
        assert other.title
        other.switch_to.new_window("tab")
    assert thread.is_alive()
    with without_a_context(leases[0], window) as plain:
        assert wait_until(lambda: bool(plain.execute_script("return !!window.end")))
        plain.execute_script("window.end(5)")
    thread.join(60)
    assert results == [5]


# ------------------------------------------------------------------ windows and elements of others


def test_elements_of_a_neighbour_do_not_exist(leases: Leases, site: Site) -> None:
    one, other = (lease.driver for lease in leases)
    for driver in (one, other):
        driver.get(site.url)
    element = one.find_element(By.TAG_NAME, "h1")
    with pytest.raises((NoSuchElementException, StaleElementReferenceException)):
        other.execute_script("return arguments[0].textContent", element)


def test_a_neighbour_s_windows_are_not_listed(leases: Leases, site: Site) -> None:
    one, other = (lease.driver for lease in leases)
    other.get(site.url)
    other.execute_script("window.open('/about'); window.open('/', '_blank', 'popup')")
    assert wait_until(lambda: len(other.window_handles) == 3)
    assert one.window_handles == [one.current_window_handle]
    found = one.execute_cdp_cmd("Page.getFrameTree", {})["frameTree"]["frame"]["id"]
    assert found == one.current_window_handle
    other.quit()
    assert one.title is not None
