"""Storage states in browsers: Playwright's are loaded, ours are Playwright's, and nothing goes out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from browserkeeper import (
    BrowserDied,
    BrowserkeeperError,
    BrowserSession,
    ConfigError,
    ForkedSessionError,
    IdentityError,
    StorageStateError,
    browser,
)
from browserkeeper.drivers.bidi import BidiConnection
from browserkeeper.drivers.storage_state import DEFAULT_CONTEXT, OwnPage
from browserkeeper.options.storage_state import StorageState
from fixtures.server import Site
from tests.support.guards import BOTH
from tests.support.hanging import hang
from tests.support.playwright_state import FILE, LOOK, ORIGIN, SEEN, look_with_playwright
from tests.support.waiting import wait_until

LIMIT = 300.0
SECRET = "hunter2-swordfish"


def session_for(name: str, **arguments: Any) -> BrowserSession[Any]:
    return browser(name, **{"start_timeout": LIMIT, **arguments})


def other(site: Site) -> str:
    """The site under another host, which is another origin."""
    return site.url.replace("127.0.0.1", "localhost")


def origin_of(url: str) -> str:
    return url.rstrip("/")


def stored(state: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The localStorage of a saved state, by origin."""
    return {
        one["origin"]: {item["name"]: item["value"] for item in one["localStorage"]}
        for one in state["origins"]
    }


def received(driver: webdriver.Remote, site: Site) -> Any:
    """The cookies that the site receives."""
    driver.get(site.url_for("cookies"))
    return json.loads(driver.find_element("id", "received").text)


def look_at(session: BrowserSession[Any], script: str, origin: str = ORIGIN) -> Any:
    """Run a script that returns JSON in a page of the origin, without a network."""
    function = f"async () => JSON.stringify({{origin: location.origin, seen: await ({script})()}})"
    connection = BidiConnection(session.driver.caps["webSocketUrl"])
    try:
        with OwnPage(connection, session.config.engine, DEFAULT_CONTEXT, LIMIT) as page:
            page.open(origin)
            return json.loads(page.call(function)["seen"])
    finally:
        connection.close()


def comparable(state: dict[str, Any], engine: str) -> Any:
    """A state without what an order, a clock, or the other browser's rules make of it."""
    same = ("name", "value", "domain", "path", "httpOnly", "secure", "partitionKey")
    cookies = sorted(
        [*(str(one.get(key)) for key in same), round(one["expires"]) // 1000] for one in state["cookies"]
    )
    same_sites = {one["name"]: one["sameSite"] for one in state["cookies"]}
    origins = json.loads(json.dumps(state["origins"]))
    for origin in origins:
        origin["localStorage"].sort(key=lambda item: item["name"])
        for database in origin.get("indexedDB", []):
            database["stores"].sort(key=lambda store: store["name"])
            for store in database["stores"]:
                store["records"] = sorted(json.dumps(one, sort_keys=True) for one in store["records"])
                store["indexes"].sort(key=lambda index: index["name"])
    return cookies, same_sites, origins


@pytest.mark.parametrize("name", BOTH)
def test_a_state_of_playwright_is_loaded_whole_and_saved_as_it_was(name: str, tmp_path: Path) -> None:
    """Dates, typed arrays, maps, circles and lone surrogates included; a Blob has lost its content in
    Playwright already.  Playwright itself takes the file that is saved."""
    session = session_for(name, storage_state=FILE)
    with session:
        assert look_at(session, LOOK) == SEEN
        state = session.storage_state(tmp_path / "saved.json", indexed_db=True)
        assert len(session.driver.window_handles) == 1
    assert state == json.loads((tmp_path / "saved.json").read_text())
    assert stat.S_IMODE((tmp_path / "saved.json").stat().st_mode) == 0o600
    given = comparable(json.loads(FILE.read_text()), name)
    assert comparable(state, name) == given
    StorageState.load(state)
    found = look_with_playwright(tmp_path / "saved.json")
    if found is None:
        pytest.skip("Playwright is not installed; all else of this test has passed")
    assert found["seen"] == SEEN
    assert comparable({"cookies": found["cookies"], "origins": []}, name)[:2] == given[:2]


# ------------------------------------------------------------------------------ no network


class Listener:
    """A port that counts the connections to it, and answers none."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.mark.parametrize("name", BOTH)
def test_loading_and_saving_open_no_connection_to_the_sites(name: str, listener: Listener) -> None:
    """Not for a page, nor its icon, nor ahead of a page.  The control: a visit does."""
    urls = [f"http://127.0.0.1:{listener.port}", f"https://localhost:{listener.port}"]
    items = [{"name": "k", "value": "v"}]
    state = {"origins": [{"origin": url, "localStorage": items} for url in urls]}
    session = session_for(name, storage_state=state)
    with session as driver:
        assert stored(session.storage_state(indexed_db=True)) == {url: {"k": "v"} for url in urls}
        driver.get("data:,done")
        assert listener.connections == 0
        with contextlib.suppress(Exception):
            driver.get(urls[0])
        assert listener.connections > 0


@pytest.mark.parametrize("name", BOTH)
def test_handlers_of_the_user_and_blocking_do_not_reach_the_page_of_a_save(
    name: str, site: Site
) -> None:
    """A handler would let its request out to the network, and blocking would fail it.  The control: both
    act on the user's own page."""
    origin = origin_of(site.url)
    items = [{"name": "k", "value": "v"}]
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    session = session_for(
        name,
        options=options,
        block=[f"{origin}*", "http://127.0.0.1:1/*"],
        storage_state={"origins": [{"origin": origin, "localStorage": items}]},
    )
    with session as driver:
        seen: list[str] = []

        def note(event: Any) -> None:
            seen.append(str(event))

        def handle(request: Any) -> None:
            seen.append(request.url)
            with contextlib.suppress(WebDriverException):
                request.continue_request()

        driver.network.add_request_handler("before_request", handle)
        driver.network._add_intercept(phases=["responseStarted"])
        driver.browsing_context.add_event_handler("context_created", note)
        driver.browsing_context.add_event_handler("load", note)
        wait_until(lambda: seen, 5)
        del seen[:]  # some events tell of windows that are there already
        for _ in range(3):
            assert stored(session.storage_state(indexed_db=True)) == {origin: {"k": "v"}}
        assert seen == []
        assert len(driver.browsing_context.get_tree()) == len(driver.window_handles) == 1
        # The failed navigation is the last one.  Chromium may answer no continueRequest of a navigation
        # that begins while the error page of another is loading: so it was with Selenium alone, too.
        driver.browsing_context.navigate(driver.current_window_handle, other(site), "complete")
        assert other(site) in seen
        with pytest.raises(WebDriverException, match=r"BLOCKED_BY_CLIENT|NS_ERROR_ABORT"):
            driver.browsing_context.navigate(driver.current_window_handle, site.url, "complete")


# ---------------------------------------------------------------------------- round trips


@pytest.mark.compat
@pytest.mark.parametrize("name", BOTH)
def test_a_login_is_kept_from_one_session_to_the_next(name: str, site: Site, tmp_path: Path) -> None:
    """The first one is a plain session.  The control: without the state nothing is there."""
    file = tmp_path / "login.json"
    first = session_for(name)
    with first as driver:
        received(driver, site)
        driver.execute_script("localStorage.setItem('token', 'one'); sessionStorage.setItem('a', 'b')")
        handles = driver.window_handles
        state = first.storage_state(file)
        assert driver.window_handles == handles
        assert driver.title == "Cookies"
    assert {one["name"] for one in state["cookies"]} == {"visits", "kept", "unseen", "script"}
    assert {one["name"] for one in state["cookies"] if one["httpOnly"]} == {"unseen"}
    assert {one["name"] for one in state["cookies"] if one["expires"] > 0} == {"kept"}
    with session_for(name, storage_state=file) as driver:
        assert received(driver, site) == {
            "visits": "1",
            "kept": "for-a-day",
            "unseen": "by-scripts",
            "script": "yes",
        }
        assert driver.execute_script("return [localStorage.token, sessionStorage.a]") == ["one", None]
    with session_for(name) as driver:
        assert received(driver, site) == {}
        assert driver.execute_script("return localStorage.length") == 0


@pytest.mark.parametrize("name", BOTH)
def test_the_storage_of_every_visited_origin_is_saved(name: str, site: Site) -> None:
    """Also of one whose page was left, and of one that a closed window has shown; of an origin that was
    only loaded, too."""
    state = {"origins": [{"origin": ORIGIN, "localStorage": [{"name": "k", "value": "loaded"}]}]}
    session = session_for(name, storage_state=state)
    with session as driver:
        driver.get(site.url)
        driver.execute_script("localStorage.setItem('k', 'left')")
        first = driver.current_window_handle
        driver.switch_to.new_window("window")
        driver.get(other(site))
        driver.execute_script("localStorage.setItem('k', 'closed')")
        driver.close()
        driver.switch_to.window(first)
        driver.get("about:blank")
        assert stored(session.storage_state()) == {
            ORIGIN: {"k": "loaded"},
            origin_of(site.url): {"k": "left"},
            origin_of(other(site)): {"k": "closed"},
        }


@pytest.mark.parametrize("name", BOTH)
def test_hosts_and_kinds_of_cookies_survive(name: str) -> None:
    """Leading dots, host-only, addresses, prefixes, partitions; None without Secure is loaded without
    SameSite; an expired one is dropped."""
    later = time.time() + 86400
    base = {"value": "1", "path": "/", "expires": later, "httpOnly": False, "secure": False}
    given = [
        {**base, "name": "host", "domain": "shop.example", "sameSite": "Lax"},
        {**base, "name": "dot", "domain": ".shop.example", "sameSite": "Strict"},
        {**base, "name": "ip", "domain": "127.0.0.1", "sameSite": "Lax"},
        {**base, "name": "ip6", "domain": "[::1]", "sameSite": "Lax"},
        {**base, "name": "local", "domain": "localhost", "path": "/a/b", "sameSite": "Lax"},
        {**base, "name": "__Host-a", "domain": "shop.example", "secure": True, "sameSite": "None"},
        {**base, "name": "__Secure-a", "domain": ".shop.example", "secure": True, "sameSite": "Lax"},
        {**base, "name": "session", "domain": "shop.example", "expires": -1, "sameSite": "Lax"},
        {
            **base,
            "name": "chips",
            "domain": "embed.example",
            "secure": True,
            "sameSite": "None",
            "partitionKey": ORIGIN,
        },
    ]
    odd = {**base, "name": "old", "domain": "shop.example", "sameSite": "None"}
    expired = {**base, "name": "expired", "domain": "shop.example", "expires": 1000, "sameSite": "Lax"}
    session = session_for(name, storage_state={"cookies": [*given, odd, expired]})
    with session:
        saved = session.storage_state()
    expected = comparable({"cookies": [*given, {**odd, "sameSite": "Lax"}], "origins": []}, name)
    assert comparable(saved, name) == expected


def test_an_expired_cookie_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    old = {"name": "a", "value": SECRET, "domain": "a.example", "expires": 1}
    with caplog.at_level(logging.INFO, "browserkeeper"):
        session = session_for("chrome", storage_state={"cookies": [old]})
        with session:
            assert session.storage_state() == {"cookies": [], "origins": []}
    assert "1 expired cookies were left out" in caplog.text
    assert SECRET not in caplog.text


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", BOTH)
def test_more_than_a_browser_keeps_is_an_error_that_says_so(name: str) -> None:
    """Each one is a state of one session; 5 MB of localStorage fit, and 1,000 cookies of ten sites."""
    many = [{"name": f"c{n}", "value": SECRET, "domain": "shop.example"} for n in range(5000)]
    with pytest.raises(IdentityError, match=r"of 5000 cookies.*shop\.example.*180") as caught:
        session_for(name, storage_state={"cookies": many}).start()
    assert SECRET not in str(caught.value)
    huge = [{"name": "k", "value": "x" * 6_000_000}]
    state = {"origins": [{"origin": ORIGIN, "localStorage": huge}]}
    with pytest.raises(IdentityError, match=r"origins\[0\].localStorage.*QuotaExceededError"):
        session_for(name, storage_state=state).start()
    large = [{"name": f"k{n}", "value": f"{n}" * 480_000 + "ü"} for n in range(10)]
    fit = [{**one, "domain": f"a{n % 10}.site{n % 10}.example"} for n, one in enumerate(many[:1000])]
    both = {"cookies": fit, "origins": [{"origin": ORIGIN, "localStorage": large}]}
    session = session_for(name, storage_state=both)
    with session:
        saved = session.storage_state()
    assert len(saved["cookies"]) == 1000
    assert stored(saved)[ORIGIN] == {one["name"]: one["value"] for one in large}


@pytest.mark.parametrize("name", BOTH)
def test_a_database_that_breaks_its_own_rules_is_an_error_with_its_place(name: str) -> None:
    store = {"name": "s", "keyPath": "id", "records": [{"value": {"no": SECRET}}]}
    database = {"name": "db", "version": 1, "stores": [store]}
    state = {"origins": [{"origin": ORIGIN, "indexedDB": [database]}]}
    with pytest.raises(IdentityError, match=r"origins\[0\].indexedDB\[0\].*DataError") as caught:
        session_for(name, storage_state=state).start()
    assert SECRET not in str(caught.value)


@pytest.mark.firefox
def test_a_cookie_that_this_browser_refuses_is_named() -> None:
    good = [{"name": f"n{n}", "value": "1", "domain": "a.example"} for n in range(5)]
    bad = {"name": "", "value": SECRET, "domain": "b.example"}
    with pytest.raises(IdentityError, match=r"refuses cookies\[3\], '' of b.example") as caught:
        session_for("firefox", storage_state={"cookies": [*good[:3], bad, *good[3:]]}).start()
    assert SECRET not in str(caught.value)


def test_a_wrong_state_or_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for given in ({"cookies": 7}, tmp_path / "missing.json", tmp_path, '{"cookies": []}'):
        with pytest.raises(ConfigError, match="storage_state="):
            browser("chrome", storage_state=given)
    session = session_for("chrome")
    with session:
        for path in (tmp_path, "/dev/null", ""):
            with pytest.raises(ConfigError, match="path="):
                session.storage_state(path)
        with pytest.raises(ConfigError, match="indexed_db="):
            session.storage_state(indexed_db="yes")  # type: ignore[arg-type]
        (tmp_path / "file").touch()
        with pytest.raises(StorageStateError, match="was not written"):
            session.storage_state(tmp_path / "file" / "below")


# -------------------------------------------------------------------- dialogs, hanging pages


@pytest.mark.parametrize("name", BOTH)
def test_an_open_dialog_stays_open_and_does_not_stop_a_save(name: str, site: Site) -> None:
    session = session_for(name, storage_state={})
    with session as driver:
        driver.get(site.url)
        driver.execute_script("localStorage.setItem('k', 'v'); setTimeout(() => alert('here'))")
        until_dialog(driver)
        assert stored(session.storage_state()) == {origin_of(site.url): {"k": "v"}}
        assert driver.switch_to.alert.text == "here"
        driver.switch_to.alert.accept()


def until_dialog(driver: webdriver.Remote) -> None:
    from selenium.webdriver.support.expected_conditions import alert_is_present
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, LIMIT, poll_frequency=0.02).until(alert_is_present())


def test_a_dialog_of_a_chromium_without_bidi_is_named_and_stays_open(site: Site) -> None:
    session = session_for("chrome")
    with session as driver:
        driver.get(site.url)
        driver.execute_script("setTimeout(() => alert('here'))")
        until_dialog(driver)
        with pytest.raises(StorageStateError, match="A dialog is open"):
            session.storage_state()
        assert driver.switch_to.alert.text == "here"


def test_a_chromium_without_bidi_says_whose_storage_it_has_not_saved(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Cookies are there; storage is that of the pages of all windows, which are left as they were."""
    session = session_for("chrome")
    with session as driver:
        driver.get(other(site))
        received(driver, site)
        driver.execute_script("localStorage.setItem('k', 'v')")
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        state = session.storage_state()
        assert driver.current_window_handle != first
    assert "visits" in {one["name"] for one in state["cookies"]}
    assert stored(state) == {origin_of(site.url): {"k": "v"}}
    assert f"of {origin_of(other(site))}, which no window shows" in caplog.text


@pytest.mark.parametrize("name", BOTH)
def test_a_hanging_page_of_the_users_does_not_stop_a_save(name: str, site: Site) -> None:
    """It has a process of its own, as long as few pages are open."""
    session = session_for(name, storage_state={})
    with session as driver:
        driver.get(site.url)
        driver.execute_script("localStorage.setItem('k', 'v')")
        hang(driver, site.url)
        assert stored(session.storage_state()) == {origin_of(site.url): {"k": "v"}}


@pytest.mark.parametrize("name", BOTH)
def test_a_page_of_ours_that_hangs_is_an_error_in_time_and_no_window_of_the_users(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preload script of the user's runs in it, too."""
    from browserkeeper.drivers import storage_state

    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    state = {"origins": [{"origin": ORIGIN, "localStorage": [{"name": "k", "value": "v"}]}]}
    session = session_for(name, options=options, storage_state=state)
    with session as driver:
        assert stored(session.storage_state()) == {ORIGIN: {"k": "v"}}
        driver.script._add_preload_script(f"() => {{ while (location.origin === '{ORIGIN}'); }}")
        monkeypatch.setattr(storage_state, "SAVE_TIMEOUT", 4.0)
        with pytest.raises(StorageStateError, match="cannot be read"):
            session.storage_state()
        assert len(driver.window_handles) == 1


@pytest.mark.parametrize("name", BOTH)
def test_a_save_of_a_dead_browser_is_the_error_of_its_death(name: str, site: Site) -> None:
    cookie = {"name": "a", "value": SECRET, "domain": "127.0.0.1"}
    session = session_for(name, storage_state={"cookies": [cookie]}, on_leak="ignore")
    session.start()
    session.storage_state()
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(BrowserDied, match="storageState: ok") as caught:  # the last commands
        session.storage_state()
    assert SECRET not in str(caught.value)
    session.close()
    with pytest.raises(BrowserkeeperError):
        session.storage_state()


def test_a_fork_cannot_save_what_is_its_parents(tmp_path: Path) -> None:
    session = session_for("chrome")
    with session:
        pid = os.fork()
        if pid == 0:
            try:
                session.storage_state(tmp_path / "state")
            except ForkedSessionError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not (tmp_path / "state").exists()


# ---------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("name", BOTH)
def test_no_value_is_in_a_log_a_report_or_a_repr(
    name: str, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {
        "cookies": [{"name": "a", "value": SECRET, "domain": "127.0.0.1"}],
        "origins": [{"origin": ORIGIN, "localStorage": [{"name": "a", "value": SECRET}]}],
    }
    caplog.set_level(logging.DEBUG)
    session = session_for(name, storage_state=state)
    with session:
        session.storage_state(tmp_path / "state.json")
        shown = [repr(session), repr(session.config), str(session.config)]
    report = session.report
    assert report is not None
    assert report.clean
    shown += [str(report), repr(report), json.dumps(report.to_dict()), caplog.text]
    assert not [text for text in shown if SECRET in text]
    assert SECRET in (tmp_path / "state.json").read_text()
