"""Sessions that are not as they should be, but have somebody whose they are: noticed, not touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..cleanup.evidence import platform_of
from ..process.identity import ProcessIdentity
from ..status.snapshot import Row
from .notices import Notice

GRACE = 10.0
"""Seconds past its deadline; a guard needs less than one, and half of ``close_timeout`` before
that where a profile is to be kept."""


def look_at(rows: Iterable[Row]) -> Iterator[Notice]:
    for row in rows:
        if row.state in ("live", "ending"):
            yield from _guarded(row)
        if row.state == "unguarded":
            yield _unguarded(row)


def _guarded(row: Row) -> Iterator[Notice]:
    stopped = [guard for guard in row.record.guards if _is_stopped(row, guard)]
    pids = " ".join(str(guard.pid) for guard in stopped)
    wake = f"Wake it: kill -CONT {pids}." if stopped else ""
    session = row.record.session.id
    if stopped:
        message = f"{_name(row)}: its guard (pid {pids}) is stopped, and would not see its owner die."
        yield Notice("guard-stopped", session, message, wake, session)
    left = row.deadline_left
    if left is not None and left < -GRACE:
        message = f"{_name(row)} is {-left:.0f} s past its deadline, and its guard has not ended it."
        owner = row.record.session.owner
        ask = f"Look at its processes (browserkeeper ps --tree), or end its owner (pid {owner.pid})."
        yield Notice("overdue", session, message, wake or ask, session)


def _unguarded(row: Row) -> Notice:
    owner = row.record.session
    message = (
        f"{_name(row)}: its guards were killed; {len(row.processes)} of its processes are left. Its "
        f"owner {owner.owner_name} (pid {owner.owner.pid}) lives, and ends them when it next looks."
    )
    remedy = "Find out who kills guards (the OOM killer? dmesg says so); end the owner if it is stuck."
    return Notice("unguarded", owner.id, message, remedy, owner.id)


def _name(row: Row) -> str:
    return f"{row.record.session.browser} session {row.record.session.id}"


def _is_stopped(row: Row, guard: ProcessIdentity) -> bool:
    found = platform_of(row.record.session).facts(guard.pid)
    return found is not None and guard.is_same_as(found.identity) and found.state in "Tt"
