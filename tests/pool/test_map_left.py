"""A consumer that leaves ``pool.map`` before its end: no thread, no item and no browser is lost."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from browserkeeper import PoolUnavailable
from tests.pool.test_faults import NoThreads
from tests.pool.test_threads import pool_threads
from tests.support.fake_browser import FakePool
from tests.support.waiting import SECONDS, wait_until


class Feed:
    """An iterable that blocks in ``next()`` until the test puts an item into it; None ends it."""

    def __init__(self, *items: object):
        self.queue = queue.SimpleQueue[Any]()
        self.asked = 0
        for item in items:
            self.queue.put(item)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.asked += 1
        item = self.queue.get()
        if item is None:
            raise StopIteration
        return item


def map_threads() -> list[str]:
    return [name for name in pool_threads() if "map" in name]


def calling_threads() -> list[str]:
    """``close()`` waits for these, but for a tenth of a second only for the one of the iterable."""
    return [name for name in map_threads() if "items" not in name]


@pytest.mark.parametrize("workers", [1, 4])
def test_an_item_that_comes_after_the_end_is_kept_and_no_call_is_made(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[object] = []
    feed = Feed("first")
    with FakePool(max_size=4) as pool:
        outcomes = pool.map(lambda driver, item: calls.append(item), feed, workers=workers)
        assert next(outcomes).item == "first"
        assert wait_until(lambda: feed.asked == 2)
        outcomes.close()
        assert outcomes.unfinished == []
        requests = pool.stats()["requests_num"]
        feed.queue.put("late")
        feed.queue.put("later")
        assert wait_until(lambda: not map_threads())
        assert outcomes.unfinished == ["late"]
        assert feed.queue.get() == "later", "no second item is taken"
        assert calls == ["first"]
        assert pool.stats()["requests_num"] == requests
    assert "no call is made: 'late'" in caplog.text


def test_a_thread_that_is_blocked_in_the_iterable_does_not_keep_the_pool() -> None:
    feed = Feed("first")
    pool = FakePool(max_size=2)
    with pool:
        for outcome in pool.map(lambda driver, item: item, feed):
            assert outcome.item == "first"
            assert wait_until(lambda: feed.asked == 2)
            break
    assert wait_until(lambda: len(map_threads()) == 1)
    dropped = weakref.ref(pool)
    del pool, outcome
    # A worker that has ended may still have its last frame.
    assert wait_until(lambda: gc.collect() >= 0 and dropped() is None)
    feed.queue.put(None)
    assert wait_until(lambda: not map_threads())


def test_the_unfinished_items_are_those_that_were_taken_and_have_no_outcome() -> None:
    running = threading.Semaphore(0)

    def work(driver: Any, item: int) -> int:
        if item:
            running.release()
            browser = driver.command_handler.browser
            assert wait_until(lambda: not browser.alive)
            raise ConnectionError("cut off")
        return item

    with FakePool(max_size=3) as pool:
        outcomes = pool.map(work, iter(range(100)), workers=3)
        assert next(outcomes).item == 0
        for _ in range(3):
            assert running.acquire(timeout=SECONDS)
        outcomes.close()
        assert sorted(outcomes.unfinished) == [1, 2, 3]
        assert list(outcomes) == []
        assert wait_until(lambda: not map_threads())


def test_control_after_all_outcomes_nothing_is_unfinished() -> None:
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(lambda driver, item: item, range(7))
        assert sorted(outcome.item for outcome in outcomes) == list(range(7))
        assert outcomes.unfinished == []
        assert next(outcomes, "end") == "end"


def test_leaving_ends_a_worker_that_waits_for_a_browser() -> None:
    with FakePool(max_size=1, checkout_timeout=10 * SECONDS) as pool, pool.lease():
        outcomes = pool.map(lambda driver, item: item, [1])
        consumer = threading.Thread(target=lambda: list(outcomes))
        consumer.start()
        assert wait_until(lambda: pool.stats()["requests_waiting"] == 1)
        outcomes.close()
        consumer.join(SECONDS)
        assert not consumer.is_alive()
        assert not calling_threads()
        assert outcomes.unfinished == [1]
        assert pool.stats()["requests_waiting"] == 0


def test_leaving_ends_a_worker_that_waits_for_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.mapping.random_pause", lambda *given: 10 * SECONDS)
    failed = threading.Event()

    def work(driver: Any, item: int) -> None:
        if item:
            failed.set()
            raise ConnectionError("try again")

    with FakePool(max_size=1) as pool:
        outcomes = pool.map(work, [0, 1], retries=1, workers=1)
        assert next(outcomes).ok
        assert failed.wait(SECONDS)
        outcomes.close()
        assert not calling_threads()


def test_leaving_does_not_end_the_browser_of_another_lease() -> None:
    """A worker has given its browser back, and the pool has leased it again.

    The control is the old rule, to end the session of the worker's last lease."""
    feed = Feed("first")  # no second item: its call might still run, and close() would end its browser
    with FakePool(max_size=1) as pool:
        outcomes = pool.map(lambda driver, item: driver.command_handler.lease(), feed, workers=1)
        old_lease = next(outcomes).value
        assert old_lease is not None
        outcomes.close()
        feed.queue.put(None)
        assert wait_until(lambda: not map_threads())
        with pool.lease() as lease:
            assert lease.browser_id == old_lease.browser_id
            old_lease.cut_off("interrupted: too late")
            assert lease.driver.execute(lambda: 42) == 42
            assert pool.browsers[0].alive
            old_lease.session.close()
            assert not pool.browsers[0].alive, "control: the old rule ends another one's browser"


@pytest.mark.parametrize("dropped", [True, False])
def test_an_iterator_that_is_dropped_or_never_used_leaves_nothing(dropped: bool) -> None:
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(lambda driver, item: item, iter(range(100)))
        if dropped:
            next(outcomes)
        del outcomes
        gc.collect()
        assert wait_until(lambda: not map_threads())
        assert wait_until(lambda: pool.stats()["pool_leased"] == 0)


def test_a_call_that_ignores_its_end_is_named_and_not_waited_for_without_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("browserkeeper.pool.mapping.PATIENCE", 0.1)
    stop, started = threading.Event(), threading.Event()

    def deaf(driver: Any, item: int) -> None:
        if item:
            started.set()
            stop.wait(SECONDS)

    with FakePool(max_size=1) as pool:
        outcomes = pool.map(deaf, [0, 1], workers=1)
        next(outcomes)
        assert started.wait(SECONDS)
        outcomes.close()
        assert "still run" in caplog.text
        assert "deaf" in caplog.text
        stop.set()
        assert wait_until(lambda: not map_threads())


# ------------------------------------------------------------------ threads that cannot be started


def test_map_works_with_the_threads_that_it_gets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_threads = NoThreads(monkeypatch)
    with FakePool(max_size=2) as pool:
        outcomes = pool.map(lambda driver, item: item, range(5), workers=3)
        workers = iter(range(3))
        start = threading.Thread.start

        def second_fails(thread: threading.Thread) -> None:
            is_worker = thread.name.startswith("browserkeeper-map-") and "items" not in thread.name
            if is_worker and next(workers) == 1:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", second_fails)
        assert sorted(outcome.item for outcome in outcomes) == list(range(5))
        assert "works with 1 threads instead of 3" in caplog.text
        no_threads.names = ("browserkeeper-map",)
        with pytest.raises(PoolUnavailable, match=r"map\(\) cannot start.*can't start new thread"):
            list(pool.map(lambda driver, item: item, range(5)))
        assert wait_until(lambda: not map_threads())
