"""A browser with several seats: its session, and what the seats share of it.

A seat is one WebDriver session in a browser that other WebDriver sessions use at the same time, each in
a user context of its own (``seat.py``).  The first WebDriver session, which has started the browser, is
no seat: it has the BiDi websocket, and ends last.
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
"""Seconds between two looks at a browser that has not confirmed yet that a seat's context is gone, which
takes 0.1 s.  If driver or browser is stopped, or both have done nothing since the last look, the browser
is ended, with all of its seats."""
LONGEST_LEAVE = 30.0
"""Seconds after which it is ended although it works: others' leases are worth a long wait, and a busy
machine is no reason to end them."""
BACKSTOP = LONGEST_LEAVE + 1.0
"""Seconds after which the guard ends the browser, where this process has not done it."""
LONGEST_LABEL = 200
"""Characters of the labels of all leases of one browser together."""
CONNECT_TIMEOUT = 10.0
"""Seconds for the connection to the browser that has just started; it takes 10 ms."""

Expired = Callable[[str], None]
"""Called in a thread of its own with the reason of a deadline that has passed."""

logger = logging.getLogger("browserkeeper")


class DeadlineWatch:
    """The deadlines of a browser's seats, and the thread that calls what they call.

    The methods of other threads take no lock, so that a signal handler may call them.
    """

    def __init__(self, backstop: Callable[[float], None]) -> None:
        """``backstop``: gets the seconds until the browser has to end if a seat that is late has not
        ended; 0 if no seat has a deadline.  Raises RuntimeError if the system gives no more threads."""
        self._backstop = backstop
        self._deadlines: dict[tuple[Expired, str], float] = {}
        """By the function of a seat and the reason; on the monotonic clock."""
        self._passed: dict[Expired, str] = {}
        """The reasons of the deadlines that have passed, of seats that have not ended yet."""
        self._late: dict[object, float] = {}
        """Until when each seat that is ending must have ended."""
        self._changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="browserkeeper-deadlines", daemon=True)
        self._thread.start()

    def set(self, expired: Expired, reason: str, seconds: float) -> None:
        """Set the deadline of this reason, in place of the one before; 0 takes it back, and ``*`` is for
        the reasons of all deadlines of a seat."""
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
        """A seat begins to end: its browser ends as well if :meth:`ended` is not called in BACKSTOP
        seconds."""
        self._late[seat] = time.monotonic() + BACKSTOP  # the seat's end sees to it before
        self._tell()

    def ended(self, seat: object, expired: Expired) -> None:
        """The seat has ended, or its browser has."""
        self._late.pop(seat, None)
        self._passed.pop(expired, None)
        self.set(expired, "*", 0)

    def stop(self) -> None:
        """End the thread."""
        self._changes.put(False)

    def _tell(self) -> None:
        """The guard is told here, in case that the thread gets no time, and by the thread, which is the
        last to do it after any two changes at the same time."""
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
        """A deadline has passed, unless it is taken back at this moment."""
        is_first = expired not in self._passed
        self._passed.setdefault(expired, reason)  # first: passed() finds it in one of the two
        if self._deadlines.pop((expired, reason), None) is not None:
            self._expire(expired, reason)
        elif is_first:
            self._passed.pop(expired, None)

    def _expire(self, expired: Expired, reason: str) -> None:
        """Other seats' deadlines do not wait for this seat's end."""
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
    """A browser that runs, for its seats."""

    def __init__(self, control: Control, attempt: Attempt):
        """``control``, ``attempt``: of a session that has started, with BiDi and a debugging port.

        Raises LaunchError if it cannot be connected to; the caller ends it then.
        """
        from websocket import WebSocketException

        self.control, self.attempt = control, attempt
        self.is_closing = False
        """True if all seats are to end: then none leaves the browser before."""
        self._labels: dict[object, str] = {}
        driver = control.driver
        key = next(one for one in ("goog:chromeOptions", "ms:edgeOptions") if one in driver.caps)
        self.address: str = driver.caps[key]["debuggerAddress"]
        try:
            self.connection = BidiConnection(driver.caps["webSocketUrl"], CONNECT_TIMEOUT)
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
        """Something that differs from one look to the next as long as browser or driver works, or waits
        for a processor or a disk."""
        return [work_of(each) for each in (self.attempt.browser.identity, self.attempt.driver_process)]

    @property
    def is_over(self) -> bool:
        """True if the browser has ended, or is ending."""
        return self.control.report is not None or self.attempt.guard.event("ending") is not None

    def name(self, seat: object, label: str) -> None:
        """Have the report of the browser's end name this lease, among the others; "" for no name."""
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
    """The processor time that a process has used, in seconds.

    A value that equals no other one while the process waits for a processor or a disk, and where nothing
    can be seen; None if it is gone or not known."""
    try:
        found = system.facts(process.pid) if process else None
    except LimitError:
        return object()
    if found is None or not found.identity.is_same_as(process):
        return None
    return object() if found.state in "RD" else system.processor_time(found.pid)


def _backstop_of(guard: GuardProcess) -> Callable[[float], None]:
    """Has no reference to the session, which ends when it is dropped."""
    return lambda seconds: guard.set_deadline(seconds, "hung")


__all__ = ["LEAVE_TIMEOUT", "LONGEST_LEAVE", "SharedSession"]
