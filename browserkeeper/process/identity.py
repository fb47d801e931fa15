"""Who a process is: a pid alone is a number that the kernel hands out again."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A pid and the moment it started, in the platform's own unit (see ``system.facts``).

    Two processes never share both on one host in one boot; ``system.host_id()`` tells those apart.
    """

    pid: int
    start: float

    def is_same_as(self, other: ProcessIdentity | None) -> bool:
        """Equal, but for the rounding of a float that went through JSON."""
        return other is not None and self.pid == other.pid and abs(self.start - other.start) < 0.005


@dataclasses.dataclass(frozen=True)
class ProcessFacts:
    """One process as seen once.  ``session`` is the pid of its session's leader (setsid(2));
    ``state`` is the letter of ps(1): R, S, D, T, Z …"""

    identity: ProcessIdentity
    parent: int
    session: int
    name: str
    state: str

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def is_zombie(self) -> bool:
        return self.state == "Z"
