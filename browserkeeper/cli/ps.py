"""``browserkeeper ps``: what the ledger says is alive, and what is really there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import click

from ..ledger import BadRecord, Ledger, Record
from ..process.identity import ProcessFacts
from ..sweeper import State, platform_of, remnants_of, state_of
from . import output

ZOMBIE_PATIENCE = 0.3
"""Seconds that a zombie may last: its parent, and the guard, need a moment to reap it."""
STYLES: dict[State, str] = {"orphaned": "red", "unguarded": "yellow", "foreign": "dim"}
WHAT_TO_DO = {
    "orphaned": "`browserkeeper sweep --yes` ends what is left of it",
    "unguarded": "its guard was killed; its owner ends it when it notices",
    "zombie": "its parent does not reap it; `browserkeeper doctor` looks at PID 1",
    "bad record": "`browserkeeper sweep --yes` removes it",
    "foreign record": "not ours, or of another version; look at it, then remove it by hand",
}


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


@click.command()
@click.option("--tree", is_flag=True, help="Show every process of each session.")
@output.json_option
def command(tree: bool, as_json: bool) -> int:
    """List the live sessions, and what is wrong with any of them.

    Memory is the proportional share (PSS), so that it adds up. States: live; ending (its owner
    is gone, its guard is at work); unguarded (its guard was killed); orphaned (both are gone);
    foreign (of another container that shares the state directory).

    Exit status: 0 all is well; 1 there is an orphaned session, a record that cannot be believed,
    or a zombie.

    \b
    Example:
      browserkeeper ps --tree
    """
    found = list(Ledger.open().records())
    rows = settle([row for record in found if isinstance(record, Record) and (row := look(record))])
    bad = [record for record in found if isinstance(record, BadRecord)]
    problems = list(troubles(rows, bad))
    failed = any(kind != "unguarded" for kind, _ in problems)
    if as_json:
        output.print_json(document(rows, bad, ok=not failed))
    else:
        show(rows, tree=tree)
        for kind, what in problems:
            output.print_line(f"{kind}: {what}; {WHAT_TO_DO[kind]}.", "red")
    return int(failed)


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
    if state in ("live", "ending"):
        below = {process.pid: process for pid in guards for process in platform.tree(pid)}
        return tuple(process for pid, process in below.items() if pid not in guards)
    if state == "foreign" or not on_this_host(record):
        return ()
    # `run`'s front process bears the marker too, but it is the owner.
    owner = record.session.owner
    found = remnants_of(record).find()
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
            left = output.count(len(row.processes), "process")
            yield row.state, f"{session.browser} session {session.id}, {left}"
        for pid in sorted(row.zombies):
            yield "zombie", f"pid {pid} of session {session.id}"
    for record in bad:
        yield "bad record" if record.corrupt else "foreign record", record.why


def document(rows: list[Row], bad: list[BadRecord], *, ok: bool) -> dict[str, Any]:
    return {
        "ok": ok,
        "sessions": [row.to_dict() for row in rows],
        "bad_records": [
            {"path": str(record.path), "why": record.why, "foreign": not record.corrupt}
            for record in bad
        ],
    }


def show(rows: list[Row], *, tree: bool) -> None:
    if not rows:
        output.print_line("No live sessions.")
        return
    columns = ["session", "kind", "browser", "state", "owner", "age", "procs", "memory", "contained"]
    styles = [STYLES.get(row.state, "") for row in rows]
    output.print_table([*columns, "deadline"], [cells(row) for row in rows], styles)
    for row in rows if tree else ():
        output.print_tree(tree_of(row))


def cells(row: Row) -> list[str]:
    session = row.record.session
    return [
        session.id,
        session.kind,
        session.browser,
        row.state,
        f"{session.owner_name} ({session.owner.pid})",
        output.duration(row.age),
        str(len(row.processes)),
        output.megabytes(sum(row.memory.values())),
        session.containment,
        output.duration(row.deadline_left),
    ]


def tree_of(row: Row) -> output.Node:
    """Roots are those whose parents are none of the session's: the guard's children, or orphans."""
    below: dict[int, list[ProcessFacts]] = {}
    pids = {process.pid for process in row.processes}
    for process in row.processes:
        below.setdefault(process.parent if process.parent in pids else 0, []).append(process)

    def node(process: ProcessFacts) -> output.Node:
        children = tuple(map(node, below.get(process.pid, ())))
        style = "red" if process.pid in row.zombies else ""
        return output.Node(line(row, process), style, children)

    session = row.record.session
    guards = " and ".join(str(guard.pid) for guard in row.record.guards)
    head = f"{session.browser} session {session.id}: {row.state}, guarded by {guards}"
    return output.Node(head, STYLES.get(row.state, "bold"), tuple(map(node, below.get(0, ()))))


def line(row: Row, process: ProcessFacts) -> str:
    mark = " ZOMBIE" if process.pid in row.zombies else ""
    size = output.megabytes(row.memory[process.pid])
    return f"{process.pid} {process.name} {process.state} {size}{mark}"
