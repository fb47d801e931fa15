"""Sessions, their processes and their memory on one clock: epoch seconds.

Guards write down what they see in seconds since their own start, and processes start at seconds
since boot.  Neither needs the wall clock to have been right: a session's own end, which is in epoch
seconds, ties them to it.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..cleanup.evidence import platform_of
from ..report import ExitReport
from ..state.ledger import HISTORY_LIMIT, Ledger
from ..state.records import EndedSession
from .snapshot import Row, on_this_host, snapshot

LIVES = "lives"
FAR_FUTURE = 1e11
"""Epoch seconds; the calendar of ``datetime`` ends later."""


@dataclasses.dataclass(frozen=True)
class Life:
    """A process.  ``outcome`` is that of ProcessExit, or ``lives``; ``ended`` None: it does, or
    nobody saw when it ended."""

    pid: int
    name: str
    began: float
    ended: float | None
    outcome: str
    code: int | None = None
    signal: int | None = None
    adopted: bool = False


@dataclasses.dataclass(frozen=True)
class Span:
    """A session.  ``state`` is that of ``browserkeeper ps``, or ``ended``; ``reason`` and ``clean``
    are the report's, "" and None while it lives.  ``memory``: (epoch seconds, bytes)."""

    id: str
    kind: str
    browser: str
    owner: str
    owner_pid: int
    containment: str
    began: float
    ended: float | None = None
    state: str = "ended"
    reason: str = ""
    clean: bool | None = None
    certificate: str | None = None
    processes: tuple[Life, ...] = ()
    survivors: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files_removed: int = 0
    bytes_freed: int = 0
    start_seconds: float | None = None
    teardown_seconds: float | None = None
    memory: tuple[tuple[float, int], ...] = ()

    @property
    def label(self) -> str:
        """One word: how it ended, else its state."""
        return self.reason or self.state

    @property
    def peak(self) -> int | None:
        """Bytes; None where memory was never looked at."""
        return max((size for _, size in self.memory), default=None)

    def lasted(self, now: float) -> float:
        """Seconds so far."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)


@dataclasses.dataclass(frozen=True)
class Percentiles:
    """Of seconds; each is a value that was seen (nearest rank)."""

    number: int
    p50: float
    p90: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Percentiles | None:
        """None of nothing."""
        seen = sorted(value for value in values if value is not None)
        if not seen:
            return None

        def rank(share: float) -> float:
            return seen[math.ceil(share * len(seen)) - 1]

        return cls(len(seen), rank(0.5), rank(0.9), rank(0.99), seen[-1])


@dataclasses.dataclass(frozen=True)
class Timeline:
    """All sessions that lived at some time between ``since`` and ``until``, newest first.

    ``cut``: the history no longer reaches back to ``since``.  ``unreadable`` records cannot be
    believed, and are not among the sessions.
    """

    since: float
    until: float
    spans: tuple[Span, ...]
    cut: bool = False
    unreadable: int = 0

    @property
    def live(self) -> tuple[Span, ...]:
        return tuple(span for span in self.spans if span.state != "ended")

    @property
    def unclean(self) -> tuple[Span, ...]:
        """Ended, and something is left, or the proof that nothing is."""
        return tuple(span for span in self.spans if span.clean is False)

    @property
    def outcomes(self) -> tuple[tuple[str, tuple[Span, ...]], ...]:
        """(reason, sessions), the most frequent first."""
        found: dict[str, list[Span]] = collections.defaultdict(list)
        for span in self.spans:
            if span.state == "ended":
                found[span.reason].append(span)
        by_number = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        return tuple((reason, tuple(spans)) for reason, spans in by_number)

    @property
    def longest(self) -> tuple[Span, ...]:
        return tuple(sorted(self.spans, key=lambda span: -span.lasted(self.until)))

    @property
    def bytes_freed(self) -> int:
        return sum(span.bytes_freed for span in self.spans)

    @property
    def start(self) -> Percentiles | None:
        """Of the seconds from ``start()`` to a browser; failed launches have none."""
        return Percentiles.of(span.start_seconds for span in self.spans)

    @property
    def teardown(self) -> Percentiles | None:
        """Of the seconds for killing, reaping and removing files."""
        return Percentiles.of(span.teardown_seconds for span in self.spans)

    def alive(self) -> list[tuple[float, int]]:
        """(when, how many sessions there are from then on)."""
        begins = [(span.began, 1) for span in self.spans]
        ends = [(span.ended, -1) for span in self.spans if span.ended is not None]
        return levels(begins + ends)

    def memory(self) -> list[tuple[float, int]]:
        """(when, bytes of all sessions from then on): each counts with what was last seen of it."""
        changes = []
        for span in self.spans:
            sizes = [0, *(size for _, size in span.memory)]
            steps = [after - before for before, after in itertools.pairwise(sizes)]
            changes += [(when, step) for (when, _), step in zip(span.memory, steps, strict=True)]
            if span.ended is not None:
                changes.append((span.ended, -sizes[-1]))
        return levels(changes)

    def to_dict(self) -> dict[str, Any]:
        outcomes = {
            reason: {"sessions": len(spans), "not_clean": sum(span.clean is False for span in spans)}
            for reason, spans in self.outcomes
        }
        return {
            "since": self.since,
            "until": self.until,
            "history_cut": self.cut,
            "unreadable_records": self.unreadable,
            "live": len(self.live),
            "outcomes": outcomes,
            "start_seconds": self.start and dataclasses.asdict(self.start),
            "teardown_seconds": self.teardown and dataclasses.asdict(self.teardown),
            "bytes_freed": self.bytes_freed,
            "peak_memory": max((size for _, size in self.memory()), default=None),
            "sessions": [dataclasses.asdict(span) for span in self.spans],
        }


def levels(changes: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """The running sum of changes, by time."""
    total, found = 0, []
    for when, group in itertools.groupby(sorted(changes), key=lambda change: change[0]):
        total += sum(step for _, step in group)
        found.append((when, total))
    return found


# ------------------------------------------------------------------------------ from the ledger


def timeline(seconds: float) -> Timeline:
    """Of the last so many seconds, on this host.  Raises LedgerError where the state directory
    cannot be used."""
    ledger = Ledger.open()
    found = snapshot()
    # Live ones first: who leaves in between is in the history by then.
    ended = list(ledger.ended())
    return timeline_of(found.rows, ended, len(found.bad), now=time.time(), seconds=seconds)


def timeline_of(
    rows: Sequence[Row], ended: Sequence[EndedSession], unreadable: int, *, now: float, seconds: float
) -> Timeline:
    since = now - seconds
    over = []
    for one in ended:
        try:
            over.append(span_of_ended(one))
        except (TypeError, ValueError):
            unreadable += 1
    gone = {span.id for span in over}
    live = [span_of_row(row, now) for row in rows if row.record.session.id not in gone]
    oldest = min((span.ended or 0.0 for span in over), default=0.0)
    inside = [span for span in live + over if span.ended is None or span.ended >= since]
    spans = sorted(inside, key=lambda span: (-span.began, span.id))
    return Timeline(since, now, tuple(spans), len(ended) >= HISTORY_LIMIT and oldest > since, unreadable)


def span_of_ended(one: EndedSession) -> Span:
    """Raises TypeError or ValueError where its times are none."""
    session, report = one.session, one.report
    if not (0 <= session.created < FAR_FUTURE and 0 <= report.ended_at < FAR_FUTURE):
        raise ValueError(f"{session.id}: times that no calendar has")
    lifetime = report.seconds.get("lifetime")
    born = session.created if lifetime is None else report.ended_at - lifetime
    began = min(session.created, report.ended_at)
    ending = [report.seconds[phase] for phase in ("killing", "files") if phase in report.seconds]
    return Span(
        session.id,
        session.kind,
        session.browser,
        session.owner_name,
        session.owner.pid,
        report.containment,
        began,
        ended=report.ended_at,
        reason=report.reason,
        clean=report.clean,
        certificate=report.certificate,
        processes=lives_of(report, born),
        survivors=tuple(f"{s.name} (pid {s.pid}, {s.state}, {s.wchan})" for s in report.survivors),
        problems=report.problems,
        notes=report.notes,
        files_removed=report.files_removed,
        bytes_freed=report.bytes_freed,
        start_seconds=report.seconds.get("start"),
        teardown_seconds=sum(ending) if ending else None,
        memory=tuple((min(born + age, report.ended_at), size) for age, size in report.memory),
    )


def lives_of(report: ExitReport, born: float) -> tuple[Life, ...]:
    """The first process is started within milliseconds of the guard, which was born at ``born``."""
    first = min((process.start for process in report.processes), default=0.0)
    found = []
    for process in report.processes:
        began = min(born + process.start - first, report.ended_at)
        ended = None if process.ended is None else max(began, born + process.ended)
        facts = (process.code, process.signal, process.adopted)
        outcome = process.outcome or "survived"
        found.append(Life(process.pid, process.name, began, ended, outcome, *facts))
    return tuple(found)


def span_of_row(row: Row, now: float) -> Span:
    session, platform = row.record.session, platform_of(row.record.session)
    clock = now - platform.now()  # epoch seconds at the zero of the platform's start times
    born = session.created
    if on_this_host(row.record):
        born = min((guard.start + clock for guard in row.record.guards), default=born)
    processes = tuple(
        Life(p.pid, p.name, p.identity.start + clock, None, "zombie" if p.is_zombie else LIVES)
        for p in row.processes
    )
    looks = ((born + age, size) for age, size in row.record.memory)
    return Span(
        session.id,
        session.kind,
        session.browser,
        session.owner_name,
        session.owner.pid,
        session.containment,
        min(session.created, now),
        state=row.state,
        processes=processes,
        memory=tuple(looks),
    )


__all__ = ["Life", "Percentiles", "Span", "Timeline", "timeline", "timeline_of"]
