"""A browser that ends in the batch of events in which the pool decides what to do with it.

The orders are carried out after the batch.  No browser is started.
"""

from __future__ import annotations

import logging
import threading
import time

import pytest

from browserkeeper import ExitReport, Identity, LaunchError, PoolClosed
from browserkeeper.options.identity import NO_IDENTITY
from browserkeeper.pool.controller import Controller
from browserkeeper.pool.lease import LeaseHandler, Request
from browserkeeper.pool.scheduler import Member, State
from browserkeeper.pool.threads import wait_for_end
from browserkeeper.pool.worker import BrowserWorker, Ended, LaunchFailed
from tests.pool.test_declined_grants import granted_request
from tests.support.fake_browser import FakePool
from tests.support.waiting import SECONDS, wait_until

Asked = tuple[Request, LeaseHandler]


def only_member(controller: Controller, state: State) -> Member:
    def members() -> list[Member]:
        return controller.call(lambda now: controller.scheduler.members(state))

    assert wait_until(lambda: len(members()) == 1)
    return members()[0]


def end(worker: BrowserWorker) -> None:
    """End a worker whose pool believes that it has ended."""
    worker.close("test")
    wait_for_end(worker._thread, SECONDS)
    assert not worker._thread.is_alive()


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
    worker = controller._workers[member]

    def close_and_fail(now: float) -> None:
        controller.scheduler.close(now)
        controller.on_event(member, LaunchFailed(LaunchError("no room")), now)

    controller.call(close_and_fail)
    may_start.set()
    end(worker)
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
        end(worker)
        assert errors_in(caplog) == []
        assert "retired_lost" not in {name for name, number in pool.stats().items() if number}


# ------------------------------------------------------------------ requests


def asked(controller: Controller, now: float, identity: Identity = NO_IDENTITY) -> Asked:
    request = Request(identity=identity)
    handler = LeaseHandler(request)
    request.wake = controller.loop.wake
    controller.scheduler.add_request(request, now)
    return request, handler


@pytest.mark.parametrize("action", ["close", "drain"])
@pytest.mark.parametrize("is_alive", [True, False])
def test_a_request_that_was_to_be_granted_as_the_pool_ends_is_answered(
    action: str, is_alive: bool
) -> None:
    with FakePool(max_size=1, min_idle=1) as pool:
        controller = pool._controller
        assert controller is not None
        only_member(controller, "idle")
        pool.browsers[0].alive = is_alive

        def ask_and_end(now: float) -> Asked:
            found = asked(controller, now)
            getattr(controller.scheduler, action)(now)
            return found

        request, handler = controller.call(ask_and_end)
        if action == "drain" and is_alive:  # it was granted before
            assert request.wait(SECONDS) is not None
            del handler  # so that the pool takes it back
        else:
            with pytest.raises(PoolClosed, match="no more leases"):
                request.wait(SECONDS)


def test_a_request_that_is_cancelled_before_its_grant_is_carried_out_is_taken_back() -> None:
    with FakePool(max_size=1, min_idle=1) as pool:
        controller = pool._controller
        assert controller is not None
        member = only_member(controller, "idle")

        def ask_and_cancel(now: float) -> Asked:
            found = asked(controller, now)
            found[0].cancelled = True
            controller.on_cancelled(found[0], now)
            return found

        request, _ = controller.call(ask_and_cancel)
        assert request.wait(SECONDS) is member, "its grant was decided"
        assert wait_until(lambda: pool._controller.scheduler.available == 1, 4)  # type: ignore[union-attr]
        assert member.uses == 0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_lease_that_is_cancelled_while_it_takes_its_identity_is_given_to_nobody_else(
    when: str,
) -> None:
    taking, may_go_on = threading.Event(), threading.Event()

    def take(browser: object) -> None:
        taking.set()
        may_go_on.wait(60)

    with FakePool({"take": take}, max_size=1, min_idle=1) as pool:
        controller = pool._controller
        assert controller is not None
        only_member(controller, "idle")
        request, handler = controller.call(lambda now: asked(controller, now, Identity(locale="de-DE")))
        assert request.wait(SECONDS) is not None
        thread = threading.Thread(target=handler.take_identity)
        if when == "meanwhile":
            thread.start()
            assert taking.wait(SECONDS)
        request.cancel()
        with pool.lease() as lease:
            assert lease.browser_id == pool.browsers[int(when == "meanwhile")].id
            if when == "before":
                with pytest.raises(PoolClosed, match="cancelled"):
                    handler.take_identity()
                assert not taking.is_set()
        may_go_on.set()
        if when == "meanwhile":
            thread.join(SECONDS)


def test_a_wait_is_over_when_its_condition_was_true_once() -> None:
    with FakePool(max_size=1) as pool:
        controller = pool._controller
        assert controller is not None
        answers = iter([False, True])  # at the call, then in the event loop; after that it is false
        began = time.monotonic()
        assert controller.wait_until(lambda: next(answers, False), began + SECONDS)
        assert not controller.wait_until(lambda: False, time.monotonic() + 0.01)
        assert wait_until(lambda: not controller._waiters)
