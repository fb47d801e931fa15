"""Exceptions from outside: raised by a signal handler, or injected into a thread, at any moment.

RQ, Airflow, ``timeout_decorator`` and ``signal.alarm`` raise exceptions of any class in a handler.  The
very same object has to come out, nothing may be launched again, and nothing may be left.  The driver and
the browser are small programs, so that many moments can be tried.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import ctypes
import dis
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from selenium.common.exceptions import TimeoutException, WebDriverException
from urllib3.exceptions import ProtocolError

from browserkeeper import (
    BrowserSession,
    ConfigError,
    LaunchError,
    SessionClosed,
    SessionTimeout,
    browser,
)
from browserkeeper.session import control_of
from browserkeeper.session.call import Call
from tests.browser.test_bad_input import FAKE_BROWSER, FAKE_DRIVER
from tests.conftest import PidFile
from tests.support.waiting import wait_until


class JobTimeoutError(Exception):
    """Like RQ's ``JobTimeoutException`` and Celery's ``SoftTimeLimitExceeded``."""


ERRORS: list[BaseException] = [
    TimeoutError("alarm"),
    OSError(errno.EIO, "alarm"),
    ConnectionResetError("alarm"),
    BlockingIOError(errno.EAGAIN, "alarm"),
    FileNotFoundError(errno.ENOENT, "alarm"),
    KeyError("alarm"),
    ValueError("alarm"),
    RuntimeError("alarm"),
    TimeoutException("alarm"),
    WebDriverException("chrome not reachable"),
    ProtocolError("alarm"),
    LaunchError("of another session"),
    SessionTimeout("of another session"),
    JobTimeoutError("alarm"),
    KeyboardInterrupt("alarm"),
]


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pids_of: PidFile) -> str:
    """The path of a driver that works, and starts without the delay of ``env python3``."""
    monkeypatch.setenv("FAKE_BROWSER", "hang")
    monkeypatch.setenv("FAKE_DRIVER", "works")
    monkeypatch.setenv("FAKE_DRIVER_PIDS", str(pids_of))
    monkeypatch.setenv("FAKE_DRIVER_ASKED", str(tmp_path / "asked"))
    for name, program in (("driver", FAKE_DRIVER), ("browser", FAKE_BROWSER)):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {program} "$@"\n')
        script.chmod(0o755)
    return str(tmp_path / "driver")


def new_session(fake_driver: str, **arguments: Any) -> BrowserSession[Any]:
    return browser(
        driver_path=fake_driver,
        binary=str(Path(fake_driver).with_name("browser")),
        containment="subreaper",
        **arguments,
    )


class Handler:
    """A handler of SIGALRM that raises an exception, once, unless ``armed`` was set to None."""

    def __init__(self) -> None:
        self.armed: BaseException | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        error, self.armed = self.armed, None
        if error is not None:
            raise error


@pytest.fixture
def handler() -> Iterator[Handler]:
    """The garbage of earlier tests is collected first: Python prints an exception that comes in a
    ``__del__``, and goes on (object.__del__ in its reference)."""
    handler = Handler()
    gc.collect()
    gc.disable()
    before = signal.signal(signal.SIGALRM, handler)
    yield handler
    handler.armed = None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


def alarm_when(condition: Callable[[], object]) -> threading.Thread:
    """Send this process SIGALRM when the condition has come true, from another thread."""

    def send() -> None:
        assert wait_until(condition)
        os.kill(os.getpid(), signal.SIGALRM)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def raised_by(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def alarmed(
    call: Callable[[], object], seconds: float, error: BaseException, handler: Handler
) -> BaseException | None:
    """What the call raises where the handler raises ``error`` after so many seconds; fails if that error
    was swallowed."""

    def run() -> None:
        handler.armed = error
        signal.setitimer(signal.ITIMER_REAL, max(1e-5, seconds))
        try:
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    raised = raised_by(run)
    was_delivered, handler.armed = handler.armed is None, None
    assert raised is (error if was_delivered else None), f"{error!r} became {raised!r}"
    return raised


def is_asked_for_version() -> bool:
    """True while a program runs with ``--version``."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
            if b"--version" in words and any(word.endswith(b"fake_driver.py") for word in words):
                return True
    return False


# ------------------------------------------------------------------ the launch

PHASES: dict[str, Callable[[BrowserSession[Any]], bool]] = {
    "slow-version": lambda session: is_asked_for_version(),
    "mute": lambda session: bool(session.guard_pid),
    "silent-session": lambda session: os.path.exists(os.environ["FAKE_DRIVER_ASKED"]),
}
"""Where the launch hangs, and how to see that it is there."""


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        *((phase, error) for phase in PHASES for error in (ERRORS[0], ERRORS[6])),
        *(("silent-session", error) for error in ERRORS),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_exception_of_a_signal_handler_leaves_the_launch_unchanged(
    behaviour: str,
    error: BaseException,
    fake_driver: str,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", behaviour)
    session = new_session(fake_driver)
    handler.armed = error
    sender = alarm_when(lambda: PHASES[behaviour](session))
    assert raised_by(session.start) is error
    sender.join()
    assert "trying again" not in caplog.text
    assert session.report is None or session.report.clean
    with pytest.raises(SessionClosed):
        _ = session.driver


def run_in_callers_thread(call: Call[Any]) -> None:
    steps = call._steps(threading.current_thread())
    next(steps)
    with contextlib.suppress(StopIteration):
        steps.send(True)


@pytest.mark.parametrize("error", [TimeoutError("alarm"), ValueError("alarm")], ids=repr)
def test_control_without_a_thread_of_its_own_the_launch_takes_the_exception_for_its_own(
    error: BaseException, fake_driver: str, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Call, "_start", run_in_callers_thread)
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver, attempts=1)
    handler.armed = error
    sender = alarm_when(lambda: PHASES["silent-session"](session))
    assert isinstance(raised_by(session.start), LaunchError)
    sender.join()


def test_an_exception_at_any_moment_of_a_start_leaves_nothing(
    fake_driver: str, handler: Handler, pids_of: PidFile
) -> None:
    """One session for each moment; ``nothing_left`` of conftest.py looks for what remains."""
    usual = math.inf
    for _ in range(3):  # the first one asks for versions, another one may be slow by chance
        began = time.monotonic()
        with new_session(fake_driver):
            usual = min(usual, time.monotonic() - began)
    came_out = 0
    for number in range(24):
        session = new_session(fake_driver)
        launches = len(pids_of.read())
        returned: list[object] = []
        error = alarmed(
            lambda: returned.append(session.start()),  # noqa: B023  # called at once
            usual * number / 24,
            ERRORS[number % len(ERRORS)],
            handler,
        )
        assert returned or " live " not in repr(session)
        assert len(pids_of.read()) <= launches + 1, "it was launched again"
        if error is None or session.report is None:
            session.close()  # where it came after the start had returned
        came_out += error is not None
        assert session.report
        assert session.report.clean
        assert not session.processes()
    assert came_out > 3


def test_a_handler_that_closes_the_session_ends_the_launch(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver)
    before = signal.signal(signal.SIGALRM, lambda number, frame: session.close() and None)
    sender = alarm_when(lambda: PHASES["silent-session"](session))
    try:
        with pytest.raises(SessionClosed, match="during its start"):
            session.start()
    finally:
        signal.signal(signal.SIGALRM, before)
    sender.join()
    assert session.report
    assert session.report.clean


def test_a_log_handler_that_closes_the_session_between_two_launches_ends_the_start(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the thread of the start, and must not wait for it."""
    monkeypatch.setenv("FAKE_DRIVER", "exit")
    session = new_session(fake_driver, attempts=5)

    def close(record: logging.LogRecord) -> bool:
        if "trying again" in record.getMessage():
            session.close()
        return True

    logger = logging.getLogger("browserkeeper")
    logger.addFilter(close)
    try:
        with pytest.raises(SessionClosed, match="during its start"):
            session.start()
    finally:
        logger.removeFilter(close)
    assert session.report
    assert session.report.clean


def test_an_exception_that_is_injected_into_a_thread_leaves_the_launch_unchanged(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RQ and stopit do where there are no signals (PyThreadState_SetAsyncExc)."""
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver)
    raised: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: raised.append(raised_by(session.start)))
    thread.start()
    assert wait_until(lambda: PHASES["silent-session"](session))
    inject = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert inject(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError)) == 1
    thread.join()
    assert [type(error) for error in raised] == [TimeoutError]
    assert session.report
    assert session.report.clean


def test_a_config_error_of_the_launch_stays_what_it_is(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch, pids_of: PidFile
) -> None:
    error = ConfigError("these options cannot be used")

    def refuse(*given: object) -> None:
        raise error

    monkeypatch.setattr("browserkeeper.drivers.chromium.build_options", refuse)
    session = new_session(fake_driver)
    assert raised_by(session.start) is error
    assert not pids_of.read()


@pytest.mark.parametrize("error", [TypeError("odd"), FileNotFoundError("profile"), KeyError("odd")])
def test_control_an_error_of_seleniums_options_is_a_launch_error(
    error: Exception, fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise error

    monkeypatch.setattr("browserkeeper.drivers.chromium.build_options", refuse)
    with pytest.raises(LaunchError, match=r"chrome did not start: .*(odd|profile)") as caught:
        new_session(fake_driver, attempts=1).start()
    assert caught.value.__cause__ is error


# ------------------------------------------------------------------ after the launch


@pytest.mark.parametrize("enter", ["start", "__enter__"])
def test_an_exception_after_the_launch_ends_the_session(enter: str, fake_driver: str) -> None:
    """Here of a log handler, after the line that says that the session has started."""
    error = KeyboardInterrupt("in a log handler")

    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "started in" in record.getMessage():
                raise error

    logger, level = logging.getLogger("browserkeeper"), logging.getLogger("browserkeeper").level
    handler = Interrupting()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    session = new_session(fake_driver)
    try:
        raised = raised_by(getattr(session, enter))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert raised is error
    assert session.report
    assert session.report.clean
    assert not session.processes()


class RaiseAt:
    """A trace function that raises an error at the n-th bytecode of ``browserkeeper.session``.

    Not counted are those of the loop that waits, whose number varies, and returns, at which Python runs
    no signal handler.
    """

    def __init__(self, number: int, error: BaseException):
        self.left, self.error = number, error

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if "browserkeeper/session" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        opcode = dis.opname[frame.f_code.co_code[frame.f_lasti]] if event == "opcode" else ""
        if opcode and not opcode.startswith("RETURN") and frame.f_code.co_name != "_wait":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise self.error
        return self


def test_an_exception_at_any_instruction_of_a_start_ends_the_session(fake_driver: str) -> None:
    """Raised by a trace function, in the caller's thread, at the n-th bytecode of the package."""
    came_out = 0
    while True:
        session = new_session(fake_driver)
        error = JobTimeoutError("at an instruction")
        sys.settrace(RaiseAt(1 + 7 * came_out, error))
        raised = raised_by(session.start)
        sys.settrace(None)
        if raised is None:
            session.close()
            break
        assert raised is error
        came_out += 1
        assert session.report is not None or not session.id
        assert not session.processes()
    assert came_out > 10


def test_a_start_of_a_session_that_is_live_does_not_end_it(fake_driver: str) -> None:
    session = new_session(fake_driver)
    with session as driver:
        with pytest.raises(SessionClosed, match="started before"):
            session.start()
        assert driver.title == "done"


# ------------------------------------------------------------------ commands


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_of_a_signal_handler_leaves_a_command_unchanged(
    error: BaseException, fake_driver: str, handler: Handler
) -> None:
    session = new_session(fake_driver)

    def use() -> None:
        with session as driver:
            assert driver.title == "done"
            handler.armed = error
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            driver.get("http://never.invalid/")

    assert raised_by(use) is error
    assert session.report
    assert (session.report.reason, session.report.clean) == ("error", True)


@pytest.mark.parametrize("error", [TimeoutError("alarm"), ProtocolError("alarm")], ids=repr)
def test_control_without_a_thread_of_its_own_a_command_takes_the_exception_for_its_own(
    error: BaseException, fake_driver: str, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Call, "_start", run_in_callers_thread)
    senders: list[threading.Thread] = []

    def use() -> None:
        with new_session(fake_driver) as driver:
            handler.armed = error
            senders.append(alarm_when(lambda: os.path.exists(os.environ["FAKE_DRIVER_ASKED"])))
            driver.get("http://never.invalid/")

    assert raised_by(use) is not error
    for sender in senders:
        sender.join()


def test_an_exception_at_any_moment_of_commands_comes_out(fake_driver: str, handler: Handler) -> None:
    came_out = 0
    with new_session(fake_driver) as driver:
        for number in range(150):
            error = ERRORS[number % len(ERRORS)]
            titles = alarmed(lambda: [driver.title for _ in range(3)], 2e-5 * number, error, handler)
            came_out += titles is not None
        assert driver.title == "done"
    assert came_out > 20


def test_a_command_that_was_interrupted_does_not_end_the_session_later(
    fake_driver: str, handler: Handler
) -> None:
    with new_session(fake_driver, command_timeout=5) as driver:  # the title has to be read within it
        handler.armed = error = TimeoutError("alarm")
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert raised_by(lambda: driver.get("http://never.invalid/")) is error
        time.sleep(6)
        assert driver.title == "done"


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize("error", [TimeoutError("alarm"), ValueError("alarm"), KeyboardInterrupt()])
def test_an_exception_during_the_end_comes_out_when_the_session_has_ended(
    error: BaseException, fake_driver: str, handler: Handler
) -> None:
    """The guard asks a browser with a profile to quit; the fake one does not."""
    profile = Path(fake_driver).with_name("profile")
    for number in range(8):
        session = new_session(fake_driver, profile=profile, close_timeout=3)
        session.start()
        alarmed(session.close, 2e-4 * (1 + 3**number % 50), error, handler)
        assert session.close().clean


# ------------------------------------------------------------------ other roads


def test_an_exception_at_any_moment_of_other_methods_comes_out(
    fake_driver: str, handler: Handler
) -> None:
    """``processes()`` and ``memory()`` read many files, and ignore errors of those that are gone."""
    session = new_session(fake_driver)

    def use() -> None:
        session.set_deadline(600)
        assert session.processes()
        assert session.memory()
        session.set_deadline(None)

    came_out = 0
    with session:
        for number in range(150):
            error = ERRORS[number % len(ERRORS)]
            came_out += alarmed(use, 3e-5 * number, error, handler) is not None
        assert session.processes()
    assert came_out > 20


def test_an_exception_at_any_instruction_of_an_end_ends_the_session(fake_driver: str) -> None:
    came_out = 0
    while True:
        session = new_session(fake_driver)
        session.start()
        error = JobTimeoutError("at an instruction")
        sys.settrace(RaiseAt(4 + 5 * came_out, error))  # the first ones come before its ``try``
        raised = raised_by(lambda: session.__exit__(None, None, None))  # noqa: B023
        sys.settrace(None)
        assert session.report
        assert session.report.clean
        if raised is None:
            break
        assert raised is error
        came_out += 1
    assert came_out > 5


def test_an_exception_that_is_injected_into_a_thread_leaves_a_command_unchanged(
    fake_driver: str,
) -> None:
    session = new_session(fake_driver)
    raised: list[BaseException | None] = []
    with session as driver:
        thread = threading.Thread(
            target=lambda: raised.append(raised_by(lambda: driver.get("http://never.invalid/")))
        )
        thread.start()
        assert wait_until(lambda: not control_of(session).at_rest)
        inject = ctypes.pythonapi.PyThreadState_SetAsyncExc
        assert inject(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError)) == 1
        thread.join()
        assert [type(error) for error in raised] == [TimeoutError]
        assert session.report is None


def test_an_exception_injected_while_a_thread_begins_is_raised_in_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until Python 3.12 the new thread may get it, which then never runs the function; the caller
    would wait for ever."""
    real, inject = _thread.start_new_thread, ctypes.pythonapi.PyThreadState_SetAsyncExc

    def start_and_inject(*given: Any) -> int:
        ident = real(*given)
        inject(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(TimeoutError))
        return ident

    release = threading.Event()
    raised: list[BaseException | None] = []

    def call_often() -> None:
        for _ in range(200):
            raised.append(raised_by(lambda: Call(lambda: release.wait(60)).run()))

    thread = threading.Thread(target=call_often)
    with monkeypatch.context() as patch:
        patch.setattr("browserkeeper.session.call._thread.start_new_thread", start_and_inject)
        thread.start()
        thread.join()
    release.set()
    assert [type(error) for error in raised] == [TimeoutError] * 200


def test_an_exception_of_a_signal_handler_leaves_the_start_on_a_grid_unchanged(handler: Handler) -> None:
    """The Grid accepts the connection and does not answer, as one does without a free slot."""
    with socket.create_server(("127.0.0.1", 0)) as grid:
        grid.settimeout(60)
        session = browser(remote=f"http://127.0.0.1:{grid.getsockname()[1]}", close_timeout=2)
        handler.armed = error = TimeoutError("alarm")
        accepted: list[socket.socket] = []

        def alarm_when_asked() -> None:
            accepted.append(grid.accept()[0])
            os.kill(os.getpid(), signal.SIGALRM)

        thread = threading.Thread(target=alarm_when_asked)
        thread.start()
        assert raised_by(session.start) is error
        thread.join()
        for connection in accepted:
            connection.close()
    assert session.report


@pytest.mark.parametrize(
    "text", ["can't start new thread", "can't create new thread at interpreter shutdown"]
)
def test_a_session_works_where_no_thread_can_be_started(
    text: str, fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    session = new_session(fake_driver)
    with session as driver:
        assert driver.title == "done"
    assert session.report
    assert session.report.clean


def test_a_log_handler_may_start_a_session_and_send_commands(
    fake_driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler's lock is reentrant, but only in its own thread: Selenium's and our own log lines of the
    commands come to the same handler."""
    titles: list[str] = []

    class Screenshots(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "take one" and not titles:
                with new_session(fake_driver) as driver:
                    titles.append(driver.title)

    handler = Screenshots()
    caplog.set_level(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger().error("take one")
    finally:
        logging.getLogger().removeHandler(handler)
    assert titles == ["done"]


def test_threads_of_calls_leave_no_entry_behind(fake_driver: str) -> None:
    """Python before 3.13 keeps one for each thread that ``threading`` did not start."""
    before = threading.enumerate()
    with new_session(fake_driver) as driver:
        for _ in range(20):
            assert driver.title == "done"
    assert wait_until(lambda: set(threading.enumerate()) <= set(before))


def test_context_variables_and_the_threads_name_are_the_callers(
    fake_driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    seen = []

    def look(record: logging.LogRecord) -> bool:
        seen.append((variable.get(), record.threadName))
        return True

    variable.set("set")
    logger = logging.getLogger("browserkeeper")
    caplog.set_level(logging.INFO, "browserkeeper")
    logger.addFilter(look)
    try:
        with new_session(fake_driver):
            pass
    finally:
        logger.removeFilter(look)
    assert seen
    assert {value for value, _ in seen} == {"set"}
    assert ("set", f"{threading.current_thread().name}/browserkeeper") in seen
