"""Which waiting starts may go ahead now.  Pure: reads no file and no clock.

Tested against a model (``tests/unit/test_admission_decision.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

Reason = Literal["full", "memory", "draining", "limits"]
Resource = Literal["browser", "grid"]
"""What is counted: an adopted browser is a browser."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A start that waits, or that has just come.

    ``most`` and ``memory`` are its own limits: how many slots may be held with its own, and how many
    bytes must be free; None and 0 where it has none.  ``is_late``: it was told that it may go, and has
    not gone for some seconds, as a stopped process does not.  ``has_declined``: it was told, and has
    answered that it cannot go, though this process thinks that it could.
    """

    name: str
    resource: Resource = "browser"
    most: int | None = None
    memory: int = 0
    is_late: bool = False
    has_declined: bool = False


@dataclasses.dataclass(frozen=True)
class Room:
    """What the host has.

    ``held``: how many slots of each resource are held.  ``most``: the host's limit of each, None for
    none.  ``memory``: bytes that must stay free.  ``free``: bytes that are free, less what browsers that
    have just started will still take; None where no start has asked.  ``start``: bytes that one more
    browser will take.  ``closed``: why nothing may start at all.
    """

    held: Mapping[Resource, int]
    most: Mapping[Resource, int | None]
    memory: int = 0
    free: int | None = None
    start: int = 0
    closed: Reason | None = None

    def why_not(self, one: Candidate) -> Reason | None:
        """Why this start would not be admitted if it were alone in the queue; None if it would."""
        if self.closed is not None:
            return self.closed
        limits = [limit for limit in (one.most, self.most.get(one.resource)) if limit is not None]
        if limits and self.held.get(one.resource, 0) >= min(limits):
            return "full"
        bound = max(one.memory, self.memory) if one.resource == "browser" else 0
        if bound and self.free is not None and self.free < bound:
            return "memory"
        return None

    def with_more(self, resource: Resource, number: int = 1) -> Room:
        """The room that is left after so many starts; below 0: after the ends of so many."""
        held = {**self.held, resource: self.held.get(resource, 0) + number}
        takes = self.start * number if resource == "browser" else 0
        free = None if self.free is None else self.free - takes
        return dataclasses.replace(self, held=held, free=free)


def who_may_go(queue: Sequence[Candidate], room: Room) -> list[Candidate]:
    """Those that may go ahead now, all at once, in the order of the queue.

    Each takes a place from those behind it.  One that is held back by its own lower limit takes none.
    Neither does one that is late; it comes after all others.
    """
    found = []
    for one in sorted(queue, key=lambda candidate: candidate.is_late):
        if not one.has_declined and room.why_not(one) is None:
            found.append(one)
            room = room.with_more(one.resource)
    names = {one.name for one in found}
    return [one for one in queue if one.name in names]


__all__ = ["Candidate", "Reason", "Resource", "Room", "who_may_go"]
