"""``pool.alease()``, ``async with`` and ``aclose()``, on the loops of asyncio and of uvloop.

Browsers without a process where the waiting is what is tested; a driver whose ``get`` never answers, or
Chromium, where a command has to be cut off.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import (
    ConfigError,
    IdentityError,
    LaunchError,
    LeaseEnded,
    LeaseTimeout,
    PoolClosed,
    PoolTimeout,
    PoolUnavailable,
    SessionClosed,
    TooManyWaiting,
    browser,
)
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.browser.test_limits_named import NEVER, new_pool
from tests.browser.test_outside import PHASES, fake_driver, new_session  # noqa: F401
from tests.pool.pools import LIMIT, patient_pool
from tests.support.fake_browser import FakeBrowser, FakePool
from tests.support.waiting import SECONDS, deadline_in, wait_until

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """``asyncio.run``, and the same of uvloop."""
    if request.param == "asyncio":
        return asyncio.run
    loops = pytest.importorskip("uvloop", reason="uvloop is not installed")
    run: Run = loops.run
    return run


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until the condition is true; the loop goes on."""
    end = deadline_in(seconds)
    while not condition():
        if time.monotonic() > end:
            pytest.fail("the condition did not come true")
        await asyncio.sleep(0.005)


def pool_with_all_leased(size: int = 2, **given: Any) -> tuple[FakePool, list[Any]]:
    pool = FakePool(max_size=size, **given).open()
    return pool, [pool.lease(timeout=60) for _ in range(size)]


def threads() -> int:
    return len(threading.enumerate())


# ------------------------------------------------------------------ leases


def test_a_lease_is_an_ordinary_one_whose_commands_run_in_threads(run: Run) -> None:
    async def main(pool: FakePool) -> None:
        async with pool.alease(timeout=60, label="order 17") as lease:
            assert await asyncio.to_thread(lease.driver.execute, lambda: 42) == 42
            (info,) = pool.leases()
            assert (info.label, info.browser_id) == ("order 17", lease.browser_id)
            assert info.uses == lease.uses == pool.stats()["requests_num"]
            assert "Task-" in info.thread
            assert "test_asyncio" in info.stack
            driver = lease.driver
        with pytest.raises(LeaseEnded):
            await asyncio.to_thread(driver.execute, lambda: 42)

    with FakePool(max_size=1) as pool:
        run(main(pool))
        run(main(pool))  # the pool belongs to no loop
        assert pool.stats()["requests_num"] == 2
        assert pool.browsers[0].renewals >= 1


def test_a_thousand_waiting_tasks_hold_no_thread_and_are_served_in_their_order(run: Run) -> None:
    served: list[int] = []

    async def take(pool: FakePool, number: int) -> None:
        async with pool.alease(timeout=300):
            served.append(number)

    async def main() -> None:
        pool, leases = pool_with_all_leased(max_waiting=1000)
        try:
            before = threads()
            tasks = [asyncio.create_task(take(pool, number)) for number in range(1000)]
            await until(lambda: pool.stats()["requests_waiting"] == 1000)
            assert threads() <= before
            with pytest.raises(TooManyWaiting):
                await take(pool, -1)
            for lease in leases:
                lease.release()
            await asyncio.gather(*tasks)
        finally:
            await pool.aclose()

    run(main())
    assert sorted(served) == list(range(1000))
    # Two browsers serve them; whose release is seen first is not in the pool's hand.
    assert max(abs(place - number) for place, number in enumerate(served)) <= 2


def test_a_task_that_is_cancelled_while_it_waits_gives_its_request_back(run: Run) -> None:
    async def wait_for_one(pool: FakePool) -> None:
        async with pool.alease(timeout=300):
            pytest.fail("there was no browser")

    async def main() -> None:
        pool, leases = pool_with_all_leased(1)
        async with pool:
            tasks = [asyncio.create_task(wait_for_one(pool)) for _ in range(5)]
            await until(lambda: pool.stats()["requests_waiting"] == 5)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in results] == [asyncio.CancelledError] * 5
            with pytest.raises(asyncio.TimeoutError):  # not PoolTimeout: it came from outside
                await asyncio.wait_for(wait_for_one(pool), 0.05)
            assert pool.stats()["requests_waiting"] == 0
            leases.pop().release()
            async with pool.alease(timeout=60) as lease:
                assert lease.uses == 2

    run(main())


def test_a_task_that_is_cancelled_at_whatever_moment_loses_no_browser(run: Run) -> None:
    async def use(pool: FakePool) -> None:
        async with pool.alease(timeout=60) as lease:
            await asyncio.to_thread(lease.driver.execute, lambda: 1)

    async def main() -> None:
        async with FakePool(max_size=2, launch_concurrency=2) as pool:
            cancelled = 0
            for number in range(200):
                task = asyncio.create_task(use(pool))
                for _ in range(number % 8):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.0001 * (number % 20))
                task.cancel()
                (result,) = await asyncio.gather(task, return_exceptions=True)
                cancelled += isinstance(result, asyncio.CancelledError)
                assert result is None or isinstance(result, asyncio.CancelledError)
            assert cancelled > 20
            await until(lambda: pool.stats()["pool_leased"] == 0)
            async with pool.alease(timeout=60), pool.alease(timeout=60):
                pass

    run(main())


def test_errors_of_the_request_are_raised_in_the_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)

    def fail(browser: FakeBrowser) -> None:
        raise LaunchError("there is no browser here")

    async def take(pool: FakePool, timeout: float | None = None) -> None:
        async with pool.alease(timeout):
            pass

    async def main() -> None:
        pool, _ = pool_with_all_leased(1)
        with pytest.raises(PoolTimeout, match="test_asyncio"):  # names the code that has the browser
            await take(pool, 0.05)
        for wrong in (-1, 0, float("nan"), "2"):
            with pytest.raises(ConfigError, match="timeout"):
                pool.alease(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="label"):
            pool.alease(label="two\nlines")
        waiting = asyncio.create_task(take(pool))
        await until(lambda: pool.stats()["requests_waiting"])
        await pool.aclose()
        with pytest.raises(PoolClosed):
            await waiting
        with pytest.raises(PoolClosed):
            pool.alease()
        async with FakePool({"launch": fail}, checkout_timeout=60) as broken:
            with pytest.raises(PoolUnavailable, match="no browser here"):
                await take(broken)

    run(main())


def test_an_exception_of_the_block_is_raised_as_it_is_and_gives_the_browser_back(run: Run) -> None:
    async def main() -> None:
        async with FakePool(max_size=1) as pool:
            for kind in (ValueError, asyncio.CancelledError, asyncio.TimeoutError):
                error = kind("mine")
                with pytest.raises(kind) as caught:
                    async with pool.alease(timeout=60):
                        raise error
                assert caught.value is error
            async with pool.alease(timeout=60) as lease:
                assert lease.uses == 4

    run(main())


def test_an_alease_serves_one_block_only(run: Run) -> None:
    async def main() -> None:
        async with FakePool(max_size=2) as pool:
            once = pool.alease(timeout=60)
            async with once:
                with pytest.raises(ConfigError, match="one `async with` block"):
                    async with once:
                        pass
            assert pool.leases() == []

    run(main())


def test_loops_in_several_threads_share_a_pool(run: Run) -> None:
    used: list[str] = []
    errors: list[BaseException] = []

    async def use(pool: FakePool) -> None:
        async with pool.alease(timeout=120) as lease:
            used.append(await asyncio.to_thread(lease.driver.execute, lambda: lease.browser_id))

    async def main(pool: FakePool) -> None:
        await asyncio.gather(*(use(pool) for _ in range(20)))

    def thread(pool: FakePool) -> None:
        try:
            run(main(pool))
        except BaseException as error:
            errors.append(error)

    with FakePool(max_size=2) as pool:
        runners = [threading.Thread(target=thread, args=(pool,)) for _ in range(4)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        assert pool.stats()["pool_leased"] == 0
    assert not errors
    assert len(used) == 80


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that no ``asyncio.run`` takes down."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    made = sys.modules["uvloop"].new_event_loop() if request.param == "uvloop" else None
    loop = made or asyncio.new_event_loop()
    yield loop
    if not loop.is_closed():
        loop.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("holds", [False, True], ids=["waits", "holds"])
def test_a_loop_that_is_closed_gives_back_what_its_tasks_had(
    holds: bool, loop: asyncio.AbstractEventLoop
) -> None:
    """Closed by hand, without the cancellation that ``asyncio.run`` sees to."""
    pool, leases = (FakePool(max_size=1).open(), []) if holds else pool_with_all_leased(1)

    async def use() -> None:
        async with pool.alease(timeout=300):
            await asyncio.sleep(300)

    state = "pool_leased" if holds else "requests_waiting"
    task = loop.create_task(use())
    loop.run_until_complete(until(lambda: pool.stats()[state] == 1))
    loop.close()
    if not holds:  # while the task still exists
        leases.pop().release()
        assert wait_until(lambda: pool.stats()["requests_waiting"] == 0)
        assert wait_until(lambda: pool.stats()["pool_leased"] == 0)
    del task
    gc.collect()
    assert wait_until(lambda: pool.stats()["pool_leased"] == 0)
    with pool.lease(timeout=60):
        pass
    assert all(report.clean for report in pool.close())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_tasks_that_run_eagerly_are_served() -> None:
    async def use(pool: FakePool) -> int:
        async with pool.alease(timeout=60) as lease:
            return lease.uses

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        async with FakePool(max_size=2) as pool:
            assert len(await asyncio.gather(*(use(pool) for _ in range(10)))) == 10

    asyncio.run(main())


# ------------------------------------------------------------------ commands that hang


class Job:
    """A function for ``asyncio.to_thread``: opens a page that never answers; keeps what it raised."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.has_begun = threading.Event()

    def __call__(self, driver: Any, url: str = NEVER) -> None:
        self.has_begun.set()
        try:
            self.begin(driver, url)
        except BaseException as error:
            self.errors.append(error)
            raise

    def begin(self, driver: Any, url: str) -> None:
        driver.get(url)


def executor_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("asyncio_")]


def test_a_task_that_is_cancelled_during_a_command_has_the_browser_ended_and_its_thread_freed(
    run: Run,
    fake_driver: str,  # noqa: F811
) -> None:
    """The command would take 120 s, which ``asyncio.run`` would wait for at the end."""
    job = Job()

    async def use(pool: Any) -> None:
        async with pool.alease(timeout=60) as lease:
            await asyncio.to_thread(job, lease.driver)

    async def main() -> None:
        async with new_pool(fake_driver) as pool:
            task = asyncio.create_task(use(pool))
            await until(lambda: job.has_begun.is_set() and not control_of(pool.sessions()[0]).at_rest)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: job.errors)
            await until(lambda: pool.stats().get("retired_interrupted"))
            async with pool.alease(timeout=60) as lease:  # the place in the pool is free
                assert await asyncio.to_thread(lambda: lease.driver.title) is not None

    run(main())
    (error,) = job.errors
    assert isinstance(error, SessionClosed)
    assert not executor_threads()


def test_ctrl_c_ends_asyncio_run_with_a_command_in_flight(
    run: Run,
    fake_driver: str,  # noqa: F811
) -> None:
    job = Job()
    pools: list[Any] = []

    async def main() -> None:
        async with new_pool(fake_driver) as pool, pool.alease(timeout=60) as lease:
            pools.append(pool)
            await asyncio.to_thread(job, lease.driver)

    def interrupt() -> None:
        wait_until(lambda: job.has_begun.is_set() and not control_of(pools[0].sessions()[0]).at_rest)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        run(main())
    sender.join()
    assert [isinstance(error, SessionClosed) for error in job.errors] == [True]
    assert all(report.clean for report in pools[0].close())
    assert not executor_threads()


@pytest.mark.parametrize("phase", ["silent-session", "works"])
def test_a_session_ends_with_its_cancelled_task_also_during_its_start(
    phase: str,
    run: Run,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", phase)
    session, job = new_session(fake_driver), Job()

    async def use() -> None:
        async with session as driver:
            await asyncio.to_thread(job, driver)

    async def main() -> None:
        task = asyncio.create_task(use())
        await until(lambda: PHASES[phase](session) if phase != "works" else job.has_begun.is_set())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.report
        assert session.report.clean

    run(main())
    assert [isinstance(error, SessionClosed) for error in job.errors] == [True] * (phase == "works")
    assert not executor_threads()


def test_a_failed_start_raises_its_own_error_and_a_session_starts_once(run: Run) -> None:
    async def main() -> None:
        session = browser(binary="/bin/false", driver_path="/bin/false", attempts=1)
        with pytest.raises(Exception, match="/bin/false") as caught:
            await session.astart()
        assert not isinstance(caught.value, asyncio.CancelledError)
        with pytest.raises(SessionClosed):
            await session.astart()

    run(main())


def test_aclose_returns_the_report_and_a_cancelled_aclose_goes_on(
    run: Run,
    fake_driver: str,  # noqa: F811
) -> None:
    async def main() -> None:
        session = new_session(fake_driver)
        await session.astart()
        report = await session.aclose()
        assert report.clean
        assert await session.aclose() is report is session.report

        other = new_session(fake_driver)
        driver = await other.astart()
        assert await asyncio.to_thread(lambda: driver.title) is not None
        task = asyncio.create_task(other.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: other.report)
        assert other.report
        assert other.report.clean

    run(main())


def test_max_lease_is_raised_in_the_task_and_hides_no_error_of_the_block(
    run: Run,
    fake_driver: str,  # noqa: F811
) -> None:
    async def main() -> None:
        async with new_pool(fake_driver, max_lease=1.5) as pool:
            with pytest.raises(LeaseTimeout):
                async with pool.alease(timeout=60) as lease:
                    await asyncio.to_thread(lease.driver.get, NEVER)
            with pytest.raises(LeaseTimeout):  # of the release
                async with pool.alease(timeout=60) as lease:
                    await until(lambda: not control_of(lease.session).looks_alive())
            with pytest.raises(ValueError, match="mine"):
                async with pool.alease(timeout=60) as lease:
                    await until(lambda: not control_of(lease.session).looks_alive())
                    raise ValueError("mine")

    run(main())


def test_where_no_thread_can_be_started_a_lease_is_given_back_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*given: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with FakePool(max_size=1) as pool:
            with monkeypatch.context() as patch:
                async with pool.alease(timeout=60):
                    patch.setattr(_thread, "start_new_thread", no_thread)
            async with pool.alease(timeout=60) as lease:
                assert lease.uses == 2

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_lease_takes_its_identity_in_a_thread_that_a_cancelled_task_does_not_wait_for(
    fails: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, stop = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def take(browser: FakeBrowser, identity: Any) -> None:
        threads.append(threading.current_thread())
        if fails:
            raise IdentityError("the browser refuses it")
        taking.set()
        stop.wait(120)

    async def use(pool: FakePool) -> None:
        async with pool.alease(timeout=60, locale="de-DE"):
            pytest.fail("the identity was not taken")

    async def main() -> None:
        monkeypatch.setattr(FakeBrowser, "take", take)
        async with FakePool(max_size=1) as pool:
            task = asyncio.create_task(use(pool))
            if not fails:
                await until(taking.is_set)
                task.cancel()
            with pytest.raises(IdentityError if fails else asyncio.CancelledError):
                await task
            async with pool.alease(timeout=60) as lease:
                assert lease.uses == 1  # another browser
            assert pool.stats()["returns_bad"] == 1

    run(main())
    stop.set()
    assert threads[0] is not threading.main_thread()


# ------------------------------------------------------------------ a real browser


@pytest.mark.chrome
def test_pages_of_a_real_browser_are_opened_by_many_tasks_and_a_cut_off_one_frees_its_thread(
    run: Run, site: Site
) -> None:
    job, page = Job(), f"/never?{threading.get_native_id()}-{id(run)}"

    async def title(pool: Any) -> str:
        async with pool.alease() as lease:
            await asyncio.to_thread(lease.driver.get, site.url)
            result: str = await asyncio.to_thread(lambda: lease.driver.title)
            return result

    async def hang(pool: Any) -> None:
        async with pool.alease() as lease:
            await asyncio.to_thread(job, lease.driver, f"{site.url.rstrip('/')}{page}")

    async def main() -> None:
        async with patient_pool(max_size=1, min_idle=1) as pool:
            assert len({*await asyncio.gather(*(title(pool) for _ in range(4)))}) == 1
            task = asyncio.create_task(hang(pool))
            await until(lambda: any(page in one for one in site.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: job.errors)
            assert isinstance(job.errors[0], SessionClosed)
            assert await title(pool)

    run(main())
    assert not executor_threads()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("chrome", marks=pytest.mark.chrome),
        pytest.param("firefox", marks=pytest.mark.firefox),
    ],
)
def test_a_bidi_command_that_hangs_is_cut_off_as_others_are(name: str, site: Site) -> None:
    """Selenium waits for its answer for 30 s after the connection was closed, and then says so."""
    options = webdriver.ChromeOptions() if name == "chrome" else webdriver.FirefoxOptions()
    options.enable_bidi = True
    page = f"/never?bidi-{id(options)}"

    class Navigation(Job):
        def begin(self, driver: Any, url: str) -> None:
            driver.browsing_context.navigate(driver.current_window_handle, url, wait="complete")

    async def use(open_it: Any, job: Job) -> None:
        async with open_it as opened:
            driver = getattr(opened, "driver", opened)
            await asyncio.to_thread(job, driver, f"{site.url.rstrip('/')}{page}")

    async def cut_off(open_it: Any) -> BaseException:
        job, before = Navigation(), len(site.requests)
        task = asyncio.create_task(use(open_it, job))
        await until(lambda: any(page in one for one in site.requests[before:]), LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: job.errors)
        return job.errors[0]

    async def main() -> None:
        async with patient_pool(name, max_size=1, options=options) as pool:
            assert isinstance(await cut_off(pool.alease()), (LeaseEnded, SessionClosed))
        session = browser(name, options=options, start_timeout=LIMIT)
        assert isinstance(await cut_off(session), SessionClosed)

    asyncio.run(main())
    assert not executor_threads()
