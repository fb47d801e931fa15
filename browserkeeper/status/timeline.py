"""The sessions of the last hours, with their processes and their memory, in epoch seconds.

Sources are the history and the snapshot.  A guard's times count from its own start, and a process's
start time counts from boot; both are converted with the session's end (or, while it lives, with the
present), which is known on both clocks.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..cleanup.evidence import is_of_this_boot, platform_of
from ..report import ExitReport
from ..state.ledger import HISTORY_LIMIT, Ledger
from ..state.records import EndedSession
from .snapshot import SessionStatus, snapshot

ALIVE = "lives"
"""The outcome of a process that has not ended."""
FAR_FUTURE = 1e11
"""Epoch seconds; the calendar of ``datetime`` ends later."""


@dataclasses.dataclass(frozen=True)
class ProcessSpan:
    """When a process began and ended.

    ``outcome``: that of ProcessExit, else ALIVE, ``zombie`` or ``survived``.  ``ended``: None while
    it is alive, and where its end was not observed.
    """

    pid: int
    name: str
    began: float
    ended: float | None
    outcome: str
    code: int | None = None
    signal: int | None = None
    adopted: bool = False


@dataclasses.dataclass(frozen=True)
class SessionSpan:
    """When a session began and ended, and what its ExitReport says.

    ``state``: that of ``browserkeeper ps``, or ``ended``.  ``reason`` and ``clean``: those of the
    report; "" and None while the session lives.  ``memory``: pairs of epoch seconds and bytes.
    ``label``: the session's name, "" without one; of a browser that a pool leases, the lease's.
    ``commands``: the last ones of a session that ended badly, as texts.
    """

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
    processes: tuple[ProcessSpan, ...] = ()
    survivors: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files_removed: int = 0
    bytes_freed: int = 0
    start_seconds: float | None = None
    teardown_seconds: float | None = None
    memory: tuple[tuple[float, int], ...] = ()
    label: str = ""
    commands: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """The reason of its end; its state while it lives."""
        return self.reason or self.state

    @property
    def peak(self) -> int | None:
        """The largest memory in bytes; None if it was never measured."""
        return max((size for _, size in self.memory), default=None)

    def lasted(self, now: float) -> float:
        """Seconds from its begin to its end, or to ``now`` while it lives."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)


@dataclasses.dataclass(frozen=True)
class Percentiles:
    """Of durations in seconds, by nearest rank: each is one of the values."""

    number: int
    p50: float
    p90: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Percentiles | None:
        """None if no value is a number."""
        numbers = sorted(value for value in values if value is not None)
        if not numbers:
            return None

        def rank(share: float) -> float:
            return numbers[math.ceil(share * len(numbers)) - 1]

        return cls(len(numbers), rank(0.5), rank(0.9), rank(0.99), numbers[-1])


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The sessions that lived at any time between ``since`` and ``until``, newest first.

    ``truncated``: the history does not reach back to ``since``, so earlier sessions are missing.
    ``unreadable``: how many records are not valid, and missing as well.
    """

    since: float
    until: float
    sessions: tuple[SessionSpan, ...]
    truncated: bool = False
    unreadable: int = 0

    @property
    def live(self) -> tuple[SessionSpan, ...]:
        return tuple(span for span in self.sessions if span.state != "ended")

    @property
    def unclean(self) -> tuple[SessionSpan, ...]:
        """EndedSession, and something was left, or it is not proved that nothing was."""
        return tuple(span for span in self.sessions if span.clean is False)

    @property
    def outcomes(self) -> tuple[tuple[str, tuple[SessionSpan, ...]], ...]:
        """Reasons with their sessions, the most frequent reason first."""
        found: dict[str, list[SessionSpan]] = collections.defaultdict(list)
        for span in self.sessions:
            if span.state == "ended":
                found[span.reason].append(span)
        by_number = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        return tuple((reason, tuple(spans)) for reason, spans in by_number)

    @property
    def longest(self) -> tuple[SessionSpan, ...]:
        return tuple(sorted(self.sessions, key=lambda span: -span.lasted(self.until)))

    @property
    def bytes_freed(self) -> int:
        return sum(span.bytes_freed for span in self.sessions)

    @property
    def start(self) -> Percentiles | None:
        """From ``start()`` to a browser; without failed launches."""
        return Percentiles.of(span.start_seconds for span in self.sessions)

    @property
    def teardown(self) -> Percentiles | None:
        """For killing, reaping and removing files."""
        return Percentiles.of(span.teardown_seconds for span in self.sessions)

    def alive_over_time(self) -> list[tuple[float, int]]:
        """Pairs of epoch seconds and how many sessions there are from then on."""
        begins = [(span.began, 1) for span in self.sessions]
        ends = [(span.ended, -1) for span in self.sessions if span.ended is not None]
        return running_sum(begins + ends)

    def memory_over_time(self) -> list[tuple[float, int]]:
        """Pairs of epoch seconds and bytes of all sessions from then on; each session counts with
        its last measurement until its end."""
        changes = []
        for span in self.sessions:
            sizes = [0, *(size for _, size in span.memory)]
            steps = [after - before for before, after in itertools.pairwise(sizes)]
            changes += [(when, step) for (when, _), step in zip(span.memory, steps, strict=True)]
            if span.ended is not None:
                changes.append((span.ended, -sizes[-1]))
        return running_sum(changes)

    def to_dict(self) -> dict[str, Any]:
        outcomes = {
            reason: {"sessions": len(spans), "not_clean": sum(span.clean is False for span in spans)}
            for reason, spans in self.outcomes
        }
        return {
            "since": self.since,
            "until": self.until,
            "history_cut": self.truncated,
            "unreadable_records": self.unreadable,
            "live": len(self.live),
            "outcomes": outcomes,
            "start_seconds": self.start and dataclasses.asdict(self.start),
            "teardown_seconds": self.teardown and dataclasses.asdict(self.teardown),
            "bytes_freed": self.bytes_freed,
            "peak_memory": max((size for _, size in self.memory_over_time()), default=None),
            "sessions": [dataclasses.asdict(span) for span in self.sessions],
        }


def running_sum(changes: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """The sum of all changes up to each moment, ordered by time."""
    total, sums = 0, []
    for when, group in itertools.groupby(sorted(changes), key=lambda change: change[0]):
        total += sum(step for _, step in group)
        sums.append((when, total))
    return sums


# ------------------------------------------------------------------------------ from the ledger


def timeline(seconds: float) -> Timeline:
    """The last so many seconds of this host.  Raises LedgerError if the state directory cannot be
    used."""
    ledger = Ledger.open()
    now = snapshot()
    # Read the live sessions first: one that ends between the two reads is in the history by then.
    ended = list(ledger.ended())
    unreadable = len(now.bad_records)
    return timeline_of(now.sessions, ended, unreadable, now=time.time(), seconds=seconds)


def timeline_of(
    live: Sequence[SessionStatus],
    ended: Sequence[EndedSession],
    unreadable: int,
    *,
    now: float,
    seconds: float,
) -> Timeline:
    """A session that is in both ``live`` and ``ended`` counts as ended."""
    since = now - seconds
    past = []
    for one in ended:
        try:
            past.append(span_of_ended(one))
        except (TypeError, ValueError):
            unreadable += 1
    gone = {span.id for span in past}
    present = [span_of_live(status, now) for status in live if status.record.session.id not in gone]
    in_window = [span for span in present + past if span.ended is None or span.ended >= since]
    sessions = sorted(in_window, key=lambda span: (-span.began, span.id))
    oldest = min((span.ended or 0.0 for span in past), default=0.0)
    truncated = len(ended) >= HISTORY_LIMIT and oldest > since
    return Timeline(since, now, tuple(sessions), truncated, unreadable)


def span_of_ended(one: EndedSession) -> SessionSpan:
    """Raises TypeError or ValueError if its times are no times."""
    session, report = one.session, one.report
    if not (0 <= session.created < FAR_FUTURE and 0 <= report.ended_at < FAR_FUTURE):
        raise ValueError(f"{session.id}: a time that no calendar has")
    lifetime = report.seconds.get("lifetime")
    born = session.created if lifetime is None else report.ended_at - lifetime
    began = min(session.created, report.ended_at)
    ending = [report.seconds[phase] for phase in ("killing", "files") if phase in report.seconds]
    return SessionSpan(
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
        processes=process_spans(report, born),
        survivors=tuple(f"{s.name} (pid {s.pid}, {s.state}, {s.wchan})" for s in report.survivors),
        problems=report.problems,
        notes=report.notes,
        files_removed=report.files_removed,
        bytes_freed=report.bytes_freed,
        start_seconds=report.seconds.get("start"),
        teardown_seconds=sum(ending) if ending else None,
        memory=tuple((min(born + age, report.ended_at), size) for age, size in report.memory),
        label=one.label,
        commands=tuple(map(str, report.commands)),
    )


def process_spans(report: ExitReport, born: float) -> tuple[ProcessSpan, ...]:
    """``born``: when the guard started.  It starts the first process within milliseconds, so that moment
    is taken for the first process's start."""
    first = min((process.start for process in report.processes), default=0.0)
    spans = []
    for process in report.processes:
        began = min(born + process.start - first, report.ended_at)
        ended = None if process.ended is None else max(began, born + process.ended)
        facts = (process.code, process.signal, process.adopted)
        outcome = process.outcome or "survived"
        spans.append(ProcessSpan(process.pid, process.name, began, ended, outcome, *facts))
    return tuple(spans)


def span_of_live(status: SessionStatus, now: float) -> SessionSpan:
    record, session = status.record, status.record.session
    platform = platform_of(session)
    clock = now - platform.now()  # epoch seconds at the zero of the platform's start times
    born = session.created
    if is_of_this_boot(record):
        born = min((guard.start + clock for guard in record.guards), default=born)
    processes = tuple(
        ProcessSpan(p.pid, p.name, p.identity.start + clock, None, "zombie" if p.is_zombie else ALIVE)
        for p in status.processes
    )
    return SessionSpan(
        session.id,
        session.kind,
        session.browser,
        session.owner_name,
        session.owner.pid,
        session.containment,
        min(session.created, now),
        state=status.state,
        processes=processes,
        memory=tuple((born + age, size) for age, size in record.memory),
        label=status.label,
    )


__all__ = ["ALIVE", "Percentiles", "ProcessSpan", "SessionSpan", "Timeline", "timeline", "timeline_of"]
