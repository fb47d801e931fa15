"""The scheduler's rules for slots of the host, one by one; test_scheduler.py has the whole model."""

from __future__ import annotations

from typing import Any

import pytest

from browserkeeper.errors import LaunchError
from browserkeeper.pool.scheduler import KEEP_IDLE, Member
from tests.pool.host_model import HostModel, Program
from tests.pool.test_scheduler import PoolModel, scheduler_of


def pool_on(host: HostModel, **limits: Any) -> PoolModel:
    """A pool that has started what it wants, as far as the host lets it."""
    given = {"max_size": 4, "min_idle": 0, "launch_concurrency": 4, **limits}
    model = PoolModel(scheduler_of(**given), host)
    model.scheduler.decide(0.0)
    model.carry_out()
    model.finish_all()
    return model


def come(model: PoolModel, own_limit: int = 1000) -> Program:
    """A program that wants a browser, and that the pool sees at once."""
    program = Program(model.now, own_limit)
    model.host.ask(program)
    model.carry_out()
    model.look()
    return program


def pool_comes(model: PoolModel) -> Program:
    """Another pool that has browsers wants one more."""
    program = Program(model.now, is_owed=False)
    model.host.ask(program)
    model.carry_out()
    model.look()
    return program


def go(model: PoolModel, program: Program) -> None:
    model.host.leave(program)
    model.carry_out()
    model.look()
    model.finish_all()


def queued(model: PoolModel) -> list[Member]:
    return [member for member in model.scheduler.members("queued") if not member.retire_reason]


# ------------------------------------------------------------------ launches that wait


@pytest.mark.parametrize(("slots", "browsers"), [(1, 1), (2, 2), (1000, 4)])
def test_a_pool_has_as_many_browsers_as_slots(slots: int, browsers: int) -> None:
    """The last case is the control: without a limit the pool has all four."""
    model = pool_on(HostModel(slots))
    for _ in range(6):
        model.ask()
    model.finish_all()
    assert len(model.held) == browsers
    assert len(queued(model)) == 4 - browsers


def test_a_wait_is_no_failed_launch() -> None:
    model = pool_on(HostModel(1))
    first = model.ask()
    model.ask()
    model.finish_all()
    model.now += 3600
    model.scheduler.decide(model.now)
    assert not model.scheduler.breaker.failures
    assert not model.scheduler.counts["browsers_errors"]
    model.give_back(first)
    model.finish_all()
    assert len(model.held) == 1


def test_control_a_launch_that_fails_while_it_waits_is_a_failed_launch() -> None:
    """A limits file that is not valid, for example."""
    model = pool_on(HostModel(1))
    model.ask()
    model.ask()
    model.finish_all()
    (member,) = queued(model)
    model.launch_failed(member, LaunchError("limits.toml, line 3: no number"))
    assert model.scheduler.breaker.failures == 1
    assert model.scheduler.counts["browsers_errors"] == 1


@pytest.mark.parametrize("how", ["withdrawn", "served by another browser"])
def test_a_launch_that_waits_is_cancelled_when_no_request_needs_it(how: str) -> None:
    model = pool_on(HostModel(1))
    first, second = model.ask(), model.ask()
    model.finish_all()
    assert len(queued(model)) == 1
    if how == "withdrawn":
        model.answers[second] = "withdrew"
        model.scheduler.cancel_request(second, model.now)
        model.carry_out()
    else:
        model.give_back(first)
        model.finish_all()
        assert second in model.held
    model.finish_all()
    assert not queued(model)
    assert not model.host.queue, "its ticket was left"
    assert not model.scheduler.breaker.failures
    assert not model.scheduler.counts["browsers_errors"]


def test_a_launch_is_not_cancelled_while_a_browser_only_comes_back() -> None:
    """Its place in the queue would be lost if that browser is not fit for another lease."""
    model = pool_on(HostModel(1))
    first = model.ask()
    model.ask()
    model.finish_all()
    model.give_back(first)
    assert model.scheduler.members("refreshing")
    assert len(queued(model)) == 1


def test_a_launch_that_has_its_slot_is_not_cancelled() -> None:
    model = pool_on(HostModel(1))
    request = model.ask()
    model.answers[request] = "withdrew"
    model.scheduler.cancel_request(request, model.now)
    model.carry_out()
    assert len(model.to_launch) == 1
    assert not model.scheduler.members("starting")[0].retire_reason


@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_pool_that_ends_takes_back_its_tickets_at_once(end: str) -> None:
    model = pool_on(HostModel(1), min_idle=2)
    lease = model.ask()
    model.ask()
    model.finish_all()
    assert model.host.queue
    getattr(model.scheduler, end)(model.now)
    model.carry_out()
    assert not model.host.queue
    if end == "drain":
        model.give_back(lease)
    model.finish_all()
    assert not model.scheduler.members()


def test_a_smaller_pool_takes_back_tickets() -> None:
    model = pool_on(HostModel(1))
    for _ in range(4):
        model.ask()
    model.finish_all()
    assert len(queued(model)) == 3
    limits = model.scheduler.limits
    model.scheduler.resize(type(limits)(**{**vars(limits), "max_size": 2}), model.now)
    model.carry_out()
    assert len(queued(model)) == 1


def test_a_recycled_pool_keeps_the_places_of_its_launches_in_the_queue() -> None:
    model = pool_on(HostModel(1))
    model.ask()
    model.ask()
    model.finish_all()
    ticket = model.host.queue[0]
    model.scheduler.recycle(model.now)
    model.carry_out()
    assert model.host.queue == [ticket]


# ------------------------------------------------------------------ work and standby


def test_a_standby_that_waits_becomes_work_when_a_request_needs_it() -> None:
    model = pool_on(HostModel(1), min_idle=1)
    model.ask()
    model.finish_all()
    (standby,) = queued(model)
    assert standby.priority == "standby"
    model.ask()
    assert model.host.queue[0].owner is standby
    assert model.host.queue[0].priority == "work"


def test_control_a_standby_stays_one_while_the_request_gets_an_idle_browser() -> None:
    model = pool_on(HostModel(2), min_idle=2)
    model.finish_all()
    model.ask()
    (standby,) = queued(model)
    assert standby.priority == "standby"


def test_a_standby_is_admitted_after_all_work() -> None:
    model = pool_on(HostModel(1), min_idle=1)
    lease = model.ask()
    model.finish_all()
    program = Program(model.now)
    model.host.ask(program)  # after the standby's ticket
    model.host.leave(model.held[lease])
    model.carry_out()
    assert program in model.host.holders


def test_a_launch_that_was_work_does_not_keep_its_place_as_a_standby() -> None:
    model = pool_on(HostModel(1), min_idle=1)
    model.ask()
    second = model.ask()
    model.finish_all()
    was_work = queued(model)
    assert {member.priority for member in was_work} == {"work", "standby"}
    model.answers[second] = "withdrew"
    model.scheduler.cancel_request(second, model.now)
    model.carry_out()
    model.finish_all()
    assert [member.priority for member in queued(model)] == ["standby"]


# ------------------------------------------------------------------ other programs


def test_an_idle_browser_is_closed_for_a_program_that_waits() -> None:
    model = pool_on(HostModel(2), min_idle=2)
    program = come(model)
    assert model.scheduler.counts["retired_yielded"] == 1
    model.finish_all()
    assert program in model.host.holders
    assert model.scheduler.available == 1


def test_control_no_browser_is_closed_for_a_program_that_need_not_wait() -> None:
    model = pool_on(HostModel(3), min_idle=2)
    come(model)
    assert not model.scheduler.counts["retired_yielded"]
    assert model.scheduler.available == 2


@pytest.mark.parametrize("programs", [1, 2, 3, 5])
def test_not_more_browsers_are_closed_than_programs_wait(programs: int) -> None:
    model = pool_on(HostModel(3), min_idle=3)
    waiting = [come(model) for _ in range(programs)]
    model.look()
    model.look()
    assert model.scheduler.counts["retired_yielded"] == min(3, programs)
    model.finish_all()
    assert model.scheduler.counts["retired_yielded"] == min(3, programs)
    assert len([one for one in waiting if one in model.host.holders]) == min(3, programs)


def test_a_browser_that_a_request_is_about_to_get_is_not_closed() -> None:
    model = pool_on(HostModel(1), min_idle=1)
    model.now += 10  # it is asked for a sign of life first
    request = model.ask()
    model.now += 1
    come(model)
    model.finish_all()
    assert request in model.held


def test_a_yielded_standby_comes_back_when_no_program_waits_any_more() -> None:
    model = pool_on(HostModel(1), min_idle=1)
    program = come(model)
    model.finish_all()
    assert program in model.host.holders
    go(model, program)
    assert model.scheduler.available == 1
    assert model.scheduler.counts["retired_yielded"] == 1


@pytest.mark.parametrize("own_limit", [1000, 1])
def test_a_program_that_waits_for_ever_does_not_make_a_standby_come_and_go(own_limit: int) -> None:
    """``own_limit=1``: the slot that is given up does not help it, since another program holds one."""
    host = HostModel(2)
    other = Program(0.0)
    host.ask(other)
    model = pool_on(host, min_idle=1)
    come(model, own_limit)
    for _ in range(20):
        model.finish_all()
        model.now += 30
        model.look()
    assert model.scheduler.counts["browsers_num"] <= 2
    assert model.scheduler.counts["retired_yielded"] <= 2


def test_a_browser_that_comes_back_is_given_up_for_a_program_that_waits_longer() -> None:
    model = pool_on(HostModel(1))
    lease = model.ask()
    model.finish_all()
    program = come(model)
    model.now += 1
    request = model.ask()
    model.give_back(lease)
    model.finish_all()
    assert program in model.host.holders
    assert request not in model.held
    go(model, program)
    assert request in model.held, "and then it is the pool's turn"


def test_control_it_serves_a_request_that_waits_longer_than_the_program() -> None:
    model = pool_on(HostModel(1))
    lease = model.ask()
    request = model.ask()
    model.finish_all()
    model.now += 1
    program = come(model)
    model.give_back(lease)
    model.finish_all()
    assert request in model.held
    assert program not in model.host.holders


@pytest.mark.parametrize(("own_limit", "browsers"), [(1, 2), (2, 7)])
def test_a_busy_pool_keeps_its_browsers_where_giving_one_up_would_help_no_program(
    own_limit: int, browsers: int
) -> None:
    """The program starts only while fewer than ``own_limit`` browsers are there."""
    model = pool_on(HostModel(2))
    leases = [model.ask(), model.ask()]
    model.finish_all()
    for _ in range(5):
        program = come(model, own_limit)
        model.now += 1
        leases += [model.ask()]
        model.give_back(leases.pop(0))
        model.finish_all()
        assert (program in model.host.holders) == (own_limit == 2)
        go(model, program)
    assert model.scheduler.counts["browsers_num"] == browsers


def test_a_program_that_no_browser_in_use_would_help_gets_the_idle_ones() -> None:
    model = pool_on(HostModel(2))
    leases = [model.ask(), model.ask()]
    model.finish_all()
    program = come(model, 1)
    for lease in leases:
        model.give_back(lease)
    for _ in range(4):
        model.finish_all()
        model.now += KEEP_IDLE
        model.look()
    assert program in model.host.holders


def test_a_program_that_could_not_start_is_not_served_before_one_that_could() -> None:
    model = pool_on(HostModel(2))
    leases = [model.ask(), model.ask()]
    model.finish_all()
    come(model, 1)
    come(model)
    model.now += 1
    model.ask()
    for lease in leases:
        model.give_back(lease)  # the second one before the first browser has ended
    assert model.scheduler.counts["retired_yielded"] == 1


def test_requests_and_programs_take_turns_in_the_order_in_which_they_came() -> None:
    model = pool_on(HostModel(1), max_uses=1)
    served: list[Any] = []
    lease = model.ask()
    model.finish_all()
    expected: list[Any] = []
    for _ in range(3):  # with the lease as many as the pool may have browsers: each has its ticket
        model.now += 1
        expected += [model.ask()]
        model.now += 1
        expected += [come(model)]
    model.give_back(lease)
    for _ in range(20):
        model.finish_all()
        for request in list(model.held):
            served.append(request)
            model.give_back(request)
        for program in [one for one in model.host.holders if isinstance(one, Program)]:
            served.append(program)
            go(model, program)
    assert served == expected


def answer(model: PoolModel) -> None:
    for member in model.take("to_answer"):
        model.scheduler.ready(member, "", model.now)
    model.carry_out()


def test_two_pools_that_have_browsers_do_not_take_them_from_each_other_after_each_lease() -> None:
    model = pool_on(HostModel(1))
    lease = model.ask()
    model.finish_all()
    other = pool_comes(model)
    model.now += 1
    request = model.ask()
    model.give_back(lease)
    answer(model)
    assert request in model.held, "though the other pool has waited longer"
    model.give_back(request)
    answer(model)
    assert model.scheduler.available == 1, "the next request often comes soon"
    due = model.scheduler.next_due(model.now)
    assert due is not None
    model.now = due
    model.scheduler.decide(model.now)
    model.carry_out()
    assert model.scheduler.counts["retired_yielded"] == 1, "none has come"
    model.finish_all()
    assert other in model.host.holders


def test_a_browser_that_was_just_started_for_a_request_serves_it_first() -> None:
    model = pool_on(HostModel(1))
    blocker = Program(0.0)
    model.host.ask(blocker)
    model.carry_out()
    first = model.ask()
    model.now += 1
    come(model)
    model.now += 1
    second = model.ask()
    model.answers[first] = "withdrew"
    model.scheduler.cancel_request(first, model.now)
    model.carry_out()
    go(model, blocker)
    model.finish_all()
    assert second in model.held


# ------------------------------------------------------------------ replacements


@pytest.mark.parametrize("slots", [1, 2, 1000])
def test_a_browser_is_replaced_without_a_free_slot_for_both(slots: int) -> None:
    """Break before make; with a slot for both, make before break."""
    model = pool_on(HostModel(slots), max_size=1, min_idle=1)
    (old,) = model.scheduler.members("idle")
    model.scheduler.recycle(model.now)
    model.carry_out()
    assert old.state == ("closing" if slots == 1 else "idle")
    model.finish_all()
    (new,) = model.scheduler.members("idle")
    assert new is not old


def test_a_leased_browser_is_replaced_after_its_lease_though_requests_wait() -> None:
    model = pool_on(HostModel(1), max_size=1)
    lease, request = model.ask(), model.ask()
    model.finish_all()
    old = model.held[lease]
    model.scheduler.recycle(model.now)
    model.carry_out()
    model.give_back(lease)
    model.finish_all()
    assert model.held[request] is not old


def test_a_browser_on_its_last_use_is_replaced_without_a_second_slot() -> None:
    model = pool_on(HostModel(1), max_size=1, max_uses=2, min_idle=1)
    for _ in range(5):
        request = model.ask()
        model.finish_all()
        model.give_back(request)
        model.finish_all()
    assert model.scheduler.counts["retired_max_uses"] == 2


# ------------------------------------------------------------------ a drained host


def drained(model: PoolModel, is_drained: bool = True) -> None:
    model.host.drained = is_drained
    model.look()


def test_on_a_drained_host_idle_browsers_are_closed_and_none_is_launched() -> None:
    model = pool_on(HostModel(), min_idle=2)
    drained(model)
    model.finish_all()
    assert not model.scheduler.members()
    assert model.scheduler.counts["retired_host_drained"] == 2


def test_on_a_drained_host_a_browser_is_closed_after_its_lease_though_requests_wait() -> None:
    model = pool_on(HostModel(), max_size=1)
    lease, request = model.ask(), model.ask()
    model.finish_all()
    drained(model)
    assert lease in model.held, "a lease goes on"
    model.give_back(lease)
    model.finish_all()
    assert request not in model.answers, "it waits, in case the drain ends in time"
    assert not model.host.holders
    drained(model, False)
    model.finish_all()
    assert request in model.held


def test_on_a_drained_host_a_browser_that_is_being_checked_or_renewed_is_closed() -> None:
    model = pool_on(HostModel(), min_idle=1)
    leases = [model.ask(), model.ask()]
    model.finish_all()
    model.give_back(leases[0])
    model.now += 10
    model.ask()
    drained(model)
    model.finish_all()
    assert [member.state for member in model.scheduler.members() if member.has_slot] == ["leased"]


def test_a_browser_that_starts_when_the_host_is_drained_is_closed() -> None:
    model = pool_on(HostModel())
    request = model.ask()
    drained(model)
    model.finish_all()
    assert request not in model.answers
    assert not model.host.holders


def test_a_pool_that_is_closed_on_a_drained_host_ends() -> None:
    model = pool_on(HostModel(), min_idle=2)
    drained(model)
    model.ask()
    model.finish_all()
    model.scheduler.close(model.now)
    model.carry_out()
    model.finish_all()
    assert not model.scheduler.members()
    assert not model.host.queue


# ------------------------------------------------------------------ several places in one process


@pytest.mark.parametrize("groups", [True, False])
def test_places_of_one_process_have_one_slot(groups: bool) -> None:
    """Two programs wait, and two browsers are given up for them.  The places of one process free one
    slot, when the last of them has ended.  Without groups, the control, each member has its own."""
    model = pool_on(HostModel(4), min_idle=4)
    members = model.scheduler.members("idle")
    assert len(members) == 4
    if groups:
        for number, member in enumerate(members):
            member.group = f"browser {number // 2}"
    held = model.ask()
    come(model)
    closing = model.scheduler.members("closing")
    assert len(closing) == 1
    if groups:  # not a place beside the lease: that browser goes on
        leased = model.held[held]
        assert closing[0].group != leased.group
    come(model)
    assert len(model.scheduler.members("closing")) == 2
    if groups:
        groups_closing = {member.group for member in model.scheduler.members("closing")}
        assert model.scheduler._coming_slots() == len(groups_closing)


def test_places_that_are_replaced_together_are_retired_at_once_or_when_others_are_ready() -> None:
    model = pool_on(HostModel(4), min_idle=2)
    idle = model.scheduler.members("idle")
    model.scheduler.replace(idle, "recycled", model.now)  # soft: they serve on
    assert [member.state for member in idle] == ["idle", "idle"]
    other = pool_on(HostModel(4), min_idle=2)
    idle = other.scheduler.members("idle")
    other.scheduler.replace(idle, "with_browser", other.now)
    assert [member.state for member in idle] == ["closing", "closing"]
