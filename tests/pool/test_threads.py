"""The pool's threads: leases, waiting, interruption, map.  With fake browsers, which have no process."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browserkeeper import (
    ConfigError,
    ForkedSessionError,
    LaunchError,
    LeakError,
    Lease,
    LeaseEnded,
    Outcome,
    PoolClosed,
    PoolTimeout,
    PoolUnavailable,
    TooManyWaiting,
    lease_of,
)
from browserkeeper.pool.circuit_breaker import OPENS_AFTER
from tests.support.fake_browser import FakeBrowser, FakePool
from tests.support.waiting import wait_until


@pytest.fixture
def pool() -> Iterator[FakePool]:
    with FakePool() as pool:
        yield pool


def in_thread(action: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run the action in a thread, and put its result or its exception into the list."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(action())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def run_until_stopped(started: threading.Event, stop: threading.Event) -> None:
    started.set()
    stop.wait(60)


def pool_threads() -> list[str]:
    living = [thread for thread in threading.enumerate() if thread.is_alive()]
    return [thread.name for thread in living if thread.name.startswith("browserkeeper")]


# ------------------------------------------------------------------ leases


def test_a_released_browser_is_renewed_and_leased_again() -> None:
    with FakePool(max_size=1) as pool:
        with pool.lease() as first:
            assert first.driver.execute(lambda: 42) == 42
            assert first.uses == 1
        with pool.lease() as second:
            assert second.browser_id == first.browser_id
            assert second.uses == 2
            assert pool.browsers[0].renewals == 1


def test_pool_driver_gives_the_driver_of_a_lease(pool: FakePool) -> None:
    with pool.driver() as driver:
        assert driver.execute(lambda: 1) == 1
        assert lease_of(driver).driver is driver
    with pytest.raises(ConfigError, match="did not come from a BrowserPool"):
        lease_of(object())  # type: ignore[arg-type]


def test_a_driver_raises_lease_ended_after_its_lease(pool: FakePool) -> None:
    with pool.lease() as lease:
        driver = lease.driver
    with pytest.raises(LeaseEnded, match="is over"):
        driver.execute(lambda: 1)
    with pytest.raises(LeaseEnded):
        lease.driver.execute(lambda: 1)
    lease.release()  # the second release does nothing


def test_retire_replaces_the_browser_after_the_lease(pool: FakePool) -> None:
    with pool.lease() as lease:
        lease.retire("captcha")
    assert wait_until(lambda: pool.stats().get("retired_requested"))
    with pool.lease() as other:
        assert other.browser_id != lease.browser_id


def test_after_driver_quit_the_pool_replaces_the_browser(pool: FakePool) -> None:
    with pool.lease() as lease:
        lease.driver.quit()
    with pool.lease() as other:
        assert other.browser_id != lease.browser_id


def test_a_command_in_flight_at_the_release_makes_the_pool_replace_the_browser(pool: FakePool) -> None:
    lease = pool.lease()
    driver = lease.driver
    started, stop = threading.Event(), threading.Event()
    thread, _ = in_thread(lambda: driver.execute(lambda: run_until_stopped(started, stop)))
    started.wait(60)
    lease.release()
    stop.set()
    thread.join()
    assert wait_until(lambda: pool.stats().get("retired_interrupted"))


def test_a_dropped_lease_is_taken_back_with_a_warning_that_names_its_place(pool: FakePool) -> None:
    with pytest.warns(ResourceWarning, match="dropped without release") as caught:
        pool.lease()
        gc.collect()
    texts = [str(warning.message) for warning in caught]  # one may be of another test's socket
    assert any("test_a_dropped_lease_is_taken_back" in text for text in texts)
    assert wait_until(lambda: pool.stats().get("retired_abandoned"))
    with pool.lease(timeout=60):
        pass


def test_a_lease_whose_driver_is_still_referenced_is_not_taken_back(pool: FakePool) -> None:
    driver = pool.lease().driver
    gc.collect()
    assert driver.execute(lambda: 1) == 1
    assert len(pool.leases()) == 1
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="dropped without release"):
            del driver
    finally:
        gc.enable()


def test_leases_tells_browser_thread_and_stack(pool: FakePool) -> None:
    with pool.lease() as lease:
        (info,) = pool.leases()
        assert info.browser_id == lease.browser_id
        assert info.thread == threading.current_thread().name
        assert "test_leases_tells_browser_thread_and_stack" in info.stack
        assert 0 <= info.seconds < 60
        assert abs(info.since - time.time()) < 60
        assert info.deadline is None
        assert info.thread in str(info)
    assert pool.leases() == []


def test_a_long_lease_is_logged_once_with_the_stack_that_took_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakePool(leak_warn=0.05) as pool, pool.lease():
        assert wait_until(lambda: "has been out" in caplog.text)
        assert "test_a_long_lease_is_logged_once" in caplog.text
        pool.stats()
    assert caplog.text.count("has been out") == 1


def test_max_lease_sets_a_deadline_that_the_release_takes_back() -> None:
    with FakePool(max_lease=50, min_idle=1) as pool:
        pool.wait()  # with its first browser
        with pool.lease():
            assert pool.browsers[0].deadline == 50
            assert 0 < (pool.leases()[0].deadline or 0) <= 50
        assert wait_until(lambda: pool.browsers[0].deadline is None)


# ------------------------------------------------------------------ waiting


def test_requests_are_served_in_the_order_in_which_they_came() -> None:
    with FakePool(max_size=1) as pool:
        held = pool.lease()
        served: list[int] = []

        def take(number: int) -> None:
            with pool.lease():
                served.append(number)

        threads = []
        for number in range(5):
            threads.append(in_thread(lambda number=number: take(number))[0])  # type: ignore[misc]
            assert wait_until(lambda number=number: pool.stats()["requests_waiting"] == number + 1)  # type: ignore[misc]
        held.release()
        for thread in threads:
            thread.join()
        assert served == list(range(5))


def test_a_pool_timeout_names_the_code_that_has_the_browser() -> None:
    with FakePool(max_size=1) as pool, pool.lease():
        with pytest.raises(PoolTimeout, match="raise max_size") as caught:
            pool.lease(timeout=0.05)
        assert "1 leased" in str(caught.value)
        assert "test_a_pool_timeout_names" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        assert pool.stats()["requests_waiting"] == 0


def test_a_request_above_max_waiting_is_refused_at_once() -> None:
    with FakePool(max_size=1, max_waiting=0) as pool:
        pool.wait()
        with pool.lease(), pytest.raises(TooManyWaiting, match="max_waiting=0"):
            pool.lease()


def test_twelve_threads_share_three_browsers() -> None:
    """A browser has one lease at a time, and every request gets one in the end."""
    in_use: set[str] = set()
    lock = threading.Lock()
    done: list[int] = []

    def use(pool: FakePool) -> None:
        for _ in range(25):
            with pool.lease() as lease:
                with lock:
                    assert lease.browser_id not in in_use
                    in_use.add(lease.browser_id)
                with lock:
                    in_use.remove(lease.browser_id)
                    done.append(1)

    with FakePool(max_size=3, max_uses=7) as pool:
        results = [in_thread(lambda: use(pool)) for _ in range(12)]
        for thread, _ in results:
            thread.join(300)
        assert not [error for _, result in results for error in result if error]
        assert len(done) == 12 * 25
        assert pool.stats()["requests_num"] == 12 * 25
    assert all(not browser.alive for browser in pool.browsers)


class InterruptionError(BaseException):
    """Raised by the signal handler, as a time limit does."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_call_loses_no_browser() -> None:
    """Signals arrive at many different moments of lease() and release()."""
    old = signal.signal(signal.SIGALRM, _interrupt)
    interrupted = 0
    try:
        with FakePool(max_size=2) as pool:
            pool.wait()
            for number in range(300):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + number % 60))
                    with pool.lease(timeout=30):
                        pass
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except InterruptionError:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            gc.collect()
            assert wait_until(lambda: pool.stats()["pool_leased"] == 0), pool.leases()
            with pool.lease(timeout=60), pool.lease(timeout=60):
                pass
    except InterruptionError:
        pytest.fail("a signal arrived after its timer was switched off")
    finally:
        signal.signal(signal.SIGALRM, old)
    assert interrupted > 20


def _interrupt(number: int, frame: Any) -> None:
    raise InterruptionError


# ------------------------------------------------------------------ launches that fail


def no_browser(browser: FakeBrowser) -> None:
    raise LaunchError("there is no browser here")


def test_waiting_requests_are_refused_with_the_error_of_the_last_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)
    with FakePool({"launch": no_browser}, checkout_timeout=60) as pool:
        with pytest.raises(PoolUnavailable, match="there is no browser here") as caught:
            pool.lease()
        assert isinstance(caught.value.cause, LaunchError)
        assert isinstance(caught.value, ConnectionError)
        with pytest.raises(PoolUnavailable):
            pool.wait()
        assert pool.stats()["browsers_errors"] >= OPENS_AFTER


def test_the_pool_recovers_when_launches_succeed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)
    fails = [True]
    script = {"launch": lambda browser: no_browser(browser) if fails[0] else None}
    with FakePool(script, checkout_timeout=60) as pool:
        with pytest.raises(PoolUnavailable):
            pool.lease()
        fails[0] = False
        assert wait_until(lambda: pool.stats()["pool_available"])
        with pool.lease():
            pass


def test_an_unexpected_error_of_a_launch_reaches_waiting_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)

    def broken(browser: FakeBrowser) -> None:
        raise ZeroDivisionError("a bug")

    with FakePool({"launch": broken}) as pool, pytest.raises(PoolUnavailable, match="a bug"):
        pool.lease()


def test_a_browser_that_cannot_be_renewed_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    def broken(browser: FakeBrowser) -> str:
        if browser.renewals == 1:
            raise OSError("websocket closed")
        return ""

    with FakePool({"renew": broken}, max_size=1) as pool:
        with pool.lease() as lease:
            pass
        with pool.lease() as other:
            assert other.browser_id != lease.browser_id
        assert pool.stats()["browsers_lost"] >= 1
    assert "cannot be made ready: websocket closed" in caplog.text


def test_a_dead_browser_is_not_leased(pool: FakePool) -> None:
    pool.wait()
    dead = pool.browsers[0]
    dead.alive = False
    with pool.lease() as lease:
        assert lease.browser_id != dead.id


# ------------------------------------------------------------------ opening and closing


def test_no_thread_and_no_browser_outlives_a_closed_pool() -> None:
    others = set(threading.enumerate())  # those of the pool before may be ending

    def own_threads() -> list[threading.Thread]:
        new = [one for one in threading.enumerate() if one not in others and one.is_alive()]
        return [one for one in new if one.name.startswith("browserkeeper")]

    with FakePool(max_size=3, min_idle=3) as pool:
        pool.wait()
        assert wait_until(lambda: len(own_threads()) == 4)
    assert wait_until(lambda: not own_threads())
    assert all(not browser.alive for browser in pool.browsers)
    assert len(pool.close()) == 3


def test_closing_refuses_waiting_requests_and_ends_leased_browsers() -> None:
    pool = FakePool(max_size=1).open()
    lease = pool.lease()
    thread, result = in_thread(pool.lease)
    assert wait_until(lambda: pool.stats()["requests_waiting"])
    pool.close()
    thread.join()
    assert isinstance(result[0], PoolClosed)
    assert not pool.browsers[0].alive
    lease.release()
    with pytest.raises(PoolClosed, match="closed"):
        pool.lease()
    with pytest.raises(PoolClosed):
        pool.open()


def test_closing_cancels_launches() -> None:
    pool = FakePool({"launch": lambda browser: browser.called_off.wait(300)}, min_idle=1).open()
    assert wait_until(lambda: pool.browsers)
    pool.close()
    assert pool.browsers[0].called_off.is_set()


def test_draining_waits_for_leases() -> None:
    with FakePool(max_size=2, min_idle=2) as pool:
        pool.wait()
        lease = pool.lease()
        thread, result = in_thread(lambda: pool.drain(timeout=300))
        assert wait_until(lambda: "draining" in repr(pool))
        with pytest.raises(PoolClosed, match="drained"):
            pool.lease()
        assert lease.driver.execute(lambda: 1) == 1
        lease.release()
        thread.join()
        assert result == [[]]


def test_draining_returns_the_leases_that_it_cut_off() -> None:
    with FakePool(max_size=1) as pool:
        lease = pool.lease()
        (cut_off,) = pool.drain(timeout=0.05)
        assert cut_off.browser_id == lease.browser_id
        assert not pool.browsers[0].alive


def test_close_raises_a_leak_error_for_what_a_browser_left() -> None:
    pool = FakePool({"end": lambda browser: None}).open()
    pool.wait()

    def leaky(self: FakeBrowser, reason: str) -> Any:
        from browserkeeper import ExitReport

        return ExitReport(self.id, "fake", reason, "fake", None)

    pool.browsers[0].end = leaky.__get__(pool.browsers[0])  # type: ignore[method-assign]
    with pytest.raises(LeakError, match="NOT CLEAN"):
        pool.close()


def test_a_pool_that_is_not_open_gives_no_lease() -> None:
    pool = FakePool()
    with pytest.raises(PoolClosed, match="not open yet"):
        pool.lease()
    assert "not open" in repr(pool)
    assert pool.close() == ()
    with pytest.raises(PoolClosed, match="closed"):
        pool.lease()


def test_a_pool_refuses_to_work_in_a_fork(pool: FakePool) -> None:
    pool.wait()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            pool.lease(timeout=5)
        except ForkedSessionError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert b"cannot be used in its fork" in os.read(read, 1000)
    os.close(read)
    with pool.lease():
        pass


# ------------------------------------------------------------------ operations


def test_recycling_replaces_every_browser(pool: FakePool) -> None:
    pool.wait()
    before = {browser.id for browser in pool.browsers}
    pool.recycle()
    assert wait_until(lambda: pool.stats().get("retired_recycled"))
    with pool.lease() as lease:
        assert lease.browser_id not in before


def test_an_idle_browser_that_uses_too_much_memory_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.scheduler.PING_EVERY", 0.02)
    pinged: list[FakeBrowser] = []

    def ping(browser: FakeBrowser) -> str:
        pinged.append(browser)
        return "max_memory" if browser is pinged[0] else ""

    with FakePool({"ping": ping}, max_size=1) as pool:
        assert wait_until(lambda: pool.stats().get("retired_max_memory"))
        with pool.lease() as lease:
            assert lease.browser_id != pool.browsers[0].id


def test_resize_launches_and_closes_browsers(pool: FakePool) -> None:
    pool.resize(4, min_idle=4)
    assert wait_until(lambda: pool.stats()["pool_available"] == 4)
    pool.resize(1)
    assert wait_until(lambda: pool.stats()["pool_size"] == 1)
    assert pool.stats()["pool_max"] == 1
    with pytest.raises(ConfigError, match="max_size=0"):
        pool.resize(0)


def test_repr_shows_the_state(pool: FakePool) -> None:
    pool.wait()
    assert "1 idle" in repr(pool)
    with pool.lease():
        assert "1 leased" in repr(pool)
        assert "of 2; 0 waiting" in repr(pool)
    pool.close()
    assert "closed" in repr(pool)


def test_the_statistics_add_up(pool: FakePool) -> None:
    for _ in range(3):
        with pool.lease():
            time.sleep(0.01)
    assert wait_until(lambda: pool.stats()["pool_leased"] == 0)
    stats = pool.stats()
    assert stats["requests_num"] == 3
    assert stats["usage_seconds"] >= 0.03
    assert stats["requests_errors"] == stats["leaks"] == 0
    assert all(isinstance(value, (int, float)) for value in stats.values())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_size": 0}, "max_size=0: give a whole number, 1 or more"),
        ({"max_size": 2, "min_idle": 3}, "min_idle=3 is more than max_size=2"),
        ({"min_idle": -1}, "min_idle=-1"),
        ({"max_uses": True}, "max_uses=True"),
        ({"max_memory": "2 GB"}, "max_memory='2 GB'"),
        ({"max_lease": 0}, "max_lease=0: give a positive"),
        ({"checkout_timeout": float("nan")}, "checkout_timeout=nan"),
        ({"isolation": "contexts"}, "Did you mean 'context'"),
        ({"timeout": 60}, "Use max_lease="),
        ({"profile": "/tmp/tmp-profile"}, "cannot be shared"),
        ({"max_sise": 3}, "no argument .?max_sise"),
        ({"headless": False, "env": 3}, "env=3"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_starts(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        FakePool(**given)


def test_a_pool_of_firefox_has_contexts_and_a_pool_of_no_browser_is_refused() -> None:
    from browserkeeper import BrowserPool

    for isolation in ("context", "auto"):
        assert BrowserPool("firefox", isolation=isolation, max_size=1).isolation == "context"
    with pytest.raises(ConfigError, match="Unknown browser 'firefoxx'"):
        BrowserPool("firefoxx")


@pytest.mark.parametrize("timeout", [0, -1, "soon", float("inf")])
def test_invalid_timeouts_are_refused(pool: FakePool, timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        pool.lease(timeout=timeout)


# ------------------------------------------------------------------ map


def test_map_answers_each_item_once(pool: FakePool) -> None:
    outcomes = list(pool.map(lambda driver, item: item * 2, range(50)))
    assert sorted(outcome.item for outcome in outcomes) == list(range(50))
    assert all(outcome.ok and outcome.result() == 2 * outcome.item for outcome in outcomes)


def test_map_keeps_errors_with_their_items(pool: FakePool) -> None:
    def work(driver: Any, item: int) -> int:
        return 10 // item

    outcomes = {outcome.item: outcome for outcome in pool.map(work, [1, 0, 5], retries=2)}
    assert outcomes[5].value == 2
    assert outcomes[5].attempts == 1
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    assert outcomes[0].attempts == 3
    with pytest.raises(ZeroDivisionError):
        outcomes[0].result()


def test_map_retries_in_another_lease(pool: FakePool) -> None:
    leases: list[Lease[Any]] = []

    def work(driver: Any, item: str) -> str:
        leases.append(lease_of(driver))
        if len(leases) < 3:
            raise ConnectionError("not yet")
        return item

    (outcome,) = pool.map(work, ["x"], retries=5, workers=1)
    assert outcome.value == "x"
    assert outcome.attempts == 3
    assert len(set(map(id, leases))) == 3


def test_map_retries_only_the_errors_of_retry_on(pool: FakePool) -> None:
    def work(driver: Any, item: int) -> None:
        raise AssertionError("the page is wrong")

    (outcome,) = pool.map(work, [1], retries=5, retry_on=ConnectionError)
    assert outcome.attempts == 1


def test_map_takes_items_only_as_outcomes_are_taken(pool: FakePool) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    outcomes = pool.map(lambda driver, item: item, items())
    assert taken == []
    next(outcomes)
    time.sleep(0.1)
    assert len(taken) < 10
    outcomes.close()


def test_closing_the_iterator_of_map_ends_running_calls(pool: FakePool) -> None:
    started = threading.Event()

    def work(driver: Any, item: int) -> int:
        if item:
            started.set()
            browser = driver.command_handler.browser
            assert wait_until(lambda: not browser.alive)
            raise ConnectionError("cut off")
        return item

    outcomes = pool.map(work, [0, 1, 2, 3], workers=2)
    assert next(outcomes).ok
    assert started.wait(60)
    outcomes.close()
    assert not [t for t in pool_threads() if "map" in t and "items" not in t]
    with pool.lease():
        pass


def test_closing_the_iterator_of_map_does_not_wait_for_a_blocked_iterable(pool: FakePool) -> None:
    hold = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        hold.wait(300)

    outcomes = pool.map(lambda driver, item: item, items())
    assert next(outcomes).ok
    outcomes.close()
    assert not hold.is_set()
    hold.set()
    assert wait_until(lambda: not [t for t in pool_threads() if "map" in t])


def test_map_raises_an_error_of_the_iterable_after_the_outcomes_before_it(pool: FakePool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the list ends here")

    seen: list[Outcome[int, int]] = []
    with pytest.raises(OSError, match="the list ends here"):
        seen.extend(pool.map(lambda driver, item: item, items()))
    assert [outcome.item for outcome in seen] == [1]


def test_map_returns_a_system_exit_as_an_outcome(pool: FakePool) -> None:
    def work(driver: Any, item: int) -> None:
        raise SystemExit(3)

    (outcome,) = pool.map(work, [1], retries=3)
    assert isinstance(outcome.error, SystemExit)
    assert outcome.attempts == 1


@pytest.mark.parametrize("given", [{"retries": -1}, {"workers": 0}, {"retries": 1.5}])
def test_map_refuses_invalid_arguments(pool: FakePool, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        pool.map(lambda driver, item: item, [1], **given)
