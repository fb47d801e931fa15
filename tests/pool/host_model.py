"""A model of the host's slots and of the queue for them, as the admission's files keep them."""

from __future__ import annotations

import dataclasses
from typing import Any

from browserkeeper.pool.scheduler import HostView, Member, Outsider, Priority


@dataclasses.dataclass(eq=False)
class Program:
    """A program outside the pool.  It starts only while fewer than ``own_limit`` browsers are there.

    Not ``is_owed``: another pool, which has browsers.
    """

    since: float
    own_limit: int = 1000
    is_owed: bool = True


@dataclasses.dataclass(eq=False)
class Ticket:
    owner: Member | Program
    priority: Priority


class HostModel:
    """Admits work before standbys, and among equals the one that came first.

    A ticket that only its own lower limit holds back does not hold back those behind it.
    """

    def __init__(self, limit: int = 1000):
        self.limit = limit
        self.drained = False
        self.holders: set[Any] = set()
        self.queue: list[Ticket] = []

    def ask(self, owner: Member | Program, priority: Priority = "work") -> None:
        self.queue.append(Ticket(owner, priority))

    def promote(self, member: Member) -> None:
        """It goes behind the work that waits already."""
        for ticket in [ticket for ticket in self.queue if ticket.owner is member]:
            self.queue.remove(ticket)
            self.ask(member)

    def leave(self, owner: Member | Program) -> None:
        self.holders.discard(owner)
        self.queue = [ticket for ticket in self.queue if ticket.owner is not owner]

    def admit(self) -> list[Member | Program]:
        """Give out the slots that are free; returns who got one."""
        admitted = []
        while ticket := next(filter(self._may_go, self._in_order()), None):
            self.queue.remove(ticket)
            self.holders.add(ticket.owner)
            admitted.append(ticket.owner)
        return admitted

    def waits(self, member: Member) -> bool:
        return any(ticket.owner is member for ticket in self.queue)

    def programs(self) -> list[Program]:
        """Those that wait, the oldest first."""
        return [t.owner for t in self.queue if isinstance(t.owner, Program)]

    def view(self) -> HostView:
        """What a pool sees of it."""
        blocked = [t.owner for t in self.queue if isinstance(t.owner, Program) and not self._may_go(t)]
        blocked.sort(key=lambda program: program.since)
        seen = [Outsider(one.since, one.is_owed and self._can_follow(one)) for one in blocked]
        return HostView(tuple(seen), self.drained)

    def _can_follow(self, program: Program) -> bool:
        """False if a slot that the pool gave up would be the pool's again at once."""
        after = len(self.holders) - 1
        return after < program.own_limit or after >= self.limit

    def _in_order(self) -> list[Ticket]:
        return sorted(self.queue, key=lambda ticket: ticket.priority == "standby")

    def _may_go(self, ticket: Ticket) -> bool:
        own = ticket.owner.own_limit if isinstance(ticket.owner, Program) else self.limit
        return not self.drained and len(self.holders) < min(self.limit, own)
