"""How a session under a guard ends: its report, its verdict, and its end when it was forgotten.

``BrowserSession`` and ``AdoptedSession`` each hold an :class:`Ending`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import stat
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..config import OnLeak
from ..errors import LeakError, SessionTimeout
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..grid.address import Address
from ..guard.files import discard
from ..process.guard_process import GuardProcess
from ..process.limit_errors import limit_of
from ..process.reserve import lent
from ..report import ExitReport, PartialDownload
from ..state.ledger import Ledger
from ..state.records import Record
from .apart import hold, run_apart
from .call_stack import CallStack
from .last_commands import LastCommands, Taken

logger = logging.getLogger("browserkeeper")

DeadlineError = Callable[[str, "ExitReport | None"], SessionTimeout]
"""Makes the error for a deadline that has passed, of a text and the exit report."""

EVENT_TIMEOUT = 5.0
"""Seconds to wait for an event that the guard sends within milliseconds, on a busy machine."""

AMEND_TIMEOUT = 10.0
"""Seconds to wait until an entry of the history has the last commands; it takes a millisecond, and more
on a busy machine."""

LOG_TIMEOUT = 2.0
"""Seconds to wait until the line about an end is logged; it takes microseconds.  A signal handler that
has interrupted a thread in a log handler waits for all of it."""

DISCONNECT_TIMEOUT = 3.0
"""Seconds to wait until the connections to a driver are closed; it takes milliseconds."""


class End(Protocol):
    """Ends all that a session has started.  :class:`Ending` calls :meth:`run` once."""

    def run(self, reason: str, began: float) -> ExitReport:
        """End it all, and return the report.  ``began``: when the end began (``time.monotonic()``)."""

    def amend(self, report: ExitReport) -> None:
        """Complete the entry of the history with what only the owner knows.  Raises OSError."""


class GuardEnd:
    """The end by the session's guard.  If the guard is dead, this process cleans up."""

    def __init__(
        self,
        guard: GuardProcess,
        ledger: Ledger,
        record: Record,
        close_timeout: float,
        grid: Address | None = None,
    ):
        self._guard, self._ledger, self._record, self._grid = guard, ledger, record, grid
        self._close_timeout = close_timeout

    def run(self, reason: str, began: float) -> ExitReport:
        """See :meth:`End.run`.  Blocks for up to two close timeouts and EVENT_TIMEOUT, longer
        where a guard is dead or hangs."""
        # A guard whose browser keeps its profile asks that to quit, for half of a close_timeout.  It
        # kills for a whole one before it reports a process that survives.
        facts = self._guard.end(reason, began + 2 * self._close_timeout + EVENT_TIMEOUT)
        return self._report_from(facts)

    def amend(self, report: ExitReport) -> None:
        self._ledger.amend(self._record.session.id, report)

    def release(self) -> None:
        """Have the guard of an adopted driver leave all processes alone, and wait until it is gone."""
        self._guard.end("released", time.monotonic() + self._close_timeout)
        for path in (self._record.path, self._record.session.lock):
            discard(str(path))  # where the guard was killed

    def _report_without_guard(self) -> ExitReport:
        """Clean up in this process.  Where a limit stops that, the report says so."""
        session = self._record.session
        try:
            with lent():
                from ..cleanup.removal import report_without_guard

                return report_without_guard(self._ledger, self._record, self._grid)
        except (OSError, RuntimeError, ImportError) as error:
            if not (limit := limit_of(error)):
                raise
            problem = f"its guard was killed, and what is left could not be ended: {limit} Then sweep."
            return ExitReport(session.id, session.browser, "guard-died", "", None, problems=(problem,))

    def _report_from(self, facts: Mapping[str, Any] | None) -> ExitReport:
        """The guard's report; where the guard is dead or silent, the report of a cleanup."""
        session = self._record.session
        if facts is not None:
            report = ExitReport.from_guard(facts, session=session.id, browser=session.browser)
        else:
            report = self._report_without_guard()
        if self._grid is None or report.was_asked:
            return report
        # The relay was killed before it asked the Grid to end its part, and the guard cannot ask.
        from ..grid.ending import end_on_grid

        report = end_on_grid(report, self._grid, self._close_timeout)
        try:
            self._ledger.retire(self._record, report)
        except OSError as error:
            note = f"no history of the end on the Grid was written: {error}"
            return dataclasses.replace(report, notes=(*report.notes, note))
        return report


class Ending:
    """The end of one session: runs its :class:`End`, once, and keeps the exit report."""

    def __init__(self, end: End, close_timeout: float, label: str = ""):
        self.report: ExitReport | None = None
        """The exit report; None before the end."""
        self.notes: tuple[str, ...] = ()
        """Added to the report's notes."""
        self.label = label
        """The report's: the session's own, or that of the lease that has its browser."""
        self.seconds: dict[str, float] = {}
        """Lengths of earlier phases, added to the report's seconds."""
        self.last_commands = LastCommands()
        self._download_names: dict[str, str] = {}
        self._end, self._close_timeout = end, close_timeout
        self._lock = threading.RLock()
        self._finalizer: weakref.finalize[..., Any] | None = None

    def end_with(self, holder: object, name: str, started_at: CallStack) -> None:
        """Register a finalizer: it ends the session when ``holder`` is garbage-collected, or when this
        interpreter exits, unless :meth:`run` was called before.  Its ResourceWarning has the name, and
        the place where the session was started."""
        self._finalizer = weakref.finalize(
            holder, self._end_forgotten, os.getpid(), name, *started_at.place
        )

    def _end_forgotten(self, owner: int, name: str, filename: str, line: int) -> None:
        """End a session whose object was garbage-collected, or whose interpreter exits.

        Has no reference to the session.  Does nothing in a fork: the session belongs to ``owner``.
        Where the guard is dead (a program has killed all its children), this process cleans up.
        """
        if os.getpid() != owner or self.report is not None:
            return
        report = self.run("abandoned", _do_nothing)
        text = f"{name} was never closed, and was ended now. It was started at {filename}:{line}."
        if not report.clean:
            text = f"{text}\nSomething of it is left.\n{report}"
        warnings.warn_explicit(text, ResourceWarning, filename, line)

    def name_downloads(self, names: Mapping[str, str]) -> None:
        """Set the names of unfinished downloads, for the report.  The keys are the names of their
        partial files without the suffix."""
        self._download_names = dict(names)

    def run(self, reason: str, disconnect: Callable[[], None]) -> ExitReport:
        """End the session for this reason.  Idempotent: concurrent callers get the same report.

        ``disconnect`` is called after the end, to close what this process holds open of the session.
        Blocks for up to two close timeouts, and longer where the guard is dead and this process cleans
        up.  Raises nothing for a leak.
        """
        with hold(self._lock, self._close_timeout):
            if self.report is not None:
                return self.report
            taken, began = self.last_commands.take(), time.monotonic()
            report = self._end.run(reason, began)
            if report.ended_badly:
                report = self._with_commands(report, taken, began)
            run_apart(disconnect, DISCONNECT_TIMEOUT)
            return self._settle(report, time.monotonic() - began)

    def _with_commands(self, report: ExitReport, taken: Taken, asked: float) -> ExitReport:
        """The report, and its entry in the history, with what the session was doing at its end.

        The session has ended at the time ``asked``, unless its guard had ended it before that.
        """
        if report.ended_at:
            asked = min(asked, time.monotonic() - (time.time() - report.ended_at))
        report = dataclasses.replace(report, commands=taken.until(asked), commands_known=True)
        problems: list[str] = []

        def amend() -> None:
            try:
                self._end.amend(report)
            except OSError as error:
                problems.append(f"the last commands are not in the history: {error}")

        run_apart(amend, AMEND_TIMEOUT)
        return dataclasses.replace(report, notes=(*report.notes, *problems))

    def _settle(self, report: ExitReport, seconds: float) -> ExitReport:
        """Make it this session's report, unless a signal handler has ended the session in between."""
        if self.report is None:
            self.report = dataclasses.replace(
                report,
                label=self.label,
                partial_downloads=tuple(
                    _named(one, self._download_names) for one in report.partial_downloads
                ),
                seconds={**report.seconds, **self.seconds, "close": seconds},
                notes=(*report.notes, *self.notes),
            )
            if self._finalizer is not None:
                self._finalizer.detach()
            run_apart(self._log, LOG_TIMEOUT)
        return self.report

    def _log(self) -> None:
        """Called apart: a signal handler that waits for this end may have interrupted a thread that has
        the lock of a log handler."""
        assert self.report is not None
        logger.info("%s", self.report, extra=self.report.log_fields())

    def forget(self) -> None:
        """Do not end the session any more when its object is garbage-collected: after a release its
        processes are the caller's."""
        if self._finalizer is not None:
            self._finalizer.detach()


def _named(one: PartialDownload, names: Mapping[str, str]) -> PartialDownload:
    """The partial download with its final name, if ``names`` has it (see :meth:`Ending.name_downloads`).

    Firefox makes an empty file with the final name, and then renames the partial file so that a guard
    can tell the final name.  If Firefox was killed in between, the empty file is removed here.
    """
    named = one.with_name_of(names)
    if named.suggested and named.removed and not named.placeholder and named.path.endswith(".part"):
        place = os.path.join(os.path.dirname(named.path), named.suggested)
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.lstat(place).st_mode) and not os.lstat(place).st_size:
                os.unlink(place)
                return dataclasses.replace(named, placeholder=place)
    return named


def leave_block(
    end: Callable[[str], ExitReport], error: BaseException | None, on_leak: OnLeak, what: str
) -> ExitReport:
    """What a session does at the end of its ``with`` block: ends, by ``end``, and raises, warns of or
    logs a leak.

    ``error`` is the exception that leaves the block, None where there is none; ``what`` names the kind
    of session in messages.
    """
    report = end("closed" if error is None else "error")
    raise_if_leaked(report, on_leak, what, error, stacklevel=5)
    return report


def raise_if_leaked(
    report: ExitReport,
    on_leak: OnLeak,
    what: str,
    in_flight: BaseException | None = None,
    stacklevel: int = 3,
) -> None:
    """Raise LeakError if something of ``what`` survived, or warn, as ``on_leak`` says.

    An exception that is ``in_flight`` is not to be hidden by another one: then the leak is logged.
    """
    if report.clean or on_leak == "ignore":
        return
    text = f"Something of the {what} is left.\n{report}"
    if on_leak == "raise" and in_flight is None:
        raise LeakError(text, report)
    logger.error(text)
    if on_leak == "warn":
        warnings.warn(text, ResourceWarning, stacklevel=stacklevel)


def _do_nothing() -> None:
    """A ``disconnect`` for a driver object that is gone."""
