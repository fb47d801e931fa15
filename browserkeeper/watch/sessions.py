"""Sessions with a problem whose owner or guard is alive: they are reported, never ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..cleanup.evidence import platform_of
from ..process.identity import ProcessIdentity
from ..status.snapshot import SessionStatus
from .notices import Notice

GRACE = 10.0
"""Seconds past its deadline until a session is reported.  A guard needs less than one to end it,
and up to half of ``close_timeout`` more where the browser has to write a profile."""


def check(found: Iterable[SessionStatus]) -> Iterator[Notice]:
    for status in found:
        if status.state in ("live", "ending"):
            yield from _guarded(status)
        if status.state == "unguarded":
            yield _unguarded(status)


def _guarded(status: SessionStatus) -> Iterator[Notice]:
    stopped = [guard for guard in status.record.guards if _is_stopped(status, guard)]
    pids = " ".join(str(guard.pid) for guard in stopped)
    wake = f"Wake it: kill -CONT {pids}." if stopped else ""
    session, label = status.record.session.id, status.record.session.label
    if stopped:
        message = (
            f"{_name(status)}: its guard (pid {pids}) is stopped, and cannot act when its owner dies."
        )
        yield Notice("guard-stopped", session, message, wake, session, label)
    left = status.deadline_left
    if left is not None and left < -GRACE:
        message = f"{_name(status)} is {-left:.0f} s past its deadline, and its guard has not ended it."
        owner = status.record.session.owner
        ask = f"Look at its processes (browserkeeper ps --tree), or end its owner (pid {owner.pid})."
        yield Notice("overdue", session, message, wake or ask, session, label)


def _unguarded(status: SessionStatus) -> Notice:
    owner = status.record.session
    message = (
        f"{_name(status)}: its guards were killed; {len(status.processes)} of its processes are left. "
        f"Its owner {owner.owner_name} (pid {owner.owner.pid}) lives, and ends them when it notices."
    )
    remedy = (
        "Find out what kills guards (dmesg names victims of the OOM killer); end the owner if it hangs."
    )
    return Notice("unguarded", owner.id, message, remedy, owner.id, owner.label)


def _name(status: SessionStatus) -> str:
    return f"{status.record.session.browser} session {status.record.session.name}"


def _is_stopped(status: SessionStatus, guard: ProcessIdentity) -> bool:
    found = platform_of(status.record.session).facts(guard.pid)
    return found is not None and guard.is_same_as(found.identity) and found.state in "Tt"
