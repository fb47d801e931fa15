"""A signal handler that raises, or that closes the pool or the lease, at many moments of each operation.

The signals come from a timer, whose delays cover the length of the operation.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from browserkeeper import LeakError, PoolError
from browserkeeper.errors import SessionClosed
from browserkeeper.pool import BrowserPool
from tests.pool.test_threads import pool_threads
from tests.support.fake_browser import FakeBrowser, FakePool
from tests.support.waiting import SECONDS, wait_until

ALARMS = 150
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class InterruptionError(BaseException):
    """As Celery's soft limit, or an alarm that ends a task."""


class Alarm:
    """The signal comes ``delay`` seconds after the block was entered, if the block still runs then."""

    def __init__(self, delay: float, action: Callable[[], object]):
        self.delay, self.action = delay, action
        self.is_on = False
        self.place = ""
        """Where the handler ran."""
        self.is_first_moment = False
        """True if it ran before any of the code of ``__enter__`` or ``__exit__``.  Then the lease, or
        the pool, ends when it is garbage-collected."""

    def __enter__(self) -> Alarm:
        self.old = signal.signal(signal.SIGALRM, self.handle)
        self.is_on = True
        self.began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, self.delay)
        return self

    def __exit__(self, *error: object) -> None:
        self.is_on = False
        self.seconds = time.monotonic() - self.began
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.old)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.is_on:
            return
        self.is_on = False
        assert frame is not None
        code = frame.f_code
        self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
        at_start = frame.f_lineno == code.co_firstlineno
        self.is_first_moment = at_start and code.co_name in ("__enter__", "__exit__")
        self.action()


def interrupt() -> None:
    raise InterruptionError


def alarms(action: Callable[[], object]) -> Iterator[Alarm]:
    """Alarms whose delays cover the operation, which the caller's loop puts under the alarm."""
    lengths = []
    for _ in range(3):
        alarm = Alarm(SECONDS, action)
        yield alarm
        lengths.append(alarm.seconds)
        assert not alarm.place
    places = set()
    for number in range(1, ALARMS + 1):
        alarm = Alarm(min(lengths) * number / ALARMS, action)
        yield alarm
        places.add(alarm.place)
    assert len(places) > 3, "the alarm comes at different moments"


def use(pool: FakePool, kept: list[Any]) -> None:
    with pool.lease(timeout=SECONDS) as lease:
        kept.append(lease)
        lease.driver.execute(lambda: 1)


def is_free(pool: FakePool) -> bool:
    return pool.stats()["pool_leased"] == 0


def test_an_exception_at_any_moment_of_a_lease_loses_no_browser() -> None:
    with FakePool(max_size=1) as pool:
        for alarm in alarms(interrupt):
            kept: list[Any] = []
            error: BaseException | None = None
            try:
                with alarm:
                    use(pool, kept)
            except InterruptionError as caught:
                error = caught  # its traceback keeps all that the interrupted functions had
            if alarm.is_first_moment:
                kept.clear()
                error = None
                gc.collect()
            assert wait_until(lambda: is_free(pool)), alarm.place
            del error
            with pool.lease(timeout=SECONDS):
                pass


def test_an_exception_at_any_moment_of_opening_and_closing_leaves_nothing() -> None:
    for alarm in alarms(interrupt):
        pool: FakePool | None = FakePool(max_size=1)
        assert pool is not None
        browsers = pool.browsers
        try:
            with alarm, pool:
                pool.wait(SECONDS)
        except InterruptionError:
            pass
        if alarm.is_first_moment:
            pool = None
            gc.collect()
        assert wait_until(lambda: not pool_threads()), alarm.place
        assert not [browser for browser in browsers if browser.alive], alarm.place
        if pool is not None:
            with pytest.raises(PoolError):
                pool.lease()


def test_an_exception_at_any_moment_of_open_leaves_a_pool_that_can_be_opened() -> None:
    for alarm in alarms(interrupt):
        pool = FakePool(max_size=1)
        try:
            with alarm:
                pool.open()
        except InterruptionError:
            pool.open()
        pool.wait(SECONDS)
        pool.close()
        assert wait_until(lambda: not pool_threads()), alarm.place


def test_an_exception_at_any_moment_of_map_loses_no_browser_and_no_thread() -> None:
    def consume(pool: FakePool) -> None:
        for outcome in pool.map(lambda driver, item: item, range(2), workers=2):
            assert outcome.ok

    with FakePool(max_size=2) as pool:
        for alarm in alarms(interrupt):
            try:
                with alarm:
                    consume(pool)
            except InterruptionError:
                pass
            assert wait_until(lambda: is_free(pool)), alarm.place
            assert wait_until(lambda: len(pool_threads()) <= 3), (alarm.place, pool_threads())


@pytest.mark.parametrize("operation", ["lease", "open", "map"])
def test_a_handler_may_close_the_pool_at_any_moment(operation: str) -> None:
    def run(pool: FakePool) -> None:
        with pool:
            if operation == "lease":
                use(pool, [])
            elif operation == "map":
                for outcome in pool.map(lambda driver, item: item, range(2), workers=2):
                    assert outcome.ok or isinstance(outcome.error, (PoolError, SessionClosed))

    pools: list[FakePool] = []

    def close() -> None:
        pools[-1].close()

    for alarm in alarms(close):
        pools[:] = [FakePool(max_size=1, checkout_timeout=10 * SECONDS)]
        began = time.monotonic()
        try:
            with alarm:
                run(pools[0])
        except (PoolError, SessionClosed):
            pass
        assert time.monotonic() - began < SECONDS / 2, f"{alarm.place}: something waited for its limit"
        assert wait_until(lambda: not pool_threads()), alarm.place
        assert not [browser for browser in pools[0].browsers if browser.alive], alarm.place


@pytest.mark.parametrize("begins", ["after the look", "after close"])
def test_close_waits_for_a_loop_that_begins_meanwhile_and_makes_no_claim_without_a_wait(
    begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a handler that interrupts the start of the pool's thread, which another thread makes."""
    hold = threading.Event()

    def launch(browser: FakeBrowser) -> None:
        browser.called_off.wait(SECONDS)
        hold.wait(SECONDS)

    pool = FakePool({"launch": launch}, max_size=1, min_idle=1)
    controller = pool._controller = pool._make_controller()
    controller.loop.post(controller.scheduler.decide)  # as Controller.start() does
    wait = controller.wait_until
    looks: list[bool] = []

    def begin() -> None:
        controller.loop.start()
        assert wait_until(lambda: controller.scheduler.closed and controller.scheduler.members())

    def look(condition: Callable[[], bool], deadline: float) -> bool:
        looks.append(True)
        if len(looks) > 1:
            hold.set()
            return wait(condition, deadline)
        found = wait(condition, deadline)
        if begins == "after the look":
            begin()
        return found

    monkeypatch.setattr(controller, "wait_until", look)
    assert pool.close() == ()
    if begins == "after close":
        begin()
        hold.set()
        assert pool.close() == ()
    assert len(looks) == 2
    assert not controller.scheduler.members()
    assert not [browser for browser in pool.browsers if browser.alive]
    assert wait_until(lambda: not pool_threads())


def test_control_close_names_a_browser_that_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    pool = FakePool({"end": lambda browser: hold.wait(SECONDS)}, max_size=1).open()
    pool.wait(SECONDS)
    assert pool._controller is not None
    monkeypatch.setattr(pool._controller, "wait_until", lambda condition, deadline: condition())
    with pytest.raises(LeakError, match="0 browsers left something, 1 did not end"):
        pool.close()
    monkeypatch.undo()
    hold.set()
    assert len(pool.close()) == 1
    assert wait_until(lambda: not pool_threads())


def test_a_handler_may_release_the_lease_at_any_moment() -> None:
    with FakePool(max_size=1) as pool:
        kept: list[Any] = []

        def release() -> None:
            for lease in kept:
                lease.release()

        for alarm in alarms(release):
            kept.clear()
            try:
                with alarm:
                    use(pool, kept)
            except SessionClosed:
                pass
            assert wait_until(lambda: is_free(pool)), alarm.place


def test_control_a_pool_without_its_protection_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is real: without ``_let_go`` a pool lives on after an interrupted close()."""
    monkeypatch.setattr(BrowserPool, "_let_go", lambda self: None)
    monkeypatch.setattr(BrowserPool, "_refuse_fork", lambda self, controller: interrupt())
    pool = FakePool(max_size=1).open()
    with pytest.raises(InterruptionError):
        pool.close()
    time.sleep(0.05)
    assert pool_threads()
    monkeypatch.undo()
    pool.close()
