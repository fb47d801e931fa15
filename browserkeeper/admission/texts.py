"""What a start that waits, or that was refused, is told: the limit, who holds the slots, who waits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from ..errors import Claimant, HostBusy
from ..process import own_name
from . import memory
from .decision import Reason
from .limits import HostLimits, Kind, effective
from .overview import GateState
from .request import SlotRequest
from .slots import TEXT_LIMIT

MOST_SHOWN = 12
"""Holders, and waiting starts, that a message lists."""
_REMEDIES = {
    "full": "End one of them (`browserkeeper end`), raise the limit, or wait longer with wait=.",
    "memory": "End browsers or other programs, lower the bound, or wait longer with wait=.",
    "draining": "`browserkeeper resume` lets sessions start again.",
    "limits": "Mend the file: starts wait until then.",
}
_NOUNS = {"grid": ("session on a Grid", "sessions on Grids"), "browser": ("browser", "browsers")}


def why(
    state: GateState,
    kind: Kind,
    limits: HostLimits,
    reason: Reason | None,
    detail: str,
    *,
    in_pool: bool = False,
) -> str:
    """One sentence without a full stop: what a start waits for.  ``in_pool``: it is a pool's launch,
    which other browsers of the same program are expected beside."""
    if reason == "limits":
        return f"the host's limits are not known: {detail.rstrip('.')}"
    if reason == "draining":
        return detail or state.draining
    if reason == "memory":
        bound = limits.memory(kind)
        ages = [time.time() - one.since for one in state.held if one.kind == "browser"]
        free = memory.free_for_a_start(ages)
        left = (
            "too little memory is left"
            if free is None
            else f"{memory.size_text(free)} of memory is left"
        )
        return f"{left}, and {bound.where if bound else 'a bound on it'} is set"
    holders, bound = state.counted(kind), limits.most(kind)
    own = "" if in_pool else _own(holders)
    count = f"{len(holders)} {_NOUNS[_counted_as(kind)][len(holders) != 1]}"
    if reason is None:
        return f"other starts wait before this one, beside {count}{own}"
    runs = "runs or starts" if len(holders) == 1 else "run or start"
    return f"{count} {runs}, and {bound.where if bound else 'a limit'} is set{own}"


def _counted_as(kind: Kind) -> str:
    return "grid" if kind == "grid" else "browser"


def _own(holders: Iterable[Claimant]) -> str:
    """A hint where the program that waits holds slots itself, "" where it does not."""
    program = own_name()[:TEXT_LIMIT]
    own = sum(one.pid == os.getpid() and one.program == program for one in holders)
    if not own:
        return ""
    return (
        f"; this very program, pid {os.getpid()}, holds {own} of the slots. A start inside the `with` "
        "block of another session of it can wait for itself"
    )


def busy(
    state: GateState,
    kind: Kind,
    limits: HostLimits,
    reason: Reason | None,
    detail: str,
    waited: float,
    *,
    in_pool: bool = False,
) -> HostBusy:
    """The error for a start that got no slot; ``in_pool``: that of a pool."""
    noun = _NOUNS[_counted_as(kind)][0]
    head = f"No {noun} may be started now"
    if waited >= 0.1:
        head = f"No {noun} could be started within {waited:.1f} s"
    holders, bound = state.counted(kind), limits.most(kind)
    parts = [f"{head}: {why(state, kind, limits, reason, detail, in_pool=in_pool)}."]
    if holders:
        parts.append(f"Held by {_listed(holders)}.")
    if others := [*state.waiting, *state.standby]:
        parts.append(f"Waiting: {_listed(others)}.")
    remedy = _REMEDIES[reason or "full"]
    parts.append(remedy.replace("wait=", "checkout_timeout=") if in_pool else remedy)
    return HostBusy(
        " ".join(parts),
        reason or "full",
        limit=bound.value if bound is not None else None,
        limit_source=bound.where if bound is not None else "",
        holders=holders,
        waiting=tuple(others),
        waited=waited,
    )


def explain(state: GateState, request: SlotRequest) -> HostBusy:
    """What a launch of a pool, which waits without a limit of its own, waits for now."""
    limits = effective(state.limits, max_browsers=request.max_browsers, min_memory=request.min_memory)
    reason: Reason | None = None
    most = limits.most(request.kind)
    if state.problem:
        reason = "limits"
    elif state.draining:
        reason = "draining"
    elif most is not None and len(state.counted(request.kind)) >= most.value:
        reason = "full"
    elif limits.memory(request.kind) is not None:
        reason = "memory"
    return busy(state, request.kind, limits, reason, state.problem, 0.0, in_pool=True)


def _listed(claimants: Iterable[Claimant]) -> str:
    found = list(claimants)
    shown = ", ".join(_one(one) for one in found[:MOST_SHOWN])
    return f"{shown} and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else shown


def _one(one: Claimant) -> str:
    label = f", {one.label!r}" if one.label else ""
    return f"{one.program} (pid {one.pid}{label}, for {max(0.0, time.time() - one.since):.0f} s)"


__all__ = ["busy", "explain", "why"]
