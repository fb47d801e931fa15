"""Counters and histograms of sessions: each is counted once when it starts and once when it ends.

The history keeps the last 500 sessions only, so counters cannot be read from it.  They begin at 0 in
each process, as Prometheus expects: the ledger's content at the first update is the base line, and is
not counted.  If more than 500 sessions end between two updates, some of them are missing from the
history: those that were live at an update before are counted with the reason ``unknown``.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..cleanup.sweeper import Finding
from ..errors import LedgerError
from ..report import REASONS
from ..state.ledger import Ledger
from ..state.records import EndedSession, Record, Session, read_ended

START_BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds.  Measured: Chromium 0.6, Firefox 4 on a busy machine."""
TEARDOWN_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds.  Measured: 0.03 to 0.1; after 10 survivors are reported."""
WAIT_BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds.  A start that does not have to wait is admitted within a millisecond."""
UNKNOWN = "unknown"
"""The reason of an end that is in no history."""
OTHER = "other"
"""In place of a reason that is not one of REASONS."""
DRIVER_DIED = "driver-died"
"""In place of ``exited`` for a browser's session: a driver's crash is not counted together with the
ordinary end of a program of `browserkeeper run`."""
RESTART_REASONS = ("stopped", "unhealthy", "processes", "zombies")
"""Why the watch restarts a container: the values of a label."""
RUN = "run"
"""The label ``browser`` of `browserkeeper run`, in place of the command's name: to bound cardinality."""


class Outcome(NamedTuple):
    """How a session ended: the labels of a counter."""

    browser: str
    reason: str
    clean: str


class ContainerState(NamedTuple):
    """A watched container in the last round; None: unknown, or it is not running."""

    running: bool
    processes: int | None = None
    zombies: int | None = None


@dataclasses.dataclass
class Histogram:
    """How many observations fell below each bound; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = dataclasses.field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus's buckets: pairs of upper bound and how many observations are not above it."""
        buckets, number = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            number += count
            buckets.append((bound, float(number)))
        return buckets

    @classmethod
    def of_totals(
        cls, bounds: tuple[float, ...], counters: Mapping[str, float], prefix: str
    ) -> dict[str, Histogram]:
        """By browser, from counters named ``PREFIX BROWSER BOUND`` and ``PREFIX BROWSER sum``.

        A bound that is not one of these, which another version has counted, counts as above all.
        """
        found: dict[str, Histogram] = {}
        places = {str(bound): place for place, bound in enumerate(bounds)}
        for key, number in counters.items():
            kind, _, rest = key.partition(" ")
            browser, _, bound = rest.rpartition(" ")
            if kind != prefix or not browser:
                continue
            histogram = found.setdefault(browser, cls(bounds))
            if bound == "sum":
                histogram.total = number
            else:
                histogram.counts[places.get(bound, len(bounds))] += int(number)
        return found


class Tally:
    """Counters and histograms.  Hold ``lock`` to read several that belong together, for a moment only:
    the watch's rounds need it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._updating = threading.Lock()
        self.browsers: set[str] = set()
        """All values of the label ``browser`` so far."""
        self.started: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[Outcome] = collections.Counter()
        self.swept: collections.Counter[str] = collections.Counter()
        self.bytes_freed: collections.Counter[str] = collections.Counter()
        self.starts: dict[str, Histogram] = {}
        self.teardowns: dict[str, Histogram] = {}
        self.slot_waits: dict[str, Histogram] = {}
        self.rounds = self.failures = 0
        self.last_round = 0.0
        """When the watch's last round ended, in epoch seconds; 0 before the first."""
        self.containers: dict[str, ContainerState] = {}
        self.restarts: collections.Counter[tuple[str, str]] = collections.Counter()
        """By container and reason."""
        self.docker_up = False
        self._live: dict[str, str] = {}
        self._ended: set[str] | None = None

    def update(self, ledger: Ledger) -> None:
        """Counts the starts and ends since the last update.  Raises OSError if the ledger cannot be
        read."""
        with self._updating:  # one at a time, and without the lock while files are read
            # Read the live sessions first: one that ends between the two reads is in the history by
            # then.
            records = [found for found in ledger.records() if isinstance(found, Record)]
            live = {found.session.id: label(found.session) for found in records}
            ended = set(ledger.ended_ids())
            before = self._ended
            # At the base line only the browsers' names count, so that series begin at 0.
            known = [label(found.session) for found in ledger.ended()] if before is None else []
            ends = {} if before is None else {id: _read(ledger, id) for id in ended - before}
            with self.lock:
                self.browsers.update(known)
                if before is not None:
                    self._count(live, ends)
                self.browsers.update(live.values())
                self._live, self._ended = {id: live[id] for id in live.keys() - ended}, ended

    def _count(self, live: dict[str, str], ends: dict[str, EndedSession | None]) -> None:
        """``ends``: the sessions that have ended since the last update."""
        for id in live.keys() - self._live.keys() - ends.keys():
            self.started[live[id]] += 1
        for id, ended in ends.items():
            self._count_end(id, ended)
        for id in self._live.keys() - live.keys() - ends.keys():
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
        if reason == "exited" and ended.session.kind == "session":
            reason = DRIVER_DIED
        self.outcomes[Outcome(name, reason, str(report.clean).lower())] += 1
        self.bytes_freed[name] += report.bytes_freed
        self.swept["session"] += report.reason == "swept"
        self._measure(name, report.seconds.get("start"), self.starts, START_BOUNDS)
        self._measure(name, report.seconds.get("slot_wait"), self.slot_waits, WAIT_BOUNDS)
        if "killing" in report.seconds:
            spent = report.seconds["killing"] + report.seconds.get("files", 0.0)
            self._measure(name, spent, self.teardowns, TEARDOWN_BOUNDS)

    def _measure(
        self, name: str, value: float | None, among: dict[str, Histogram], bounds: tuple[float, ...]
    ) -> None:
        if value is not None:
            among.setdefault(name, Histogram(bounds)).observe(value)

    def count_swept(self, findings: Iterable[Finding]) -> None:
        """Counts leftovers without a record.  Swept sessions are counted from the history,
        whichever process swept them."""
        with self.lock:
            for finding in findings:
                self.swept[finding.kind] += finding.removed and finding.kind != "session"

    def set_container(self, name: str, state: ContainerState) -> None:
        with self.lock:
            self.containers[name] = state

    def count_restart(self, name: str, reason: str) -> None:
        with self.lock:
            self.restarts[name, reason] += 1

    def count_round(self, *, failed: bool) -> None:
        with self.lock:
            self.rounds += 1
            self.failures += failed
            self.last_round = time.time()


def label(session: Session) -> str:
    """The value of the label ``browser``."""
    return session.browser if session.kind == "session" else RUN


def _read(ledger: Ledger, id: str) -> EndedSession | None:
    try:
        return read_ended(ledger.history_path(id))
    except (LedgerError, OSError):
        return None  # pruned since it was listed, or not valid


__all__ = ["ContainerState", "Tally"]
