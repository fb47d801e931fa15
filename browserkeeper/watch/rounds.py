"""The loop: each round runs every check, whether or not an earlier one failed."""

from __future__ import annotations

import dataclasses
import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator

from ..cleanup.sweeper import Finding, Sweeper
from ..errors import BrowserkeeperError
from ..state.ledger import Ledger
from ..status.snapshot import snapshot
from ..telemetry.tally import Tally
from . import host, sessions, zombies
from .containers import Containers
from .notices import Notice, ReportedNotices
from .readiness import Readiness

logger = logging.getLogger("browserkeeper")

HEALTH_PATIENCE = 60.0
"""Seconds beyond two intervals after which a round counts as hung: a sweep may take 15 s a session."""

Check = Callable[[], Iterable[Notice]]


class Watch:
    """``interval``: seconds between two rounds.  ``clock`` measures the time since the last round; a
    step of the machine's clock must not change it."""

    def __init__(
        self,
        interval: float,
        tally: Tally,
        containers: Containers | None = None,
        clock: Callable[[], float] = time.monotonic,
        readiness: Readiness | None = None,
    ):
        self.interval, self.tally, self._clock = interval, tally, clock
        self.readiness = readiness or Readiness(clock=clock)
        self.patience = HEALTH_PATIENCE
        self._ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.checks: dict[str, Check] = {
            "the sweep": self._sweep,
            "the check of sessions": _check_sessions,
            "the check of the host": host.check,
            "the update of the metrics": self._update_tally,
            "the look at the gate": self._look_at_gate,
        }
        if containers:
            self.checks["the check of containers"] = containers.check
            self.patience += containers.patience
        self._reported = ReportedNotices()
        self._idle_since = clock()

    def run(self) -> None:
        """Blocks until :meth:`end` is called.  The interval is from the end of one round to the start of
        the next, so rounds that take long on a busy machine do not follow one another without a
        pause."""
        pause = 0.0
        while not self._is_to_end(pause):
            self.round()
            pause = self.interval

    def end(self) -> None:
        """Have :meth:`run` return after the present round.  To be called by a signal handler, too."""
        # A signal handler may run while its own thread holds the lock of a threading.Event in wait():
        # set() would then wait for ever.  SimpleQueue.put() may be called at any moment.
        self._ends.put(None)

    def _is_to_end(self, within: float) -> bool:
        """Wait for so many seconds to be told to end."""
        try:
            self._ends.get(timeout=within)
        except queue.Empty:
            return False
        return True

    def round(self) -> list[Notice]:
        """Runs all checks, logs what is new, and returns all that was found."""
        found = [notice for name, check in self.checks.items() for notice in _run(name, check)]
        self.tally.count_round(failed=any(notice.kind == "look-failed" for notice in found))
        self._idle_since = self._clock()
        for notice in self._reported.update(found):
            logger.log(notice.level, "%s", notice.text, extra=notice.log_fields(), exc_info=notice.error)
        return found

    def _sweep(self) -> Iterator[Notice]:
        """Yields each finding as the sweep comes to it: those before a failure are reported too."""
        for finding in Sweeper(Ledger.open(), dry_run=False, older_than=0.0).run():
            self.tally.count_swept([finding])
            yield notice_of(finding)

    def _update_tally(self) -> Iterable[Notice]:
        self.tally.update(Ledger.open())
        return ()

    def _look_at_gate(self) -> Iterable[Notice]:
        self.readiness.look()
        return ()

    # -- for /healthz and /readyz

    def why_unhealthy(self) -> str:
        """What is wrong, "" if nothing is.  A round may not end because the file system hangs, say."""
        idle = self._clock() - self._idle_since
        allowed = 2 * self.interval + self.patience
        return f"the last round ended {idle:.0f} s ago" if idle > allowed else ""

    def why_not_ready(self) -> str:
        """What is missing; "" once a round has ended, while the state directory can be used, and while
        browsers can start on this host."""
        if not self.tally.rounds:
            return "the first round has not ended yet"
        try:
            Ledger.open()
        except BrowserkeeperError as error:
            return str(error)
        return self.readiness.why_not_ready()


def _run(name: str, check: Check) -> list[Notice]:
    """What the check found; if it raises, what it found before, and a notice of the failure."""
    found: list[Notice] = []
    try:
        found.extend(check())
    except Exception as error:  # noqa: BLE001 - the other checks and the next rounds must run
        message = f"{name} failed: {type(error).__name__}: {error}"
        remedy = "The watch goes on, and tries again in the next round."
        subject = f"{name}: {type(error).__name__}"
        found.append(Notice("look-failed", subject, message, remedy, error=error))
    return found


def _check_sessions() -> Iterator[Notice]:
    found = snapshot(with_memory=False, with_host=False).sessions
    yield from sessions.check(found)
    yield from zombies.check(found)


def notice_of(finding: Finding) -> Notice:
    """A notice of what the sweep removed, or why it removed nothing."""
    report = finding.report
    number = len(report.processes if report else finding.processes)
    files = report.files_removed if report else len(finding.files)
    what = (
        f"{finding.kind} {finding.session} ({finding.what}): "
        f"{number} process{'' if number == 1 else 'es'}, {files} file{'' if files == 1 else 's'}"
    )
    if finding.removed:
        label = report.label if report else ""
        return Notice("swept", finding.session, f"Swept {what}.", session=finding.session, label=label)
    message = f"Not swept: {what}. {finding.problem or 'it is still there'}."
    remedy = "Look at it, then remove it by hand."
    notice = Notice("not-swept", f"{finding.kind} {finding.session}", message, remedy)
    return dataclasses.replace(notice, session=finding.session)


__all__ = ["Watch"]
