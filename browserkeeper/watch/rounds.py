"""The loop: every look in every round, whatever the one before came to."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ..cleanup.sweeper import Finding, Sweeper
from ..errors import BrowserkeeperError
from ..state.ledger import Ledger
from ..status.snapshot import snapshot
from ..telemetry.tally import Tally
from . import host, sessions, zombies
from .containers import Containers
from .notices import Memory, Notice

logger = logging.getLogger("browserkeeper")

HEALTH_PATIENCE = 60.0
"""Seconds over two intervals in which a round must end: a sweep kills for up to 10 s a session."""

Look = Callable[[], Iterable[Notice]]


class Watch:
    """``run()`` goes on until ``stop`` is set, from a signal handler, say."""

    def __init__(self, interval: float, tally: Tally, containers: Containers | None = None):
        self.interval, self.tally = interval, tally
        self.patience = HEALTH_PATIENCE
        self.stop = threading.Event()
        self.looks: dict[str, Look] = {
            "the sweep": self._sweep,
            "the look at sessions": _look_at_sessions,
            "the look at the machine": host.look,
            "the count for the metrics": self._count,
        }
        if containers:
            self.looks["the look at containers"] = containers.look
            self.patience += containers.patience
        self._memory = Memory()
        self._born = time.time()

    def run(self) -> None:
        """``interval`` is from the end of one round to the beginning of the next: a machine that
        is too busy for it is not made busier."""
        while not self.stop.is_set():
            self.round()
            self.stop.wait(self.interval)

    def round(self) -> list[Notice]:
        """Look once, say what is new, and return all that was found."""
        found = [notice for name, look in self.looks.items() for notice in _safely(name, look)]
        self.tally.count_round(failed=any(notice.kind == "look-failed" for notice in found))
        for notice in self._memory.news(found):
            logger.log(notice.level, "%s", notice.text, extra=notice.log_fields(), exc_info=notice.error)
        return found

    def _sweep(self) -> Iterator[Notice]:
        """One finding at a time: what was done before something fails has to be said too."""
        for finding in Sweeper(Ledger.open(), dry_run=False, older_than=0.0).run():
            self.tally.count_swept([finding])
            yield notice_of(finding)

    def _count(self) -> Iterable[Notice]:
        self.tally.update(Ledger.open())
        return ()

    # -- for probes

    def why_unhealthy(self) -> str:
        """A round that does not end: the file system hangs, say."""
        idle = time.time() - max(self.tally.last_round, self._born)
        allowed = 2 * self.interval + self.patience
        return f"the last round ended {idle:.0f} s ago" if idle > allowed else ""

    def why_not_ready(self) -> str:
        if not self.tally.rounds:
            return "the first round has not ended yet"
        try:
            Ledger.open()
        except BrowserkeeperError as error:
            return str(error)
        return ""


def _safely(name: str, look: Look) -> list[Notice]:
    """What was found before it failed counts."""
    found: list[Notice] = []
    try:
        found.extend(look())
    except Exception as error:  # noqa: BLE001 - the next round, and the other looks, must come
        message = f"{name} failed: {type(error).__name__}: {error}"
        remedy = "The watch goes on, and tries again in the next round."
        subject = f"{name}: {type(error).__name__}"
        found.append(Notice("look-failed", subject, message, remedy, error=error))
    return found


def _look_at_sessions() -> Iterator[Notice]:
    rows = snapshot().sessions
    yield from sessions.look_at(rows)
    yield from zombies.look_at(rows)


def notice_of(finding: Finding) -> Notice:
    """What the sweep did, or why it did not."""
    report = finding.report
    number = len(report.processes if report else finding.processes)
    files = report.files_removed if report else len(finding.files)
    what = (
        f"{finding.kind} {finding.session} ({finding.what}): "
        f"{number} process{'' if number == 1 else 'es'}, {files} file{'' if files == 1 else 's'}"
    )
    if finding.removed:
        return Notice("swept", finding.session, f"Swept {what}.", session=finding.session)
    message = f"Not swept: {what}. {finding.problem or 'it is still there'}."
    remedy = "Look at it, then remove it by hand."
    notice = Notice("not-swept", f"{finding.kind} {finding.session}", message, remedy)
    return dataclasses.replace(notice, session=finding.session)


__all__ = ["Watch"]
