"""A browser with several seats: its session, and the objects that the seats share.

A seat is one WebDriver session in a browser that other WebDriver sessions use at the same time, each in
a user context of its own (``seat.py``).  The first WebDriver session, which has started the browser, is
no seat: it has the BiDi websocket, and ends after all seats.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..config import SessionConfig
from ..drivers.bidi import BidiConnection, ProtocolError
from ..drivers.contexts.chromium import FirstTargets
from ..errors import BrowserkeeperError, LaunchError, LimitError
from ..process import system
from ..report import ExitReport
from .apart import run_apart
from .ending import DISCONNECT_TIMEOUT

if TYPE_CHECKING:
    from ..process.guard_process import GuardProcess
    from ..process.identity import ProcessIdentity
    from .launch import Attempt

LEAVE_TIMEOUT = 5.0
"""Seconds between two checks of a browser that has not confirmed yet that a seat's context is gone; the
confirmation takes 0.1 s.  If driver or browser is stopped, or both have done nothing since the last
check, the browser is ended, with all of its seats."""
LONGEST_LEAVE = 30.0
"""Seconds after which a browser without such a confirmation is ended although it works.  So many, since
its end would end other leases as well, and a busy machine is no reason for that."""
BACKSTOP = LONGEST_LEAVE + 1.0
"""Seconds after a seat's deadline, or after its end has begun, after which the guard ends the browser if
the seat has not ended."""
LONGEST_LABEL = 200
"""Characters of the labels of all leases of one browser together."""

Expired = Callable[[str], None]
"""Called in a thread of its own with the reason of a deadline that has passed."""

logger = logging.getLogger("browserkeeper")


class DeadlineWatch:
    """The deadlines of a browser's seats, and the thread that ends the seats whose deadlines have
    passed.

    The methods take no lock, so that a signal handler may call them.
    """

    def __init__(self, backstop: Callable[[float], None]) -> None:
        """``backstop``: called with the seconds after which the guard has to end the browser, unless a
        later call changes that; 0 for no limit.  Raises RuntimeError if the system gives no more
        threads."""
        self._backstop = backstop
        self._deadlines: dict[tuple[Expired, str], float] = {}
        """The deadlines (monotonic clock), by the function that ends the seat and by the reason."""
        self._passed: dict[Expired, str] = {}
        """For each seat whose deadline has passed and that has not ended yet: the reason."""
        self._late: dict[object, float] = {}
        """For each seat that is ending: when it must have ended (monotonic clock)."""
        self._changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="browserkeeper-deadlines", daemon=True)
        self._thread.start()

    def set(self, expired: Expired, reason: str, seconds: float) -> None:
        """Set the deadline of this reason, in place of an earlier one.  0 seconds take the deadline
        back; with the reason ``*`` all deadlines of the seat."""
        if seconds:
            self._deadlines[expired, reason] = time.monotonic() + seconds
        else:
            for key in list(self._deadlines):
                if key[0] == expired and reason in (key[1], "*"):
                    self._deadlines.pop(key, None)
        self._tell()

    def passed(self, expired: Expired) -> str:
        """The reason of a deadline of this seat that has passed; "" for none."""
        now = time.monotonic()
        if expired in self._passed:
            return self._passed[expired]
        found = [(when, key[1]) for key, when in self._deadlines.copy().items() if key[0] == expired]
        return next((reason for when, reason in sorted(found) if when <= now), "")

    def begin_end(self, seat: object) -> None:
        """Note that a seat begins to end.  The guard ends the browser if :meth:`ended` is not called
        within BACKSTOP seconds."""
        self._late[seat] = time.monotonic() + BACKSTOP
        self._tell()

    def ended(self, seat: object, expired: Expired) -> None:
        """Note that the seat, or its browser, has ended."""
        self._late.pop(seat, None)
        self._passed.pop(expired, None)
        self.set(expired, "*", 0)

    def stop(self) -> None:
        """End the thread."""
        self._changes.put(False)

    def _tell(self) -> None:
        """Tell the guard and the thread of a change.

        The thread tells the guard once more: after two changes at the same time its call is the last
        one, and right.  The call here is needed in case that the thread gets no processor time.
        """
        self._set_backstop()
        self._changes.put(True)

    def _set_backstop(self) -> None:
        moments = [when + BACKSTOP for when in self._deadlines.copy().values()]
        moments += self._late.copy().values()
        if moments:
            self._backstop(max(0.001, min(moments) - time.monotonic()))
        else:
            self._backstop(0)

    def _run(self) -> None:
        while True:
            due = min(self._deadlines.copy().values(), default=None)
            try:
                if not self._changes.get(
                    timeout=None if due is None else max(0.0, due - time.monotonic())
                ):
                    return
                self._set_backstop()
            except queue.Empty:
                pass
            now = time.monotonic()
            for (expired, reason), when in list(self._deadlines.copy().items()):
                if when <= now:
                    self._pass(expired, reason)

    def _pass(self, expired: Expired, reason: str) -> None:
        """End a seat whose deadline has passed, unless the deadline is taken back at this moment."""
        is_first = expired not in self._passed
        # Before the pop, so that passed() finds the deadline in one of the two dicts at any time.
        self._passed.setdefault(expired, reason)
        if self._deadlines.pop((expired, reason), None) is not None:
            self._expire(expired, reason)
        elif is_first:
            self._passed.pop(expired, None)

    def _expire(self, expired: Expired, reason: str) -> None:
        """End the seat in a thread of its own, so that the deadlines of other seats need not wait."""
        name = "browserkeeper-deadline"
        try:
            threading.Thread(target=expired, args=(reason,), name=name, daemon=True).start()
        except RuntimeError:  # no more threads
            try:
                expired(reason)
            except Exception:  # the deadlines of the other seats go on
                logger.exception("a lease could not be ended after its deadline (%s)", reason)


class Control(Protocol):
    """The part of the browser's ``SessionControl`` that its seats use."""

    @property
    def config(self) -> SessionConfig: ...
    @property
    def report(self) -> ExitReport | None: ...
    @property
    def driver(self) -> Any: ...
    def looks_alive(self) -> bool: ...
    def end(self, reason: str) -> ExitReport: ...
    def name_lease(self, label: str) -> None: ...


class SharedSession:
    """A running browser that has seats."""

    def __init__(self, control: Control, attempt: Attempt):
        """``control``, ``attempt``: of a session that has started, with BiDi and a debugging port.

        Raises LaunchError if the browser cannot be connected to; the caller then ends the session.
        """
        from websocket import WebSocketException

        self.control, self.attempt = control, attempt
        self.is_closing = False
        """True if all seats are to end.  The end of any seat then ends the browser at once."""
        self._labels: dict[object, str] = {}
        driver = control.driver
        key = next(one for one in ("goog:chromeOptions", "ms:edgeOptions") if one in driver.caps)
        self.address: str = driver.caps[key]["debuggerAddress"]
        try:
            self.connection = BidiConnection(driver.caps["webSocketUrl"])
            try:
                self.first = FirstTargets.look(self.connection)
                self.deadlines = DeadlineWatch(_backstop_of(attempt.guard))
            except BaseException:
                self.connection.close()
                raise
        except (OSError, RuntimeError, KeyError, ProtocolError, WebSocketException) as error:
            if isinstance(error, BrowserkeeperError):
                raise
            raise LaunchError(f"The browser cannot be shared by several leases: {error!r}") from None

    @property
    def is_usable(self) -> bool:
        """True if the browser's processes run, and its end has not begun.  Costs microseconds."""
        return self.control.looks_alive() and not self.connection.is_lost

    def work_done(self) -> object:
        """A value to compare with an earlier one.  The two are different if browser or driver has worked
        in between, or waits for a processor or a disk."""
        return [work_of(each) for each in (self.attempt.browser.identity, self.attempt.driver_process)]

    @property
    def is_over(self) -> bool:
        """True if the browser has ended, or is ending."""
        return self.control.report is not None or self.attempt.guard.event("ending") is not None

    def name(self, seat: object, label: str) -> None:
        """Have the report of the browser's end name this lease, beside the others; "" removes the
        name."""
        if label:
            self._labels[seat] = label
        else:
            self._labels.pop(seat, None)
        self.control.name_lease(", ".join(self._labels.copy().values())[:LONGEST_LABEL])

    def end(self, reason: str) -> ExitReport:
        """End the browser, and return its verified report.  Idempotent."""
        report = self.control.end(reason)
        self.deadlines.stop()
        run_apart(self.connection.close, DISCONNECT_TIMEOUT)
        return report


def work_of(process: ProcessIdentity | None) -> object:
    """The processor time that a process has used, in seconds; None if the process is gone or not known.

    A value that is different from all others while the process waits for a processor or a disk, and if
    its state cannot be read.
    """
    try:
        found = system.facts(process.pid) if process else None
    except LimitError:
        return object()
    if found is None or not found.identity.is_same_as(process):
        return None
    return object() if found.state in "RD" else system.processor_time(found.pid)


def _backstop_of(guard: GuardProcess) -> Callable[[float], None]:
    """A function that sets the browser's deadline.  It has no reference to the session, since a session
    that is garbage-collected must end."""
    return lambda seconds: guard.set_deadline(seconds, "hung")


__all__ = ["LEAVE_TIMEOUT", "LONGEST_LEAVE", "SharedSession"]
