"""What was seen of the ledger since this process began: each session once at its start, once at
its end.

The history keeps the last 500 sessions only, so counters cannot be read off it.  They begin at 0,
as Prometheus expects of a process that has just started: what was there at the first look is the
base line, and is not counted.  More than 500 ends between two looks cannot all be seen; those that
were seen alive are counted with the reason ``unknown``.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from ..cleanup.sweeper import Finding
from ..errors import LedgerError
from ..report import REASONS
from ..state.ledger import Ledger
from ..state.records import EndedSession, Record, Session, read_ended

START_BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds; Chromium was measured at 0.6, Firefox at 4 on a busy machine."""
TEARDOWN_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; 0.03 to 0.1 was measured, 10 is where survivors are reported."""
UNKNOWN, OTHER = "unknown", "other"
RESTART_REASONS = ("stopped", "unhealthy", "processes", "zombies")
"""Why the watch restarts a container."""
RUN = "run"
"""In place of the browser's name for `browserkeeper run`, whose commands could be any number."""


class Outcome(NamedTuple):
    """How a session ended, as labels."""

    browser: str
    reason: str
    clean: str


class Container(NamedTuple):
    """A watched container at the last look; None: not known, or it does not run."""

    running: bool
    processes: int | None = None
    zombies: int | None = None


@dataclasses.dataclass
class Histogram:
    """Observations by upper bound, the last one without."""

    bounds: tuple[float, ...]
    counts: list[int] = dataclasses.field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many up to it), ``+Inf`` at the end: Prometheus's buckets."""
        found, number = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            number += count
            found.append((bound, float(number)))
        return found


class Tally:
    """Counters and histograms; ``lock`` is for whoever reads them while another thread looks."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.browsers: set[str] = set()
        self.started: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[Outcome] = collections.Counter()
        self.swept: collections.Counter[str] = collections.Counter()
        self.bytes_freed: collections.Counter[str] = collections.Counter()
        self.starts: dict[str, Histogram] = {}
        self.teardowns: dict[str, Histogram] = {}
        self.rounds = self.failures = 0
        self.last_round = 0.0
        """Epoch seconds of the watch's last round; 0 before the first."""
        self.containers: dict[str, Container] = {}
        self.restarts: collections.Counter[tuple[str, str]] = collections.Counter()
        """By container and reason."""
        self.docker_up = False
        self._live: dict[str, str] = {}
        self._ended: set[str] | None = None

    def look(self, ledger: Ledger) -> None:
        """Count what is new.  Raises OSError where the state directory cannot be read."""
        with self.lock:
            # Live ones first: who leaves in between is in the history by then, and is not missed.
            records = [found for found in ledger.records() if isinstance(found, Record)]
            live = {found.session.id: label(found.session) for found in records}
            ended = set(ledger.ended_ids())
            if self._ended is None:
                self._begin(ledger)
            else:
                self._count(ledger, live, ended - self._ended)
            self.browsers.update(live.values())
            self._live, self._ended = {id: live[id] for id in live.keys() - ended}, ended

    def _begin(self, ledger: Ledger) -> None:
        """The names of browsers are all that is taken from the past: their series begin at 0."""
        self.browsers.update(label(found.session) for found in ledger.ended())

    def _count(self, ledger: Ledger, live: dict[str, str], ended: set[str]) -> None:
        for id in live.keys() - self._live.keys() - ended:
            self.started[live[id]] += 1
        for id in ended:
            self._count_end(id, _read(ledger, id))
        for id in self._live.keys() - live.keys() - ended:
            self._count_end(id, None)

    def _count_end(self, id: str, ended: EndedSession | None) -> None:
        known = self._live.get(id)
        name = label(ended.session) if ended else known or UNKNOWN
        self.browsers.add(name)
        if known is None:
            self.started[name] += 1
        if ended is None:
            self.outcomes[Outcome(name, UNKNOWN, "unknown")] += 1
            return
        report = ended.report
        reason = report.reason if report.reason in REASONS else OTHER
        self.outcomes[Outcome(name, reason, str(report.clean).lower())] += 1
        self.bytes_freed[name] += report.bytes_freed
        self.swept["session"] += report.reason == "swept"
        self._measure(name, report.seconds.get("start"), self.starts, START_BOUNDS)
        if "killing" in report.seconds:
            spent = report.seconds["killing"] + report.seconds.get("files", 0.0)
            self._measure(name, spent, self.teardowns, TEARDOWN_BOUNDS)

    def _measure(
        self, name: str, value: float | None, among: dict[str, Histogram], bounds: tuple[float, ...]
    ) -> None:
        if value is not None:
            among.setdefault(name, Histogram(bounds)).observe(value)

    def count_swept(self, findings: Iterable[Finding]) -> None:
        """What no record names; sessions are counted by their history, whoever swept them."""
        with self.lock:
            for finding in findings:
                self.swept[finding.kind] += finding.removed and finding.kind != "session"

    def see_container(self, name: str, seen: Container) -> None:
        with self.lock:
            self.containers[name] = seen

    def count_restart(self, name: str, reason: str) -> None:
        with self.lock:
            self.restarts[name, reason] += 1

    def count_round(self, *, failed: bool) -> None:
        with self.lock:
            self.rounds += 1
            self.failures += failed
            self.last_round = time.time()


def label(session: Session) -> str:
    """What stands for its browser: one of few names, whatever was run."""
    return session.browser if session.kind == "session" else RUN


def _read(ledger: Ledger, id: str) -> EndedSession | None:
    try:
        return read_ended(ledger.history_path(id))
    except (LedgerError, OSError):
        return None  # pruned since it was listed, or not to be believed


__all__ = ["Container", "Tally"]
