"""WebDriver commands of a session: counted while in flight, and explained when they fail."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import SessionConfig
from ..errors import (
    BrowserkeeperError,
    CommandTimeout,
    DownloadTooLarge,
    IdentityError,
    LimitError,
    SessionTimeout,
    StorageStateError,
    add_detail,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..process.limit_errors import limit_of
from ..report import ExitReport
from ..report.last_command import INTERRUPTED, OK, commands_as_text
from .call import Call
from .command_targets import shown_name
from .ending import EVENT_TIMEOUT, DeadlineError
from .launch import Attempt
from .seat import Seat

if TYPE_CHECKING:
    from selenium.common.exceptions import WebDriverException

    from .server_attempt import ServerAttempt

    Started = Attempt | ServerAttempt
    AnyAttempt = Started | Seat

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

LOOK_PAUSE = 0.1
"""Seconds between two looks whether a browser is lost."""

Fail = Callable[[str, str, Exception], BrowserkeeperError]
"""``fail(reason, command, error)`` ends the session for ``reason``, and returns the exception to raise
for ``error``, which the command of that name raised.  It is called in a thread of :class:`Call`."""


class Commands:
    """The commands of a session that is live."""

    def __init__(self, attempt: AnyAttempt):
        self._attempt = attempt
        self._last = attempt.ending.last_commands
        self._interrupted = False
        self._unanswered: tuple[str, weakref.ref[Call[Any]]] | None = None
        """The last command that was interrupted, until a later one has looked whether it goes on.  The
        reference is weak: the call's thread keeps the call, and the call refers to the driver."""
        self.last_window_closed = False
        """True once a command has closed the last window, whereupon the browser ends."""

    @property
    def at_rest(self) -> bool:
        """True if no command is in flight, and none was interrupted before its answer came."""
        return not self._last.any_in_flight and not self._interrupted

    def forget(self) -> None:
        """Have the error and the report of the end show only commands that follow, as another user's."""
        self._last.forget()

    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], T], fail: Fail) -> T:
        """Run one command in a thread of its own, and return its result.

        Raises Selenium's errors as they are, and exceptions from outside, such as a signal handler's.
        Where the browser, or the connection to its driver, is lost, ends the session and raises
        SessionTimeout, BrowserDied or SessionClosed.
        """
        before, self._unanswered = self._unanswered, None

        def apart() -> T:
            # Not in the caller's thread: logging swallows what a signal handler raises inside of it.
            if before:
                _warn_of(before, name)
            return self._run(name, command, fail, lambda: call.is_abandoned)

        call: Call[T] = Call(apart)
        outcome = INTERRUPTED
        try:
            self._last.begin(call, name, params)
            answer = call.run()
            outcome = OK
            return answer
        except BaseException as error:
            if not call.is_abandoned:  # else it came from outside
                outcome = type(error).__name__
            # The answer may still be to come, so this connection cannot be used again.
            if not (call.is_over or call.was_prevented):
                self._interrupted, self._unanswered = True, (name, weakref.ref(call))
            raise
        finally:
            self._last.end(call, outcome)

    @contextlib.contextmanager
    def observed(self, name: str, params: Mapping[str, Any]) -> Iterator[None]:
        """Keep a command that the block runs by itself, over a connection of its own."""
        key, outcome = object(), INTERRUPTED
        try:
            self._last.begin(key, name, params)
            yield
            outcome = OK
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._last.end(key, outcome)

    def _run(
        self, name: str, command: Callable[[], T], fail: Fail, is_abandoned: Callable[[], bool]
    ) -> T:
        """Runs in a thread of its own.  A command that no caller waits for does not end the session."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError
        from websocket import WebSocketException

        from ..drivers.connection_errors import is_of_connection

        failed: Exception
        try:
            answer = command()
            if name == "close" and isinstance(answer, dict):
                self.last_window_closed = answer.get("value") == []
            if is_abandoned() or not self._attempt.is_quitting():
                return answer
            # Firefox answers "done" for a page whose process was killed to let it quit.
            failed = WebDriverException("the browser was asked to quit")
        except (BrowserkeeperError, WebDriverException) as error:
            if is_abandoned() or not self._tells_of_end(error):
                raise
            failed = error
        except (HTTPError, WebSocketException, OSError, RuntimeError) as error:
            if limited := self._limited(name, error):
                raise limited from None
            if isinstance(error, RuntimeError):
                raise
            if is_abandoned() or not (is_of_connection(error) or browser_is_lost(self._attempt)):
                raise
            failed = error
        try:
            # Outside of the handler: the traceback of urllib3 or Selenium would be printed, too.
            raise fail(self._reason_of(failed), name, failed)
        finally:
            del failed  # its traceback refers to this frame

    def _tells_of_end(self, error: BrowserkeeperError | WebDriverException) -> bool:
        """True if a command has failed since the browser is gone.

        Our own errors are final, except IdentityError and StorageStateError: a browser that has died
        causes them, too.
        """
        if not isinstance(error, BrowserkeeperError):
            return browser_is_lost(self._attempt, error)
        return isinstance(error, (IdentityError, StorageStateError)) and browser_is_lost(self._attempt)

    def _limited(self, name: str, error: Exception) -> LimitError | None:
        """The error for a command that a limit of this process has stopped: no descriptor for another
        connection, no thread for a websocket.  None where that was not the cause."""
        limit = limit_of(error)
        if not limit or browser_is_lost(self._attempt):
            return None
        return LimitError(f"{name!r} was not sent. {limit} The session goes on.")

    def _reason_of(self, error: Exception) -> str:
        """Why a command failed, as a reason for the exit report.

        Where the connection broke, waits for up to EVENT_TIMEOUT until the guard says that it is ending
        the session, or the browser is gone.
        """
        from urllib3.exceptions import ReadTimeoutError

        guard = self._attempt.guard
        is_ending = guard.event("ending") is not None
        if not is_ending and isinstance(error, (ReadTimeoutError, TimeoutError)):
            return "command-timeout"
        if not is_ending and self.last_window_closed:
            return "closed"
        if is_ending or browser_is_lost(self._attempt):
            return "browser-died"
        until = time.monotonic() + EVENT_TIMEOUT
        while time.monotonic() < until:
            soon = time.monotonic() + LOOK_PAUSE
            if guard.wait_for("ending", "ended", deadline=soon) or browser_is_lost(self._attempt):
                return "browser-died"
        return "connection-lost"


def _warn_of(unanswered: tuple[str, weakref.ref[Call[Any]]], name: str) -> None:
    """Log why this command takes long.  Drivers answer one command after another, and a page load that
    Ctrl-C or a notebook's interrupt has cut off lasts up to five minutes in the driver."""
    call = unanswered[1]()
    if call is not None and not call.is_over:
        logger.warning(
            "%r waits for %r, which was interrupted and is still running in the browser. close() "
            "ends the session at once; driver.set_page_load_timeout(30) before a page load, or "
            "command_timeout=30, limits such a wait",
            shown_name(name),
            shown_name(unanswered[0]),
        )


def browser_is_lost(attempt: AnyAttempt, error: WebDriverException | None = None) -> bool:
    """True if the guard is dead or is ending the session, or if the browser is gone.

    ``error`` is the driver's error; after one that announces the browser's end, waits for it.
    """
    guard = attempt.guard
    if guard.event("ending") or not guard.is_alive():
        return True
    if error is None:
        return attempt.browser.is_lost()
    from ..drivers.error_codes import error_code

    return attempt.browser.is_lost(error_code(error), error.msg or "")


def over_error(
    config: SessionConfig,
    report: ExitReport | None,
    head: str,
    deadline_errors: Mapping[str, DeadlineError],
    when: str = "",
    cause: Exception | None = None,
    user_deadline: float | None = None,
    limits: str = "",
) -> BrowserkeeperError:
    """The error that says why this session is over, and what it was doing, where it ended badly.

    ``head`` names the session, ``when`` says what was going on.  ``cause`` is the error of the command
    that failed, if any.
    ``user_deadline``: the seconds of the user's deadline of this reason, where that one has passed.
    ``limits``: a sentence about limits that may have ended the browser, "" for none.
    """
    error: BrowserkeeperError
    if report is not None and report.reason == "max-download":
        error = _too_large(config, head, when, report)
    else:
        error = _over_error(config, report, head, deadline_errors, when, cause, user_deadline, limits)
    doing = commands_as_text(report.commands) if report is not None else ""
    if doing and report is not None and report.reason != "error":
        error.args = (f"{error.args[0]}\n{doing}", *error.args[1:])
    return error


def _over_error(
    config: SessionConfig,
    report: ExitReport | None,
    head: str,
    deadline_errors: Mapping[str, DeadlineError],
    when: str,
    cause: Exception | None,
    user_deadline: float | None,
    limits: str,
) -> BrowserkeeperError:
    """:func:`over_error`, without the last commands."""
    from ..drivers import lost

    reason = report.reason if report else "closed"
    when = f" {when}" if when else ""
    if user_deadline is not None:
        text = f"{head} passed the deadline of {user_deadline:g} s that set_deadline() had set"
        return SessionTimeout(f"{text}{when}, and was ended.", report)
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
        return lost.SessionClosed(f"{head} was closed{when}.", report)
    if reason == "retired":
        return lost.SessionClosed(f"{head} was ended by its pool{when}.", report)
    if reason == "operator":
        who = report.operator if report and report.operator else "by hand"
        return lost.BrowserDied(f"{head} was ended by an operator{when}: {who}.", report)
    by_driver = hasattr(cause, "msg")  # Selenium's errors: their text is the driver's, or our relay's
    if by_driver:
        when += f" ({_first_line(cause)})"
    error = lost.BrowserDied(f"{head}: {DEATHS.get(reason, reason)}{when}.{limits}", report)
    if cause is not None and not by_driver:
        add_detail(error, f"{type(cause).__name__}: {_first_line(cause)}")
    return error


def _too_large(config: SessionConfig, head: str, when: str, report: ExitReport) -> DownloadTooLarge:
    """The error of a session that its guard has ended because the downloads passed the bound."""
    when = f" {when}" if when else ""
    partial = max(report.partial_downloads, key=lambda one: one.bytes, default=None)
    name, size = (partial.name, partial.bytes) if partial else ("", 0)
    which = f" {name!r} had {size:,} bytes." if partial else ""
    return DownloadTooLarge(
        f"{head}: its downloads passed max_download={config.max_download or 0:,} bytes{when}, and it "
        f"was ended, since its browser could not cancel them, or did not.{which}",
        name=name,
        size=size,
        report=report,
    )


DEATHS = {
    "browser-died": "its browser died or was killed",
    "connection-lost": "the connection to its driver, or the driver's to the browser, broke",
    "exited": "its driver ended by itself or was killed",
    "terminated": "its guard was terminated",
    "guard-died": "its guard was killed",
    "display-died": "its virtual display (Xvfb) ended or was killed",
    "hung": "it did not answer in time",
}
"""What happened to a session that died, by the reason in its report."""


def _first_line(error: Exception | None) -> str:
    """Without ChromeDriver's stack of addresses, and without Selenium's hint at its web site."""
    line = str(getattr(error, "msg", None) or error).partition("\n")[0]
    return line.partition("; For documentation on this error")[0]
