"""Failures of a Grid, by a mock: each raises a typed error in bounded time, and no session is lost
without a report."""

from __future__ import annotations

import pickle
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from celery import Celery

from browserkeeper import (
    BrowserDied,
    BrowserPool,
    CommandTimeout,
    ConfigError,
    GridError,
    LeakError,
    SessionClosed,
    browser,
)
from browserkeeper.celery import install
from browserkeeper.celery.settings import settings_of
from browserkeeper.grid.address import Address
from browserkeeper.grid.hub import Hub
from browserkeeper.grid.interrupt import interrupt_command
from browserkeeper.grid.relay import StatusFile
from browserkeeper.guard.files import read_status_file
from tests.grid.mock_hub import (
    BROKEN,
    NO_WEBDRIVER,
    SESSION,
    TRUNCATED,
    Answerer,
    MockHub,
    answer,
    error,
    hang_up,
    silence,
)
from tests.grid.mock_hub import _Handler as Handler
from tests.support.inner_pytest import InnerPytest
from tests.support.waiting import wait_until

SHORT = 5.0
"""Seconds of the limit that a test waits for; a start takes 0.3 on a quiet machine."""
BOUND = 60.0
"""Seconds: a bound against hanging, for a busy machine as well."""


@pytest.fixture
def hub() -> Iterator[MockHub]:
    with MockHub() as running:
        yield running


def asked(hub: MockHub, **more: float) -> dict[str, object]:
    times = {"start_timeout": 60, "close_timeout": 20, "command_timeout": 60, "attempts": 1}
    return {"remote": hub.url, **times, **more}


@pytest.mark.parametrize(
    ("behaviour", "match"),
    [
        (NO_WEBDRIVER, "no WebDriver"),
        (TRUNCATED, "did not start"),
        (BROKEN, "on fire"),
        (silence, "did not answer within start_timeout"),
        (hang_up, "gave no answer to POST /session .* not sent again"),
        (answer(401, ""), "credentials"),
        (answer(200, '{"value": null}'), "did not start"),
        (answer(200, '["value"]'), "no WebDriver"),
        (error(500, "session not created", "no such version"), "no such version"),
    ],
)
def test_a_failing_start_raises_grid_error_in_time(
    hub: MockHub, behaviour: Answerer, match: str
) -> None:
    hub.behaviour["new"] = behaviour
    for seconds in (SHORT, 4 * SHORT):  # a busy machine may need more than SHORT until the Grid is asked
        short = {"start_timeout": seconds, "close_timeout": seconds} if behaviour is silence else {}
        began = time.monotonic()
        with pytest.raises(GridError) as caught:
            browser(**asked(hub, **short)).start()  # type: ignore[call-overload]
        assert time.monotonic() - began < BOUND
        report = caught.value.report
        assert report
        if not short or (hub.asked("POST", "/session") and report.certificate):
            break
    assert re.search(match, str(caught.value)), caught.value
    assert report
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert report.verified is None
    assert report.certificate, "for the part on this machine there is a proof"


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (NO_WEBDRIVER, BrowserDied),
        (hang_up, BrowserDied),
        (silence, CommandTimeout),
        (error(404, "invalid session id", "no such session"), BrowserDied),
    ],
)
def test_a_failing_command_ends_the_session_in_time(
    hub: MockHub, behaviour: Answerer, kind: type[Exception]
) -> None:
    short = {"command_timeout": 2} if behaviour is silence else {}
    session = browser(**asked(hub, **short))  # type: ignore[call-overload]
    began = time.monotonic()
    with pytest.raises(kind), session as driver:
        hub.behaviour["command"] = behaviour
        _ = driver.title
    assert time.monotonic() - began < BOUND
    assert session.report.clean
    assert hub.asked("DELETE", f"/session/{SESSION}")
    assert not hub.running


@pytest.mark.parametrize("behaviour", [NO_WEBDRIVER, BROKEN, silence, hang_up])
def test_an_end_that_the_grid_does_not_confirm_is_not_clean(hub: MockHub, behaviour: Answerer) -> None:
    for seconds in (SHORT, 4 * SHORT):  # a busy machine may need more than SHORT to ask the Grid
        session = browser(**asked(hub, close_timeout=seconds))  # type: ignore[call-overload]
        session.start()
        hub.behaviour["delete"] = behaviour
        began = time.monotonic()
        with pytest.raises(LeakError) as caught:
            session.close()
        assert time.monotonic() - began < BOUND
        if session.report.remote and session.report.remote.gone is False:
            break
    assert "did not say that session c0ffee is gone" in str(caught.value)
    assert session.report.remote.gone is False, "the status still lists it"
    assert session.report.certificate == "ECHILD"


def test_a_delete_that_fails_is_sent_again(hub: MockHub) -> None:
    """As where a proxy answers the first DELETE while the Grid restarts."""
    times = []

    def restarting(handler: Handler) -> None:
        times.append(time.monotonic())
        (BROKEN if len(times) < 3 else Handler.good_delete)(handler)

    hub.behaviour["delete"] = restarting
    with browser(**asked(hub)):  # type: ignore[call-overload]
        pass
    assert len(times) == 3
    assert not hub.running


def test_without_a_list_of_slots_the_answer_to_delete_counts(hub: MockHub) -> None:
    """As with a plain driver, or a vendor's cloud."""
    hub.behaviour["status"] = error(404, "unknown command", "what?")
    session = browser(**asked(hub))  # type: ignore[call-overload]
    with session:
        pass
    assert session.report.clean
    assert (session.report.remote.gone, session.report.remote.slot_free) == (True, None)


def test_a_session_that_is_created_after_the_close_is_ended(hub: MockHub) -> None:
    """The relay waits for the answer, which has the session's id."""
    queue = "/se/grid/newsessionqueue/queue"

    def once_the_close_has_begun(handler: Handler) -> None:
        wait_until(lambda: hub.asked("GET", queue))  # the relay's first question when it ends
        Handler.good_new(handler)

    hub.behaviour["new"] = once_the_close_has_begun
    session = browser(**asked(hub))  # type: ignore[call-overload]

    def close_once_asked() -> None:
        wait_until(lambda: hub.asked("POST", "/session"))
        session.close()

    closing = threading.Thread(target=close_once_asked)
    closing.start()
    with pytest.raises(SessionClosed):
        session.start()
    closing.join()
    assert hub.asked("DELETE", f"/session/{SESSION}")
    assert not hub.running


def test_the_attempts_to_interrupt_a_command_end_at_the_deadline() -> None:
    """The guard kills the relay soon after that.  The Grid accepts connections and answers nothing."""
    timeouts = []

    class HangingHub(Hub):
        def connect(self, timeout: float | None) -> NoReturn:
            assert timeout is not None
            timeouts.append(timeout)
            time.sleep(timeout)
            raise TimeoutError

    hub = HangingHub(Address.parse("http://localhost:4444"))
    interrupt_command(hub, SESSION, time.monotonic() + 0.5)
    assert timeouts[1:] == [0.1], "the first attempt has used up the time"


def test_the_attempts_to_interrupt_a_command_go_on_until_it_has_returned() -> None:
    """The first websocket of a Grid that was just started takes longer than one attempt."""
    attempts: list[float | None] = []

    class BusyHub(Hub):
        def connect(self, timeout: float | None) -> NoReturn:
            attempts.append(timeout)
            raise TimeoutError

    hub = BusyHub(Address.parse("http://localhost:4444"))
    interrupt_command(hub, SESSION, time.monotonic() + 60, lambda: len(attempts) >= 6)
    assert len(attempts) == 6, "each with CDP and BiDi"


def test_updates_of_the_status_file_by_two_threads_are_all_kept(tmp_path: Path) -> None:
    """The relay learns the session's id in one thread while its end begins in another."""
    path = tmp_path / "grid"
    for number in range(200):
        status_file = StatusFile(str(path), "http://localhost:4444")
        both_run = threading.Barrier(2)

        def update(both_run: threading.Barrier, status_file: StatusFile, **changes: str | bool) -> None:
            both_run.wait(60)
            status_file.update(**changes)

        with ThreadPoolExecutor(2) as threads:
            named = threads.submit(update, both_run, status_file, session=f"session-{number}")
            queued = threads.submit(update, both_run, status_file, queued=True)
        named.result()
        queued.result()
        facts = read_status_file(str(path))
        assert (facts["session"], facts["queued"]) == (f"session-{number}", "yes")


def test_a_grid_that_does_not_listen_is_named_in_the_error() -> None:
    with socket.socket() as bound:  # so that no other program listens there
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(GridError, match=f"127.0.0.1:{port} cannot be reached: Connection refused"):
            browser(remote=f"http://127.0.0.1:{port}", attempts=1).start()


@pytest.mark.parametrize(
    "url",
    [
        *("grid:4444", "ftp://grid", "http://", "http://grid:99999", "http://grid:x", ""),
        *("http://me:geheim@", "http://gr id", "http://grid/?a=b", 4444, b"http://grid"),
    ],
)
def test_an_invalid_remote_url_is_refused_without_quoting_it(url: object) -> None:
    with pytest.raises(ConfigError, match="remote=") as caught:
        browser(remote=url)  # type: ignore[call-overload]
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"profile": "/tmp/p"}, {"driver_path": "/x"}, {"download_dir": "/tmp"}, {"env": {"A": "b"}}],
)
def test_arguments_about_this_machine_are_refused_with_remote(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="cannot be used with remote="):
        browser(remote="http://grid", **arguments)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="headless-shell"):
        browser("chromium-headless-shell", remote="http://grid")


def test_an_address_shows_no_password() -> None:
    address = Address.parse("https://me:p%40ss@grid.example/wd/hub/")
    assert (str(address), address.password) == ("https://grid.example:443/wd/hub", "p@ss")
    assert "p@ss" not in repr(address)
    assert "p%40ss" not in repr(browser(remote="http://me:p%40ss@grid").config)
    assert str(Address.parse("http://[::1]:4444")) == "http://[::1]:4444"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--keeper-remote", "grid:4444"), "*--keeper-remote: remote=: no scheme*"),
        (
            ("--keeper-remote", "http://127.0.0.1:1"),
            "*:1 cannot be reached: Connection refused*",
        ),
        (("--keeper-remote", "http://x", "--keeper-isolation", "context"), "*browsers of this machine*"),
    ],
)
def test_a_wrong_remote_option_is_a_usage_error(
    inner_pytest: InnerPytest, words: tuple[str, ...], match: str
) -> None:
    inner_pytest.suite("def test_it(): pass")
    done = inner_pytest.run(*words)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([match])
    assert "Traceback" not in done.stderr.str()


def test_celery_tasks_can_use_a_grid() -> None:
    app = Celery("tasks", set_as_current=False)
    install(app, remote="http://me:geheim@grid:4444")
    spec = settings_of(app).spec
    assert spec.arguments["remote"]
    assert "geheim" not in repr(settings_of(app))
    with pytest.raises(ConfigError, match="remote="):
        install(Celery("others", set_as_current=False), remote="grid:4444")


def test_a_pool_on_a_grid_refuses_context_isolation() -> None:
    with pytest.raises(ConfigError, match="Grid"):
        BrowserPool(remote="http://grid", isolation="context")
    assert BrowserPool(remote="http://grid").config.resolved_isolation == "fresh"


def test_credentials_are_taken_from_the_environment_for_the_same_grid_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_REMOTE", "http://me:geheim@grid:4444")
    assert Address.parse("http://grid:4444").completed().password == "geheim"
    assert Address.parse("http://other:4444").completed().password == ""
    assert Address.parse("http://you:x@grid:4444").completed().password == "x"
