"""The pool's accounting, without a browser: hypothesis plays the world that carries orders out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from browserkeeper.errors import (
    LaunchError,
    PoolClosed,
    PoolUnavailable,
    ResolveError,
    TooManyWaiting,
)
from browserkeeper.pool.circuit_breaker import (
    LONGEST_PAUSE,
    OPENS_AFTER,
    CircuitBreaker,
    random_pause,
)
from browserkeeper.pool.scheduler import (
    PING_AFTER,
    PING_EVERY,
    SURGE,
    Close,
    Grant,
    Launch,
    Limits,
    Member,
    Ping,
    Refuse,
    Renew,
    Scheduler,
)

LIMITS = Limits(
    max_size=2,
    min_idle=1,
    max_waiting=100,
    max_uses=None,
    max_lifetime=1e6,
    idle_timeout=1e6,
    launch_concurrency=2,
)


def scheduler_of(**changes: Any) -> Scheduler:
    return Scheduler(
        dataclasses.replace(LIMITS, **changes), CircuitBreaker(lambda failures: 1.0), rng=lambda: 0.0
    )


class World:
    """Carries the orders out when it is told to, and notices when one makes no sense."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self.now = 0.0
        self.to_launch: list[Member] = []
        self.to_answer: list[Member] = []
        self.to_close: list[Member] = []
        self.held: dict[int, Member] = {}
        self.asked: list[int] = []
        self.answers: dict[int, Any] = {}
        self.dead: set[Member] = set()
        self.closed: set[Member] = set()
        self.grants: list[int] = []

    def carry_out(self) -> None:
        for decision in self.scheduler.take_decisions():
            if isinstance(decision, Refuse):
                assert decision.request not in self.answers
                self.answers[decision.request] = decision.error
                continue
            member = decision.member
            assert member not in self.closed, "a decision about a browser that was to be closed"
            match decision:
                case Launch():
                    self.to_launch.append(member)
                case Renew() | Ping():
                    self.to_answer.append(member)
                case Close() if member.state != "starting":
                    self.closed.add(member)
                    self.to_close.append(member)
                case Grant(_, request):
                    self._granted(member, request)

    def _granted(self, member: Member, request: int) -> None:
        assert request not in self.answers, "answered twice"
        assert member not in self.held.values(), "leased twice at the same time"
        assert member not in self.dead, "a dead browser was leased"
        assert member not in self.to_answer, "leased before it was ready"
        assert self.now - member.answered_at <= PING_AFTER, "leased without a recent answer"
        most = self.scheduler.limits.max_uses
        assert most is None or member.uses <= most
        assert self.in_use() < self.scheduler.limits.max_size
        self.answers[request] = member
        self.held[request] = member
        self.grants.append(request)

    def ask(self) -> int:
        request = len(self.asked)
        self.asked.append(request)
        self.scheduler.add_request(request, self.now)
        self.carry_out()
        return request

    def give_back(self, request: int, bad: str = "") -> None:
        self.scheduler.returned(self.held.pop(request), bad, self.now)
        self.carry_out()

    def work_off(self) -> None:
        """Everything that is under way succeeds, until there is nothing to do any more."""
        for _ in range(200):
            if not (self.to_launch or self.to_answer or self.to_close):
                if self.scheduler.breaker.retry_at <= self.now:
                    return
                self.now = self.scheduler.breaker.retry_at
            for member in self.take("to_close"):
                self.scheduler.ended(member, self.now)
            for member in self.take("to_launch"):
                self.scheduler.launched(member, self.now)
            for member in self.take("to_answer"):
                self.scheduler.ready(member, "", self.now)
            self.scheduler.decide(self.now)
            self.carry_out()
        raise AssertionError("it never comes to rest")

    def wanted(self) -> int:
        if self.scheduler.closed or self.scheduler.draining:
            return 0
        room = self.scheduler.limits.max_size - self.in_use()
        return min(self.scheduler.limits.min_idle, max(0, room))

    def in_use(self) -> int:
        return sum(member not in self.dead for member in self.held.values())

    def take(self, name: str) -> list[Member]:
        members: list[Member] = getattr(self, name)
        setattr(self, name, [])
        return members


# ------------------------------------------------------------------ against a model


class Accounting(RuleBasedStateMachine):
    @initialize(
        max_size=st.integers(1, 4),
        min_idle=st.integers(0, 3),
        max_uses=st.sampled_from([None, 1, 2, 5]),
        concurrency=st.integers(1, 3),
        max_waiting=st.sampled_from([0, 2, 100]),
    )
    def begin(
        self, max_size: int, min_idle: int, max_uses: int | None, concurrency: int, max_waiting: int
    ) -> None:
        scheduler = scheduler_of(
            max_size=max_size,
            min_idle=min(min_idle, max_size),
            max_uses=max_uses,
            launch_concurrency=concurrency,
            max_waiting=max_waiting,
            max_lifetime=60.0,
            idle_timeout=20.0,
        )
        self.world = World(scheduler)
        self.scheduler = scheduler
        self.shrunk = False
        scheduler.decide(0.0)
        self.world.carry_out()

    @rule()
    def ask(self) -> None:
        self.world.ask()

    @rule(data=st.data())
    @precondition(lambda self: self.waiting())
    def withdraw(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.waiting()))
        self.world.answers[request] = "withdrew"
        self.scheduler.cancel_request(request, self.world.now)
        self.world.carry_out()

    @rule(data=st.data(), bad=st.sampled_from(["", "", "requested: captcha", "interrupted"]))
    @precondition(lambda self: self.world.held)
    def give_back(self, data: st.DataObject, bad: str) -> None:
        self.world.give_back(data.draw(st.sampled_from(sorted(self.world.held))), bad)

    @rule(data=st.data())
    @precondition(lambda self: self.world.held)
    def decline(self, data: st.DataObject) -> None:
        member = self.world.held.pop(data.draw(st.sampled_from(sorted(self.world.held))))
        if member.state == "leased":
            self.scheduler.decline_grant(member, self.world.now)
            self.world.carry_out()

    @rule(data=st.data(), retiring=st.sampled_from(["", "", "max_memory"]))
    @precondition(lambda self: self.world.to_answer)
    def answer(self, data: st.DataObject, retiring: str) -> None:
        member = self.pick(data, self.world.to_answer)
        self.scheduler.ready(member, retiring, self.world.now)
        self.world.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.world.to_launch)
    def launch(self, data: st.DataObject) -> None:
        self.scheduler.launched(self.pick(data, self.world.to_launch), self.world.now)
        self.world.carry_out()

    @rule(data=st.data(), hopeless=st.booleans())
    @precondition(lambda self: self.world.to_launch)
    def fail(self, data: st.DataObject, hopeless: bool) -> None:
        member = self.pick(data, self.world.to_launch)
        error = ResolveError("no browser") if hopeless else LaunchError("did not start")
        self.scheduler.launch_failed(member, error, self.world.now)
        self.world.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.world.to_close)
    def finish(self, data: st.DataObject) -> None:
        self.scheduler.ended(self.pick(data, self.world.to_close), self.world.now)
        self.world.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.scheduler.members("idle", "leased", "refreshing", "checking"))
    def die(self, data: st.DataObject) -> None:
        living = self.scheduler.members("idle", "leased", "refreshing", "checking")
        member = data.draw(st.sampled_from(living))
        self.world.dead.add(member)
        self.scheduler.lost(member, self.world.now)
        self.world.carry_out()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 25.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.scheduler.decide(self.world.now)
        self.world.carry_out()

    @rule()
    def recycle(self) -> None:
        self.scheduler.recycle(self.world.now)
        self.world.carry_out()

    @rule(size=st.integers(1, 5), min_idle=st.integers(0, 5))
    def resize(self, size: int, min_idle: int) -> None:
        changed = dataclasses.replace(self.scheduler.limits, max_size=size, min_idle=min(size, min_idle))
        self.shrunk = self.shrunk or size < self.scheduler.limits.max_size
        self.scheduler.resize(changed, self.world.now)
        self.world.carry_out()

    @rule()
    def work_off(self) -> None:
        self.world.work_off()

    def pick(self, data: st.DataObject, members: list[Member]) -> Member:
        member: Member = data.draw(st.sampled_from(members))
        members.remove(member)
        return member

    def waiting(self) -> list[int]:
        return [request for request in self.world.asked if request not in self.world.answers]

    @invariant()
    def nobody_is_forgotten(self) -> None:
        assert len(self.waiting()) == self.scheduler.waiting

    @invariant()
    def every_member_is_somewhere(self) -> None:
        world, scheduler = self.world, self.scheduler
        assert set(scheduler.members("starting")) == set(world.to_launch)
        assert set(scheduler.members("closing")) == set(world.to_close)
        assert set(scheduler.members("refreshing", "checking")) <= set(world.to_answer)
        assert set(scheduler.members("leased")) <= set(world.held.values())
        assert scheduler.available == len(scheduler.members("idle"))

    @invariant()
    def there_are_not_too_many(self) -> None:
        if not self.shrunk:
            assert len(self.scheduler.members()) <= self.scheduler.limits.max_size + SURGE
        assert len(self.world.to_launch) <= self.scheduler.limits.launch_concurrency

    @invariant()
    def none_waits_while_one_is_ready(self) -> None:
        scheduler = self.scheduler
        at_work = len(scheduler.members("leased", "checking"))
        if scheduler.available and at_work < scheduler.limits.max_size:
            assert scheduler.waiting <= len(scheduler.members("checking"))

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.world.grants == sorted(self.world.grants)

    def teardown(self) -> None:
        """Whatever happened: everybody gets an answer, and the pool its full strength."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.work_off()
        while self.waiting():
            assert world.held, f"{self.waiting()} wait, and nobody has a browser"
            world.give_back(min(world.held))
            world.work_off()
        for request in list(world.held):
            world.give_back(request)
        world.work_off()
        assert self.scheduler.available >= self.scheduler.limits.min_idle
        self.scheduler.close(world.now)
        world.carry_out()
        world.work_off()
        assert not self.scheduler.members()


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes minutes
    suppress_health_check=list(HealthCheck),
)


# ------------------------------------------------------------------ one thing at a time


@pytest.fixture
def world() -> World:
    world = World(scheduler_of())
    world.scheduler.decide(0.0)
    world.carry_out()
    world.work_off()
    return world


def test_standbys_are_made_before_anybody_asks(world: World) -> None:
    assert world.scheduler.available == 1


def test_the_last_that_came_back_goes_out_first() -> None:
    world = World(scheduler_of(max_size=3, min_idle=3))
    world.scheduler.decide(0.0)
    world.carry_out()
    world.work_off()
    first, second = world.ask(), world.ask()
    last = world.held[first]
    world.give_back(second)
    world.work_off()
    world.give_back(first)
    world.work_off()
    assert world.held[world.ask()] is last


def test_spare_browsers_age_out_down_to_min_idle() -> None:
    world = World(scheduler_of(min_idle=0, idle_timeout=20.0))
    requests = [world.ask(), world.ask()]
    world.work_off()
    for request in requests:
        world.give_back(request)
    world.work_off()
    assert world.scheduler.available == 2
    world.now += 21
    world.scheduler.decide(world.now)
    world.carry_out()
    assert world.scheduler.available == 0
    assert world.scheduler.counts["retired_idle_timeout"] == 2


def test_an_aged_one_serves_until_its_replacement_is_there(world: World) -> None:
    (old,) = world.scheduler.members("idle")
    world.scheduler.recycle(world.now)
    world.carry_out()
    assert old.state == "idle"
    assert len(world.to_launch) == 1
    world.work_off()
    assert old in world.closed
    assert world.scheduler.available == 1


def test_one_in_use_is_never_retired_under_its_user(world: World) -> None:
    request = world.ask()
    member = world.held[request]
    world.now += 1e7
    world.scheduler.recycle(world.now)
    world.carry_out()
    assert member.state == "leased"
    world.work_off()
    world.give_back(request)
    assert member in world.closed


def test_a_replacement_is_on_its_way_during_the_last_use() -> None:
    world = World(scheduler_of(max_size=1, max_uses=2))
    world.scheduler.decide(0.0)
    world.carry_out()
    world.work_off()
    world.give_back(world.ask())
    world.work_off()
    assert not world.to_launch
    world.ask()
    assert len(world.to_launch) == 1


def test_fresh_processes_are_no_reason_to_exceed_max_size() -> None:
    world = World(scheduler_of(max_size=1, max_uses=1))
    world.scheduler.decide(0.0)
    world.carry_out()
    world.work_off()
    world.ask()
    assert not world.to_launch


def test_one_that_was_not_heard_of_is_asked_before_it_is_handed_out(world: World) -> None:
    world.now += PING_AFTER + 1
    request = world.ask()
    assert request not in world.held
    assert len(world.scheduler.members("checking")) == 1
    world.work_off()
    assert request in world.held


def test_idle_ones_are_asked_from_time_to_time(world: World) -> None:
    world.now += PING_EVERY
    assert world.scheduler.next_due(0.0) is not None
    world.scheduler.decide(world.now)
    assert len(world.scheduler.members("checking")) == 1


def test_one_that_turns_out_unfit_leaves_its_request_the_first_in_line(world: World) -> None:
    first = world.ask()
    second = world.ask()
    member = world.held.pop(first)
    del world.answers[first]
    world.scheduler.grant_failed(member, world.now)
    world.carry_out()
    world.work_off()
    assert world.grants[-1] == first or world.grants == [first, first, second]
    assert first in world.held


def test_waiters_learn_the_cause_when_browsers_cannot_be_started() -> None:
    world = World(scheduler_of(min_idle=0))
    request = world.ask()
    for attempt in range(OPENS_AFTER):
        assert request not in world.answers, f"given up after {attempt}"
        world.now += 1
        world.scheduler.decide(world.now)
        world.carry_out()
        for member in world.take("to_launch"):
            world.scheduler.launch_failed(member, LaunchError(f"no {attempt}"), world.now)
        world.carry_out()
    error = world.answers[request]
    assert isinstance(error, PoolUnavailable)
    assert "no 2" in str(error)
    later = world.ask()
    assert isinstance(world.answers[later], PoolUnavailable), "it is told at once"


def test_a_launch_that_no_retry_can_mend_is_told_at_once() -> None:
    world = World(scheduler_of(min_idle=0))
    request = world.ask()
    world.scheduler.launch_failed(world.take("to_launch")[0], ResolveError("no chrome"), world.now)
    world.carry_out()
    assert isinstance(world.answers[request], PoolUnavailable)
    assert isinstance(world.answers[request].cause, ResolveError)


def test_while_launches_fail_one_at_a_time_is_tried_after_a_pause() -> None:
    world = World(scheduler_of(max_size=4, min_idle=4, launch_concurrency=3))
    world.scheduler.decide(0.0)
    world.carry_out()
    assert len(world.to_launch) == 3
    for member in world.take("to_launch"):
        world.scheduler.launch_failed(member, LaunchError("no"), world.now)
    world.carry_out()
    assert not world.to_launch
    world.now += 1
    world.scheduler.decide(world.now)
    world.carry_out()
    assert len(world.to_launch) == 1


def test_too_many_are_turned_away() -> None:
    world = World(scheduler_of(min_idle=0, max_waiting=1))
    world.ask()
    assert isinstance(world.answers[world.ask()], TooManyWaiting)


def test_draining_lets_leases_end_and_gives_no_more(world: World) -> None:
    request = world.ask()
    world.scheduler.drain(world.now)
    world.carry_out()
    assert isinstance(world.answers[world.ask()], PoolClosed)
    world.work_off()
    assert world.scheduler.members() == [world.held[request]]
    world.give_back(request)
    world.work_off()
    assert not world.scheduler.members()


@pytest.mark.parametrize("failures", [1, 2, 5, 50])
def test_pauses_grow_are_random_and_bounded(failures: int) -> None:
    pauses = [random_pause(failures) for _ in range(50)]
    assert all(0 <= pause <= min(LONGEST_PAUSE, 0.5 * 2 ** (failures - 1)) for pause in pauses)
    assert len(set(pauses)) > 10
