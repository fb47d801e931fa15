"""Decides what a pool does next: which request gets which browser, what to launch, renew, and close.

A :class:`Scheduler` does no I/O, never blocks and reads no clock, and only one thread may use it
(the pool's event loop).  Its caller reports what happened, takes the decisions, carries them out,
and reports how that went.  So all of its behaviour is tested against a model, without a browser.

Every browser takes a slot of the host (``browserkeeper/admission``), for which its launch may have to
wait.  The host decides who starts next; the scheduler decides what to ask for, what to take back, and
which browsers to give up for other programs that wait (:class:`HostView`).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..errors import BrowserkeeperError, HookError, PoolClosed, PoolUnavailable, TooManyWaiting
from .circuit_breaker import CircuitBreaker

State = Literal["queued", "starting", "idle", "checking", "leased", "refreshing", "closing"]
"""``queued``: the launch has to wait for a slot of the host.  ``starting``: it has one, or is about to
ask for one."""
Priority = Literal["work", "standby"]
"""Of a launch: for a request that waits, or to keep ``min_idle`` browsers ready."""

PING_AFTER = 2.0
"""Seconds.  A browser that has not answered for this long is pinged before it is leased."""
CHECK_PATIENCE = 0.5
"""Seconds for the answer to such a ping, which takes milliseconds.  After that the check goes on, but
the request gets another browser."""
HOOK_PATIENCE = 5.0
"""The same if the user's ``check`` runs after the ping; a check may open a page."""
PING_EVERY = 30.0
"""Seconds between two pings of an idle browser, so that a hung one is replaced before it is needed."""
JITTER = 0.1
"""Each lifetime is shortened by a random share, up to this one, so that browsers that started
together do not retire together (HikariCP: 2.5 %, psycopg_pool: 10 %)."""
KEEP_IDLE = 1.0
"""Seconds.  An idle browser is kept so long before another pool gets its slot that has browsers too: the
next request often comes within milliseconds, and each change of hands costs the start of a browser."""
SURGE = 1
"""How many browsers may exist above ``max_size`` while they replace others that retire."""
NO_MORE_LEASES = "The pool is closed, or being drained; it gives no more leases."
SOFT_REASONS = ("max_lifetime", "max_memory", "recycled")
"""Reasons to retire a browser that may serve until its replacement is ready."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits that the scheduler keeps; times in seconds.  ``BrowserPool`` documents each one."""

    max_size: int
    min_idle: int
    max_waiting: int
    max_uses: int | None
    max_lifetime: float
    idle_timeout: float
    launch_concurrency: int
    checks: bool = False
    """True if the user's ``check`` must pass before each lease."""
    resets: bool = False
    """True if the user's ``reset`` is called after each lease, also if the browser is closed then."""

    @property
    def check_patience(self) -> float:
        return HOOK_PATIENCE if self.checks else CHECK_PATIENCE


@dataclasses.dataclass(frozen=True)
class Outsider:
    """A program outside this pool, or another pool, that waits for a slot which it needs for work and
    cannot have now; ``since`` is on the clock of ``now``.

    ``is_owed``: True if a browser that comes back from a lease is given up for it.  False for a pool
    that has browsers itself, about as many as this one, and for a program that could not start then, by
    a lower limit of its own.  Those get only browsers that have been idle for ``KEEP_IDLE``.
    """

    since: float
    is_owed: bool = True


@dataclasses.dataclass(frozen=True)
class HostView:
    """What the pool knows of the other programs on the host."""

    waiting: tuple[Outsider, ...] = ()
    """Those that wait, the oldest first."""
    drained: bool = False
    """The operator lets no browser start on this host."""


@dataclasses.dataclass(eq=False)
class Member:
    """One browser of the pool, from the decision to launch it until its end is verified."""

    number: int
    priority: Priority = "work"
    """Of its launch."""
    state: State = "starting"
    has_slot: bool = False
    """True when the host has admitted the launch."""
    uses: int = 0
    expires_at: float = 0.0
    idle_since: float = 0.0
    answered_at: float = 0.0
    """When the browser last answered."""
    checked_since: float = 0.0
    """When the ping was sent, in the state ``checking``."""
    checked: bool = False
    """True if the user's ``check`` has passed since the last lease."""
    retire_reason: str = ""
    """Why it gets no further lease; "" while it may get one."""
    browser: Any = None
    """Set and used by the caller; the scheduler ignores it."""
    group: Any = None
    """Members of one group are places in one process, which has one slot of the host.  None: alone."""
    request: Any = None
    """The request that holds this browser."""
    asked_at: float = 0.0
    """When that request was made."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """Start a browser for this member, with its ``priority`` among the launches of the host."""

    member: Member


@dataclasses.dataclass(frozen=True)
class Promote:
    """The member's launch waits for a slot as a standby: have it wait as work from now on."""

    member: Member


@dataclasses.dataclass(frozen=True)
class Renew:
    """Prepare the browser for its next lease.

    ``is_last``: the browser gets no further lease.  Only the user's ``reset`` is called, and then the
    browser is closed.
    """

    member: Member
    is_last: bool = False


@dataclasses.dataclass(frozen=True)
class Ping:
    """Check that the browser answers.

    ``for_lease``: a request is about to get the browser, so the user's ``check`` is called as well.
    """

    member: Member
    for_lease: bool = True


@dataclasses.dataclass(frozen=True)
class Close:
    """End the browser, or cancel its launch."""

    member: Member


@dataclasses.dataclass(frozen=True)
class Grant:
    """Lease the member's browser to the request."""

    member: Member
    request: Any


@dataclasses.dataclass(frozen=True)
class Refuse:
    """Answer the request with an error."""

    request: Any
    error: BrowserkeeperError


Decision = Launch | Promote | Renew | Ping | Close | Grant | Refuse


class Scheduler:
    """The members and waiting requests of one pool.

    ``now`` is always the time on the caller's monotonic clock, in seconds.  A request may be any
    hashable object.
    """

    def __init__(
        self, limits: Limits, breaker: CircuitBreaker, rng: Callable[[], float] = random.random
    ):
        self.limits = limits
        self.breaker = breaker
        self.check_breaker = CircuitBreaker()
        """For browsers that start, but do not pass the user's ``check``."""
        self.closed = False
        self.draining = False
        self.host = HostView()
        self._given_up = 0
        """Browsers that have ended since the last look at the host: each may have served a program that
        waited there."""
        self.counts: collections.Counter[str] = collections.Counter()
        self._rng = rng
        self._members: list[Member] = []
        self._idle: list[Member] = []  # a stack: the browser that was returned last is leased first
        self._waiting: collections.OrderedDict[Any, float] = collections.OrderedDict()
        """When each waiting request was made, the oldest first."""
        self._decisions: list[Decision] = []
        self._last_number = 0

    # -- the present state

    def members(self, *states: State) -> list[Member]:
        """The members in any of these states, or all members; the oldest first.

        Safe in other threads too, since it works on a copy of the list.
        """
        return [m for m in self._members.copy() if not states or m.state in states]

    def queue(self) -> list[Any]:
        """The waiting requests, the oldest first."""
        return list(self._waiting)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def available(self) -> int:
        """How many browsers can be leased at once."""
        return len(self._idle)

    def next_due(self, now: float) -> float | None:
        """When :meth:`decide` must be called again even if nothing happens before.  None: never."""
        moments = [self.breaker.retry_at, self.check_breaker.retry_at]
        moments += [m.expires_at for m in self._idle if not m.retire_reason]
        moments += [m.answered_at + PING_EVERY for m in self._idle]
        if self._outside():
            moments += [m.idle_since + KEEP_IDLE for m in self._idle]
        if self._waiting:
            patience = self.limits.check_patience
            moments += [m.checked_since + patience for m in self.members("checking")]
        if len(self._idle) > self._ready_wanted():
            moments += [m.idle_since + self.limits.idle_timeout for m in self._idle]
        return min((moment for moment in moments if moment > now), default=None)

    # -- requests

    def add_request(self, request: Any, now: float) -> None:
        """Queue a request for a browser, or refuse it."""
        self.counts["requests_num"] += 1
        if self.closed or self.draining:
            self._refuse(request, PoolClosed(NO_MORE_LEASES))
        elif not self._idle and len(self._waiting) >= self.limits.max_waiting:
            self._refuse(
                request,
                TooManyWaiting(
                    f"{len(self._waiting)} requests are waiting for a browser already (max_waiting="
                    f"{self.limits.max_waiting}). Ask less often, or raise max_size."
                ),
            )
        else:
            self._waiting[request] = now
            if not self._idle:
                self.counts["requests_queued"] += 1
        self.decide(now)

    def cancel_request(self, request: Any, now: float) -> None:
        """The caller no longer waits.  Does nothing if the request was answered before."""
        if request in self._waiting:
            del self._waiting[request]
            self.counts["requests_errors"] += 1
        self.decide(now)

    def decline_grant(self, member: Member, now: float) -> None:
        """The request was cancelled after it was granted; its browser was not used."""
        member.request = None
        if member.state == "leased":  # not if the browser died first, and is closing
            member.uses -= 1
            self._make_idle(member, now)
        self.decide(now)

    def grant_failed(self, member: Member, now: float, reason: str = "") -> None:
        """The browser was found dead, stopped or closing when it was granted, or is retired for this
        reason.  Its request becomes the first in the queue again, unless no more leases are given."""
        request, member.request = member.request, None
        if self.closed or self.draining:
            self._refuse(request, PoolClosed(NO_MORE_LEASES))
        else:
            self._waiting[request] = member.asked_at
            self._waiting.move_to_end(request, last=False)
        if reason:
            self.retire(member, reason, now)
        else:
            self.lost(member, now)

    # -- what happened to a browser

    def must_wait(self, member: Member, now: float) -> None:
        """The launch has to wait for a slot of the host."""
        if member.state == "starting":
            member.state = "queued"
            self.counts["launches_queued"] += 1
        self.decide(now)

    def admitted(self, member: Member, now: float) -> None:
        """The launch has its slot of the host, and goes on."""
        member.has_slot = True
        if member.state == "queued":
            member.state = "starting"
        self.decide(now)

    def launched(self, member: Member, now: float) -> None:
        self.breaker.record_success()
        self.counts["browsers_num"] += 1
        lifetime = self.limits.max_lifetime * (1 - JITTER * self._rng())
        member.expires_at, member.answered_at = now + lifetime, now
        if member.retire_reason:
            self._close(member)
        else:
            self._make_idle(member, now)
        self.decide(now)

    def launch_failed(self, member: Member, error: BrowserkeeperError, now: float) -> None:
        """Nothing is left of the launch, which may have been cancelled."""
        if member.retire_reason != "cancelled" and (member.has_slot or not member.retire_reason):
            self.counts["browsers_errors"] += 1
        self._members.remove(member)
        if not member.retire_reason:  # else the launch was cancelled
            self.breaker.record_failure(error, now)
        self.decide(now)

    def launch_withdrawn(self, member: Member, now: float) -> None:
        """A launch has failed and nothing of it is left.  Not counted as a failure: the next launch
        differs."""
        self._members.remove(member)
        self.decide(now)

    def returned(self, member: Member, bad: str, now: float) -> None:
        """The lease is over.  ``bad``: why the browser must not be leased again; "" if it may be."""
        member.request = None
        if member.state != "leased":
            return  # the browser died first, and is closing
        if bad:
            self.counts["returns_bad"] += 1
        # With a reset, this is decided after the reset: by then other programs may need no slot.
        give_up = "" if self.limits.resets else self._reason_to_give_up()
        self._mark_to_retire(member, give_up or self._reason_to_retire(member, now))
        can_serve_on = (
            member.retire_reason in SOFT_REASONS
            and not self._enough_ready()
            and not self._must_make_way()
        )
        is_last = bool(member.retire_reason) and not can_serve_on
        if bad or (is_last and not self.limits.resets):
            self.retire(member, bad, now)
        else:
            member.state, member.checked = "refreshing", False
            self._decisions.append(Renew(member, is_last))
            self.decide(now)

    def ready(self, member: Member, retire_reason: str, now: float, *, checked: bool = False) -> None:
        """The browser was renewed, or answered a ping.

        ``retire_reason``: why it should be replaced, although it can be leased; else "".  ``checked``:
        the user's ``check`` has passed.
        """
        if member.state not in ("refreshing", "checking"):
            return
        member.answered_at = now
        if checked:
            member.checked = True
            self.check_breaker.record_success()
        self._mark_to_retire(member, self._reason_to_give_up() or retire_reason)
        if member.retire_reason and member.retire_reason not in SOFT_REASONS:
            self._close(member)
        else:
            self._make_idle(member, now)
        self.decide(now)

    def retire(self, member: Member, reason: str, now: float) -> None:
        """Close the browser at once, in whatever state it is."""
        self._mark_to_retire(member, reason)
        if member.state not in ("queued", "starting", "closing"):
            self._close(member)
        self.decide(now)

    def hook_failed(self, member: Member, error: HookError, now: float) -> None:
        """A user's hook failed after the launch: the browser is closed."""
        if error.hook == "check":
            self.check_breaker.record_failure(error, now)
        self.retire(member, f"hook: {error.hook}", now)

    def lost(self, member: Member, now: float) -> None:
        """The browser died or hangs.  What is left of it has to be ended."""
        if member.state not in ("closing", "starting", "queued"):
            self.counts["browsers_lost"] += 1
        self.retire(member, "lost", now)

    def ended(self, member: Member, now: float) -> None:
        """The browser's end is verified, or was given up after errors.  Its place is free only now."""
        self._members.remove(member)
        if member.group is None or all(one.group != member.group for one in self._members):
            self._given_up += 1
        self.decide(now)

    # -- what the other programs on the host want

    def see_host(self, view: HostView, now: float) -> None:
        """Who waits outside this pool, and whether the host is drained."""
        self.host, self._given_up = view, 0
        self.decide(now)

    # -- what the pool's owner wants

    def resize(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.decide(now)

    def recycle(self, now: float) -> None:
        """Replace every browser: a leased one after its lease, an idle one when others are ready."""
        for member in self._members:
            if member not in self._without_slot():  # those have not started
                self._mark_to_retire(member, "recycled")
        self.decide(now)

    def replace(self, members: Sequence[Member], reason: str, now: float) -> None:
        """As :meth:`recycle`, for these members alone: those of one process.  Unless the reason is soft,
        idle ones are closed at once."""
        for member in members:
            self._mark_to_retire(member, reason)
        self.decide(now)

    def drain(self, now: float) -> None:
        """Give no more leases.  Close idle browsers at once and leased ones after their lease."""
        self.draining = True
        self._refuse_all(PoolClosed("The pool is being drained; it gives no more leases."))
        launches = self._without_slot()
        for member in self._members:
            self._mark_to_retire(member, "drained")
        for member in list(self._idle):
            self._close(member)
        for member in launches:
            self._decisions.append(Close(member))  # it could wait for ever

    def close(self, now: float) -> None:
        """Close every browser, leased ones too."""
        self.closed = True
        self._refuse_all(PoolClosed("The pool was closed while this request waited."))
        self.drain(now)
        for member in self.members("leased", "refreshing", "checking"):
            self._close(member)
        for member in self.members("starting"):
            self._decisions.append(Close(member))  # the cancelled launch ends in launch_failed()

    # -- decisions

    def take_decisions(self) -> list[Decision]:
        """Return the decisions since the last call; the caller has to carry them out in this order."""
        decisions, self._decisions = self._decisions, []
        return decisions

    def decide(self, now: float) -> None:
        """Take all decisions that follow from the present state.

        The order matters: waiting requests get idle browsers before those can be closed, and what
        is launched depends on what was closed.
        """
        if not self.host.drained:
            self._grant_leases(now)
        self._give_up_idle_browsers(now)
        self._close_aged_browsers(now)
        self._ping_idle_browsers(now)
        self._cancel_launches()
        self._launch_browsers(now)
        self._refuse_if_unavailable()

    def _grant_leases(self, now: float) -> None:
        """Lease idle browsers that have answered recently; ping as many others as requests wait for.

        A browser that does not answer its ping does not make a request wait: after CHECK_PATIENCE the
        next one is pinged.
        """
        while self._waiting and self._idle:
            leased = len(self.members("leased"))
            fresh = [m for m in self._idle if self._may_be_leased_at_once(m, now)]
            if fresh and leased < self.limits.max_size:
                member = fresh[-1]
                self._idle.remove(member)
                request, asked_at = self._waiting.popitem(last=False)
                member.state, member.request, member.asked_at = "leased", request, asked_at
                member.uses += 1
                self._decisions.append(Grant(member, request))
                continue
            checks = len(self.members("checking")) - len(self._late_checks(now))
            # Each of these browsers will serve one of the waiting requests.
            if checks >= len(self._waiting) or leased + checks >= self.limits.max_size:
                return
            self._check(self._idle[-1], now)

    def _may_be_leased_at_once(self, member: Member, now: float) -> bool:
        is_checked = member.checked or not self.limits.checks
        return is_checked and now - member.answered_at <= PING_AFTER

    def _check(self, member: Member, now: float, *, for_lease: bool = True) -> None:
        self._idle.remove(member)
        member.state, member.checked_since = "checking", now
        self._decisions.append(Ping(member, for_lease))

    def _late_checks(self, now: float) -> list[Member]:
        """Browsers that have not answered a ping in time.  No request counts on them."""
        patience = self.limits.check_patience
        return [m for m in self.members("checking") if now >= m.checked_since + patience]

    def _give_up_idle_browsers(self, now: float) -> None:
        """Close idle browsers for programs that wait: not more than those, and none that a request of
        this pool is about to get.  All of them on a drained host."""
        if self.host.drained:
            for member in list(self._idle):
                self._close(member, "host_drained")
        for one in self._outside():
            if len(self._idle) <= len(self._waiting):
                return
            member = min(self._idle, key=self._busy_places)
            if one.is_owed or now >= member.idle_since + KEEP_IDLE:
                self._close(member, "yielded")

    def _busy_places(self, member: Member) -> int:
        """How many members of the same process have to end before its slot is free."""
        if member.group is None:
            return 0
        return sum(m.group == member.group for m in self.members("leased", "checking", "refreshing"))

    def _close_aged_browsers(self, now: float) -> None:
        """Make before break: a browser with a soft reason serves until enough others are ready.

        But break before make while a launch waits for a slot: it may be the one of this browser.
        """
        for member in list(self._idle):
            self._mark_to_retire(member, self._reason_to_retire(member, now))
        for member in [m for m in self._idle if m.retire_reason]:
            # One replacement is ready, and there is no room for the next one beside the old browsers.
            present = sum(m.state != "closing" for m in self._members)
            must_make_room = self._ready() > 0 and present >= self.limits.max_size + SURGE
            is_soft = member.retire_reason in SOFT_REASONS
            if self._enough_ready() or not is_soft or must_make_room or self._must_make_way():
                self._close(member)
        # The browsers at the bottom of the stack have been idle for the longest time.
        staying = [m for m in self._idle if not m.retire_reason]
        for member in staying[: max(0, len(staying) - self._ready_wanted())]:
            if now >= member.idle_since + self.limits.idle_timeout:
                self._close(member, "idle_timeout")

    def _ping_idle_browsers(self, now: float) -> None:
        for member in [m for m in self._idle if now >= m.answered_at + PING_EVERY]:
            self._check(member, now, for_lease=False)

    def _cancel_launches(self) -> None:
        """Cancel launches that have no slot yet and are not needed any more, the latest first.

        A launch for work is needed while a request waits, even if a browser is about to come back to
        it.  One that is needed as a standby only is cancelled too: its place among the work of other
        programs is not a standby's.
        """
        launches = self._launches()
        without_slot = self._without_slot()
        starting = len(launches) - len(without_slot)
        for_requests = max(0, len(self._waiting) - starting)
        wanted = self._ready_wanted() - self._ready() - starting
        leaving = self.members("closing", "queued", "starting")
        too_many = len(self._members) - (len(leaving) - len(launches)) - self._largest_number()
        of_work = sum(m.priority == "work" for m in without_slot)
        for member in reversed(without_slot):
            if member.priority == "work" and of_work > for_requests:
                of_work -= 1
            elif too_many <= 0 and (member.priority == "work" or len(self._without_slot()) <= wanted):
                continue
            too_many -= 1
            self._mark_to_retire(member, "cancelled")
            self._decisions.append(Close(member))

    def _launch_browsers(self, now: float) -> None:
        """Launch as many browsers as are wanted and have room; those for requests before standbys.

        No standby is launched while programs outside the pool wait, for which it would be given up.
        """
        if self.closed or self.draining:
            return
        limits = self.limits
        coming = [m for m in self.members("refreshing", "checking") if not m.retire_reason]
        launches = self._launches()
        late = min(sum(not m.retire_reason for m in self._late_checks(now)), len(self._waiting))
        for_requests = len(self._waiting) + late - self._ready() - len(coming)
        wanted = for_requests + limits.min_idle - len(launches)

        for_requests -= sum(m.has_slot or m.priority == "work" for m in launches)
        standbys = [m for m in self._without_slot() if m.priority == "standby"]
        for member in standbys[: max(0, for_requests)]:
            for_requests -= 1
            member.priority = "work"
            self._decisions.append(Promote(member))
        if self.host.waiting or self.host.drained:
            wanted = min(wanted, for_requests)

        room = self._largest_number() - len(self._members)
        allowed = self.breaker.launch_limit(limits.launch_concurrency, now)
        allowed = self.check_breaker.launch_limit(allowed, now)
        allowed -= len(self.members("queued", "starting"))
        for index in range(min(wanted, room, allowed)):
            self._last_number += 1
            member = Member(self._last_number, "work" if index < for_requests else "standby")
            self._members.append(member)
            self._decisions.append(Launch(member))

    def _refuse_if_unavailable(self) -> None:
        """Refuse all requests if launches or checks keep failing, and no present browser can serve
        them."""
        could_serve = self.members("queued", "starting", "checking", "leased", "refreshing")
        if not self._waiting or could_serve:
            return
        for breaker, what in (
            (self.breaker, "No browser can be started"),
            (self.check_breaker, "No browser passes its check"),
        ):
            if breaker.is_open:
                cause = breaker.last_error
                text = f"{what} ({breaker.describe()}; the pool goes on trying). The last one: {cause}"
                self._refuse_all(PoolUnavailable(text, cause))

    # -- parts of decisions

    def _largest_number(self) -> int:
        """How many browsers may exist now."""
        # With max_uses=1 every leased browser is on its last use: the surge would never end.
        serving = self.members("idle", "checking", "leased", "refreshing")
        replacing = self.limits.max_uses != 1 and any(map(self._is_leaving, serving))
        return self.limits.max_size + (SURGE if replacing else 0)

    def _launches(self) -> list[Member]:
        """Those under way, the oldest first, without those that were cancelled."""
        return [m for m in self.members("queued", "starting") if not m.retire_reason]

    def _without_slot(self) -> list[Member]:
        """Launches that the host has not admitted yet."""
        return [m for m in self._launches() if not m.has_slot]

    def _must_make_way(self) -> bool:
        """True if a launch has to wait for a slot: it may be that of a browser that it is to replace."""
        return any(m.state == "queued" for m in self._launches())

    def _outside(self) -> tuple[Outsider, ...]:
        """Those that wait outside and for which no browser of this pool is closing, or has ended.  Those
        that are owed one come first, and were served first; else the oldest."""
        waiting = sorted(self.host.waiting, key=lambda one: not one.is_owed)
        return tuple(waiting[self._coming_slots() + self._given_up :])

    def _coming_slots(self) -> int:
        """How many slots of the host come free: those of browsers that end.  A process with several
        places keeps its slot until the last of them has ended."""
        alone = [m for m in self.members("closing") if m.group is None]
        leaving = {m.group for m in self._members if m.group is not None and m.retire_reason}
        return len(alone) + len(leaving)

    def _reason_to_give_up(self) -> str:
        """Why a browser that comes back from a lease is closed for other programs; "" if it is not.

        First come, first served: the oldest waiting request of this pool or of another program.  But
        pools that have browsers keep them for their own requests, where they have about as many.
        """
        if self.host.drained:
            return "host_drained"
        oldest = next(iter(self._waiting.values()), math.inf)
        is_owed = any(one.since < oldest and one.is_owed for one in self._outside())
        return "yielded" if is_owed else ""

    def _ready(self) -> int:
        return sum(not member.retire_reason for member in self._idle)

    def _ready_wanted(self) -> int:
        """How many browsers should be ready, or soon be."""
        return self.limits.min_idle + len(self._waiting)

    def _enough_ready(self) -> bool:
        return self._ready() >= self._ready_wanted()

    def _is_spent(self, member: Member) -> bool:
        return self.limits.max_uses is not None and member.uses >= self.limits.max_uses

    def _is_leaving(self, member: Member) -> bool:
        return bool(member.retire_reason) or self._is_spent(member)

    def _reason_to_retire(self, member: Member, now: float) -> str:
        if self._is_spent(member):
            return "max_uses"
        if now >= member.expires_at:
            return "max_lifetime"
        serving = sum(not self._is_leaving(m) for m in self._members)
        return "resized" if serving > self.limits.max_size else ""

    def _mark_to_retire(self, member: Member, reason: str) -> None:
        """A soft reason is replaced by any later one; every other reason stays."""
        if reason and (not member.retire_reason or member.retire_reason in SOFT_REASONS):
            member.retire_reason = reason

    def _make_idle(self, member: Member, now: float) -> None:
        member.state, member.idle_since = "idle", now
        # A browser that serves only until its replacement is ready is leased last.
        self._idle.insert(0 if member.retire_reason else len(self._idle), member)

    def _close(self, member: Member, reason: str = "") -> None:
        self._mark_to_retire(member, reason)
        if member in self._idle:
            self._idle.remove(member)
        member.state = "closing"
        self.counts[f"retired_{member.retire_reason.partition(':')[0]}"] += 1
        self._decisions.append(Close(member))

    def _refuse(self, request: Any, error: BrowserkeeperError) -> None:
        self.counts["requests_errors"] += 1
        self._decisions.append(Refuse(request, error))

    def _refuse_all(self, error: BrowserkeeperError) -> None:
        while self._waiting:
            self._refuse(self._waiting.popitem(last=False)[0], error)
