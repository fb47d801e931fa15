"""What a start that waits, or that was refused, is told: the limit, who holds the slots, who waits."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..errors import Claimant, HostBusy
from . import memory
from .decision import Reason
from .limits import HostLimits, Kind
from .overview import GateState

MOST_SHOWN = 12
"""Holders, and waiting starts, that a message lists."""
_NOUNS = {"grid": ("session on a Grid", "sessions on Grids"), "browser": ("browser", "browsers")}


def why(state: GateState, kind: Kind, limits: HostLimits, reason: Reason | None, detail: str) -> str:
    """One sentence without a full stop: what a start waits for."""
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
    count, bound = len(state.counted(kind)), limits.most(kind)
    nouns = _NOUNS["grid" if kind == "grid" else "browser"]
    noun = nouns[count != 1]
    if reason is None:
        return f"other starts wait before this one, beside {count} {noun}"
    return f"{count} {noun} run or start, and {bound.where if bound else 'a limit'} is set"


def busy(
    state: GateState,
    kind: Kind,
    limits: HostLimits,
    reason: Reason | None,
    detail: str,
    waited: float,
) -> HostBusy:
    """The error for a start that got no slot."""
    noun = _NOUNS["grid" if kind == "grid" else "browser"][0]
    head = f"No {noun} may be started now"
    if waited >= 0.1:
        head = f"No {noun} could be started within {waited:.1f} s"
    holders, bound = state.counted(kind), limits.most(kind)
    parts = [f"{head}: {why(state, kind, limits, reason, detail)}."]
    if holders:
        parts.append(f"Held by {_listed(holders)}.")
    if others := [*state.waiting, *state.standby]:
        parts.append(f"Waiting: {_listed(others)}.")
    if reason in ("full", None):
        parts.append("Raise the limit, wait longer with wait=, or end one of them.")
    return HostBusy(
        " ".join(parts),
        reason or "full",
        limit=bound.value if bound is not None else None,
        limit_source=bound.where if bound is not None else "",
        holders=holders,
        waiting=tuple(others),
        waited=waited,
    )


def _listed(claimants: Iterable[Claimant]) -> str:
    found = list(claimants)
    shown = ", ".join(_one(one) for one in found[:MOST_SHOWN])
    return f"{shown} and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else shown


def _one(one: Claimant) -> str:
    label = f", {one.label!r}" if one.label else ""
    return f"{one.program} (pid {one.pid}{label}, for {max(0.0, time.time() - one.since):.0f} s)"


__all__ = ["busy", "why"]
