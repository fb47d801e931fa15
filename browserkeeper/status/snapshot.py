"""The sessions and pools of this host at this moment: records of the ledger, and the processes that are
really there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..cleanup.evidence import (
    State,
    age_of_session,
    is_of_this_boot,
    leftover_processes_of,
    platform_of,
    verdict_of,
)
from ..cleanup.pool_evidence import lease_labels, living_pools
from ..options.labels import matches
from ..process import Platform, is_alive, require_own_proc
from ..process.identity import ProcessFacts
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.pool_state import PoolState
from ..state.records import Record
from .host_gate import HostGate, host_gate

ZOMBIE_PATIENCE = 0.5
"""Seconds that a zombie may last before it is reported: its parent, or the guard, needs a moment to
reap it.  Celery's inspect waits for an answer for a second."""
LONG_ZOMBIE_PATIENCE = 2.0
"""The same where no limit is close: on a busy machine a guard may not run for half a second."""
ZOMBIE_PAUSE = 0.1
"""Seconds between two looks whether zombies are reaped."""


@dataclasses.dataclass(frozen=True)
class SessionStatus:
    """A record, and the processes of its session now.  ``memory``: bytes by pid, empty if it was not
    read; ``zombies``: the pids of zombies that were still there after ``zombie_patience`` seconds;
    ``why``: why a foreign session is not ours to judge; ``lease``: the label of the lease that
    has this browser of a pool at the moment, "" without one."""

    record: Record
    state: State
    processes: tuple[ProcessFacts, ...]
    memory: dict[int, int]
    zombies: frozenset[int] = frozenset()
    why: str = ""
    lease: str = ""

    @property
    def label(self) -> str:
        """The name that is shown: the lease's, or else the session's own; "" without one."""
        return self.lease or self.record.session.label

    def is_named(self, pattern: str) -> bool:
        """Does the lease's label or the session's own fit the pattern (``options.labels.matches``)?"""
        return matches(self.lease, pattern) or matches(self.record.session.label, pattern)

    @property
    def age(self) -> float:
        """Seconds since the session began; see :func:`age_of_session`."""
        return age_of_session(self.record)

    @property
    def deadline_left(self) -> float | None:
        """Seconds, negative after the deadline; None without a deadline."""
        session = self.record.session
        return None if session.deadline is None else session.deadline - session.created - self.age

    def to_dict(self) -> dict[str, Any]:
        session = self.record.session
        return {
            **dataclasses.asdict(session),
            "state": self.state,
            "why": self.why,
            "label": self.label,
            "own_label": session.label,
            "owner": {**dataclasses.asdict(session.owner), "name": session.owner_name},
            "guards": [dataclasses.asdict(guard) for guard in self.record.guards],
            "age": self.age,
            "deadline_left": self.deadline_left,
            "memory": sum(self.memory.values()),
            "processes": [
                {
                    "pid": process.pid,
                    "start": process.identity.start,
                    "parent": process.parent,
                    "name": process.name,
                    "state": process.state,
                    "memory": self.memory[process.pid],
                }
                for process in self.processes
            ],
            "zombies": sorted(self.zombies),
        }


class Problem(NamedTuple):
    """``kind``: orphaned, unguarded, zombie, bad record, foreign record or host.  ``what``: the session,
    process or record that has the problem; for the host, what is wrong with its limits or its slots."""

    kind: str
    what: str


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All sessions of this host, oldest first, the pools of living processes, and the records that are
    not valid."""

    sessions: tuple[SessionStatus, ...]
    pools: tuple[PoolState, ...]
    bad_records: tuple[BadRecord, ...]
    problems: tuple[Problem, ...]
    host: HostGate | None = None
    """None where the host has no limit, no start waits, and it is not drained; or if it was not read."""

    def labelled(self, patterns: Sequence[str]) -> Snapshot:
        """Only the sessions and pools with a label that fits one of the patterns, and their problems;
        and all records that are not valid, whose labels are not known.  Everything, without a pattern.
        """
        if not patterns:
            return self
        sessions = tuple(s for s in self.sessions if any(map(s.is_named, patterns)))
        pools = tuple(p for p in self.pools if any(map(p.is_named, patterns)))
        problems = tuple(problems_of(sessions, self.bad_records, self.host))
        return dataclasses.replace(self, sessions=sessions, pools=pools, problems=problems)

    @property
    def ok(self) -> bool:
        """True unless a person has to act.  An unguarded session is ended by its owner."""
        return all(problem.kind == "unguarded" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "sessions": [session.to_dict() for session in self.sessions],
            "pools": [pool.to_dict() for pool in self.pools],
            "bad_records": [
                {"path": str(record.path), "why": record.why, "foreign": not record.corrupt}
                for record in self.bad_records
            ],
            **({} if self.host is None else {"host": self.host.to_dict()}),
        }


def snapshot(
    *, with_memory: bool = True, with_host: bool = True, zombie_patience: float = ZOMBIE_PATIENCE
) -> Snapshot:
    """Reads the ledger and the processes behind it.  Blocks for ``zombie_patience`` seconds at most, if
    there are zombies.

    ``with_memory``: also what each process has, which takes the kernel milliseconds for a browser, and
    as long as it likes for one that waits for a lock of its memory map.  ``with_host``: also the host's
    limits and slots.

    Raises LedgerError if the state directory cannot be used, and ContainmentError where ``/proc`` shows
    another pid namespace than this process's.
    """
    require_own_proc()
    ledger = Ledger.open()
    found = list(ledger.records())
    records = sorted((r for r in found if isinstance(r, Record)), key=lambda r: r.session.created)
    seen = (status_of(record, with_memory=with_memory) for record in records)
    sessions = mark_zombies([status for status in seen if status], zombie_patience)
    bad = [record for record in found if isinstance(record, BadRecord)]
    pools = living_pools(ledger)
    leases = lease_labels(pools)
    sessions = [dataclasses.replace(s, lease=leases.get(s.record.session.id, "")) for s in sessions]
    host = host_gate(ledger) if with_host else None
    problems = problems_of(sessions, bad, host)
    return Snapshot(tuple(sessions), tuple(pools), tuple(bad), tuple(problems), host)


def status_of(record: Record, *, with_memory: bool) -> SessionStatus | None:
    """None if the session ended normally since its record was read."""
    verdict = verdict_of(record)
    state = verdict.state
    if state in ("unguarded", "orphaned", "foreign") and not record.path.exists():
        return None  # a guard removes the record before it exits
    processes = processes_of(record, state)
    platform = platform_of(record.session)
    memory = {p.pid: platform.memory(p.pid) for p in processes} if with_memory else {}
    return SessionStatus(record, state, processes, memory, why=verdict.why)


def processes_of(record: Record, state: State) -> tuple[ProcessFacts, ...]:
    """While a guard lives: its descendants (of an adopted session: the recorded processes).  After that:
    the processes that a sweep would find.  None of another host's session."""
    platform = platform_of(record.session)
    guards = {guard.pid for guard in record.guards if is_alive(guard, platform)}
    if record.session.containment == "adopted" and state in ("live", "ending"):
        recorded = [(identity, platform.facts(identity.pid)) for identity, _ in record.processes]
        return tuple(p for known, p in recorded if p and known.is_same_as(p.identity))
    if state in ("live", "ending"):
        below = {process.pid: process for pid in guards for process in platform.tree(pid)}
        return tuple(process for pid, process in below.items() if pid not in guards)
    if state == "foreign" or not is_of_this_boot(record):
        return ()
    # The front process of `browserkeeper run` bears the session's marker too, but it is the owner.
    owner = record.session.owner
    found = leftover_processes_of(record).find()
    return tuple(process for process in found if not owner.is_same_as(process.identity))


def mark_zombies(sessions: list[SessionStatus], patience: float) -> list[SessionStatus]:
    """Fills in ``zombies``: the processes that are zombies now, and still are ``patience`` seconds
    later."""
    wait_for_reaping(lambda: any(_zombies_of(status) for status in sessions), patience)
    marked = []
    for status in sessions:
        pids = frozenset(zombie.pid for zombie in _zombies_of(status))
        marked.append(dataclasses.replace(status, zombies=pids))
    return marked


def _zombies_of(status: SessionStatus) -> list[ProcessFacts]:
    return list(still_zombies(status.processes, platform_of(status.record.session)))


def wait_for_reaping(are_left: Callable[[], bool], patience: float) -> None:
    """Block while zombies are left, for ``patience`` seconds at most."""
    until = time.monotonic() + patience
    while are_left() and time.monotonic() < until:
        time.sleep(ZOMBIE_PAUSE)


def still_zombies(processes: Iterable[ProcessFacts], platform: Platform) -> Iterator[ProcessFacts]:
    """The zombies among these processes that are still there, as they are now."""
    for process in processes:
        now = platform.facts(process.pid) if process.is_zombie else None
        if now and now.is_zombie and process.identity.is_same_as(now.identity):
            yield now


def problems_of(
    sessions: Iterable[SessionStatus], bad: Iterable[BadRecord], host: HostGate | None
) -> Iterator[Problem]:
    for status in sessions:
        session = status.record.session
        if status.state in ("orphaned", "unguarded"):
            number = len(status.processes)
            left = f"{number} process{'' if number == 1 else 'es'}"
            yield Problem(status.state, f"{session.browser} session {session.name}, {left}")
        for pid in sorted(status.zombies):
            yield Problem("zombie", f"pid {pid} of session {session.id}")
    for record in bad:
        yield Problem("bad record" if record.corrupt else "foreign record", record.why)
    if host is not None and host.state.problem:
        yield Problem("host", host.state.problem.rstrip("."))


__all__ = ["LONG_ZOMBIE_PATIENCE", "ZOMBIE_PAUSE", "Problem", "SessionStatus", "Snapshot", "snapshot"]
