"""The files of the gate, and what one look at them decides.

In ``gate/`` of the state directory::

    lock            locked by whoever looks and decides, for less than a millisecond
    slots/          a file for each browser, locked by its guards (slots.py)
    queue/          a file and a bell for each start that waits (tickets.py)
    yield/          a bell for each pool that could give up an idle browser

Whether a slot or a ticket counts is decided by its lock alone, which the kernel lets go of when the last
process that holds it dies.  So no death loses a place or leaves one taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError, LimitError
from ..guard.bells import SUFFIX, ring, ring_first
from ..process.limit_errors import limit_of_errno
from ..state.ledger import GATE, Ledger
from . import drain, memory
from .decision import Candidate, Reason, Resource, Room, who_may_go
from .files import Bell, Mutex
from .limits import HostLimits, Kind, effective, environment_limits, file_limits
from .overview import GateState, claimant
from .request import SlotRequest
from .slots import HeldSlot, Slot, age_of, describe_self, held, process_of, take
from .tickets import (
    Priority,
    Ticket,
    call,
    candidate,
    is_alive,
    live_facts,
    remove_orphans,
    ticket_names,
)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a start saw when it looked for the last time.

    ``reason``: why it may not go; None if only others are before it.  ``ahead``: the nearest live ticket
    before its own, "" if it is the first.  ``place``: how many tickets are before it, at the most.
    """

    limits: HostLimits
    reason: Reason | None = None
    detail: str = ""
    ahead: str = ""
    place: int = 0


class GateFiles:
    """The files of the gate of one state directory.  Safe to use from several threads and processes."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.mutex = Mutex(ledger.gate / "lock")

    def look(self, request: SlotRequest, ticket: Ticket | None, until: float, check: Any) -> Slot | Look:
        """Decide whether this start may go.  Wakes others that may go.  Raises OSError."""
        try:
            host, closed, detail = file_limits(self.ledger), None, ""
        except ConfigError as error:
            if ticket is None:
                raise
            host, closed, detail = HostLimits(), "limits", str(error)
        own = effective(
            environment_limits(), max_browsers=request.max_browsers, min_memory=request.min_memory
        )
        limits = own.combined(host)
        with self.locked(until, check):
            if closed is None and (drained := drain.present(self.ledger)) is not None:
                closed, detail = "draining", str(drained)
            asks = limits.min_memory is not None and closed is None
            room = self._room(host, asks, closed)  # type: ignore[arg-type]
            if ticket is not None:
                ticket.answer()
                if request.priority == "work" and ticket.priority == "standby":
                    ticket.promote()
                    self.ask_pools_to_yield()
            most, least = own.most(request.kind), own.memory(request.kind)
            me = Candidate(
                ticket.name if ticket is not None else "",
                resource_of(request.kind),
                most.value if most is not None else None,
                least.value if least is not None else 0,
            )
            names = ticket_names(self.ledger.queue)
            place = _place(names, me.name, request.priority)
            may_go = self._who_may_go(names, place, me, room)
            for name in may_go:
                if name != me.name:
                    call(self.ledger.queue, name)
            if me.name in may_go:
                facts = {**describe_self(request.label), "kind": request.kind}
                slot = Slot(take(self.ledger.slots, request.kind, facts), facts)
                if ticket is not None:
                    ticket.close()
                return slot
            ahead = self._ahead(ticket, names[:place]) if ticket is not None else ""
            return Look(limits, room.why_not(me), detail, ahead, place if ahead else 0)

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

    def _who_may_go(self, names: list[str], place: int, me: Candidate, room: Room) -> set[str]:
        """The names of the tickets that may go now, and perhaps that of ``me``, at this place.

        Reads no ticket where nothing may start at all.
        """
        resources: tuple[Resource, ...] = ("browser", "grid")
        if room.is_full_for_all(resources):
            return set()
        queue, late, unknown = [], set(), process_of({})
        for position, name in enumerate([*names[:place], "", *names[place:]]):
            if position == place:
                queue.append((me, unknown))
            elif name != me.name:
                facts = live_facts(self.ledger.queue, name, remove=True)
                if facts is not None:
                    one = candidate(self.ledger.queue, name, facts)
                    queue.append((one, process_of(facts)))
                    late |= {process_of(facts)} if one.is_late else set()
        # A stopped process answers for none of its starts: the others of it would each take as long.
        late.discard(unknown)
        found = [dataclasses.replace(one, is_late=one.is_late or who in late) for one, who in queue]
        return {one.name for one in who_may_go(found, room)}

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

    def _require_directories(self) -> None:
        for part in GATE:
            path = self.ledger.directory / part
            if not path.is_dir():
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)

    def enter_queue(self, request: SlotRequest, until: float, check: Any) -> Ticket:
        """A ticket at the end of the queue.  Raises OSError."""
        own = effective(
            environment_limits(), max_browsers=request.max_browsers, min_memory=request.min_memory
        )
        most, least = own.most(request.kind), own.memory(request.kind)
        facts = {
            **describe_self(request.label),
            "kind": request.kind,
            "priority": request.priority,
            "pool": request.pool,
            "max": most.value if most is not None else None,
            "min_memory": least.value if least is not None else 0,
        }
        with self.locked(until, check):
            remove_orphans(self.ledger.queue)
            ticket = Ticket(self.ledger.queue, facts)
        request.bell = ticket.bell
        return ticket

    # -- looking, without taking

    def state(self, *, without: str = "") -> GateState:
        """Limits, holders and waiters.  Changes nothing, and never waits for long: where the gate's lock
        cannot be had, a slot that was being made may be missing.  ``without``: the name of a ticket that
        is left out.  Raises nothing but LimitError."""
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
                for name in ticket_names(self.ledger.queue):
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

    def held_back_outside(self, pool: str, kind: Kind) -> list[float]:
        """See ``Gate.held_back_outside``.  Takes 20 µs where the queue is empty."""
        ages: dict[str, float] = {}
        queue: list[Candidate] = []
        try:
            for name in ticket_names(self.ledger.queue):
                facts = live_facts(self.ledger.queue, name, remove=False)
                if facts is None or not name.startswith("0"):
                    continue
                queue.append(candidate(self.ledger.queue, name, facts))
                is_ours = pool and facts.get("pool") == pool
                if queue[-1].resource == resource_of(kind) and not is_ours:
                    ages[name] = age_of(facts)
            if not ages or drain.present(self.ledger) is not None:
                return []
            host = file_limits(self.ledger, patient=False)
            asks = host.min_memory is not None or any(one.memory for one in queue)
            may_go = {one.name for one in who_may_go(queue, self._room(host, asks, remove=False))}
        except (OSError, ConfigError):
            return []
        return [age for name, age in ages.items() if name not in may_go]

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


def resource_of(kind: Kind) -> Resource:
    return "grid" if kind == "grid" else "browser"


def _place(names: list[str], own: str, priority: Priority) -> int:
    """Where a start is in the queue, which has these names; one without a ticket would be the last of
    its priority."""
    if own in names:
        return names.index(own)
    return sum(name.startswith("0") for name in names) if priority == "work" else len(names)


__all__ = ["GateFiles", "Look"]
