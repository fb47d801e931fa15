"""The host's gate as text: what ``ps`` and ``top`` say of it below the sessions."""

from __future__ import annotations

from collections.abc import Iterator

from ..admission.limits import Bound
from ..admission.memory import size_text
from ..errors import Claimant
from ..status.host_gate import HostGate
from . import output

MOST_WAITING = 10
"""Starts that wait and are listed."""


def host_lines(host: HostGate) -> Iterator[tuple[str, str]]:
    """Pairs of a line and its style: a summary, a drain, and each start that waits."""
    yield f"Host: {', '.join(_facts(host))}; {_waiting(host)}.", ""
    if host.state.draining:
        yield f"Host: no session starts: {host.state.draining.rstrip('.')}.", "yellow"
    queue = [("waits", one) for one in host.state.waiting]
    queue += [("waits, as a standby", one) for one in host.state.standby]
    for what, one in queue[:MOST_WAITING]:
        yield f"  {what}: {_claimant(host, one)}", ""
    if len(queue) > MOST_WAITING:
        yield f"  … and {len(queue) - MOST_WAITING} more, see --json.", ""


def _facts(host: HostGate) -> Iterator[str]:
    limits = host.state.limits
    yield _count(host.browsers, "browser", "browsers", limits.max_browsers)
    if host.grid_sessions or limits.max_grid_sessions:
        yield _count(host.grid_sessions, "Grid session", "Grid sessions", limits.max_grid_sessions)
    if limits.min_memory is not None:
        left = "an unknown amount" if host.memory_left is None else size_text(host.memory_left)
        least = size_text(limits.min_memory.value)
        yield f"{left} of memory left, of which {least} must stay ({limits.min_memory.where})"


def _count(number: int, one: str, many: str, most: Bound | None) -> str:
    if most is None:
        return f"{number} {one if number == 1 else many}"
    return f"{number} of {most.value} {many} ({most.where})"


def _waiting(host: HostGate) -> str:
    number = len(host.state.waiting) + len(host.state.standby)
    return f"{number or 'no'} {'start waits' if number in (0, 1) else 'starts wait'}"


def _claimant(host: HostGate, one: Claimant) -> str:
    label = f' "{one.label}"' if one.label else ""
    what = " for a Grid session" if one.kind == "grid" else ""
    return f"{one.program} ({one.pid}){label}{what}, for {output.duration(host.seconds(one))}"
