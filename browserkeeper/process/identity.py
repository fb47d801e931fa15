"""The identity of a process: pid and start time, since the kernel hands out pids again."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A pid and the process's start time, in the platform's own unit (``system.facts``).

    No two processes of one host and boot share both; ``system.host_id()`` names host and boot.
    """

    pid: int
    start: float

    def is_same_as(self, other: ProcessIdentity | None) -> bool:
        """True if both are equal, but for the rounding of a float in JSON."""
        return other is not None and self.pid == other.pid and abs(self.start - other.start) < 0.005


@dataclasses.dataclass(frozen=True)
class ProcessFacts:
    """What was known of a process at one moment.

    ``session`` is the pid of its session's leader (setsid(2)); ``state`` is the letter of ps(1): R, S,
    D, T, Z and more.
    """

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
