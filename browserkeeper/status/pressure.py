"""Whether one more browser could start on this host now, and if not, why: for ``watch --listen``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..admission import drain, memory
from ..admission.gate import Gate, GateState
from ..admission.limits import QUIET, Bound, Kind
from ..admission.texts import why
from ..cleanup.pool_evidence import living_pools
from ..errors import Claimant
from ..process.limits import memory_left
from ..report import SCHEMA
from ..state.ledger import Ledger

BLOCKS = ("limits", "draining", "full", "memory")
"""What can keep browsers from starting: the words of ``HostBusy.reason``."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """Slots of one kind: of local browsers, or of sessions on a Grid.

    ``limit``: None where there is none, and ``set_by`` names the place that sets it.  ``waiting`` counts
    the starts that wait, and ``longest_wait`` is for how many seconds the first of them has waited.  A
    pool's spare browsers (``min_idle``) that wait for a slot are ``standby``, and in no other number.
    ``idle``: slots held by browsers of pools that no program uses now; a pool gives one up as soon as a
    start waits.
    """

    limit: int | None = None
    set_by: str = ""
    held: int = 0
    waiting: int = 0
    longest_wait: float = 0.0
    standby: int = 0
    idle: int = 0

    @property
    def free(self) -> int | None:
        """None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.held)


@dataclasses.dataclass(frozen=True)
class Drain:
    """An operator lets no session start; ``since`` in seconds since the epoch, ``reason`` as given."""

    since: float
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Pressure:
    """The gate at the time ``at`` (seconds since the epoch).

    ``memory_left`` and ``memory_bound`` are in bytes; None where the memory cannot be read, and where no
    bound is set.  ``blocks``: what keeps local browsers from starting now, words of BLOCKS, each with a
    sentence that says it.
    """

    at: float
    browsers: Slots
    grid: Slots
    memory_left: int | None = None
    memory_bound: int | None = None
    memory_set_by: str = ""
    drain: Drain | None = None
    blocks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why no browser could start, in plain words; "" if one could."""
        sentences = list(self.blocks.values())
        if sentences and self.browsers.waiting:
            number, longest = self.browsers.waiting, self.browsers.longest_wait
            starts = "1 start waits" if number == 1 else f"{number} starts wait"
            sentences.append(f"{starts}, the first for {longest:.0f} s.")
        return " ".join(sentences)

    def to_dict(self) -> dict[str, Any]:
        """The document of /pressure; docs/host.md lists its fields."""
        return {
            "schema": SCHEMA,
            "at": round(self.at, 3),
            "reason": self.reason,
            "blocked_by": list(self.blocks),
            **_fields("", self.browsers),
            "memory_left": self.memory_left,
            "memory_bound": self.memory_bound,
            "memory_bound_set_by": self.memory_set_by,
            "draining": self.drain is not None,
            "drain": self.drain and dataclasses.asdict(self.drain),
            **_fields("grid_", self.grid),
        }


def _fields(prefix: str, slots: Slots) -> dict[str, Any]:
    facts = {
        "slots": slots.limit,
        "slots_set_by": slots.set_by,
        "held": slots.held,
        "free": slots.free,
        "waiting": slots.waiting,
        "longest_wait": round(slots.longest_wait, 3),
        "standby": slots.standby,
        "idle": slots.idle,
    }
    return {prefix + name: value for name, value in facts.items()}


def pressure() -> Pressure:
    """Read the gate of the state directory.  Changes nothing; blocks for half a second at most.

    The limits are those of this program's environment and of ``limits.toml``.  Raises BrowserkeeperError
    if the gate cannot be read.
    """
    ledger, now = Ledger.open(), time.time()
    gate = Gate(ledger)
    state = gate.state()
    if state.problem:  # perhaps an editor that has truncated the file and writes it now
        time.sleep(QUIET)
        state = gate.state()
    drained = drain.present(ledger)
    bound = state.limits.memory("browser")
    idle = _idle_sessions(ledger)
    browsers = _slots(state, "browser", state.limits.most("browser"), idle, now)
    blocked = {
        "limits": bool(state.problem),
        "draining": drained is not None,
        "full": browsers.free == 0,
        "memory": bound is not None and _is_short(state, bound, now),
    }
    blocks = {word: _sentence(state, word) for word, holds in blocked.items() if holds}
    return Pressure(
        at=now,
        browsers=browsers,
        grid=_slots(state, "grid", state.limits.most("grid"), idle, now),
        memory_left=_memory_left(),
        memory_bound=bound.value if bound is not None else None,
        memory_set_by=bound.where if bound is not None else "",
        drain=Drain(drained.since, drained.reason) if drained is not None else None,
        blocks=blocks,
    )


def _idle_sessions(ledger: Ledger) -> set[str]:
    """The ids of pools' browsers that no program uses, as published: up to a second old."""
    return {
        session
        for pool in living_pools(ledger)
        for session, what in pool.sessions.items()
        if what == "idle"
    }


def _slots(state: GateState, kind: Kind, bound: Bound | None, idle: set[str], now: float) -> Slots:
    def of_kind(claimants: Iterable[Claimant]) -> list[Claimant]:
        return [one for one in claimants if (one.kind == "grid") == (kind == "grid")]

    holders, waiting = state.counted(kind), of_kind(state.waiting)
    return Slots(
        limit=bound.value if bound is not None else None,
        set_by=bound.where if bound is not None else "",
        held=len(holders),
        waiting=len(waiting),
        # Not before the epoch: a ticket with rubbish in it can be of any age.
        longest_wait=max((now - max(one.since, 0.0) for one in waiting), default=0.0),
        standby=len(of_kind(state.standby)),
        idle=sum(one.session in idle for one in holders if one.session),
    )


def _is_short(state: GateState, bound: Bound, now: float) -> bool:
    """True if less memory than the bound is left, without what browsers that start now will take."""
    free = memory.free_for_a_start(now - one.since for one in state.held if one.kind == "browser")
    return free is not None and free < bound.value


def _memory_left() -> int | None:
    try:
        return memory_left()
    except memory.UNREADABLE:
        return None


def _sentence(state: GateState, word: str) -> str:
    text = why(state, "browser", state.limits, word, state.problem)  # type: ignore[arg-type]
    return f"{text[:1].upper()}{text[1:]}."


__all__ = ["BLOCKS", "Drain", "Pressure", "Slots", "pressure"]
