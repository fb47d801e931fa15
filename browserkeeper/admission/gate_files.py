"""The files of the gate, and what one look at them decides.

In ``gate/`` of the state directory::

    lock            locked by whoever looks and decides, for less than a millisecond
    slots/          a file for each browser, locked by its guards (slots.py)
    turns/          a file for each start that decides, which becomes its slot
    queue/          a file and a bell for each start that waits (tickets.py)
    yield/          a bell for each pool that could give up an idle browser

Whether a slot or a ticket counts is decided by its lock alone, which the kernel lets go of when the last
process that holds it dies.  So no death loses a place or leaves one taken.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import ConfigError, LimitError
from ..guard.bells import CALLED, SUFFIX, ring, ring_first
from ..process.limit_errors import limit_of_errno
from ..state.ledger import GATE, Ledger
from . import drain, memory
from .decision import Candidate, Reason, Resource, Room, who_may_go
from .files import Bell, Mutex, read_facts
from .limits import HostLimits, Kind, effective, environment_limits, file_limits, version_of
from .overview import GateState, claimant
from .request import SlotRequest
from .slots import (
    DecideAgainError,
    HeldSlot,
    Slot,
    Turn,
    age_of,
    describe_self,
    held,
    process_of,
    remove_dead_turns,
)
from .tickets import (
    Priority,
    Ticket,
    call,
    candidate,
    is_alive,
    live_facts,
    ticket_names,
    tickets_and_marks,
    with_marks,
)

T = TypeVar("T")

NO_PROCESS = process_of({})
REMOVALS = 10
"""How often a start begins anew where the gate's directory is removed under it."""
CALLED_AT_ONCE = 8
"""Starts that are asked at once whether they live, where one of them does not answer."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What a start saw when it looked for the last time.

    ``reason``: why it may not go; None if only others are before it.  ``ahead``: the nearest live ticket
    before its own, "" if it is the first.  ``place``: how many tickets are before it, at the most.
    ``ticket``: its own, None where it does not wait.  ``has_called``: it has told others that they may
    go, which may be stopped.
    """

    limits: HostLimits
    reason: Reason | None = None
    detail: str = ""
    ahead: str = ""
    place: int = 0
    ticket: Ticket | None = None
    has_called: bool = False


@dataclasses.dataclass(frozen=True)
class HeldBack:
    """A start outside a pool that cannot go ahead now.

    ``age``: for how many seconds it has waited.  ``has``: how many slots its own pool holds, 0 where it
    is of none.  ``pool_has``: how many the pool holds that asks.  ``can_follow``: False where one slot
    less would not do for it, by a lower limit of its own, but would for a launch of the pool that asks.
    """

    age: float
    has: int
    pool_has: int
    can_follow: bool = True

    @property
    def is_owed(self) -> bool:
        """True if the pool that asks owes it a browser that comes back from a lease.

        False for a launch of another pool that has browsers, and not fewer by two at least, and for one
        that could not follow: the slot would soon be this pool's again, which costs a browser's start.
        """
        return self.can_follow and (self.has == 0 or self.pool_has - self.has >= 2)


class GateFiles:
    """The files of the gate of one state directory.  Safe to use from several threads and processes."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.mutex = Mutex(ledger.gate / "lock", ledger.turns)
        self._read: dict[str, tuple[Candidate, tuple[str, int]]] = {}
        """The tickets that were read already; a ticket with other content has another name."""

    def look(
        self,
        request: SlotRequest,
        ticket: Ticket | None,
        turn: Turn,
        until: float,
        check: Any,
        *,
        waits: bool = True,
    ) -> Slot | Look:
        """Decide whether this start may go.  Wakes others that may go.

        ``waits``: a start that may not go and has no ticket gets one, at the end of the queue.

        Raises DecideAgainError, OSError, and ConfigError where the limits are not valid and the start
        has no ticket yet.
        """
        version = version_of(self.ledger)
        host, closed, detail = self._host_limits(is_waiting=ticket is not None)
        own = _own_limits(request)
        limits = own.combined(host)
        self._require_directories()
        turn.prepare()
        with self.locked(until, check):
            # The lock may have been long in coming, and this process may have been stopped meanwhile.
            if closed is None and version_of(self.ledger) != version:
                raise DecideAgainError
            if closed is None and (drained := drain.present(self.ledger)) is not None:
                closed, detail = "draining", str(drained)
            was_called = ticket is not None and self._answer(request, ticket)
            me = _candidate_of(request, ticket, own)
            names, marks = tickets_and_marks(self.ledger.queue)
            place = _place(names, me.name, request.priority)
            room = self._room(host, limits.min_memory is not None and closed is None, closed)
            others: list[Candidate] = []
            if ticket is not None or room.why_not(me) is None:  # a new one that cannot go wakes none
                others = self._others(names, me.name, marks)
                if room.free is None and closed is None and any(one.memory for one in others):
                    room = self._room(host, True, closed)
            may_go = self._who_may_go([*others[:place], me, *others[place:]], me.name, room)
            self._call(may_go - {me.name}, names[:place], marks)
            if me.name in may_go:
                facts = {**describe_self(request.label), "kind": request.kind, "pool": request.pool}
                facts["ticket"] = me.name
                slot = Slot(turn.become_slot(self.ledger.slots, request.kind, facts), facts)
                if ticket is not None:
                    ticket.close()
                return slot
            reason, ahead = room.why_not(me), ""
            # A host that is full is full to all: this start must not lose its place to one that looks a
            # moment later.
            is_full = room.why_not(Candidate("", me.resource)) == "full"
            if was_called and reason not in (None, "draining") and ticket is not None and not is_full:
                ticket.decline()
            if ticket is None and waits:
                ticket = self._new_ticket(request, me, len(names))
            if ticket is not None:
                ahead = self._ahead(ticket, names[:place])
            place = place if ahead else 0
            return Look(limits, reason, detail, ahead, place, ticket, has_called=bool(may_go))

    def _host_limits(self, *, is_waiting: bool) -> tuple[HostLimits, Reason | None, str]:
        """The limits of the file; why nothing may start, with the problem, where it is not valid."""
        try:
            return file_limits(self.ledger), None, ""
        except ConfigError as error:
            if not is_waiting:
                raise
            return HostLimits(), "limits", str(error)

    def _answer(self, request: SlotRequest, ticket: Ticket) -> bool:
        """Take note of what was rung; True if the start was called.  Promotes its ticket where its
        request was promoted."""
        was_called = ticket.answer()
        if request.priority == "work" and ticket.priority == "standby":
            ticket.promote()
            self.ask_pools_to_yield()
        return was_called

    def _call(self, names: set[str], ahead: list[str], marks: set[str]) -> None:
        """Tell these that they may go.  Where one ahead has been told before and has not answered, the
        next ones are told too: if they are stopped as well, all are late at the same time."""
        for name in names:
            call(self.ledger.queue, name)
        if any(name + CALLED in marks for name in names.intersection(ahead)):
            for name in ahead[:CALLED_AT_ONCE]:
                call(self.ledger.queue, name)

    def _room(
        self, host: HostLimits, asks: bool, closed: Reason | None = None, *, remove: bool = True
    ) -> Room:
        """Count the slots, and remove those whose processes are dead.

        ``asks``: find out how much memory is free, too.
        """
        slots = list(held(self.ledger.slots, remove=remove, details=asks))
        counts: dict[Resource, int] = {"browser": 0, "grid": 0}
        for slot in slots:
            counts[resource_of(slot.kind)] += 1
        young = [slot.age for slot in slots if slot.kind == "browser"]
        return Room(
            held=counts,
            most={
                "browser": host.max_browsers.value if host.max_browsers else None,
                "grid": host.max_grid_sessions.value if host.max_grid_sessions else None,
            },
            memory=host.min_memory.value if host.min_memory else 0,
            free=memory.free_for_a_start(young) if asks else None,
            start=memory.BROWSER_BYTES,
            closed=closed,
        )

    def _who_may_go(self, queue: list[Candidate], own: str, room: Room) -> set[str]:
        """The names of those that may go now.  Whether their processes live is asked of these only."""
        while True:
            chosen = {one.name for one in who_may_go(queue, room)}
            others = chosen - {own}
            dead = {name for name in others if not is_alive(self.ledger.queue, name, remove=True)}
            if not dead:
                return chosen
            queue = [one for one in queue if one.name not in dead]

    def _others(self, names: list[str], own: str, marks: set[str]) -> list[Candidate]:
        """The tickets but the own one, in their order; each is read once.

        A stopped process answers for none of its starts: if one of them is late, all are, since each
        would take as long.
        """
        known: dict[str, tuple[Candidate, tuple[str, int]]] = {}
        for name in names:
            if name != own:
                known[name] = self._read.get(name) or self._ticket(name)
        self._read = {name: one for name, one in known.items() if one[1] != NO_PROCESS}
        found = dict(known)
        for name in {mark.partition(".")[0] for mark in marks} & found.keys():
            found[name] = with_marks(self.ledger.queue, found[name][0], marks), found[name][1]
        late = {who for one, who in found.values() if one.is_late} - {NO_PROCESS}
        if not late:
            return [one for one, _ in found.values()]
        return [
            dataclasses.replace(one, is_late=True) if who in late else one for one, who in found.values()
        ]

    def _ticket(self, name: str) -> tuple[Candidate, tuple[str, int]]:
        facts = read_facts(str(self.ledger.queue / name))
        return candidate(name, facts), process_of(facts)

    def _ahead(self, ticket: Ticket, names: list[str]) -> str:
        """The last of these tickets whose process lives, "" if none does; the ticket watches it then.

        Removes the dead.  Watches first and asks then: the end of one that lives now is noticed.
        """
        for name in reversed(names):
            ticket.watch(name)
            if is_alive(self.ledger.queue, name, remove=True):
                return name
        ticket.watch("")
        return ""

    @contextlib.contextmanager
    def locked(self, until: float, check: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Hold the gate's lock; makes the directories again where they were removed.  Raises OSError."""
        self._require_directories()
        with self.mutex.held(until, check):
            yield

    def repeated(self, step: Callable[[], T]) -> T:
        """Returns what the step returns, which uses the gate's files.

        The step is repeated where the gate's directory is removed meanwhile.  Raises OSError.
        """
        for _ in range(REMOVALS):
            with contextlib.suppress(FileNotFoundError):
                return step()
        return step()

    def _require_directories(self) -> None:
        for part in GATE:
            path = self.ledger.directory / part
            if not path.is_dir():
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)

    def _new_ticket(self, request: SlotRequest, me: Candidate, waiting: int) -> Ticket:
        """A ticket at the end of the queue.  Raises OSError."""
        facts = {
            **describe_self(request.label),
            "kind": request.kind,
            "priority": request.priority,
            "pool": request.pool,
            "max": me.most,
            "min_memory": me.memory,
        }
        remove_dead_turns(self.ledger.turns, waiting)
        ticket = Ticket(self.ledger.queue, facts)
        request.bell = ticket.bell
        if request.priority != facts["priority"]:  # it was promoted while it had no bell
            ticket.bell.ring()
        return ticket

    # -- looking, without taking

    def state(self, *, without: str = "", tickets_too: bool = True) -> GateState:
        """Limits, holders and waiters.  Changes nothing, and never waits for long: where the gate's lock
        cannot be had, a slot that was being made may be missing.  ``without``: the name of a ticket that
        is left out; without ``tickets_too`` all are.  Raises nothing but LimitError."""
        problem = ""
        limits = HostLimits()
        try:
            limits = environment_limits().combined(file_limits(self.ledger, patient=False))
        except ConfigError as error:
            problem = str(error)
        with contextlib.ExitStack() as stack:
            if os.path.exists(self.ledger.gate / "lock"):
                with contextlib.suppress(OSError):
                    stack.enter_context(self.mutex.held(time.monotonic() + 0.1))
            drained = drain.present(self.ledger)
            slots: list[HeldSlot] = []
            tickets: list[tuple[str, Mapping[str, Any]]] = []
            try:
                slots = list(held(self.ledger.slots, remove=False, details=True))
                for name in ticket_names(self.ledger.queue) if tickets_too else ():
                    facts = live_facts(self.ledger.queue, name, remove=False)
                    if facts is not None and name != without:
                        tickets.append((name, facts))
            except FileNotFoundError:  # it has no gate yet
                pass
            except OSError as error:
                if limit := limit_of_errno(error.errno or 0, str(self.ledger.gate)):
                    raise LimitError(
                        f"The slots in {self.ledger.gate} cannot be counted. {limit}"
                    ) from None
                problem = (
                    problem or f"the slots in {self.ledger.gate} cannot be counted: {error.strerror}"
                )
        holders = [claimant(slot.facts, slot.kind) for slot in slots]
        return GateState(
            limits=limits,
            held=tuple(sorted(holders, key=lambda one: one.since)),
            waiting=tuple(claimant(facts) for name, facts in tickets if name.startswith("0")),
            standby=tuple(claimant(facts) for name, facts in tickets if name.startswith("1")),
            draining=str(drained) if drained is not None else "",
            problem=problem,
        )

    def held_back_outside(self, launch: SlotRequest) -> list[HeldBack]:
        """See ``Gate.held_back_outside``.  Takes 20 µs where the queue is empty."""
        pool, resource = launch.pool, resource_of(launch.kind)
        outside: dict[str, Mapping[str, Any]] = {}
        queue: dict[str, Candidate] = {}
        try:
            for name in ticket_names(self.ledger.queue):
                facts = live_facts(self.ledger.queue, name, remove=False)
                if facts is None or not name.startswith("0"):
                    continue
                queue[name] = with_marks(self.ledger.queue, candidate(name, facts))
                is_ours = pool and facts.get("pool") == pool
                if queue[name].resource == resource and not is_ours:
                    outside[name] = facts
            if not outside or drain.present(self.ledger) is not None:
                return []
            host = file_limits(self.ledger, patient=False)
            ours = _candidate_of(launch, None, _own_limits(launch))
            asks = host.min_memory is not None or any(one.memory for one in [ours, *queue.values()])
            room = self._room(host, asks, remove=False)
            # After the count: of a slot that it has counted, the ticket may not be removed yet.
            slots = list(held(self.ledger.slots, remove=False, details=True))
            for slot in slots:
                queue.pop(name := str(slot.facts.get("ticket")), None)
                outside.pop(name, None)
            may_go = {one.name for one in who_may_go(list(queue.values()), room)}
            pools = collections.Counter(str(slot.facts.get("pool", "")) for slot in slots)
        except (OSError, ConfigError):
            return []
        after = room.with_more(resource, -1)
        comes_back = after.why_not(ours) is None
        found = []
        for name, ticket in self._still_waiting(outside):  # in the order of the queue
            theirs = str(ticket.get("pool") or "")
            if name not in may_go:
                can_follow = not comes_back or after.why_not(queue[name]) is None
                has = pools[theirs] if theirs else 0
                found.append(HeldBack(age_of(ticket), has, pools[pool], can_follow))
                if not found[-1].is_owed:
                    continue
                pools[pool] -= 1
            # Count it as served: else two pools would give each other all of their browsers in turn.
            pools[theirs] += 1
        return found

    def _still_waiting(self, tickets: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Those that are still in the queue.  One that got its slot meanwhile is not held back."""
        for name, ticket in tickets.items():
            if os.path.exists(os.path.join(self.ledger.queue, name)):
                yield name, ticket

    # -- bells

    def ring_first(self) -> None:
        """Wake the first start that waits, since something has changed: a limit, the end of a drain."""
        ring_first(str(self.ledger.queue))

    def ask_pools_to_yield(self) -> None:
        """Ring the bells of all pools that could give up an idle browser.  Removes those of the dead."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.ledger.yields):
                path = str(self.ledger.yields / name)
                if name.endswith(SUFFIX) and not ring(path):
                    _remove_dead_bell(path)

    def yield_bell(self) -> Bell:
        """A bell for a pool that could give up an idle browser: ``fileno()`` becomes readable when a
        program starts to wait; ``clear()`` it then, and ``remove()`` it in the end.  Raises OSError."""
        self._require_directories()
        return Bell(f"{self.ledger.yields / os.urandom(8).hex()}{SUFFIX}")


def _remove_dead_bell(path: str) -> None:
    """Not one that has just been made, and that its pool has not opened yet."""
    with contextlib.suppress(OSError):
        if abs(time.time() - os.stat(path).st_mtime) > 60:
            os.unlink(path)


def _own_limits(request: SlotRequest) -> HostLimits:
    """Those of the program that asks: its environment, and the arguments of the start."""
    given = {"max_browsers": request.max_browsers, "min_memory": request.min_memory}
    return effective(environment_limits(), **given)


def _candidate_of(request: SlotRequest, ticket: Ticket | None, own: HostLimits) -> Candidate:
    most, least = own.most(request.kind), own.memory(request.kind)
    return Candidate(
        ticket.name if ticket is not None else "",
        resource_of(request.kind),
        most.value if most is not None else None,
        least.value if least is not None else 0,
    )


def resource_of(kind: Kind) -> Resource:
    return "grid" if kind == "grid" else "browser"


def _place(names: list[str], own: str, priority: Priority) -> int:
    """Where a start is in the queue, which has these names; one without a ticket would be the last of
    its priority."""
    if own in names:
        return names.index(own)
    return sum(name.startswith("0") for name in names) if priority == "work" else len(names)


__all__ = ["GateFiles", "HeldBack", "Look"]
