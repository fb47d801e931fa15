"""A lease that is granted at the moment at which its thread gives up.  No browser is started."""

from __future__ import annotations

from browserkeeper.pool.controller import Controller
from browserkeeper.pool.lease import LeaseHandler, Request
from tests.support.fake_browser import FakePool
from tests.support.waiting import wait_until


def granted_request(pool: FakePool) -> tuple[Controller, Request, LeaseHandler]:
    """A request that was granted, while its thread does not know yet.  The caller has to keep the
    handler: without it the pool takes the lease back."""
    controller, request = pool._controller, Request()
    assert controller is not None
    handler = LeaseHandler(request)
    controller.request(request)
    assert request.wait(60) is not None
    return controller, request, handler


def test_a_grant_that_is_declined_takes_the_deadline_back() -> None:
    with FakePool(max_size=1, max_lease=60) as pool:
        controller, request, handler = granted_request(pool)
        assert handler.browser is pool.browsers[0]
        deadlines = [pool.browsers[0].deadline]
        controller.call(lambda now: controller.on_cancelled(request, now))
        deadlines.append(pool.browsers[0].deadline)
        assert deadlines == [60, None]
        assert pool.stats()["pool_available"] == 1


def test_a_browser_that_dies_before_its_grant_is_declined_is_closed_once() -> None:
    with FakePool(max_size=1) as pool:
        controller, request, handler = granted_request(pool)
        dead = request.member
        assert dead is not None
        assert handler.browser is dead.browser

        def die_and_cancel(now: float) -> None:
            controller.on_exit(dead, now)
            controller.on_cancelled(request, now)

        controller.call(die_and_cancel)
        assert wait_until(lambda: len(pool.browsers) == 2)
        assert pool.stats()["retired_lost"] == 1
