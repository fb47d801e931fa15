"""What the ledger says is alive on this host, and what is really there.

Facts only: the command line prints them, and Celery's workers send them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

from ..cleanup.evidence import State, leftover_processes_of, owner_state, platform_of, state_of
from ..process.identity import ProcessFacts
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.pool_state import PoolState, published
from ..state.records import Record

ZOMBIE_PATIENCE = 0.3
"""Seconds that a zombie may last: its parent, and the guard, need a moment to reap it."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One record, and the processes behind it as they are now; ``memory`` is in bytes by pid."""

    record: Record
    state: State
    processes: tuple[ProcessFacts, ...]
    memory: dict[int, int]
    zombies: frozenset[int] = frozenset()

    @property
    def age(self) -> float:
        """Seconds since the owner asked for the session."""
        return max(0.0, time.time() - self.record.session.created)

    @property
    def deadline_left(self) -> float | None:
        """Seconds; None without a deadline."""
        deadline = self.record.session.deadline
        return None if deadline is None else deadline - time.time()

    def to_dict(self) -> dict[str, Any]:
        session = self.record.session
        return {
            **dataclasses.asdict(session),
            "state": self.state,
            "owner": {**dataclasses.asdict(session.owner), "name": session.owner_name},
            "guards": [dataclasses.asdict(guard) for guard in self.record.guards],
            "age": self.age,
            "deadline_left": self.deadline_left,
            "memory": sum(self.memory.values()),
            "processes": [self._process(process) for process in self.processes],
            "zombies": sorted(self.zombies),
        }

    def _process(self, process: ProcessFacts) -> dict[str, Any]:
        return {
            "pid": process.pid,
            "start": process.identity.start,
            "parent": process.parent,
            "name": process.name,
            "state": process.state,
            "memory": self.memory[process.pid],
        }


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All sessions of this host, the pools of living processes, the records that cannot be believed,
    and what is wrong with them as (kind, what)."""

    rows: tuple[Row, ...]
    pools: tuple[PoolState, ...]
    bad: tuple[BadRecord, ...]
    problems: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        """Is there nothing that somebody has to see to?  An unguarded session's owner will."""
        return all(kind == "unguarded" for kind, _ in self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "sessions": [row.to_dict() for row in self.rows],
            "pools": [pool.to_dict() for pool in self.pools],
            "bad_records": [
                {"path": str(record.path), "why": record.why, "foreign": not record.corrupt}
                for record in self.bad
            ],
        }


def snapshot() -> Snapshot:
    """Raises LedgerError where the state directory cannot be used."""
    ledger = Ledger.open()
    found = list(ledger.records())
    records = sorted((r for r in found if isinstance(r, Record)), key=lambda r: r.session.created)
    rows = settle([row for record in records if (row := look(record))])
    bad = [record for record in found if isinstance(record, BadRecord)]
    pools = [
        pool
        for pool in published(ledger)
        if isinstance(pool, PoolState) and owner_state(pool.host, pool.owner) == "alive"
    ]
    return Snapshot(tuple(rows), tuple(pools), tuple(bad), tuple(troubles(rows, bad)))


def look(record: Record) -> Row | None:
    """The record as it stands; None where the session ended normally while we looked."""
    state = state_of(record)
    if state in ("unguarded", "orphaned") and not record.path.exists():
        return None  # a guard removes the record before it goes
    processes = members(record, state)
    platform = platform_of(record.session)
    return Row(record, state, processes, {p.pid: platform.memory(p.pid) for p in processes})


def members(record: Record, state: State) -> tuple[ProcessFacts, ...]:
    """Below the guards while one lives; by the second line's three witnesses after that."""
    platform = platform_of(record.session)
    guards = {guard.pid for guard in record.guards}
    if record.session.containment == "adopted" and state in ("live", "ending"):
        recorded = [(identity, platform.facts(identity.pid)) for identity, _ in record.processes]
        return tuple(p for known, p in recorded if p and known.is_same_as(p.identity))
    if state in ("live", "ending"):
        below = {process.pid: process for pid in guards for process in platform.tree(pid)}
        return tuple(process for pid, process in below.items() if pid not in guards)
    if state == "foreign" or not on_this_host(record):
        return ()
    # `run`'s front process bears the marker too, but it is the owner.
    owner = record.session.owner
    found = leftover_processes_of(record).find()
    return tuple(process for process in found if not owner.is_same_as(process.identity))


def on_this_host(record: Record) -> bool:
    """A record of an earlier boot is orphaned, but its pids are strangers' now."""
    from ..process import system

    return record.session.host == system.host_id()


def settle(rows: list[Row]) -> list[Row]:
    """Mark the zombies that last; the others were only waiting for their turn."""
    suspects = [row for row in rows if any(process.is_zombie for process in row.processes)]
    if suspects:
        time.sleep(ZOMBIE_PATIENCE)
    return [
        dataclasses.replace(row, zombies=frozenset(lasting(row))) if row in suspects else row
        for row in rows
    ]


def lasting(row: Row) -> Iterable[int]:
    for process in row.processes:
        now = platform_of(row.record.session).facts(process.pid) if process.is_zombie else None
        if now and now.is_zombie and process.identity.is_same_as(now.identity):
            yield process.pid


def troubles(rows: Iterable[Row], bad: Iterable[BadRecord]) -> Iterable[tuple[str, str]]:
    """(kind, what) of all that is not as it should be."""
    for row in rows:
        session = row.record.session
        if row.state in ("orphaned", "unguarded"):
            number = len(row.processes)
            left = f"{number} process{'' if number == 1 else 'es'}"
            yield row.state, f"{session.browser} session {session.id}, {left}"
        for pid in sorted(row.zombies):
            yield "zombie", f"pid {pid} of session {session.id}"
    for record in bad:
        yield "bad record" if record.corrupt else "foreign record", record.why


__all__ = ["Row", "Snapshot", "on_this_host", "snapshot"]
