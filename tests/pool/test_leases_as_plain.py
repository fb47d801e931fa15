"""The driver of a lease does what a plain one does: every method, the right and the wrong way.

Each call is made on both: on a page; and some also after the current window was closed, and with an
alert open.  The answers must be equal, errors included.  What must differ has a test below, and a row in
the table of ``docs/plain-selenium.md``.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    InvalidArgumentException,
    InvalidSessionIdException,
    NoSuchWindowException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions
from selenium.webdriver.support.expected_conditions import alert_is_present, title_is
from selenium.webdriver.support.ui import Select, WebDriverWait

from browserkeeper import BrowserPool
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.pool.test_options_in_leases import plain_driver, plain_leaves_zombies
from tests.support.guards import BOTH
from tests.support.waiting import wait_until

pytestmark = plain_leaves_zombies

Call = Callable[[Any], object]

FORM = """
<title>Form</title><h1 id=head class=big>Head</h1>
<input id=field value=old><input id=box type=checkbox><input id=off disabled><input id=file type=file>
<select id=choice><option>one<option>two</select>
<button id=button onclick="this.textContent = 'clicked'">go</button>
<div id=host></div><p id=hidden hidden>unseen</p>
<form id=form action=/about><input name=q></form><iframe name=inner srcdoc="<h1>Inner</h1>"></iframe>
"""


def script(source: str, *arguments: Any) -> Call:
    return lambda driver: driver.execute_script(source, *arguments)


def element(name: str, use: Call) -> Call:
    return lambda driver: use(driver.find_element(By.ID, name))


def cdp(command: str, **params: Any) -> Call:
    return lambda driver: driver.execute_cdp_cmd(command, params)


def then(*calls: Call) -> Call:
    """Make the calls in turn, and return the answers of all."""
    return lambda driver: [outcome(call, driver) for call in calls]


def permission(name: str) -> Call:
    return lambda driver: driver.execute_async_script(
        "const [name, done] = arguments;"
        "navigator.permissions.query({name}).then(found => done(found.state), e => done(e.name))",
        name,
    )


def set_permission(name: Any, state: Any) -> Call:
    return then(lambda driver: driver.set_permissions(name, state), permission(str(name)))


def set_timeouts(**given: Any) -> Call:
    def run(driver: Any) -> object:
        driver.execute("setTimeouts", given)
        return driver.execute("getTimeouts")["value"]

    return run


def authenticator(driver: Any) -> object:
    driver.add_virtual_authenticator(VirtualAuthenticatorOptions())
    driver.set_user_verified(True)
    found = driver.get_credentials()
    driver.remove_all_credentials()
    driver.remove_virtual_authenticator()
    return found


def a_stale_element(driver: Any) -> object:
    found = driver.find_element(By.ID, "head")
    driver.refresh()
    return found.text


def typed(driver: Any) -> object:
    field = driver.find_element(By.ID, "field")
    field.clear()
    field.send_keys("new")
    ActionChains(driver, duration=0).key_down(Keys.SHIFT).send_keys("x").key_up(Keys.SHIFT).perform()
    return field.get_property("value")


def chosen(driver: Any) -> object:
    choice = Select(driver.find_element(By.ID, "choice"))
    choice.select_by_visible_text("two")
    return choice.first_selected_option.text


def new_window(kind: Any) -> Call:
    def run(driver: Any) -> object:
        before = driver.window_handles
        driver.switch_to.new_window(kind)
        facts = script("return [document.readyState, innerWidth > 0]")(driver)
        return len(driver.window_handles) - len(before), driver.current_url, facts

    return run


def closing(driver: Any) -> object:
    driver.switch_to.new_window("tab")
    left = driver.close()
    return len(left or driver.window_handles), outcome(lambda driver: driver.title, driver)


def opened_by_the_page(driver: Any) -> object:
    before = set(driver.window_handles)
    driver.execute_script("window.open('/about', 'other')")
    WebDriverWait(driver, 60, 0.01).until(lambda driver: set(driver.window_handles) - before)
    (other,) = set(driver.window_handles) - before
    driver.switch_to.window(other)
    WebDriverWait(driver, 60, 0.01).until(lambda driver: driver.current_url.endswith("/about"))
    return driver.title


def in_an_alert(*calls: Call) -> Call:
    def run(driver: Any) -> object:
        driver.execute_script("setTimeout(() => { document.title = prompt('What?', 'nothing') })")
        WebDriverWait(driver, 60, 0.01).until(alert_is_present())
        return then(*calls)(driver)

    return run


def new_title(driver: Any) -> str:
    """What the page's script makes of the dialog's answer; it may go on only after the command."""
    WebDriverWait(driver, 60, 0.01).until_not(title_is("Form"))
    return str(driver.title)


def in_a_frame_of_another_site(driver: Any) -> object:
    """``localhost`` in a page of ``127.0.0.1``, which is the same server."""
    driver.add_cookie({"name": "outer", "value": "1"})
    other = driver.current_url.replace("127.0.0.1", "localhost")
    driver.execute_script(
        "const frame = document.createElement('iframe'); frame.name = 'other'; frame.src = arguments[0];"
        "document.body.append(frame); return new Promise(done => { frame.onload = () => done() })",
        other,
    )
    driver.switch_to.frame("other")
    driver.execute_script("document.cookie = 'inner=2; SameSite=None; Secure; Partitioned'")
    driver.execute_script("document.cookie = 'plain=3'")
    seen = driver.execute_script("return document.cookie"), driver.get_cookies()
    driver.add_cookie({"name": "added", "value": "4"})
    more = driver.get_cookies(), driver.get_cookie("outer")
    driver.delete_all_cookies()
    return seen, more, driver.get_cookies(), driver.execute_script("return document.cookie")


def pinned(driver: Any) -> object:
    key = driver.pin_script("return 1 + arguments[0]")
    found = driver.execute_script(key, 2), len(driver.get_pinned_scripts())
    driver.unpin(key)
    return found


def printed(driver: Any) -> object:
    options = PrintOptions()
    options.page_ranges = ["1"]
    return driver.print_page(options)[:6], driver.print_page()[:6]


CALLS: dict[str, Call] = {
    # what the driver is
    "name": lambda driver: driver.name,
    "capabilities": lambda driver: driver.capabilities["pageLoadStrategy"],
    "mobile": lambda driver: driver.mobile.context,
    "orientation": lambda driver: driver.orientation,
    "orientation, wrong": lambda driver: setattr(driver, "orientation", "UP"),
    "log_types": lambda driver: sorted(driver.log_types),
    "get_log": lambda driver: isinstance(driver.get_log("browser"), list),
    "get_log, wrong": lambda driver: driver.get_log("kernel"),
    "get_downloadable_files": lambda driver: driver.get_downloadable_files(),
    "download_file": lambda driver: driver.download_file("x", "/tmp"),
    "delete_downloadable_files": lambda driver: driver.delete_downloadable_files(),
    "fire_session_event": lambda driver: driver.fire_session_event("x"),
    "request": lambda driver: driver.request.get(driver.current_url).status,
    "execute, wrong": lambda driver: driver.execute("noSuchCommand"),
    "file_detector": lambda driver: type(driver.file_detector).__name__,
    "file_detector, wrong": lambda driver: setattr(driver, "file_detector", None),
    # navigation
    "get": lambda driver: driver.get("data:text/html,<title>here</title>"),
    "get, no URL": lambda driver: driver.get("leaky shelf"),
    "get, number": lambda driver: driver.get(5),
    "get, refused": lambda driver: driver.get("http://127.0.0.1:1/"),
    "get, unknown scheme": lambda driver: driver.get("leaky:shelf"),
    "back and forward": then(
        script("location.hash = 'a'"),
        lambda driver: driver.back(),
        lambda driver: driver.current_url,
        lambda driver: driver.forward(),
        lambda driver: driver.current_url,
        lambda driver: driver.refresh(),
    ),
    "title": lambda driver: driver.title,
    "page_source": lambda driver: driver.page_source,
    "current_url": lambda driver: driver.current_url,
    # cookies
    "cookies": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1"}),
        lambda driver: driver.get_cookie("a"),
        lambda driver: driver.get_cookies(),
        script("return document.cookie"),
        lambda driver: driver.delete_cookie("a"),
        lambda driver: driver.delete_all_cookies(),
        lambda driver: driver.get_cookies(),
    ),
    "add_cookie, other domain": lambda driver: driver.add_cookie(
        {"name": "a", "value": "1", "domain": "example.com"}
    ),
    "add_cookie, all of it": then(
        lambda driver: driver.add_cookie(
            {
                "name": "a",
                "value": "1",
                "domain": "127.0.0.1",
                "path": "/cached",
                "httpOnly": True,
                "sameSite": "Strict",
                "expiry": 4_000_000_000,
            }
        ),
        lambda driver: [{**found, "expiry": 0} for found in driver.get_cookies()],
        script("return document.cookie"),
        lambda driver: driver.delete_cookie("a"),
        lambda driver: driver.get_cookies(),
    ),
    "add_cookie, secure": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1", "secure": True}),
        lambda driver: driver.get_cookies(),
    ),
    "add_cookie, other path": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1", "path": "/elsewhere"}),
        lambda driver: driver.get_cookies(),
        lambda driver: driver.get_cookie("a"),
    ),
    "add_cookie, expired": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1"}),
        lambda driver: driver.add_cookie({"name": "a", "value": "2", "expiry": 1}),
        lambda driver: driver.get_cookies(),
    ),
    "add_cookie, again": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1"}),
        lambda driver: driver.add_cookie({"name": "a", "value": "ü; ="}),
        lambda driver: driver.add_cookie({"name": "b", "value": ""}),
        lambda driver: driver.get_cookies(),
    ),
    "add_cookie, strange": then(
        lambda driver: driver.add_cookie({"name": "", "value": "1"}),
        lambda driver: driver.add_cookie({"name": "__Host-a", "value": "1"}),
        lambda driver: driver.add_cookie({"name": "a", "value": "1", "domain": ""}),
        lambda driver: driver.add_cookie({"name": "a", "value": "1", "sameSite": "Some"}),
        lambda driver: driver.get_cookies(),
    ),
    "cookies of a frame": then(
        lambda driver: driver.add_cookie({"name": "a", "value": "1"}),
        lambda driver: driver.switch_to.frame("inner"),
        lambda driver: driver.get_cookies(),
        lambda driver: driver.switch_to.default_content(),
        lambda driver: len(driver.get_cookies()),
    ),
    "cookies of a frame of another site": in_a_frame_of_another_site,
    "cookies of a page without any": then(
        lambda driver: driver.get("data:,none"),
        lambda driver: driver.get_cookies(),
        lambda driver: driver.add_cookie({"name": "a", "value": "1"}),
        lambda driver: driver.delete_all_cookies(),
        lambda driver: driver.get_cookie("a"),
    ),
    "add_cookie, no value": lambda driver: driver.add_cookie({"name": "a"}),
    "add_cookie, wrong": lambda driver: driver.add_cookie({"name": "a", "value": "1", "expiry": "soon"}),
    "get_cookie, none": lambda driver: driver.get_cookie("none"),
    "get_cookie, empty": lambda driver: driver.get_cookie(""),
    "delete_cookie, empty": lambda driver: driver.delete_cookie(""),
    # elements
    "find_element": element("head", lambda found: (found.tag_name, found.text, found.rect)),
    "find_element, none": lambda driver: driver.find_element(By.ID, "none"),
    "find_element, named connection": lambda driver: driver.find_element(By.ID, "connection-status"),
    "find_element, wrong": lambda driver: driver.find_element(By.CSS_SELECTOR, "###"),
    "find_element, wrong way": lambda driver: driver.find_element("smell", "rose"),
    "find_elements": lambda driver: len(driver.find_elements(By.TAG_NAME, "input")),
    "create_web_element": lambda driver: driver.create_web_element("x").text,
    "element's facts": element(
        "box",
        lambda found: (
            found.get_attribute("type"),
            found.get_dom_attribute("type"),
            found.get_property("checked"),
            found.is_selected(),
            found.is_enabled(),
            found.is_displayed(),
            found.value_of_css_property("display"),
            found.aria_role,
            found.accessible_name,
            found.size,
            found.location,
        ),
    ),
    "shadow_root, none": element("host", lambda found: found.shadow_root),
    "click": element("button", lambda found: (found.click(), found.text)),
    "click, hidden": element("hidden", lambda found: found.click()),
    "clear, hidden": element("hidden", lambda found: found.clear()),
    "send_keys, disabled": element("off", lambda found: found.send_keys("x")),
    "send_keys, no such file": element("file", lambda found: found.send_keys("/no/such/file")),
    "submit": then(element("form", lambda found: found.submit()), lambda driver: driver.title),
    "element's screenshot": element("head", lambda found: found.screenshot_as_png[:8]),
    "stale": a_stale_element,
    "typing": typed,
    "choosing": chosen,
    "actions, wrong": lambda driver: ActionChains(driver, duration=0).move_by_offset(-99, 0).perform(),
    # scripts
    "execute_script": script("return [1, null, {a: 'x'}, document.body.tagName, arguments[0]]", "given"),
    "execute_script, element": lambda driver: driver.execute_script("return document.body").tag_name,
    "execute_script, syntax": script("return ]"),
    "execute_script, throws": script("throw 'disconnected'"),
    "execute_script, cycle": script("const a = {}; a.a = a; return a"),
    "execute_script, no JSON": script("return 1", {1, 2}),
    "execute_script, function": script("return 1", print),
    "execute_async_script": lambda driver: driver.execute_async_script("arguments[0](7)"),
    "execute_async_script, late": then(
        lambda driver: driver.set_script_timeout(0.05),
        lambda driver: driver.execute_async_script(""),
        lambda driver: driver.set_script_timeout(30),
    ),
    "pin_script": pinned,
    "unpin, unknown": lambda driver: driver.unpin(5),
    # windows
    "window_handles": lambda driver: len(driver.window_handles),
    "current_window_handle": lambda driver: driver.current_window_handle in driver.window_handles,
    "new_window, tab": new_window("tab"),
    "new_window, window": new_window("window"),
    "new_window": new_window(None),
    "new_window, wrong": new_window("door"),
    "new_window, number": new_window(5),
    "new_window, empty": new_window(""),
    "new_window, answer": lambda driver: driver.execute("newWindow", {"type": "door"})["value"]["type"],
    "new_window, without parameters": lambda driver: driver.execute("newWindow", {})["value"]["type"],
    "close": closing,
    "window.open": opened_by_the_page,
    "switch_to.window, wrong": lambda driver: driver.switch_to.window("none"),
    "frames": then(
        lambda driver: driver.switch_to.frame("inner"),
        lambda driver: driver.find_element(By.TAG_NAME, "h1").text,
        lambda driver: driver.switch_to.parent_frame(),
        lambda driver: driver.switch_to.frame(0),
        lambda driver: driver.switch_to.default_content(),
        lambda driver: driver.title,
    ),
    "switch_to.frame, wrong": lambda driver: driver.switch_to.frame("none"),
    "switch_to.frame, too many": lambda driver: driver.switch_to.frame(9),
    "active_element": lambda driver: driver.switch_to.active_element.tag_name,
    "alert, none": lambda driver: driver.switch_to.alert.text,
    "alert": in_an_alert(
        lambda driver: driver.switch_to.alert.text,
        lambda driver: driver.switch_to.alert.send_keys("much"),
        lambda driver: driver.switch_to.alert.accept(),
        new_title,
    ),
    "alert, dismissed": in_an_alert(lambda driver: driver.switch_to.alert.dismiss(), new_title),
    "window's size": then(
        lambda driver: driver.set_window_size(600, 500),
        lambda driver: driver.get_window_size(),
        lambda driver: driver.set_window_position(5, 6),
        lambda driver: driver.get_window_position(),
        lambda driver: driver.set_window_rect(7, 8, 610, 510),
        lambda driver: driver.get_window_rect(),
    ),
    "set_window_rect, none": lambda driver: driver.set_window_rect(),
    "set_window_size, wrong": lambda driver: driver.set_window_size("wide", 5),
    "set_window_size, negative": lambda driver: driver.execute(
        "setWindowRect", {"width": -5, "height": 5}
    ),
    "maximize, minimize, fullscreen": then(
        lambda driver: driver.maximize_window(),
        lambda driver: driver.get_window_rect(),
        lambda driver: driver.fullscreen_window(),
        lambda driver: driver.get_window_rect(),
        lambda driver: driver.minimize_window(),
        lambda driver: driver.set_window_rect(7, 8, 610, 510),
    ),
    # settings
    "timeouts": then(
        lambda driver: driver.implicitly_wait(0.2),
        lambda driver: driver.timeouts.implicit_wait,
        lambda driver: driver.implicitly_wait(0),
    ),
    "timeouts, negative": set_timeouts(implicit=-5),
    "timeouts, wrong": set_timeouts(script="long"),
    "implicitly_wait, wrong": lambda driver: driver.implicitly_wait("x"),
    "network conditions": then(
        lambda driver: driver.get_network_conditions(),
        lambda driver: driver.set_network_conditions(latency=1, throughput=5000, offline=False),
        lambda driver: driver.get_network_conditions(),
        lambda driver: driver.delete_network_conditions(),
        lambda driver: driver.get_network_conditions(),
    ),
    "set_network_conditions, wrong": lambda driver: driver.set_network_conditions(latency="x"),
    "permission, granted": set_permission("camera", "granted"),
    "permission, denied": set_permission("geolocation", "denied"),
    "permission, prompt": set_permission("geolocation", "prompt"),
    "permission, of the start": permission("geolocation"),
    "permission, upper case": set_permission("notifications", "GRANTED"),
    "permission, wrong name": set_permission("teleport", "granted"),
    "permission, empty name": set_permission("", "granted"),
    "permission, wrong state": set_permission("camera", "maybe"),
    "permission, no state": set_permission("camera", None),
    "permission, no name": lambda driver: driver.set_permissions(None, "granted"),
    "permission, old name": set_permission("midi-sysex", "granted"),
    "permission, clipboard": set_permission("clipboard-read", "granted"),
    "permission, without parameters": lambda driver: driver.execute("setPermissions", {}),
    "permission, on a blank page": then(
        lambda driver: driver.get("about:blank"),
        lambda driver: driver.set_permissions("camera", "granted"),
    ),
    # pictures and paper
    "screenshots": lambda driver: (
        driver.get_screenshot_as_png()[:8],
        driver.get_screenshot_as_base64()[:8],
    ),
    "get_screenshot_as_file, wrong": lambda driver: driver.get_screenshot_as_file("/no/such/x.png"),
    "print_page": printed,
    "print_page, wrong": lambda driver: driver.execute("printPage", {"pageRanges": ["9-1"]}),
    # devices
    "authenticator": authenticator,
    "get_credentials, none": lambda driver: driver.get_credentials(),
    "remove_credential, none": lambda driver: driver.remove_credential("x"),
    "fedcm_dialog": lambda driver: driver.fedcm_dialog(timeout=0.05, poll_frequency=0.01),
    "fedcm": lambda driver: driver.fedcm.title,
    "fedcm, delay": lambda driver: driver.fedcm.disable_delay(),
    "fedcm, cooldown": lambda driver: driver.fedcm.reset_cooldown(),
    "supports_fedcm": lambda driver: driver.supports_fedcm,
    # DevTools
    "cdp": cdp("Runtime.evaluate", expression="1 + 1"),
    "cdp, unknown": cdp("No.such"),
    "cdp, wrong parameters": cdp("Runtime.evaluate", expression=5),
    "cdp, permission": then(
        cdp("Browser.grantPermissions", permissions=["videoCapture"]), permission("camera")
    ),
    "cdp, permission, wrong": cdp("Browser.grantPermissions", permissions=["teleport"]),
    "cdp, reset permissions": then(cdp("Browser.resetPermissions"), permission("geolocation")),
    "cdp, cookies": then(
        cdp("Storage.setCookies", cookies=[{"name": "a", "value": "1", "domain": "127.0.0.1"}]),
        cdp("Storage.getCookies"),
        lambda driver: driver.get_cookies(),
        cdp("Storage.clearCookies"),
        lambda driver: driver.get_cookies(),
    ),
    "cdp, downloads": cdp("Browser.setDownloadBehavior", behavior="deny"),
    "cdp, downloads, wrong": cdp("Browser.setDownloadBehavior", behavior="maybe"),
    "cdp, cookies, wrong": cdp("Storage.setCookies", cookies=[{"name": "x"}]),
    "cdp, no parameters": lambda driver: driver.execute(
        "executeCdpCommand", {"cmd": "Browser.getVersion"}
    ),
    "cdp, no command": lambda driver: driver.execute("executeCdpCommand", {"params": {}}),
}


# ------------------------------------------------------------------ three situations


def on_the_page(driver: Any, site: Site) -> None:
    """One window, with the form, and nothing else of an earlier call."""
    with contextlib.suppress(WebDriverException):
        driver.switch_to.alert.dismiss()
    handles = driver.window_handles
    for handle in handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(handles[0])
    driver.get(site.url_for("cached"))  # a small page
    driver.delete_all_cookies()
    driver.execute_script("document.documentElement.innerHTML = arguments[0]", FORM)


def after_the_window_was_closed(driver: Any, site: Site) -> None:
    on_the_page(driver, site)
    driver.switch_to.new_window("tab")
    driver.close()


def with_an_alert_open(driver: Any, site: Site) -> None:
    on_the_page(driver, site)
    driver.execute_script("setTimeout(() => alert('The shelf is leaking.'))")
    WebDriverWait(driver, 60, 0.01).until(alert_is_present())


ELSEWHERE = re.compile(
    r"new_window|close|permission, (granted|wrong)|cdp, (perm|cook|no)|window\.open|title|get$|get_log$|"
    r"current_|window_handles|execute_script$|cookies|frames|timeouts$|screenshots|alert"
)
"""Calls that are made in the other situations as well: those that a lease routes, one of each kind.
(ChromeDriver itself does not answer ``switch_to.window`` of a wrong name with an alert open.)"""

VARYING = re.compile(
    r"session/[\w-]+|\b[0-9A-F]{32}\b|f\.[0-9A-F]+\.d\.[0-9A-F]+\.e\.\d+|127\.0\.0\.1:\d+"
    r"|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|'(WebDriver|Firefox)' object"
)


def outcome(call: Call, driver: Any) -> object:
    """What the call returns, or the error that it raises, without what differs between two browsers."""
    try:
        value = call(driver)
    except Exception as error:  # any error is an answer here
        text = str(getattr(error, "msg", None) or error)
        return type(error).__name__, VARYING.sub(
            "…", re.split(r"\(Session info|Stacktrace", text)[0]
        ).strip()
    return VARYING.sub("…", value) if isinstance(value, str) else without_order_of_cookies(value)


def without_order_of_cookies(value: object) -> object:
    """Chromium gives two cookies of the same age in either order."""
    if isinstance(value, tuple):
        return tuple(map(without_order_of_cookies, value))
    if isinstance(value, list) and value and all(isinstance(v, dict) and "domain" in v for v in value):
        return sorted(value, key=lambda cookie: str(cookie["name"]))
    return value


def differences(plain: Any, lease: Any, site: Site, arrange: Callable[[Any, Site], None]) -> list[str]:
    """The calls whose answers differ between the two drivers, with both answers."""
    found = []
    for name, call in CALLS.items():
        if arrange is not on_the_page and not ELSEWHERE.match(name):
            continue
        answers = []
        for driver in (plain, lease):
            arrange(driver, site)
            answers.append(outcome(call, driver))
        if answers[0] != answers[1]:
            found.append(f"{name}\n  plain: {answers[0]}\n  lease: {answers[1]}")
    return found


@pytest.fixture(scope="module")
def plain() -> Iterator[webdriver.Chrome]:
    with plain_driver(webdriver.ChromeOptions()) as driver:
        yield driver


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[BrowserPool[Any]]:
    with patient_pool(getattr(request, "param", "chrome"), max_size=1) as opened:
        assert opened.isolation == "context"
        yield opened


@pytest.mark.slow
@pytest.mark.chrome
@pytest.mark.parametrize("arrange", [on_the_page, after_the_window_was_closed, with_an_alert_open])
def test_a_lease_answers_as_a_plain_driver(
    arrange: Callable[[Any, Site], None], plain: webdriver.Chrome, pool: BrowserPool[Any], site: Site
) -> None:
    with pool.driver() as driver:
        assert not differences(plain, driver, site, arrange)


ROUTED_ON_FIREFOX = re.compile(
    r"cookie|get_cookie|delete_cookie|new_window|close|window|switch_to|frames|alert|title|timeouts|"
    r"authenticator|print_page$|screenshots|typing|click$|get_log|execute, wrong|capabilities"
)
"""Calls that a lease of a Firefox sends on in another way, and a few others.  Each costs 0.2 s."""


@pytest.mark.slow
@pytest.mark.firefox
@pytest.mark.parametrize("pool", ["firefox"], indirect=True)
def test_a_lease_of_firefox_answers_as_a_plain_driver(
    pool: BrowserPool[Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {name: call for name, call in CALLS.items() if ROUTED_ON_FIREFOX.match(name)}
    monkeypatch.setattr(sys.modules[__name__], "CALLS", calls)
    with plain_driver(webdriver.FirefoxOptions()) as plain:
        for arrange in (on_the_page, after_the_window_was_closed, with_an_alert_open):
            with pool.driver() as driver:
                assert not differences(plain, driver, site, arrange)


@pytest.mark.chrome
def test_control_a_difference_is_found(
    plain: webdriver.Chrome, pool: BrowserPool[Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CALLS", {"title": CALLS["title"]})
    with pool.lease() as lease, monkeypatch.context() as patch:
        assert not differences(plain, lease.driver, site, with_an_alert_open)
        patch.setattr(type(lease.driver), "title", "another")
        (found,) = differences(plain, lease.driver, site, with_an_alert_open)
    assert "another" in found


@pytest.mark.parametrize("pool", BOTH, indirect=True)
def test_a_window_of_a_lease_is_never_in_another_context(pool: BrowserPool[Any], site: Site) -> None:
    """The driver's own command would open it in the browser's default context."""
    for kind in ("tab", "window", None, "door"):
        with pool.driver() as driver:
            driver.get(site.url)
            driver.add_cookie({"name": "of", "value": "this-lease"})
            driver.switch_to.new_window(kind)
            driver.get(site.url)
            assert driver.get_cookie("of") is not None, kind


# ------------------------------------------------------------------ mistakes of the caller's own


MISTAKES: dict[str, Call] = {
    "no JSON": script("return 1", {1, 2}),
    "no JSON, nested": script("return 1", {"a": [object()]}),
    "bytes": lambda driver: driver.execute("get", {"url": b"http://localhost"}),
    "no URL": lambda driver: driver.get(None),
    "too few parameters": lambda driver: driver.execute("clickElement", {}),
}
"""Calls that raise an error before anything was sent to the browser, or that it refuses."""


@pytest.mark.parametrize("pool", BOTH, indirect=True)
def test_a_mistake_of_the_caller_costs_no_browser(pool: BrowserPool[Any], site: Site) -> None:
    with pool.lease() as lease:
        before = lease.browser_id
    for name, mistake in MISTAKES.items():
        with pool.lease() as lease:
            assert lease.browser_id == before, f"the browser was thrown away before {name}"
            with pytest.raises(Exception, match=r".") as caught:
                mistake(lease.driver)
            lease.driver.get(site.url)
            assert lease.driver.title, (name, caught.value)
    with pool.lease() as lease:
        assert lease.browser_id == before


# ------------------------------------------------------------------ what must differ


@pytest.mark.chrome
def test_after_its_last_window_a_lease_lives_where_a_plain_driver_ends(
    pool: BrowserPool[Any],
) -> None:
    with plain_driver(webdriver.ChromeOptions()) as driver:
        driver.close()
        with pytest.raises(InvalidSessionIdException):
            _ = driver.title
    with pool.driver() as driver:
        driver.close()
        with pytest.raises(NoSuchWindowException):
            _ = driver.title
        assert driver.window_handles == []


def leave_by_a_click(driver: Any, site: Site) -> object:
    """Leave a page that asks before it is left, by a click on a link."""
    driver.get(site.url_for("beforeunload"))
    driver.find_element(By.ID, "touch").click()
    driver.execute_script("document.body.innerHTML += '<a id=away href=/about>away</a>'")
    driver.find_element(By.ID, "away").click()
    return driver.current_url


def until_at(driver: Any, url: str) -> None:
    def address(driver: Any) -> object:
        return driver.current_url

    assert wait_until(lambda: outcome(address, driver) == VARYING.sub("…", url))


@contextlib.contextmanager
def may_stumble() -> Iterator[None]:
    """What ChromeDriver 156 may raise with BiDi on, at the click or at the next command: it looks for
    the prompt that BiDi has answered already, or for the page that is left."""
    try:
        yield
    except (StaleElementReferenceException, InvalidArgumentException):
        pass
    except WebDriverException as error:
        if "aborted by navigation" not in str(error.msg):
            raise


@pytest.mark.chrome
def test_leaving_an_unsaved_page_by_a_click_may_stumble_as_in_plain_selenium_with_bidi(
    plain: webdriver.Chrome, pool: BrowserPool[Any], site: Site
) -> None:
    """The page is left all the same."""
    assert leave_by_a_click(plain, site) == site.url_for("about")  # the control, without BiDi
    options = webdriver.ChromeOptions()
    options.enable_bidi = True
    with plain_driver(options) as bidi, pool.driver() as driver:
        for each in (bidi, driver):
            with may_stumble():
                leave_by_a_click(each, site)
            until_at(each, site.url_for("about"))
