"""A browser that ends in the batch of events in which the pool decides what to do with it.

The orders are carried out after the batch.  No browser is started.
"""

from __future__ import annotations

import logging
import threading

import pytest

from browserkeeper import ExitReport, LaunchError
from browserkeeper.pool.controller import Controller
from browserkeeper.pool.scheduler import Member, State
from browserkeeper.pool.worker import Ended, LaunchFailed
from tests.pool.test_declined_grants import granted_request
from tests.support.fake_browser import FakePool
from tests.support.waiting import wait_until


def only_member(controller: Controller, state: State) -> Member:
    def members() -> list[Member]:
        return controller.call(lambda now: controller.scheduler.members(state))

    assert wait_until(lambda: len(members()) == 1)
    return members()[0]


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_launch_that_fails_as_the_pool_is_closed_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_start = threading.Event()
    pool = FakePool({"launch": lambda _: may_start.wait(60)}, max_size=1, min_idle=1).open()
    controller = pool._controller
    assert controller is not None
    member = only_member(controller, "starting")

    def close_and_fail(now: float) -> None:
        controller.scheduler.close(now)
        controller.on_event(member, LaunchFailed(LaunchError("no room")), now)

    controller.call(close_and_fail)
    may_start.set()
    pool.close()
    assert errors_in(caplog) == []
    assert controller.is_over()


def test_a_browser_that_ends_as_it_is_to_be_renewed_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakePool(max_size=1) as pool:
        controller, request, handler = granted_request(pool)
        member = request.member
        assert member is not None
        assert handler.browser is pool.browsers[0]
        worker = controller._workers[member]

        def return_and_end(now: float) -> None:
            controller.scheduler.returned(member, "", now)
            controller.on_event(member, Ended(ExitReport("a", "fake", "failed", "fake", "fake")), now)

        controller.call(return_and_end)
        with pool.lease() as lease:
            assert lease.browser_id == pool.browsers[1].id
        worker.close("test")
        assert errors_in(caplog) == []
        assert "retired_lost" not in {name for name, number in pool.stats().items() if number}
