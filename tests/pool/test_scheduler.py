"""The scheduler against a model, and its rules one by one.  No browser, no thread, no clock.

Hypothesis draws what happens: requests, launches that fail, browsers that die, and so on.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from browserkeeper.errors import (
    BrowserDied,
    BrowserkeeperError,
    CommandTimeout,
    ConfigError,
    HookError,
    LaunchError,
    PoolClosed,
    PoolUnavailable,
    ResolveError,
    SessionClosed,
    TooManyWaiting,
)
from browserkeeper.pool.circuit_breaker import (
    LONGEST_PAUSE,
    OPENS_AFTER,
    CircuitBreaker,
    launch_pause,
)
from browserkeeper.pool.scheduler import (
    CHECK_PATIENCE,
    KEEP_IDLE,
    PING_AFTER,
    PING_EVERY,
    SURGE,
    Close,
    Decision,
    Grant,
    Launch,
    Limits,
    Member,
    Outsider,
    Ping,
    Promote,
    Refuse,
    Renew,
    Scheduler,
)
from tests.pool.host_model import HostModel, Program

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
    limits = dataclasses.replace(LIMITS, **changes)
    scheduler = Scheduler(limits, CircuitBreaker(lambda failures: 1.0), rng=lambda: 0.0)
    scheduler.check_breaker = CircuitBreaker(lambda failures: 1.0)
    return scheduler


class PoolModel:
    """A model of the pool around the scheduler: takes its decisions, and checks that each makes sense.

    The tests decide when a launch, a renewal or an end is done.  ``dead`` are the browsers that died.
    Each browser takes a slot of ``host``, and each launch may have to wait for one.
    """

    def __init__(self, scheduler: Scheduler, host: HostModel | None = None):
        self.scheduler = scheduler
        self.host = host or HostModel()
        self.now = 0.0
        self.to_launch: list[Member] = []
        self.to_cancel: list[Member] = []
        """Launches that were cancelled while they waited for a slot."""
        self.ended_since_look = 0
        self.asked_at: dict[int, float] = {}
        self.to_answer: list[Member] = []
        self.to_check: set[Member] = set()
        """Of those, the ones whose ``check`` is called as well."""
        self.last_resets: set[Member] = set()
        """Of those, the ones that are closed after their ``reset``."""
        self.passed: set[Member] = set()
        """Browsers that have passed the user's ``check`` since their last lease."""
        self.to_close: list[Member] = []
        self.held: dict[int, Member] = {}
        self.requests: list[int] = []
        self.answers: dict[int, Any] = {}
        self.dead: set[Member] = set()
        self.closed: set[Member] = set()
        self.grants: list[int] = []
        self.failing: set[type[Decision]] = set()
        """The next order of each of these kinds cannot be carried out."""
        self.passed_over: set[int] = set()
        """Requests whose grant failed: those behind them in the queue may be served first."""

    def carry_out(self) -> None:
        orders: list[Decision] = []
        while True:
            self._admit()
            orders += self.scheduler.take_decisions()
            if not orders:
                return
            decision = orders.pop(0)
            if type(decision) in self.failing and not isinstance(decision, Refuse):
                self.failing.remove(type(decision))
                self._fail(decision)
                continue
            if isinstance(decision, Refuse):
                assert decision.request not in self.answers
                self.answers[decision.request] = decision.error
                continue
            assert decision.member not in self.closed, "a decision about a browser that was to be closed"
            self._obey(decision)

    def _obey(self, decision: Launch | Promote | Renew | Ping | Close | Grant) -> None:
        member = decision.member
        match decision:
            case Launch():
                self._launch(member)
            case Promote():
                self.host.promote(member)  # nothing, if it got its slot meanwhile
            case Renew(_, is_last):
                assert not is_last or self.scheduler.limits.resets
                self.last_resets |= {member} if is_last else set()
                self.to_answer.append(member)
            case Ping(_, for_lease):
                self.to_check |= {member} if for_lease and self.scheduler.limits.checks else set()
                self.to_answer.append(member)
            case Close() if member.state == "queued":
                self.host.leave(member)
                if member not in self.to_cancel:
                    self.to_cancel.append(member)
            case Close() if member.state != "starting":
                self.closed.add(member)
                self.to_close.append(member)
                self._check_yield(member)
            case Grant(_, request):
                self._granted(member, request)

    def _launch(self, member: Member) -> None:
        if member.priority == "standby":
            seen = self.scheduler.host
            assert not seen.waiting, "a standby is launched while programs wait outside"
            assert not seen.drained, "a standby is launched on a drained host"
        self.host.ask(member, member.priority)
        self._admit()
        if self.host.waits(member):
            self.scheduler.must_wait(member, self.now)

    def _admit(self) -> None:
        """Give out the host's free slots."""
        for member in [owner for owner in self.host.admit() if isinstance(owner, Member)]:
            self.to_launch.append(member)
            self.scheduler.admitted(member, self.now)

    def look(self) -> None:
        """The pool looks who waits outside."""
        self.ended_since_look = 0
        self.scheduler.see_host(self.host.view(), self.now)
        self.carry_out()

    def unserved(self) -> tuple[Outsider, ...]:
        """Those that are seen to wait outside, without those that get a slot of the pool."""
        on_their_way = len(self.scheduler.members("closing")) + self.ended_since_look
        waiting = sorted(self.scheduler.host.waiting, key=lambda one: not one.is_owed)
        return tuple(waiting[on_their_way:])

    def _check_yield(self, member: Member) -> None:
        if member.retire_reason == "yielded":
            yielding = [m for m in self.to_close if m.retire_reason == "yielded"]
            waiting = len(self.scheduler.host.waiting)
            assert len(yielding) + self.ended_since_look <= waiting, "more were yielded than wait"

    def _fail(self, order: Launch | Promote | Renew | Ping | Close | Grant) -> None:
        """What the controller does with an order that raised an error."""
        member = order.member
        match order:
            case Launch():  # no thread could be started, for example
                self.scheduler.launch_failed(member, LaunchError("no thread"), self.now)
            case Renew() | Ping():
                self.scheduler.lost(member, self.now)
            case Grant():
                self.dead.add(member)
                self.passed_over.add(order.request)
                self.scheduler.grant_failed(member, self.now)
            case Close() if member.state == "closing":
                self.closed.add(member)
                self.ended(member)
            case Close() if member.state == "queued":  # it is closed when it is launched
                pass

    def ended(self, member: Member) -> None:
        self.host.leave(member)
        self.ended_since_look += 1
        self.scheduler.ended(member, self.now)

    def launch_failed(self, member: Member, error: BrowserkeeperError) -> None:
        self.host.leave(member)
        self.scheduler.launch_failed(member, error, self.now)

    def _granted(self, member: Member, request: int) -> None:
        assert request not in self.answers, "answered twice"
        assert member not in self.held.values(), "leased twice at the same time"
        assert member not in self.dead, "a dead browser was leased"
        assert member not in self.to_answer, "leased before it was ready"
        assert self.now - member.answered_at <= PING_AFTER, "leased without a recent answer"
        if self.scheduler.limits.checks:
            assert member in self.passed, "leased without a check"
        most = self.scheduler.limits.max_uses
        assert most is None or member.uses <= most
        assert self.in_use() < self.scheduler.limits.max_size
        assert not self.scheduler.host.drained, "a lease was given on a drained host"
        self.answers[request] = member
        self.held[request] = member
        if request not in self.passed_over:
            self.grants.append(request)

    def ask(self) -> int:
        request = len(self.requests)
        self.requests.append(request)
        self.asked_at[request] = self.now
        self.scheduler.add_request(request, self.now)
        self.carry_out()
        return request

    def answer(self, member: Member, retiring: str = "", *, fails: bool = False) -> None:
        """A renewal or a ping is done, with the user's hook, which ``fails``."""
        if fails:
            hook = "check" if member in self.to_check else "reset"
            self.scheduler.hook_failed(member, HookError("no", hook), self.now)
        elif member in self.last_resets:
            self.scheduler.retire(member, "", self.now)
        else:
            checked = member in self.to_check
            self.passed |= {member} if checked else set()
            self.scheduler.ready(member, retiring, self.now, checked=checked)
        self.to_check.discard(member)
        self.last_resets.discard(member)

    def give_back(self, request: int, bad: str = "") -> None:
        self.passed.discard(self.held[request])
        self.scheduler.returned(self.held.pop(request), bad, self.now)
        self.carry_out()

    def finish_all(self) -> None:
        """Let every launch, renewal and end that is under way succeed, until nothing is left to do."""
        for _ in range(200):
            self.look()
            if self.scheduler.host.waiting and self.scheduler.available:
                self.now += KEEP_IDLE
                self.scheduler.decide(self.now)
                self.carry_out()
            if not (self.to_launch or self.to_answer or self.to_close or self.to_cancel):
                breakers = (self.scheduler.breaker, self.scheduler.check_breaker)
                retry_at = max(breaker.retry_at for breaker in breakers)
                if retry_at <= self.now:
                    return
                self.now = retry_at
            for member in self.take("to_close"):
                self.ended(member)
            for member in self.take("to_cancel"):
                self.launch_failed(member, SessionClosed("cancelled"))
            for member in self.take("to_launch"):
                self.scheduler.launched(member, self.now)
            for member in self.take("to_answer"):
                self.answer(member)
            self.scheduler.decide(self.now)
            self.carry_out()
        raise AssertionError("the scheduler never runs out of decisions")

    def in_use(self) -> int:
        return sum(member not in self.dead for member in self.held.values())

    def take(self, name: str) -> list[Member]:
        members: list[Member] = getattr(self, name)
        setattr(self, name, [])
        return members


# ------------------------------------------------------------------ against a model


class SchedulerAgainstModel(RuleBasedStateMachine):
    @initialize(
        max_size=st.integers(1, 4),
        min_idle=st.integers(0, 3),
        max_uses=st.sampled_from([None, 1, 2, 5]),
        concurrency=st.integers(1, 3),
        max_waiting=st.sampled_from([0, 2, 100]),
        slots=st.sampled_from([1, 2, 3, 1000]),
        checks=st.booleans(),
        resets=st.booleans(),
    )
    def begin(
        self,
        max_size: int,
        min_idle: int,
        max_uses: int | None,
        concurrency: int,
        max_waiting: int,
        slots: int,
        checks: bool,
        resets: bool,
    ) -> None:
        scheduler = scheduler_of(
            checks=checks,
            resets=resets,
            max_size=max_size,
            min_idle=min(min_idle, max_size),
            max_uses=max_uses,
            launch_concurrency=concurrency,
            max_waiting=max_waiting,
            max_lifetime=60.0,
            idle_timeout=20.0,
        )
        self.model = PoolModel(scheduler, HostModel(slots))
        self.scheduler = scheduler
        self.shrunk = False
        self.programs: list[Program] = []
        scheduler.decide(0.0)
        self.model.carry_out()

    @rule()
    def ask(self) -> None:
        self.model.ask()

    @rule(data=st.data())
    @precondition(lambda self: self.waiting())
    def withdraw(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.waiting()))
        self.model.answers[request] = "withdrew"
        self.scheduler.cancel_request(request, self.model.now)
        self.model.carry_out()

    @rule(data=st.data(), bad=st.sampled_from(["", "", "requested: captcha", "interrupted"]))
    @precondition(lambda self: self.model.held)
    def give_back(self, data: st.DataObject, bad: str) -> None:
        request = data.draw(st.sampled_from(sorted(self.model.held)))
        member, unserved = self.model.held[request], self.model.unserved()
        oldest = min((self.model.asked_at[r] for r in self.waiting()), default=math.inf)
        self.model.give_back(request, bad)
        if any(one.is_owed and one.since < oldest for one in unserved):
            # With a reset, which comes first, the browser is given up after that.
            given_up = {"closing", "refreshing"} if self.scheduler.limits.resets else {"closing"}
            assert member.state in given_up or member in self.model.dead, "kept from an older program"

    @rule(data=st.data())
    @precondition(lambda self: self.model.held)
    def decline(self, data: st.DataObject) -> None:
        member = self.model.held.pop(data.draw(st.sampled_from(sorted(self.model.held))))
        if member.state == "leased":
            self.scheduler.decline_grant(member, self.model.now)
            self.model.carry_out()

    @rule(data=st.data(), retiring=st.sampled_from(["", "", "max_memory"]))
    @precondition(lambda self: self.model.to_answer)
    def answer(self, data: st.DataObject, retiring: str) -> None:
        member = self.pick(data, self.model.to_answer)
        self.model.answer(member, retiring)
        self.model.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.model.to_check or self.model.last_resets)
    def hook_fails(self, data: st.DataObject) -> None:
        with_hook = self.model.to_check | self.model.last_resets
        candidates = [member for member in self.model.to_answer if member in with_hook]
        if candidates:
            member = self.pick(data, candidates)
            self.model.to_answer = [one for one in self.model.to_answer if one is not member]
            self.model.answer(member, fails=True)
            self.model.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.model.to_launch)
    def launch(self, data: st.DataObject) -> None:
        self.scheduler.launched(self.pick(data, self.model.to_launch), self.model.now)
        self.model.carry_out()

    @rule(data=st.data(), retryable=st.booleans())
    @precondition(lambda self: self.model.to_launch)
    def fail(self, data: st.DataObject, retryable: bool) -> None:
        member = self.pick(data, self.model.to_launch)
        error = LaunchError("did not start") if retryable else ResolveError("no browser")
        self.model.launch_failed(member, error)
        self.model.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.model.to_close)
    def finish(self, data: st.DataObject) -> None:
        self.model.ended(self.pick(data, self.model.to_close))
        self.model.carry_out()

    @rule(data=st.data())
    @precondition(lambda self: self.model.to_cancel)
    def cancelled(self, data: st.DataObject) -> None:
        """A launch that waited for a slot has learnt that it was cancelled."""
        self.model.launch_failed(self.pick(data, self.model.to_cancel), SessionClosed("cancelled"))
        self.model.carry_out()

    # -- outside the pool

    @rule(own_limit=st.sampled_from([1000, 1000, 1, 2]), is_seen=st.booleans(), worse_off=st.booleans())
    def program_comes(self, own_limit: int, is_seen: bool, worse_off: bool) -> None:
        """A program wants a browser of its own.  The pool sees that at once, or later."""
        program = Program(self.model.now, own_limit, worse_off)
        self.programs.append(program)
        self.model.host.ask(program)
        self.model.carry_out()
        if is_seen:
            self.model.look()

    @rule(data=st.data(), is_seen=st.booleans())
    @precondition(lambda self: self.programs)
    def program_goes(self, data: st.DataObject, is_seen: bool) -> None:
        """It ends its browser, or no longer waits for one."""
        program = data.draw(st.sampled_from(self.programs))
        self.programs.remove(program)
        self.model.host.leave(program)
        self.model.carry_out()
        if is_seen:
            self.model.look()

    @rule()
    def look(self) -> None:
        self.model.look()

    @rule(slots=st.sampled_from([1, 2, 3, 1000]))
    def limit_changes(self, slots: int) -> None:
        self.model.host.limit = slots
        self.model.carry_out()

    @rule(drained=st.booleans())
    def host_is_drained_or_resumed(self, drained: bool) -> None:
        self.model.host.drained = drained
        self.model.look()

    @rule(data=st.data())
    @precondition(lambda self: self.scheduler.members("idle", "leased", "refreshing", "checking"))
    def die(self, data: st.DataObject) -> None:
        living = self.scheduler.members("idle", "leased", "refreshing", "checking")
        member = data.draw(st.sampled_from(living))
        self.model.dead.add(member)
        self.scheduler.lost(member, self.model.now)
        self.model.carry_out()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 25.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds
        self.scheduler.decide(self.model.now)
        self.model.carry_out()

    @rule(kind=st.sampled_from([Launch, Promote, Renew, Ping, Close, Grant]))
    def an_order_will_fail(self, kind: type[Decision]) -> None:
        self.model.failing.add(kind)

    @rule(data=st.data())
    @precondition(lambda self: self.model.to_answer)
    def hang(self, data: st.DataObject) -> None:
        """A browser never answers its ping or its renewal: the guard ends it after the time limit."""
        member = self.pick(data, self.model.to_answer)
        self.model.now += data.draw(st.sampled_from([0.3, CHECK_PATIENCE, 10.0]))
        self.scheduler.decide(self.model.now)
        self.model.carry_out()
        self.scheduler.lost(member, self.model.now)
        self.model.carry_out()

    @rule()
    def recycle(self) -> None:
        self.scheduler.recycle(self.model.now)
        self.model.carry_out()

    @rule(size=st.integers(1, 5), min_idle=st.integers(0, 5))
    def resize(self, size: int, min_idle: int) -> None:
        changed = dataclasses.replace(self.scheduler.limits, max_size=size, min_idle=min(size, min_idle))
        self.shrunk = self.shrunk or size < self.scheduler.limits.max_size
        self.scheduler.resize(changed, self.model.now)
        self.model.carry_out()

    @rule()
    def finish_all(self) -> None:
        self.model.finish_all()

    def pick(self, data: st.DataObject, members: list[Member]) -> Member:
        member: Member = data.draw(st.sampled_from(members))
        members.remove(member)
        return member

    def waiting(self) -> list[int]:
        return [request for request in self.model.requests if request not in self.model.answers]

    @invariant()
    def every_unanswered_request_is_queued(self) -> None:
        assert len(self.waiting()) == self.scheduler.waiting

    @invariant()
    def states_match_the_model(self) -> None:
        model, scheduler = self.model, self.scheduler
        assert set(scheduler.members("starting")) == set(model.to_launch)
        for member in scheduler.members("queued"):
            assert model.host.waits(member) or member in model.to_cancel
        assert set(scheduler.members("closing")) == set(model.to_close)
        assert set(scheduler.members("refreshing", "checking")) <= set(model.to_answer)
        assert set(scheduler.members("leased")) <= set(model.held.values())
        assert scheduler.available == len(scheduler.members("idle"))

    @invariant()
    def limits_are_kept(self) -> None:
        if not self.shrunk:
            assert len(self.scheduler.members()) <= self.scheduler.limits.max_size + SURGE
        launches = len(self.scheduler.members("queued", "starting"))
        assert launches <= self.scheduler.limits.launch_concurrency

    @invariant()
    def every_browser_has_a_slot(self) -> None:
        browsers = set(self.scheduler.members()) - set(self.scheduler.members("queued"))
        assert browsers <= self.model.host.holders

    @invariant()
    def no_browser_is_idle_while_programs_wait_that_the_pool_has_seen(self) -> None:
        scheduler = self.scheduler
        if scheduler.available > scheduler.waiting:
            now, idle = self.model.now, scheduler.members("idle")
            assert not any(one.is_owed for one in self.model.unserved())
            if self.model.unserved():
                assert all(now < member.idle_since + KEEP_IDLE for member in idle)
        assert not (scheduler.host.drained and scheduler.available)

    @invariant()
    def launches_wait_for_a_slot_only_where_they_are_needed(self) -> None:
        """As work while a request waits; as a standby while no request lacks a browser."""
        scheduler = self.scheduler
        queued = [m for m in scheduler.members("queued") if not m.retire_reason]
        work = [m for m in queued if m.priority == "work"]
        assert len(work) <= scheduler.waiting
        if len(work) < len(queued):
            starting = [m for m in scheduler.members("starting") if not m.retire_reason]
            serving = scheduler.members("idle", "refreshing", "checking")
            assert scheduler.waiting <= len(work) + len(starting) + len(serving)

    @invariant()
    def no_request_waits_while_a_browser_is_idle(self) -> None:
        """Each request that waits while a browser is idle is about to get another one, which was asked
        for a sign of life a moment ago."""
        scheduler, now = self.scheduler, self.model.now
        checking = scheduler.members("checking")
        patience = scheduler.limits.check_patience
        checks = sum(now < member.checked_since + patience for member in checking)
        at_work = len(scheduler.members("leased")) + checks
        if scheduler.available and at_work < scheduler.limits.max_size:
            assert scheduler.waiting <= checks

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.model.grants == sorted(self.model.grants)

    def teardown(self) -> None:
        """Whatever happened before: every request is answered, every program gets a browser, and the
        pool comes back to its size."""
        if not hasattr(self, "model"):
            return
        model, host = self.model, self.model.host
        host.drained = False
        model.finish_all()
        while self.waiting() or host.programs():
            holders = [owner for owner in host.holders if isinstance(owner, Program)]
            assert model.held or holders, f"{self.waiting()} and {host.programs()} wait for nothing"
            for request in sorted(model.held)[:1]:
                model.give_back(request)
            for program in holders[:1]:
                host.leave(program)
            model.finish_all()
        for request in list(model.held):
            model.give_back(request)
        host.holders = {owner for owner in host.holders if isinstance(owner, Member)}
        model.finish_all()
        assert self.scheduler.available >= min(self.scheduler.limits.min_idle, host.limit)
        self.scheduler.close(model.now)
        model.carry_out()
        model.finish_all()
        assert not self.scheduler.members()
        assert not host.queue, "a ticket was left behind"
        assert not host.holders, "a slot was left behind"


TestSchedulerAgainstModel = SchedulerAgainstModel.TestCase
TestSchedulerAgainstModel.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # Phase.explain takes minutes
    suppress_health_check=list(HealthCheck),
)


# ------------------------------------------------------------------ single rules


@pytest.fixture
def model() -> PoolModel:
    model = PoolModel(scheduler_of())
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    return model


def test_min_idle_browsers_are_launched_without_a_request(model: PoolModel) -> None:
    assert model.scheduler.available == 1


def test_the_browser_that_was_returned_last_is_leased_first() -> None:
    model = PoolModel(scheduler_of(max_size=3, min_idle=3))
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    first, second = model.ask(), model.ask()
    last = model.held[first]
    model.give_back(second)
    model.finish_all()
    model.give_back(first)
    model.finish_all()
    assert model.held[model.ask()] is last


def test_browsers_above_min_idle_are_closed_after_idle_timeout() -> None:
    model = PoolModel(scheduler_of(min_idle=0, idle_timeout=20.0))
    requests = [model.ask(), model.ask()]
    model.finish_all()
    for request in requests:
        model.give_back(request)
    model.finish_all()
    assert model.scheduler.available == 2
    model.now += 21
    model.scheduler.decide(model.now)
    model.carry_out()
    assert model.scheduler.available == 0
    assert model.scheduler.counts["retired_idle_timeout"] == 2


def test_a_recycled_idle_browser_serves_until_its_replacement_is_ready(model: PoolModel) -> None:
    (old,) = model.scheduler.members("idle")
    model.scheduler.recycle(model.now)
    model.carry_out()
    assert old.state == "idle"
    assert len(model.to_launch) == 1
    model.finish_all()
    assert old in model.closed
    assert model.scheduler.available == 1


def test_a_leased_browser_is_retired_only_after_its_lease(model: PoolModel) -> None:
    request = model.ask()
    member = model.held[request]
    model.now += 1e7
    model.scheduler.recycle(model.now)
    model.carry_out()
    assert member.state == "leased"
    model.finish_all()
    model.give_back(request)
    assert member in model.closed


def test_a_replacement_is_launched_during_the_last_use_of_a_browser() -> None:
    model = PoolModel(scheduler_of(max_size=1, max_uses=2))
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    model.give_back(model.ask())
    model.finish_all()
    assert not model.to_launch
    model.ask()
    assert len(model.to_launch) == 1


def test_with_one_use_for_each_browser_max_size_is_not_exceeded() -> None:
    model = PoolModel(scheduler_of(max_size=1, max_uses=1))
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    model.ask()
    assert not model.to_launch


def test_a_browser_without_a_recent_answer_is_pinged_before_it_is_leased(model: PoolModel) -> None:
    model.now += PING_AFTER + 1
    request = model.ask()
    assert request not in model.held
    assert len(model.scheduler.members("checking")) == 1
    model.finish_all()
    assert request in model.held


def late_model(**limits: int) -> PoolModel:
    """``min_idle`` idle browsers, none of which has answered recently."""
    model = PoolModel(scheduler_of(**{"launch_concurrency": 4, **limits}))
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    model.now += PING_AFTER + 1
    return model


def test_a_request_does_not_wait_for_a_hung_browser_while_others_are_idle() -> None:
    model = late_model(max_size=4, min_idle=4)
    request = model.ask()
    (hung,) = model.take("to_answer")
    assert model.scheduler.available == 3
    assert model.scheduler.next_due(model.now) == model.now + CHECK_PATIENCE
    model.now += CHECK_PATIENCE
    model.scheduler.decide(model.now)
    model.carry_out()
    (healthy,) = model.take("to_answer")
    model.scheduler.ready(healthy, "", model.now)
    model.carry_out()
    assert model.held[request] is healthy
    assert hung.state == "checking"


def test_control_a_request_waits_for_a_check_that_is_not_late() -> None:
    model = late_model(max_size=4, min_idle=4)
    model.ask()
    model.now += CHECK_PATIENCE * 0.9
    model.scheduler.decide(model.now)
    model.carry_out()
    assert len(model.to_answer) == 1


def test_a_request_gets_a_browser_that_becomes_ready_before_the_checked_one_answers() -> None:
    model = late_model(max_size=3, min_idle=2)
    busy, request = model.ask(), model.ask()
    first, hung = model.take("to_answer")
    model.scheduler.ready(first, "", model.now)
    model.carry_out()
    assert model.held[busy] is first
    model.give_back(busy)
    assert model.take("to_answer") == [first]
    model.scheduler.ready(first, "", model.now)
    model.carry_out()
    assert model.held[request] is first
    assert hung.state == "checking"


def test_a_browser_that_answered_recently_is_leased_before_one_that_has_to_be_checked() -> None:
    model = late_model(max_size=2, min_idle=2)
    recent = model.scheduler.members("idle")[0]
    recent.answered_at = model.now
    assert model.held[model.ask()] is recent
    assert not model.to_answer


def test_a_browser_is_launched_while_the_only_idle_one_hangs_if_there_is_room() -> None:
    model = late_model(max_size=2, min_idle=1)
    request = model.ask()
    model.take("to_launch")  # for min_idle: see below
    model.now += CHECK_PATIENCE
    model.scheduler.decide(model.now)
    model.carry_out()
    starting = model.scheduler.members("starting")
    assert len(starting) == 1
    model.scheduler.launched(starting[0], model.now)
    model.carry_out()
    assert model.held[request] is starting[0]


def test_with_a_hung_browser_max_size_leases_are_given_and_no_more() -> None:
    model = late_model(max_size=2, min_idle=2)
    model.ask()
    model.take("to_answer")
    model.now += CHECK_PATIENCE
    requests = [model.ask(), model.ask()]
    model.finish_all()
    assert len(model.held) <= 2
    assert requests[-1] not in model.held


def test_an_order_that_fails_frees_the_place_and_the_request_stays_the_first() -> None:
    model = PoolModel(scheduler_of(max_size=1, min_idle=0))
    model.failing = {Launch, Grant, Ping, Renew, Close}
    first, second = model.ask(), model.ask()
    model.finish_all()
    assert first in model.held
    assert second not in model.answers
    model.give_back(first)
    model.finish_all()
    assert second in model.held
    assert not model.failing - {Ping}


def test_idle_browsers_are_pinged_from_time_to_time(model: PoolModel) -> None:
    model.now += PING_EVERY
    assert model.scheduler.next_due(0.0) is not None
    model.scheduler.decide(model.now)
    assert len(model.scheduler.members("checking")) == 1


def test_a_request_whose_browser_was_found_dead_stays_the_first_in_the_queue(model: PoolModel) -> None:
    first = model.ask()
    second = model.ask()
    member = model.held.pop(first)
    del model.answers[first]
    model.scheduler.grant_failed(member, model.now)
    model.carry_out()
    model.finish_all()
    assert model.grants[-1] == first or model.grants == [first, first, second]
    assert first in model.held


def test_requests_are_refused_with_the_cause_when_launches_keep_failing() -> None:
    model = PoolModel(scheduler_of(min_idle=0))
    request = model.ask()
    for attempt in range(OPENS_AFTER):
        assert request not in model.answers, f"refused after {attempt} failures"
        model.now += 1
        model.scheduler.decide(model.now)
        model.carry_out()
        for member in model.take("to_launch"):
            model.scheduler.launch_failed(member, LaunchError(f"no {attempt}"), model.now)
        model.carry_out()
    error = model.answers[request]
    assert isinstance(error, PoolUnavailable)
    assert "no 2" in str(error)
    later = model.ask()
    assert isinstance(model.answers[later], PoolUnavailable), "later requests are refused at once"


def test_requests_are_refused_at_once_after_an_error_that_no_retry_can_mend() -> None:
    model = PoolModel(scheduler_of(min_idle=0))
    request = model.ask()
    model.scheduler.launch_failed(model.take("to_launch")[0], ResolveError("no chrome"), model.now)
    model.carry_out()
    assert isinstance(model.answers[request], PoolUnavailable)
    assert isinstance(model.answers[request].cause, ResolveError)


def test_after_a_failed_launch_one_launch_at_a_time_is_tried_after_a_pause() -> None:
    model = PoolModel(scheduler_of(max_size=4, min_idle=4, launch_concurrency=3))
    model.scheduler.decide(0.0)
    model.carry_out()
    assert len(model.to_launch) == 3
    for member in model.take("to_launch"):
        model.scheduler.launch_failed(member, LaunchError("no"), model.now)
    model.carry_out()
    assert not model.to_launch
    model.now += 1
    model.scheduler.decide(model.now)
    model.carry_out()
    assert len(model.to_launch) == 1


def test_requests_above_max_waiting_are_refused() -> None:
    model = PoolModel(scheduler_of(min_idle=0, max_waiting=1))
    model.ask()
    assert isinstance(model.answers[model.ask()], TooManyWaiting)


def test_a_draining_pool_waits_for_leases_and_gives_no_more(model: PoolModel) -> None:
    request = model.ask()
    model.scheduler.drain(model.now)
    model.carry_out()
    assert isinstance(model.answers[model.ask()], PoolClosed)
    model.finish_all()
    assert model.scheduler.members() == [model.held[request]]
    model.give_back(request)
    model.finish_all()
    assert not model.scheduler.members()


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (BrowserDied("its guard was killed during 'switchToWindow'"), False),
        (CommandTimeout("it did not answer in time during 'switchToWindow'"), False),
        (LaunchError("it did not start"), False),
        (LaunchError("no browser", retryable=False), True),
        (ConfigError("no such argument"), True),
    ],
)
def test_one_browser_that_died_before_its_first_lease_refuses_no_request(
    error: BrowserkeeperError, is_final: bool
) -> None:
    """So requests go on to wait; as many deaths in a row as failed launches refuse them."""
    breaker = CircuitBreaker(lambda failures: 1.0)
    breaker.record_failure(error, 0)
    assert breaker.is_open == is_final
    for _ in range(OPENS_AFTER):
        breaker.record_failure(error, 0)
    assert breaker.is_open


def test_a_circuit_breaker_counts_the_failures_that_were() -> None:
    """One that no retry can mend opens it at once, and is still one."""
    final = LaunchError("no browser", retryable=False)
    passing = LaunchError("busy", retryable=True)
    breaker = CircuitBreaker(lambda failures: 1.0)
    breaker.record_failure(passing, 0)
    assert (breaker.is_open, breaker.describe()) == (False, "1 failure")
    breaker.record_failure(final, 0)
    assert (breaker.is_open, breaker.describe()) == (True, "2 failures in a row")
    breaker.record_success()
    assert not breaker.is_open


@pytest.mark.parametrize("failures", [1, 2, 5, 50])
def test_pauses_are_random_and_grow_up_to_a_limit(failures: int) -> None:
    pauses = [launch_pause(failures) for _ in range(50)]
    assert all(0 <= pause <= min(LONGEST_PAUSE, 0.5 * 2 ** (failures - 1)) for pause in pauses)
    assert len(set(pauses)) > 10
