"""Errors of commands: which of them mean the end of a browser, and what plain code can catch."""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    InvalidSessionIdException,
    JavascriptException,
    NoSuchElementException,
    WebDriverException,
)

from browserkeeper import BrowserDied, SessionClosed, browser, errors, session_of
from browserkeeper.drivers import browser_handle, lost
from browserkeeper.drivers.browser_handle import LocalBrowserHandle, RemoteBrowserHandle
from browserkeeper.process import identity_of
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.browser.plain_cases import ChangingDict, circular
from tests.pool.pools import patient_pool
from tests.support.waiting import until_it_fails, wait_until

BOTH = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a browser handle makes."""
    made: list[float] = []
    monkeypatch.setattr("browserkeeper.drivers.browser_handle.time.sleep", made.append)
    return made


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("no such element", 'no such element: {"selector":"[id="connection-status"]"}'),
        ("javascript error", "javascript error: disconnected"),
        ("javascript error", "invalid session id: session deleted: chrome not reachable"),
        ("unknown error", "unknown error: net::ERR_CONNECTION_REFUSED"),
        ("unknown error", "Reached error page: about:neterror?e=connectionFailure"),
        ("unknown error", "Failed to decode response from marionette: said a page"),
        ("javascript error", "Failed to decode response from marionette"),
        ("no such window", "no such window: target window already closed, connection lost"),
        ("", "disconnected"),
    ],
)
def test_words_of_a_message_are_not_waited_for(
    code: str, message: str, sleeper: subprocess.Popen[bytes], pauses: list[float]
) -> None:
    handle = LocalBrowserHandle(identity_of(sleeper.pid))
    assert not handle.is_lost(code, message)
    assert not pauses


@pytest.mark.parametrize(
    ("code", "message"),
    [
        *((code, "") for code in sorted(browser_handle.LOST_CODES)),
        *(("unknown error", message) for message in sorted(browser_handle.LOST_MESSAGES)),
    ],
)
def test_after_an_error_that_announces_the_end_the_end_is_waited_for(
    code: str, message: str, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's answer may come before the process has ended: by seconds, if Firefox ends itself."""
    handle = LocalBrowserHandle(identity_of(sleeper.pid))
    monkeypatch.setattr(browser_handle, "EXIT_TIMEOUT", 0.05)
    assert not handle.is_lost(code, message), "it lives on"
    monkeypatch.setattr(browser_handle, "EXIT_TIMEOUT", 60)
    monkeypatch.setattr("browserkeeper.drivers.browser_handle.time.sleep", lambda _: sleeper.kill())
    assert handle.is_lost(code, message)


def test_a_process_on_its_way_out_is_lost_at_once(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = LocalBrowserHandle(identity_of(sleeper.pid))
    monkeypatch.setattr(browser_handle, "is_exiting", lambda pid: None)
    assert not handle.is_lost("unknown error", "of any kind")
    monkeypatch.setattr(browser_handle, "is_exiting", lambda pid: True)
    assert handle.is_lost("unknown error", "of any kind")


@pytest.mark.parametrize(
    ("code", "message", "is_lost"),
    [
        ("javascript error", "javascript error: disconnected", False),
        ("no such element", "browserkeeper: the Grid", False),
        ("unknown error", "unknown error: chrome not reachable from this page's text", False),
        ("unknown error", "browserkeeper: the Grid http://g cannot be reached.", True),
        ("invalid session id", "Unable to find session with ID: 5", True),
        ("unknown error", "Failed to decode response from marionette", True),
        ("chrome not reachable", "chrome not reachable", True),
    ],
)
def test_a_session_on_a_grid_is_lost_by_code_or_by_how_the_message_begins(
    code: str, message: str, is_lost: bool
) -> None:
    assert RemoteBrowserHandle().is_lost(code, message) is is_lost


@pytest.mark.parametrize("kind", [lost.BrowserDied, lost.SessionClosed])
def test_the_end_of_a_session_is_an_error_of_selenium_as_well(kind: type[Any]) -> None:
    error = kind("the sentence", None)
    assert isinstance(error, (kind.ours, InvalidSessionIdException))
    assert isinstance(error, WebDriverException)
    assert str(error) == error.msg == "the sentence"
    assert f"{kind.__module__}.{kind.__qualname__}" == f"browserkeeper.errors.{kind.ours.__name__}"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind.ours, "a Celery client may have no Selenium"
    assert copy.args == error.args


def test_a_timeout_is_none_of_seleniums_errors() -> None:
    """Else `except WebDriverException` would hide it."""
    assert not issubclass(errors.SessionTimeout, WebDriverException)


@pytest.mark.parametrize("name", BOTH)
def test_the_callers_own_errors_leave_the_session_at_rest(
    name: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """They are raised before anything is sent.  A pool threw the browser away, and a kept profile lost
    its last seconds.  Then the end: no line about a lost websocket, and all is closed."""
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    caplog.set_level(logging.WARNING)
    with browser(name, options=options) as driver:
        session = session_of(driver)
        driver.get(site.url)
        for wrong, kind in (
            (object(), TypeError),
            ({1}, TypeError),
            (circular(), (ValueError, RecursionError)),
            (ChangingDict(a=1), OSError),
        ):
            with pytest.raises(kind):
                driver.execute_script("return 1", wrong)
            assert control_of(session).at_rest
        with pytest.raises(ZeroDivisionError):
            driver.execute(1 // x for x in [0])  # type: ignore[misc] # a BiDi command
        with pytest.raises(NoSuchElementException):
            driver.find_element("id", "connection-status")
        with pytest.raises(JavascriptException):
            driver.execute_script("throw 'disconnected'")
        assert driver.title
        _ = driver.script
        assert driver.request.get(site.url).ok
        connection, request = driver._websocket_connection, driver._request
        assert connection
        assert request
        stopped: list[bool] = []
        driver.stop_client = lambda: stopped.append(True)  # type: ignore[method-assign]
        disposed: list[bool] = []
        request.dispose = lambda: disposed.append(True)  # type: ignore[method-assign]
        driver.quit()
        assert stopped == disposed == [True]
        assert wait_until(lambda: not connection._ws_thread.is_alive())
        assert driver._request is None
    assert [r.message for r in caplog.records if r.name == "websocket"] == []
    assert session.report
    assert session.report.reason == "closed"


@pytest.mark.parametrize("name", BOTH)
def test_after_the_last_window_plain_code_catches_what_it_always_did(name: str) -> None:
    """Then a killed browser, which is an error of the same class, and BrowserDied."""
    with browser(name) as driver:
        session = session_of(driver)
        driver.close()
        for _ in range(2):
            with pytest.raises(InvalidSessionIdException, match="with its last window") as end:
                _ = driver.title
            assert isinstance(end.value, SessionClosed)
        driver.quit()
    assert session.report
    assert session.report.reason == "closed"
    with pytest.raises(InvalidSessionIdException) as caught, browser(name) as driver:
        pid = session_of(driver).pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        until_it_fails(driver)
    assert isinstance(caught.value, BrowserDied)
    assert caught.value.__cause__ is caught.value.__context__ is None
    first = str(caught.value).splitlines()[0]
    # ChromeDriver ends itself where it writes into the pipe of the dead browser.
    assert re.search(r"(browser died|driver ended by itself) or was killed during 'getTitle'", first)


@pytest.mark.chrome
def test_a_pool_keeps_a_browser_after_an_error_of_the_callers_own() -> None:
    """The control: after the end of a browser that a user has caused, the pool has another one."""
    with patient_pool(max_size=1) as pool:
        with pool.lease() as lease:
            first = lease.session
            for wrong in (object(), circular(), ChangingDict(a=1)):
                with pytest.raises((TypeError, ValueError, RecursionError, OSError)):
                    lease.driver.execute_script("return 1", wrong)
        with pool.lease() as lease:
            assert lease.session is first
            lease.driver.quit()
        with pool.lease() as lease:
            assert lease.session is not first


@pytest.mark.compat
@pytest.mark.chrome
@pytest.mark.parametrize("stop", ["stop", "send_remote_shutdown_command"])
def test_the_service_starts_and_stops_nothing_but_the_session(stop: str) -> None:
    with browser() as driver:
        session = session_of(driver)
        before = {process.pid for process in session.processes()}
        driver.service.start()
        assert wait_until(driver.service.is_connectable)  # each asks for a second at most
        assert min(before) == min(process.pid for process in session.processes())
        driver.service.assert_process_still_running()
        getattr(driver.service, stop)()
        assert session.report
        assert session.report.clean
        assert not driver.service.is_connectable()
