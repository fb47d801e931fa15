"""The host's gate in the status snapshot: its limits, who holds the slots, who waits, a drain."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

from ..admission import memory
from ..admission.gate import Gate
from ..admission.limits import Bound
from ..admission.overview import GateState
from ..errors import Claimant
from ..state.ledger import Ledger


@dataclasses.dataclass(frozen=True)
class HostGate:
    """The gate at the time ``now`` (seconds since the epoch).  ``memory_left``: bytes that count for the
    bound on memory, less what the browsers that start will take; None where no such bound is set, or the
    memory cannot be read."""

    state: GateState
    now: float
    memory_left: int | None = None

    @property
    def browsers(self) -> int:
        """Slots that count for the limit on browsers."""
        return len(self.state.counted("browser"))

    @property
    def grid_sessions(self) -> int:
        """Slots that count for the limit on sessions of a Grid."""
        return len(self.state.counted("grid"))

    def seconds(self, one: Claimant) -> float:
        """For how long it has held its slot, or has waited."""
        return max(0.0, self.now - one.since)

    def to_dict(self) -> dict[str, Any]:
        limits = self.state.limits
        return {
            "limits": {
                "max_browsers": _bound(limits.max_browsers),
                "min_memory": _bound(limits.min_memory),
                "max_grid_sessions": _bound(limits.max_grid_sessions),
            },
            "browsers": self.browsers,
            "grid_sessions": self.grid_sessions,
            "memory_left": self.memory_left,
            "held": self._claimants(self.state.held),
            "waiting": self._claimants(self.state.waiting),
            "standby": self._claimants(self.state.standby),
            "draining": self.state.draining,
            "problem": self.state.problem,
        }

    def _claimants(self, found: Iterable[Claimant]) -> list[dict[str, Any]]:
        return [{**one._asdict(), "seconds": self.seconds(one)} for one in found]


def host_gate(ledger: Ledger) -> HostGate | None:
    """The gate of this state directory; None where there is nothing to say of it: no limit is set, no
    start waits, and the host is not drained.

    Raises LimitError where this process may open no more files.
    """
    state = Gate(ledger).state()
    is_limited = state.limits.is_set("browser") or state.limits.is_set("grid")
    if not (is_limited or state.waiting or state.standby or state.draining or state.problem):
        return None
    now = time.time()
    left = None
    if state.limits.min_memory is not None:
        left = memory.free_for_a_start(now - one.since for one in state.held if one.kind == "browser")
    return HostGate(state, now, left)


def _bound(bound: Bound | None) -> dict[str, Any] | None:
    return None if bound is None else dataclasses.asdict(bound)


__all__ = ["HostGate", "host_gate"]
