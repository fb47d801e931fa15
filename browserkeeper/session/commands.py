"""WebDriver commands of a session: counted while in flight, and explained when they fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..config import SessionConfig
from ..errors import (
    BrowserDied,
    BrowserkeeperError,
    CommandTimeout,
    SessionClosed,
    SessionTimeout,
)
from ..report import ExitReport
from .call import Call
from .ending import EVENT_TIMEOUT, DeadlineError
from .launch import Attempt

T = TypeVar("T")


class Commands:
    """The commands of a session that is live."""

    def __init__(self, attempt: Attempt, fail: Callable[[str, str, Exception], BrowserkeeperError]):
        """``fail(reason, command, error)`` ends the session for ``reason``, and returns the exception to
        raise for ``error``, which the command of that name raised.  It is called in a thread of
        :class:`Call`."""
        self._attempt, self._fail = attempt, fail
        self._in_flight: set[object] = set()  # its methods are atomic, and need no lock
        self._interrupted = False

    @property
    def at_rest(self) -> bool:
        """True if no command is in flight, and none was interrupted before its answer came."""
        return not self._in_flight and not self._interrupted

    def run(self, name: str, command: Callable[[], T]) -> T:
        """Run one command in a thread of its own, and return its result.

        Raises Selenium's errors as they are, and exceptions from outside, such as a signal handler's.
        Where the browser, or the connection to its driver, is lost, ends the session and raises
        SessionTimeout, BrowserDied or SessionClosed.
        """
        call: Call[T] = Call(lambda: self._run(name, command, lambda: call.is_abandoned))
        self._in_flight.add(call)
        try:
            return call.run()
        except BaseException:
            # The answer may still be to come, so this connection cannot be used again.
            self._interrupted = self._interrupted or not (call.is_over or call.was_prevented)
            raise
        finally:
            self._in_flight.discard(call)

    def _run(self, name: str, command: Callable[[], T], is_abandoned: Callable[[], bool]) -> T:
        """Runs in a thread of its own.  A command that no caller waits for does not end the session."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError
        from websocket import WebSocketException

        try:
            return command()
        except WebDriverException as error:
            if not is_abandoned() and browser_is_lost(
                self._attempt, f"{type(error).__name__}: {error.msg}"
            ):
                raise self._fail(self._reason_of(error), name, error) from error
            raise
        except (HTTPError, WebSocketException, OSError) as error:
            if is_abandoned():
                raise
            raise self._fail(self._reason_of(error), name, error) from error

    def _reason_of(self, error: Exception) -> str:
        """Why a command failed, as a reason for the exit report.

        Where the connection broke, waits for up to 2 s until the guard says that it is ending the
        session, or the browser is gone.
        """
        from urllib3.exceptions import ReadTimeoutError

        guard = self._attempt.guard
        is_ending = guard.event("ending") is not None
        if not is_ending and isinstance(error, (ReadTimeoutError, TimeoutError)):
            return "command-timeout"
        if is_ending or browser_is_lost(self._attempt):
            return "browser-died"
        guard.wait_for("ending", "ended", deadline=time.monotonic() + EVENT_TIMEOUT)
        return "browser-died" if browser_is_lost(self._attempt) else "connection-lost"


def browser_is_lost(attempt: Attempt, message: str = "") -> bool:
    """True if the guard is dead or is ending the session, or if the browser is gone.

    ``message`` is the driver's error; after one that announces the browser's end, waits for it.
    """
    guard = attempt.guard
    if guard.event("ending") or not guard.is_alive():
        return True
    return attempt.browser.is_lost(message)


def over_error(
    config: SessionConfig,
    report: ExitReport | None,
    session_id: str,
    deadline_errors: Mapping[str, DeadlineError],
    when: str = "",
    cause: Exception | None = None,
) -> BrowserkeeperError:
    """The error that says why this session is over.

    ``when`` says what was going on, ``cause`` is the error of the command that failed, if any.
    """
    reason = report.reason if report else "closed"
    head = f"{config.name} session {session_id}"
    when = f" {when}" if when else ""
    if reason in deadline_errors:
        return deadline_errors[reason](f"{head} passed its deadline{when} and was ended.", report)
    if reason == "timeout":
        limit = f" of {config.timeout:g} s" if config.timeout else ""
        return SessionTimeout(f"{head} passed its timeout{limit}{when} and was ended.", report)
    if reason == "command-timeout":
        return CommandTimeout(
            f"{head}: no answer within command_timeout={config.command_timeout:g} s{when}; "
            "the session was ended.",
            report,
        )
    if reason in ("closed", "error"):
        return SessionClosed(f"{head} was closed{when}.", report)
    texts = {
        "browser-died": "its browser died or was killed",
        "connection-lost": "the connection to its driver, or the driver's to the browser, broke",
        "exited": "its driver ended by itself or was killed",
        "terminated": "its guard was terminated",
        "guard-died": "its guard was killed",
        "hung": "it did not answer in time",
    }
    detail = f" ({str(cause).splitlines()[0]})" if cause and str(cause) else ""
    return BrowserDied(f"{head}: {texts.get(reason, reason)}{when}{detail}.", report)
