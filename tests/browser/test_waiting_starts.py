"""How a start that waits for its slot is ended, and what is left then: no ticket and no slot.

The slots are held by the test itself, and the browsers are fakes.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import (
    BrowserSession,
    ConfigError,
    HostBusy,
    LaunchError,
    LedgerError,
    SessionClosed,
    SessionTimeout,
    adopt,
)
from browserkeeper.admission import waiting
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.session import control_of
from browserkeeper.state.ledger import Ledger
from tests.browser.test_outside import (
    ERRORS,
    Handler,
    fake_driver,  # noqa: F401
    handler,  # noqa: F401
    is_asked_for_version,
    new_session,
)
from tests.support import witness
from tests.support.owners import Owner
from tests.support.waiting import wait_until

LIMIT = "BROWSERKEEPER_MAX_BROWSERS"
NOT_BEGUN = "its launch had not begun"
"""In the error of a limit that passed before the start waited: it was too short for a busy machine."""


class Host:
    """The gate, as files that anybody sees, and a slot that the test holds until :meth:`free`."""

    def __init__(self, directory: Path):
        self.gate = Gate(Ledger.open())
        self.queue, self.slots = directory / "gate" / "queue", directory / "gate" / "slots"
        self._held = self.gate.force("browser", label="the test's")

    def free(self) -> None:
        self._held.release()

    def names(self) -> list[str]:
        """Of all slots but the test's."""
        mine = os.path.basename(self._held.path)
        return [path.name for path in self.slots.iterdir() if path.name != mine]

    def is_waited_for(self, number: int = 1) -> bool:
        return len(self.gate.state().waiting) == number

    def has_no_trace(self) -> bool:
        """True if no start waits, and none has a slot."""
        return not list(self.queue.iterdir()) and not self.names()


@pytest.fixture
def host(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host with a limit of one, which is reached."""
    monkeypatch.setenv(LIMIT, "1")
    held = Host(state_dir)
    yield held
    held.free()


class Starting(threading.Thread):
    """A thread that starts a session; ``outcome`` is its driver or its error."""

    def __init__(self, session: BrowserSession[Any]):
        super().__init__()
        self.session = session
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.session.start()
        except BaseException as error:
            self.outcome = error


@pytest.fixture
def session(fake_driver: str) -> Iterator[BrowserSession[Any]]:  # noqa: F811
    session = new_session(fake_driver, wait=None)
    yield session
    if session.report is None and control_of(session).state == "live":
        session.close()


# ------------------------------------------------------------------ exceptions from outside


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_of_a_signal_handler_ends_the_wait_and_stays_what_it_is(
    error: BaseException,
    host: Host,
    session: BrowserSession[Any],
    handler: Handler,  # noqa: F811
) -> None:
    handler.armed = error

    def alarm() -> None:
        assert wait_until(host.is_waited_for)
        os.kill(os.getpid(), signal.SIGALRM)

    sender = threading.Thread(target=alarm)
    sender.start()
    with pytest.raises(type(error)) as caught:
        session.start()
    sender.join()
    assert caught.value is error
    assert host.has_no_trace()


def test_a_wait_in_a_log_handler_which_has_no_thread_of_its_own_is_ended_cleanly(
    host: Host,
    session: BrowserSession[Any],
    handler: Handler,  # noqa: F811
) -> None:
    """It runs in the thread that the exception comes to, at any of its steps."""
    error = handler.armed = TimeoutError("alarm")

    class StartingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            session.start()

    logger = logging.Logger("of this test")
    logger.addHandler(StartingHandler())

    def alarm() -> None:
        assert wait_until(lambda: list(host.queue.glob("0-*")))
        os.kill(os.getpid(), signal.SIGALRM)

    sender = threading.Thread(target=alarm)
    sender.start()
    with pytest.raises(TimeoutError) as caught:
        logger.error("start one")
    sender.join()
    assert caught.value is error
    assert not host.gate.state().waiting
    assert not host.gate.state().standby
    host.free()
    assert new_waits_for_nothing(host)


def new_waits_for_nothing(host: Host) -> bool:
    """True if a slot can be had at once, which also removes what the dead have left."""
    host.gate.acquire(SlotRequest(), 0).release()
    return host.has_no_trace()


def test_an_exception_that_is_injected_into_the_thread_ends_the_wait(
    host: Host, session: BrowserSession[Any]
) -> None:
    """As Celery's and RQ's time limits for threads, and debuggers, do."""
    starting = Starting(session)
    assert wait_until(host.is_waited_for)
    inject = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert inject(ctypes.c_ulong(starting.ident or 0), ctypes.py_object(ZeroDivisionError)) == 1
    starting.join()
    assert type(starting.outcome) is ZeroDivisionError
    assert host.has_no_trace()


@pytest.mark.parametrize("end", ["close", "cut_off"])
def test_a_session_that_another_thread_ends_waits_no_longer(
    end: str, host: Host, session: BrowserSession[Any]
) -> None:
    starting = Starting(session)
    assert wait_until(host.is_waited_for)
    getattr(session, end)()
    starting.join()
    assert isinstance(starting.outcome, SessionClosed)
    assert str(starting.outcome) == "chrome session was closed during its start."
    assert host.has_no_trace()
    assert session.close().reason == "closed"


# ------------------------------------------------------------------ times


def test_a_start_that_does_not_wait_is_refused_at_once(host: Host, fake_driver: str) -> None:  # noqa: F811
    with pytest.raises(HostBusy, match=f"{LIMIT}=1 is set") as caught:
        new_session(fake_driver, wait=0).start()
    assert caught.value.reason == "full"
    assert host.has_no_trace()


def test_a_start_that_has_waited_in_vain_says_how_long_and_that_it_waited_for_itself(
    host: Host,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says it while it waits, too: after 5 s, here after a tenth of one."""
    monkeypatch.setattr(waiting, "TELL_AFTER", 0.1)
    with pytest.raises(HostBusy) as caught:
        new_session(fake_driver, wait=1, label="nightly").start()
    hint = (
        f"; this very program, pid {os.getpid()}, holds 1 of the slots. A start inside the `with` block "
    )
    assert re.match(r"No browser could be started within \d+\.\d s: ", str(caught.value))
    assert hint in str(caught.value)
    assert caught.value.waited >= 1
    (told,) = [r.getMessage() for r in caplog.records if "has waited" in r.getMessage()]
    assert re.match(
        r"the start of a browser 'nightly' has waited for \d+ s: 1 browser runs or starts", told
    )
    assert hint in told
    assert host.has_no_trace()


@pytest.mark.parametrize("how", ["timeout=", "set_deadline before", "set_deadline meanwhile"])
def test_the_sessions_own_deadline_ends_the_wait_and_says_what_was_waited_for(
    how: str,
    host: Host,
    fake_driver: str,  # noqa: F811
) -> None:
    """It counts from the start, also where it is set while the start waits, without a limit."""
    for seconds in (4, 40):
        session = new_session(fake_driver, wait=None, timeout=seconds if how == "timeout=" else None)
        if how == "set_deadline before":
            session.set_deadline(seconds, "late")
        starting = Starting(session)
        if how == "set_deadline meanwhile":
            assert wait_until(host.is_waited_for)
            session.set_deadline(3600, "far")
            session.set_deadline(0.5, "late")
        starting.join()
        assert type(starting.outcome) is SessionTimeout
        text = str(starting.outcome)
        if NOT_BEGUN not in text:
            break
    limit = {
        "timeout=": f"session's timeout of {seconds} s",
        "set_deadline before": f"deadline of {seconds} s",
    }
    assert f"chrome did not start within the {limit.get(how, 'deadline of 0.5 s')}" in text
    assert "it was still waiting for a slot of the host, since 1 browser runs or starts, and " in text
    assert f"{LIMIT}=1 is set" in text
    assert host.has_no_trace()


def test_the_error_of_a_task_limit_is_raised_while_the_start_waits(
    host: Host,
    fake_driver: str,  # noqa: F811
) -> None:
    """Celery's tasks and pools say with their own error which limit has passed."""

    class TaskLimit(SessionTimeout):
        pass

    for seconds in (3, 30):
        session = new_session(fake_driver, wait=None, timeout=seconds)
        control_of(session).deadline_errors["timeout"] = TaskLimit
        with pytest.raises(TaskLimit) as caught:
            session.start()
        if NOT_BEGUN not in str(caught.value):
            break
    caught.match("still waiting for a slot")
    assert host.has_no_trace()


def test_start_timeout_counts_from_the_admission(
    host: Host,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "mute")  # so that the start hits its limit, whenever that begins
    session = new_session(fake_driver, wait=None, start_timeout=3, attempts=1)
    began = time.monotonic()
    starting = Starting(session)
    assert wait_until(host.is_waited_for)
    time.sleep(1)
    host.free()
    starting.join()
    assert isinstance(starting.outcome, LaunchError)
    assert "opened no port within 3 s" in str(starting.outcome)
    assert time.monotonic() - began > 4
    assert starting.outcome.report
    assert starting.outcome.report.seconds["slot_wait"] >= 1
    assert host.has_no_trace()


def test_the_wait_is_in_the_report_and_in_the_history_apart_from_the_start(
    host: Host, session: BrowserSession[Any]
) -> None:
    starting = Starting(session)
    assert wait_until(host.is_waited_for)
    time.sleep(1)
    host.free()
    starting.join()
    report = session.close()
    (ended,) = Ledger.open().ended()
    for seconds in (report.seconds, ended.report.seconds):
        assert seconds["slot_wait"] >= 1
        assert seconds["start"] > 0
    assert host.has_no_trace()


# ------------------------------------------------------------------ one slot for all attempts


def test_a_slot_stays_over_all_attempts_of_a_start_and_is_given_back_then(
    host: Host,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "exit")
    host.free()
    starting = Starting(new_session(fake_driver, attempts=3))
    seen: list[tuple[str, ...]] = []
    while starting.is_alive():
        names = tuple(host.names())
        seen += [names] * (seen[-1:] != [names])
    assert isinstance(starting.outcome, LaunchError)
    (slot,) = {name for names in seen for name in names}
    assert seen in ([(), (slot,), ()], [(), (slot,)], [(slot,), ()], [(slot,)]), (
        "no gap between attempts"
    )
    assert host.has_no_trace()


def test_a_search_for_the_driver_that_takes_long_holds_no_slot(
    host: Host,
    session: BrowserSession[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "slow-version")
    starting = Starting(session)
    host.free()
    assert wait_until(is_asked_for_version)
    assert host.has_no_trace()
    session.cut_off()
    starting.join()
    assert isinstance(starting.outcome, SessionClosed)
    assert host.has_no_trace()


def test_a_wrong_option_is_refused_before_the_wait(host: Host, fake_driver: str) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="is none of the defaults"):
        new_session(fake_driver, wait=None, ignore_default_arguments=["--no-such-default"]).start()
    assert host.has_no_trace()


def test_a_session_that_is_attached_to_a_running_browser_takes_no_slot(
    host: Host,
    fake_driver: str,  # noqa: F811
) -> None:
    options = webdriver.ChromeOptions()
    options.debugger_address = "127.0.0.1:9"
    with new_session(fake_driver, options=options, wait=0):
        assert host.has_no_trace()


# ------------------------------------------------------------------ forks, exits, broken directories

PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
from browserkeeper import browser
queue = Path(os.environ["BROWSERKEEPER_STATE_DIR"], "gate", "queue")
def start():
    browser(driver_path=sys.argv[1], binary=sys.argv[2], wait=None).start()
threading.Thread(target=start, daemon=True).start()
while not list(queue.glob("0-*")):
    time.sleep(0.01)
"""
FORKS = f"""{PROGRAM}
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(600)
print("forked", child, flush=True)
time.sleep(600)
"""


def run(program: str, fake: str, *words: str) -> Owner:
    return Owner(sys.executable, "-c", program, fake, str(Path(fake).with_name("browser")), *words)


def test_a_fork_of_a_program_that_waits_keeps_no_place_in_the_queue(
    host: Host,
    fake_driver: str,  # noqa: F811
) -> None:
    owner = run(FORKS, fake_driver)
    child = int(owner.wait_for("forked").split()[1])
    try:
        assert wait_until(host.is_waited_for)  # the bell is there before the ticket
        owner.kill()
        assert witness.look(child)
        assert not host.gate.state().waiting
        host.free()
        with new_session(fake_driver, wait=0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        assert wait_until(lambda: (seen := witness.look(child)) is None or seen.state == "Z")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    assert host.has_no_trace()


@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_program_that_exits_while_its_thread_waits_leaves_the_queue(
    end: str,
    host: Host,
    fake_driver: str,  # noqa: F811
) -> None:
    assert run(PROGRAM + end, fake_driver).wait() in (3, -signal.SIGKILL)
    assert not host.gate.state().waiting
    host.free()
    with new_session(fake_driver, wait=0):
        pass
    assert host.has_no_trace()


def test_a_slot_that_is_removed_during_the_start_is_named(
    host: Host,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.free()
    bind: Callable[[Any, str], None] = control_of(new_session(fake_driver)).admission.__class__.bind

    def remove(self: Any, session: str) -> None:
        bind(self, session)
        os.unlink(self.slot.path)

    monkeypatch.setattr("browserkeeper.session.admission.Admission.bind", remove)
    with pytest.raises(
        LedgerError, match=r"The slot of the session, .*, was removed before its browser"
    ):
        new_session(fake_driver).start()


def test_adopt_does_not_wait_and_gives_its_slot_back_where_it_fails(host: Host) -> None:
    with pytest.raises(ConfigError):
        adopt(object())  # type: ignore[type-var]
    assert host.has_no_trace()
