"""A lease that was granted at the very moment at which its thread gave up; no browser anywhere."""

from __future__ import annotations

from browserkeeper.pool.core import Core
from browserkeeper.pool.lease import Gate, Request
from tests.support.fake_browser import FakePool
from tests.support.waiting import wait_until


def granted(pool: FakePool) -> tuple[Core, Request, Gate]:
    """Its thread has not noticed yet; the gate is to be kept."""
    core, request = pool._core, Request()
    assert core is not None
    gate = Gate(request)
    core.supervisor.post(lambda now: core.scheduler.asked(request, now))
    assert request.wait(10) is not None
    return core, request, gate


def test_it_has_no_deadline_left() -> None:
    with FakePool(max_size=1, max_lease=60) as pool:
        core, request, gate = granted(pool)
        assert gate.browser is pool.browsers[0]
        deadlines = [pool.browsers[0].deadline]
        core.ask(lambda now: core.on_withdrawn(request, now))
        deadlines.append(pool.browsers[0].deadline)
        assert deadlines == [60, None]
        assert pool.stats()["pool_available"] == 1


def test_it_is_closed_once_where_it_has_died_meanwhile() -> None:
    with FakePool(max_size=1) as pool:
        core, request, gate = granted(pool)
        dead = request.member
        assert dead is not None
        assert gate.browser is dead.body

        def die_and_withdraw(now: float) -> None:
            core.on_exit(dead, now)
            core.on_withdrawn(request, now)

        core.ask(die_and_withdraw)
        assert wait_until(lambda: len(pool.browsers) == 2)
        assert pool.stats()["retired_lost"] == 1
