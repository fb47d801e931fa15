"""Who may start next, against a model of the host, and the rules one by one.  No file, no clock.

Hypothesis draws what happens: starts that come with limits of their own, browsers that end, processes
that are stopped, an operator who changes the limits.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from browserkeeper.admission.decision import Candidate, Resource, Room, who_may_go

LIMITS = st.none() | st.integers(1, 4)
MEMORY = st.integers(0, 6)
BROWSER = 2
"""Units of memory that a browser takes in the model."""


@dataclasses.dataclass
class Start:
    """A start of the model: ``order`` is its place among those of its priority."""

    order: int
    is_work: bool
    candidate: Candidate
    is_stopped: bool = False

    @property
    def place(self) -> tuple[bool, int]:
        return not self.is_work, self.order


class Host(RuleBasedStateMachine):
    """A host with programs that wait, and a check of every decision."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.waiting: list[Start] = []
        self.running: list[Candidate] = []
        self.limits: dict[Resource, int | None] = {"browser": 2, "grid": None}
        self.bound = 0
        self.total = 100
        self.drained = False

    # -- what happens

    @rule(
        is_work=st.booleans(),
        resource=st.sampled_from(["browser", "browser", "grid"]),
        most=LIMITS,
        memory=MEMORY,
    )
    def comes(self, is_work: bool, resource: Resource, most: int | None, memory: int) -> None:
        number = next(self.numbers)
        candidate = Candidate(f"{number}", resource, most, memory if resource == "browser" else 0)
        self.waiting.append(Start(number, is_work, candidate))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gives_up_or_is_killed(self, data: st.DataObject) -> None:
        self.waiting.remove(data.draw(st.sampled_from(self.waiting)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), is_stopped=st.booleans())
    def is_stopped_or_continued(self, data: st.DataObject, is_stopped: bool) -> None:
        start = data.draw(st.sampled_from(self.waiting))
        start.is_stopped = is_stopped
        start.candidate = dataclasses.replace(start.candidate, is_late=is_stopped)

    @precondition(lambda self: any(not start.is_work for start in self.waiting))
    @rule(data=st.data())
    def is_promoted(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from([start for start in self.waiting if not start.is_work]))
        start.is_work, start.order = True, next(self.numbers)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        self.running.remove(data.draw(st.sampled_from(self.running)))

    @rule(browsers=LIMITS, grid=LIMITS, bound=MEMORY, total=st.integers(0, 20))
    def operator_changes_the_limits(
        self, browsers: int | None, grid: int | None, bound: int, total: int
    ) -> None:
        self.limits, self.bound, self.total = {"browser": browsers, "grid": grid}, bound, total

    @rule(drained=st.booleans())
    def operator_drains_or_resumes(self, drained: bool) -> None:
        self.drained = drained

    @rule(at_once=st.booleans())
    def those_that_may_go_go(self, at_once: bool) -> None:
        """All that are not stopped; or the first of them, which then decides for the others anew."""
        queue = self.queue()
        chosen = {one.name for one in who_may_go([start.candidate for start in queue], self.room())}
        for start in queue:
            if start.candidate.name in chosen and not start.is_stopped:
                self.admit(start)
                if not at_once:
                    return

    # -- the model

    def queue(self) -> list[Start]:
        return sorted(self.waiting, key=lambda start: start.place)

    def room(self) -> Room:
        held: dict[Resource, int] = {"browser": self.count("browser"), "grid": self.count("grid")}
        free = self.total - BROWSER * held["browser"]
        closed = "draining" if self.drained else None
        return Room(held, self.limits, self.bound, free, BROWSER, closed)  # type: ignore[arg-type]

    def count(self, resource: Resource) -> int:
        return sum(one.resource == resource for one in self.running)

    def fits(self, one: Candidate) -> bool:
        """Whether one more start keeps all limits; written apart from the code under test."""
        host = self.limits[one.resource]
        count = self.count(one.resource)
        if self.drained or (host is not None and count >= host):
            return False
        if one.most is not None and count >= one.most:
            return False
        free = self.total - BROWSER * self.count("browser")
        bound = max(self.bound, one.memory)
        return one.resource == "grid" or bound == 0 or free >= bound

    def admit(self, start: Start) -> None:
        assert self.fits(start.candidate), "a browser too many"
        self.waiting.remove(start)
        self.running.append(start.candidate)

    # -- what holds at every moment

    @invariant()
    def no_start_waits_that_could_go_beside_those_that_go(self) -> None:
        queue = self.queue()
        chosen = {one.name for one in who_may_go([start.candidate for start in queue], self.room())}
        before = list(self.running)
        try:
            self.running += [s.candidate for s in queue if s.candidate.name in chosen]
            for start in queue:
                assert start.candidate.name in chosen or not self.fits(start.candidate)
        finally:
            self.running = before

    @invariant()
    def of_starts_with_equal_limits_the_first_goes_first(self) -> None:
        queue = [start for start in self.queue() if not start.is_stopped]
        names = {one.name for one in who_may_go([start.candidate for start in queue], self.room())}
        refused = set()
        for start in queue:
            one = start.candidate
            kind = (one.resource, one.most, one.memory)
            assert one.name not in names or kind not in refused
            if one.name not in names:
                refused.add(kind)

    @invariant()
    def a_stopped_start_takes_no_place_from_others(self) -> None:
        queue = [start.candidate for start in self.queue()]
        alive = [one for one in queue if not one.is_late]
        chosen = {one.name for one in who_may_go(queue, self.room()) if not one.is_late}
        assert chosen == {one.name for one in who_may_go(alive, self.room())}


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def names(queue: list[Candidate], room: Room) -> list[str]:
    return [one.name for one in who_may_go(queue, room)]


def room(browsers: int = 0, most: int | None = 2, **more: object) -> Room:
    return Room({"browser": browsers, "grid": 0}, {"browser": most}, **more)  # type: ignore[arg-type]


def test_as_many_go_as_there_is_room_for() -> None:
    queue = [Candidate(name) for name in "abc"]
    assert names(queue, room()) == ["a", "b"]
    assert names(queue, room(1)) == ["a"]
    assert names(queue, room(2)) == []
    assert names(queue, room(5)) == [], "the limit was lowered below what runs"


def test_a_start_with_a_lower_limit_of_its_own_holds_up_none_behind_it() -> None:
    queue = [Candidate("modest", most=1), Candidate("b"), Candidate("c")]
    assert names(queue, room(1)) == ["b"]
    assert names(queue, room(0)) == ["modest", "b"]


def test_a_start_that_wants_more_memory_holds_up_none_behind_it() -> None:
    queue = [Candidate("large", memory=8), Candidate("b", memory=2)]
    assert names(queue, room(most=None, free=5, start=1)) == ["b"]


def test_each_start_counts_with_the_memory_that_those_before_it_will_take() -> None:
    queue = [Candidate(name, memory=4) for name in "abc"]
    assert names(queue, room(most=None, free=9, start=3)) == ["a", "b"]


def test_memory_that_could_not_be_looked_at_holds_up_no_start() -> None:
    assert names([Candidate("a", memory=4)], room(most=None, free=None)) == ["a"]


def test_a_session_on_a_grid_needs_neither_memory_nor_a_browsers_slot() -> None:
    queue = [Candidate("a"), Candidate("grid", "grid")]
    assert names(queue, room(2, memory=9, free=0)) == ["grid"]


@pytest.mark.parametrize("reason", ["draining", "limits"])
def test_nothing_goes_while_the_host_is_closed(reason: str) -> None:
    closed = room(0, None, closed=reason)
    assert names([Candidate("a"), Candidate("b", "grid")], closed) == []
    assert closed.why_not(Candidate("a")) == reason


def test_a_stopped_start_is_passed_over_and_has_its_place_again_when_it_goes_on() -> None:
    stopped = [Candidate("a", is_late=True), Candidate("b"), Candidate("c")]
    assert names(stopped, room(1)) == ["b"]
    assert names(stopped, room(0)) == ["b", "c"]
    assert names([Candidate("a"), Candidate("b")], room(1)) == ["a"]


def test_a_start_that_was_called_and_could_not_go_holds_up_none_behind_it() -> None:
    """Its process is in a cgroup with less memory, which only that process sees."""
    queue = [Candidate("a", memory=4, has_declined=True), Candidate("b")]
    assert names(queue, room(1, free=9)) == ["b"]
    assert names([dataclasses.replace(queue[0], has_declined=False), queue[1]], room(1, free=9)) == ["a"]
