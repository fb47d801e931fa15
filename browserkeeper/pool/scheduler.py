"""Who is in the pool, who waits for it, and what has to be done next: decisions, no deeds.

A :class:`Scheduler` belongs to one thread (the pool's supervisor), starts nothing, waits for nothing
and reads no clock.  It is told what happened and hands out :class:`Order` objects; whoever carries
those out tells it how that went.  So its whole behaviour can be tested without a browser.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ..errors import BrowserkeeperError, PoolClosed, PoolUnavailable, TooManyWaiting
from .breaker import Breaker

State = Literal["starting", "idle", "checking", "leased", "refreshing", "closing"]
Verb = Literal["launch", "refresh", "ping", "close", "grant", "refuse"]

PING_AFTER = 2.0
"""Seconds without a word after which a browser is asked for one before it is handed out."""
PING_EVERY = 30.0
"""Seconds after which an idle browser is asked anyway, so that a hung one is replaced in time."""
JITTER = 0.1
"""Lifetimes are shortened by up to this part, so that members that were born together do not
retire together (HikariCP takes 2.5 %, psycopg_pool 10 %)."""
SURGE = 1
"""Browsers above ``max_size`` that may exist while they replace others that retire."""
SOFT = ("max_lifetime", "max_memory", "recycled")
"""Reasons to replace a browser that can wait until its replacement is there."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the scheduler keeps; seconds.  See ``PoolConfig`` for what each means to a user."""

    max_size: int
    min_idle: int
    max_waiting: int
    max_uses: int | None
    max_lifetime: float
    idle_timeout: float
    launch_concurrency: int


@dataclasses.dataclass(eq=False)
class Member:
    """One browser of the pool, from the order to launch it until its end is verified."""

    number: int
    expires: float = 0.0
    state: State = "starting"
    uses: int = 0
    idle_since: float = 0.0
    heard: float = 0.0
    """When it last answered."""
    retiring: str = ""
    """Why it gets no further lease, "" while it may."""
    body: Any = None
    """What the pool hangs on to it; the scheduler does not look inside."""
    ticket: Any = None
    """Who has it."""


@dataclasses.dataclass(frozen=True)
class Order:
    """Something to do: about a member, a ticket, or a ticket and the member or error for it."""

    verb: Verb
    member: Member | None = None
    ticket: Any = None
    error: BrowserkeeperError | None = None


class Scheduler:
    """The books of one pool.  ``now`` is always the caller's monotonic clock, in seconds."""

    def __init__(self, limits: Limits, breaker: Breaker, rng: Callable[[], float] = random.random):
        self.limits = limits
        self.breaker = breaker
        self.closed = False
        self.draining = False
        self.counts: collections.Counter[str] = collections.Counter()
        self._rng = rng
        self._members: list[Member] = []
        self._idle: list[Member] = []  # a stack: the last that came back goes out first
        self._waiting: collections.OrderedDict[Any, None] = collections.OrderedDict()
        self._orders: list[Order] = []
        self._number = 0

    # -- facts

    def members(self, *states: State) -> list[Member]:
        """Those in any of these states, all of them without an argument; the oldest first.  Fit for
        other threads too, since it looks at a copy."""
        return [m for m in self._members.copy() if not states or m.state in states]

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def queue(self) -> list[Any]:
        """The tickets that wait, the first in line first."""
        return list(self._waiting)

    @property
    def available(self) -> int:
        """How many could be leased this moment."""
        return len(self._idle)

    def next_due(self, now: float) -> float | None:
        """When :meth:`settle` has something to do if nothing happens before; None: never."""
        moments = [self.breaker.until, *(m.expires for m in self._idle if not m.retiring)]
        moments += [m.heard + PING_EVERY for m in self._idle]
        if len(self._idle) > self._wanted():
            moments += [m.idle_since + self.limits.idle_timeout for m in self._idle]
        return min((moment for moment in moments if moment > now), default=None)

    # -- what happened

    def asked(self, ticket: Any, now: float) -> None:
        """Somebody wants a browser."""
        self.counts["requests_num"] += 1
        if self.closed or self.draining:
            self._refuse(
                ticket, PoolClosed("The pool is closed, or being drained; it gives no more leases.")
            )
        elif not self._idle and len(self._waiting) >= self.limits.max_waiting:
            self._refuse(
                ticket,
                TooManyWaiting(
                    f"{len(self._waiting)} are waiting for a browser already (max_waiting="
                    f"{self.limits.max_waiting}). Ask less often, or raise max_size."
                ),
            )
        else:
            self._waiting[ticket] = None
            if not self._idle:
                self.counts["requests_queued"] += 1
        self.settle(now)

    def withdrew(self, ticket: Any, now: float) -> None:
        """It waits no longer; nothing where it was answered meanwhile."""
        if self._waiting.pop(ticket, self) is None:
            self.counts["requests_errors"] += 1
        self.settle(now)

    def declined(self, member: Member, now: float) -> None:
        """The one it was granted to had gone; its browser is as good as before."""
        member.ticket = None
        if member.state == "leased":  # else it died first, and is being closed
            member.uses -= 1
            self._put_back(member, now)
        self.settle(now)

    def unfit(self, member: Member, now: float) -> None:
        """It was granted, and is not what it should be: the ticket stays the first in line."""
        ticket, member.ticket = member.ticket, None
        self._waiting[ticket] = None
        self._waiting.move_to_end(ticket, last=False)
        self.lost(member, "lost", now)

    def launched(self, member: Member, now: float) -> None:
        self.breaker.succeeded()
        self.counts["browsers_num"] += 1
        lifetime = self.limits.max_lifetime * (1 - JITTER * self._rng())
        member.expires, member.heard = now + lifetime, now
        if member.retiring:
            self._close(member)
        else:
            self._put_back(member, now)
        self.settle(now)

    def launch_failed(self, member: Member, error: BrowserkeeperError, now: float) -> None:
        """Nothing of it is left."""
        self.counts["browsers_errors"] += 1
        self._members.remove(member)
        if not member.retiring:
            self.breaker.failed(error, now)
        self.settle(now)

    def returned(self, member: Member, bad: str, now: float) -> None:
        """Its lease is over; ``bad`` says why it must not be used again, "" where it may."""
        member.ticket = None
        if member.state != "leased":
            return  # it died first, and is being closed
        if bad:
            self.counts["returns_bad"] += 1
        self._mark(member, self._why_retire(member, now))
        if bad or (member.retiring and (member.retiring not in SOFT or self._enough())):
            self.retire(member, bad, now)
            return
        member.state = "refreshing"
        self._order("refresh", member)
        self.settle(now)

    def answered(self, member: Member, retiring: str, now: float) -> None:
        """It is refreshed, or has answered a ping, and is ready for the next lease; ``retiring``
        says why it should be replaced all the same."""
        if member.state not in ("refreshing", "checking"):
            return
        member.heard = now
        self._mark(member, retiring)
        if member.retiring and member.retiring not in SOFT:
            self._close(member)
        else:
            self._put_back(member, now)
        self.settle(now)

    def retire(self, member: Member, reason: str, now: float) -> None:
        """Close it now, whatever its state."""
        self._mark(member, reason)
        if member.state not in ("starting", "closing"):
            self._close(member)
        self.settle(now)

    def lost(self, member: Member, reason: str, now: float) -> None:
        """It died, or hangs; what is left of it has to be cleared away."""
        if member.state not in ("closing", "starting"):
            self.counts["browsers_lost"] += 1
        self.retire(member, reason, now)

    def gone(self, member: Member, now: float) -> None:
        """Its end is verified: only now is its place free."""
        self._members.remove(member)
        self.settle(now)

    # -- what is wanted

    def resize(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.settle(now)

    def recycle(self, now: float) -> None:
        """Replace every browser: those in use when they come back, idle ones when others are there."""
        for member in self._members:
            self._mark(member, "recycled")
        self.settle(now)

    def drain(self, now: float) -> None:
        """No more leases; idle browsers go at once, leased ones when they come back."""
        self.draining = True
        self._refuse_all(PoolClosed("The pool is being drained; it gives no more leases."))
        for member in self._members:
            self._mark(member, "drained")
        for member in list(self._idle):
            self._close(member)

    def close(self, now: float) -> None:
        """Everything goes, also what is leased."""
        self.closed = True
        self.drain(now)
        self._refuse_all(PoolClosed("The pool was closed while this request waited."))
        for member in self.members("leased", "refreshing", "checking"):
            self._close(member)
        for member in self.members("starting"):
            self._order("close", member)  # it goes on as a launch that failed

    # -- what has to be done

    def settle(self, now: float) -> None:
        """Decide all that follows from the present state.  The order of the steps matters."""
        self._grant(now)
        self._retire_idle(now)
        self._keep_in_touch(now)
        self._launch(now)
        self._give_up_hope()

    def take_orders(self) -> list[Order]:
        orders, self._orders = self._orders, []
        return orders

    def _grant(self, now: float) -> None:
        while self._idle and len(self._waiting) > len(self.members("checking")):
            if len(self.members("leased", "checking")) >= self.limits.max_size:
                return
            member = self._idle.pop()
            if now - member.heard > PING_AFTER:
                self._ping(member)
                continue
            ticket, _ = self._waiting.popitem(last=False)
            member.state, member.ticket = "leased", ticket
            member.uses += 1
            self._order("grant", member, ticket)

    def _keep_in_touch(self, now: float) -> None:
        for member in [m for m in self._idle if now >= m.heard + PING_EVERY]:
            self._idle.remove(member)
            self._ping(member)

    def _ping(self, member: Member) -> None:
        member.state = "checking"
        self._order("ping", member)

    def _put_back(self, member: Member, now: float) -> None:
        member.state, member.idle_since = "idle", now
        # One that only serves until its replacement is there goes out last.
        self._idle.insert(0 if member.retiring else len(self._idle), member)

    def _mark(self, member: Member, reason: str) -> None:
        """A reason that cannot wait outranks one that can."""
        if reason and (not member.retiring or member.retiring in SOFT):
            member.retiring = reason

    def _why_retire(self, member: Member, now: float) -> str:
        if self._is_spent(member):
            return "max_uses"
        if now >= member.expires:
            return "max_lifetime"
        serving = sum(not self._is_leaving(m) for m in self._members)
        return "resized" if serving > self.limits.max_size else ""

    def _retire_idle(self, now: float) -> None:
        """Make before break: what has aged serves until enough others are ready."""
        for member in list(self._idle):
            self._mark(member, self._why_retire(member, now))
        for member in [m for m in self._idle if m.retiring]:
            if self._enough() or member.retiring not in SOFT or self._must_make_room():
                self._close(member)
        for member in self._too_long_idle(now):
            self._close(member, "idle_timeout")

    def _too_long_idle(self, now: float) -> Iterator[Member]:
        """From the bottom of the stack, where the coldest lie, down to what is wanted."""
        fresh = [m for m in self._idle if not m.retiring]
        for member in fresh[: max(0, len(fresh) - self._wanted())]:
            if now >= member.idle_since + self.limits.idle_timeout:
                yield member

    def _ready(self) -> int:
        return sum(not member.retiring for member in self._idle)

    def _wanted(self) -> int:
        """How many should be ready, or on their way."""
        return self.limits.min_idle + len(self._waiting)

    def _enough(self) -> bool:
        return self._ready() >= self._wanted()

    def _must_make_room(self) -> bool:
        """One replacement is there, and the next can only come after one of the old has gone."""
        present = sum(member.state != "closing" for member in self._members)
        return self._ready() > 0 and present >= self.limits.max_size + SURGE

    def _surge(self) -> int:
        """A fresh process for each lease always is on its last one: there it would be no surge."""
        serving = self.members("idle", "checking", "leased", "refreshing")
        return SURGE if any(map(self._is_leaving, serving)) and self.limits.max_uses != 1 else 0

    def _is_leaving(self, member: Member) -> bool:
        return bool(member.retiring) or self._is_spent(member)

    def _is_spent(self, member: Member) -> bool:
        return self.limits.max_uses is not None and member.uses >= self.limits.max_uses

    def _launch(self, now: float) -> None:
        if self.closed or self.draining:
            return
        starting = len(self.members("starting"))
        coming = sum(not m.retiring for m in self.members("starting", "refreshing", "checking"))
        wanted = self._wanted() - self._ready() - coming
        room = self.limits.max_size + self._surge() - len(self._members)
        most = self.breaker.concurrency(self.limits.launch_concurrency, now) - starting
        for _ in range(min(wanted, room, most)):
            self._number += 1
            member = Member(self._number)
            self._members.append(member)
            self._order("launch", member)

    def _give_up_hope(self) -> None:
        """Launches fail again and again, and nobody has a browser that could come back."""
        hopes = self.members("starting", "checking", "leased", "refreshing")
        if self._waiting and self.breaker.is_open and not hopes:
            cause = self.breaker.error
            self._refuse_all(
                PoolUnavailable(
                    f"No browser can be started ({self.breaker.failures} failures in a row, the "
                    f"next attempt is on its way). The last one: {cause}",
                    cause,
                )
            )

    def _refuse_all(self, error: BrowserkeeperError) -> None:
        while self._waiting:
            self._refuse(self._waiting.popitem(last=False)[0], error)

    def _refuse(self, ticket: Any, error: BrowserkeeperError) -> None:
        self.counts["requests_errors"] += 1
        self._order("refuse", ticket=ticket, error=error)

    def _close(self, member: Member, reason: str = "") -> None:
        self._mark(member, reason)
        if member in self._idle:
            self._idle.remove(member)
        member.state = "closing"
        self.counts[f"retired_{member.retiring.partition(':')[0]}"] += 1
        self._order("close", member)

    def _order(
        self,
        verb: Verb,
        member: Member | None = None,
        ticket: Any = None,
        error: BrowserkeeperError | None = None,
    ) -> None:
        self._orders.append(Order(verb, member, ticket, error))
