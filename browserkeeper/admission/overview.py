"""Who holds the slots and who waits: for ``ps``, for the metrics, and for errors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from ..errors import Claimant
from .limits import HostLimits, Kind
from .slots import age_of, pid_of, text_of


@dataclasses.dataclass(frozen=True)
class GateState:
    """The gate at one moment.  Holders are oldest first, those that wait are in the order of the queue.

    ``limits`` are those of this program's environment and of ``limits.toml``; where these are not valid
    they are empty, and ``problem`` says why.  ``draining`` says who has drained the host, or is "".
    """

    limits: HostLimits
    held: tuple[Claimant, ...] = ()
    waiting: tuple[Claimant, ...] = ()
    standby: tuple[Claimant, ...] = ()
    draining: str = ""
    problem: str = ""

    def counted(self, kind: Kind) -> tuple[Claimant, ...]:
        """The holders that count for the limit of this kind."""
        return tuple(one for one in self.held if (one.kind == "grid") == (kind == "grid"))


def claimant(facts: Mapping[str, Any], kind: str = "") -> Claimant:
    """The holder of a slot, or the start that has a ticket, for people and errors.

    The time is told by the age, which no jump of the machine's clock changes.
    """
    return Claimant(
        pid_of(facts),
        text_of(facts, "program") or "?",
        text_of(facts, "label"),
        time.time() - age_of(facts),
        kind or text_of(facts, "kind") or "browser",
        text_of(facts, "session"),
    )


__all__ = ["GateState", "claimant"]
