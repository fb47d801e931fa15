"""Faults inside the pool: orders, threads and ends that fail, browsers that hang, dropped pools.

With fake browsers, which have no process; each test has its control, or says which one it is.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import LaunchError, LeakError, PoolTimeout, PoolUnavailable
from browserkeeper.pool import worker
from browserkeeper.pool.scheduler import PING_AFTER
from tests.pool.test_threads import in_thread, pool_threads
from tests.support.fake_browser import FakeBrowser, FakePool
from tests.support.waiting import SECONDS, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


def serves(pool: FakePool, leases: int = 1) -> bool:
    """Whether so many leases can be had at once."""
    taken = [pool.lease(timeout=SECONDS) for _ in range(leases)]
    for lease in taken:
        lease.release()
    return True


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)


# ------------------------------------------------------------------ an order that fails


def assert_set(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def fail_once(method: str) -> Callable[[FakeBrowser], Any]:
    """A patch for one browser's method that raises an error at its first call only."""

    def patch(browser: FakeBrowser) -> None:
        original = getattr(browser, method)

        def broken(*given: Any) -> Any:
            setattr(browser, method, original)
            raise OSError(f"{method} is broken")

        setattr(browser, method, broken)

    return patch


@pytest.mark.parametrize("method", ["looks_alive", "set_deadline"])
def test_a_grant_that_fails_does_not_drop_the_other_orders_of_its_batch(method: str) -> None:
    with FakePool(max_size=3, min_idle=3, max_lease=60, launch_concurrency=3) as pool:
        pool.wait()
        fail_once(method)(pool.browsers[-1])  # the first to be leased
        assert pool._controller is not None
        hold = threading.Event()
        pool._controller.loop.post(lambda now: assert_set(hold))
        waiting = [in_thread(lambda: pool.lease(timeout=SECONDS)) for _ in range(3)]
        assert wait_until(lambda: len(pool._controller.loop._inbox) >= 3)  # type: ignore[union-attr]
        hold.set()
        for thread, _ in waiting:
            thread.join(SECONDS)
        leases = [result[0] for _, result in waiting]
        assert len({lease.browser_id for lease in leases}) == 3
        for lease in leases:
            lease.release()


def test_a_browser_object_that_cannot_be_made_is_a_failed_launch() -> None:
    pool = FakePool(max_size=2, min_idle=2)
    make, failures = pool._make_browser, [ValueError("the options are wrong")]

    def make_or_fail(config: Any) -> Any:
        if failures:
            raise failures.pop()
        return make(config)

    pool._make_browser = make_or_fail
    with pool:
        assert serves(pool, leases=2)
        assert pool.stats()["browsers_errors"] == 1


def test_the_error_of_orders_that_keep_failing_reaches_the_waiting_request() -> None:
    pool = FakePool(max_size=1)

    def broken(config: Any) -> Any:
        raise ValueError("the options are wrong")

    pool._make_browser = broken
    with pool, pytest.raises(PoolUnavailable, match="the options are wrong"):
        pool.lease(timeout=SECONDS)


class BrokenHandler(logging.Handler):
    """A user's log handler that lets its errors out."""

    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit("the log is full")


def test_a_log_handler_that_raises_does_not_stop_the_pool() -> None:
    handler = BrokenHandler()
    log = logging.getLogger("browserkeeper")
    log.addHandler(handler)
    try:
        with FakePool({"renew": lambda browser: 1 / 0}, max_size=1, leak_warn=0.01) as pool:
            for _ in range(3):
                with pool.lease(timeout=SECONDS):
                    time.sleep(0.05)
    finally:
        log.removeHandler(handler)
    assert not [browser for browser in pool.browsers if browser.alive]


# ------------------------------------------------------------------ a thread that cannot be started


class NoThreads:
    """Lets ``threading.Thread.start`` fail for the threads whose name begins so, while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.names: tuple[str, ...] = ()
        self.refused = 0
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if self.names and thread.name.startswith(self.names):
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    return NoThreads(monkeypatch)


def test_a_pool_of_one_serves_again_after_a_worker_could_not_be_started(no_threads: NoThreads) -> None:
    no_threads.names = ("browserkeeper-1",)
    with FakePool(max_size=1) as pool:
        assert _serves_soon(pool)
        assert no_threads.refused == 1
        assert pool.stats()["pool_starting"] == 0


def test_a_request_is_told_that_no_thread_can_be_started(no_threads: NoThreads) -> None:
    with FakePool(max_size=1, min_idle=0) as pool:
        no_threads.names = ("browserkeeper-",)
        with pytest.raises(PoolUnavailable, match="can't start new thread") as caught:
            pool.lease(timeout=SECONDS)
        assert "ulimit -u" in str(caught.value)
        assert isinstance(caught.value.cause, LaunchError)
        no_threads.names = ()
        assert wait_until(lambda: pool.stats()["requests_waiting"] == 0)
        assert _serves_soon(pool)


def _serves_soon(pool: FakePool) -> bool:
    """While the circuit breaker is open, requests are refused at once."""

    def attempt() -> bool:
        try:
            return serves(pool)
        except PoolUnavailable:
            return False

    return wait_until(attempt)


def test_a_pool_that_cannot_have_its_own_thread_can_be_opened_later(no_threads: NoThreads) -> None:
    no_threads.names = ("browserkeeper-pool",)
    pool = FakePool(max_size=1)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PoolUnavailable, match="The pool cannot be opened"):
        pool.open()

    def is_closed() -> bool:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) <= before  # another test's may be closed meanwhile

    assert wait_until(is_closed)  # the thread that was to start the pool's may be about to end
    no_threads.names = ()
    with pool:
        assert serves(pool)


PLAIN_USER = """
import os, resource, sys, tempfile, threading, time
from browserkeeper import PoolUnavailable
from tests.support.fake_browser import FakePool
os.setgroups([]); os.setgid(54321); os.setuid(54321)
os.environ["BROWSERKEEPER_STATE_DIR"] = tempfile.mkdtemp(prefix="tmp54321-")
def limit(threads):
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
limit(1)
try:
    FakePool(max_size=1).open()
except PoolUnavailable as error:
    print("open:", "can't start new thread" in str(error))
limit(3)
pool = FakePool(max_size=1, min_idle=0).open()  # else it may start a browser before the next line
limit(2)
try:
    pool.lease(timeout=60)
except PoolUnavailable as error:
    print("lease:", "can't start new thread" in str(error))
limit(8)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    try:
        with pool.lease(timeout=60):
            print("served")
            break
    except PoolUnavailable:
        time.sleep(0.05)
pool.close()
os.rmdir(os.environ["BROWSERKEEPER_STATE_DIR"] + "/pools")
import shutil
shutil.rmtree(os.environ["BROWSERKEEPER_STATE_DIR"])
"""


@pytest.mark.root
def test_a_pool_survives_the_limit_of_processes_of_its_user() -> None:
    """The fault itself: RLIMIT_NPROC, which counts threads and does not bind root."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_USER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines() == ["open: True", "lease: True", "served"], done.stderr


# ------------------------------------------------------------------ jobs of a worker that raise


@pytest.mark.parametrize("error", [OSError("broken"), SystemExit("broken"), KeyboardInterrupt()])
def test_a_browser_whose_end_raises_does_not_keep_its_place(error: BaseException) -> None:
    def end(browser: FakeBrowser) -> None:
        if browser is pool.browsers[0]:
            raise error

    pool = FakePool({"end": end}, max_size=1)
    with pytest.raises(LeakError, match="it is not known whether its processes are gone"), pool:
        with pool.lease() as lease:
            lease.retire("test")
        assert serves(pool)
        assert pool.stats()["leaks"] == 1


def test_a_browser_whose_end_raises_once_is_ended_all_the_same() -> None:
    attempts: list[str] = []

    def end(browser: FakeBrowser) -> None:
        attempts.append(browser.id)
        if len(attempts) == 1:
            raise OSError("too many open files")

    with FakePool({"end": end}, max_size=1) as pool:
        with pool.lease() as lease:
            lease.retire("test")
        assert serves(pool)
        assert pool.stats()["leaks"] == 0
    assert attempts[0] == attempts[1]
    assert not [browser for browser in pool.browsers if browser.alive]


@pytest.mark.parametrize("step", ["launch", "renew", "ping"])
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_a_job_that_raises_any_exception_frees_the_place(
    step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.pool.scheduler.PING_EVERY", 0.02)

    def fail(browser: FakeBrowser) -> None:
        if browser is pool.browsers[0]:
            raise error

    pool = FakePool({step: fail}, max_size=1)
    with pool:
        assert serves(pool)
        assert wait_until(lambda: len(pool.browsers) > 1)
        assert serves(pool)
    assert not [browser for browser in pool.browsers if browser.alive]


def test_a_worker_reports_one_last_event_even_if_its_thread_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fault: a job itself raises, which none does."""
    pool = FakePool(max_size=1)

    def broken(self: worker.BrowserWorker) -> worker.WorkerEvent:
        raise SystemExit(1)

    monkeypatch.setattr(worker.BrowserWorker, "_renew", broken)
    with pool:
        assert serves(pool)
        assert wait_until(lambda: len(pool.browsers) == 2)
        monkeypatch.undo()
        assert serves(pool)


# ------------------------------------------------------------------ idle browsers that hang


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No idle browser counts as having answered recently."""
    monkeypatch.setattr("browserkeeper.pool.scheduler.PING_AFTER", 0.0)


def test_a_request_gets_a_healthy_browser_while_a_hung_one_is_examined() -> None:
    answer = threading.Event()

    def ping(browser: FakeBrowser) -> None:
        if browser is pool.browsers[hung]:
            answer.wait(SECONDS)

    pool = FakePool({"ping": ping}, max_size=4, min_idle=4, launch_concurrency=4)
    hung = -1
    with pool:
        pool.wait()
        assert pool._controller is not None
        hung = pool._controller.scheduler._idle[-1].number - 1  # the first to be leased
        for member in pool._controller.scheduler._idle:
            member.answered_at -= PING_AFTER + 1
        taken = [pool.lease(timeout=SECONDS / 2) for _ in range(3)]
        assert not answer.is_set()
        assert pool.browsers[hung].id not in {lease.browser_id for lease in taken}
        with pytest.raises(PoolTimeout):  # the control: the fourth browser does hang
            pool.lease(timeout=0.5)
        answer.set()
        for lease in taken:
            lease.release()


def test_a_request_gets_a_new_browser_while_the_only_idle_one_hangs(silent: None) -> None:
    answer = threading.Event()

    def ping(browser: FakeBrowser) -> None:
        if browser is pool.browsers[0]:
            answer.wait(SECONDS)

    pool = FakePool({"ping": ping}, max_size=2, min_idle=1)
    with pool:
        pool.wait()
        assert serves(pool)
        assert not answer.is_set()
        answer.set()


def test_an_idle_browser_that_is_stopped_is_replaced_without_a_ping(silent: None) -> None:
    pinged: list[FakeBrowser] = []
    with FakePool({"ping": pinged.append}, max_size=1) as pool:
        pool.wait()
        stopped = pool.browsers[0]
        stopped.alive = False
        assert serves(pool)
        assert stopped not in pinged


# ------------------------------------------------------------------ a pool that is dropped


def open_pool_of(script: dict[str, Any] | None = None, **given: Any) -> FakePool:
    pool = FakePool(script, **given).open()
    pool.wait(SECONDS)
    return pool


def test_a_dropped_pool_ends_its_browsers_its_thread_and_its_pipe() -> None:
    """By reference counting alone: the garbage collector is off."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        pool = open_pool_of(max_size=2, min_idle=2)
        browsers = pool.browsers
        assert len(os.listdir("/proc/self/fd")) > before
        with pytest.warns(ResourceWarning, match="dropped without close") as caught:
            del pool
        texts = [str(warning.message) for warning in caught]  # one may be of another test's socket
        (text,) = [text for text in texts if "dropped without close" in text]
        assert "open_pool_of" in text
        assert "test_a_dropped_pool_ends_its_browsers" in text
        assert wait_until(lambda: not pool_threads())
        assert len(browsers) == 2
        assert not [browser for browser in browsers if browser.alive]
        assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)  # as above
    finally:
        gc.enable()


def test_a_dropped_pool_whose_browsers_start_ends_too() -> None:
    launching: list[FakeBrowser] = []

    def launch(browser: FakeBrowser) -> None:
        launching.append(browser)
        browser.called_off.wait(SECONDS)

    pool = FakePool({"launch": launch}, max_size=2, min_idle=2).open()
    assert wait_until(lambda: launching)
    with pytest.warns(ResourceWarning, match="dropped without close"):
        del pool
        gc.collect()
    assert wait_until(lambda: not pool_threads())


def test_a_pool_lives_as_long_as_its_lease() -> None:
    lease = open_pool_of(max_size=1).lease()
    gc.collect()
    assert lease.driver.execute(lambda: 42) == 42
    with pytest.warns(ResourceWarning, match="dropped without close"):
        lease.release()
        del lease
        gc.collect()
    assert wait_until(lambda: not pool_threads())


def test_control_a_closed_pool_is_dropped_without_a_warning() -> None:
    gc.collect()  # what other tests have dropped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with FakePool(max_size=1) as pool:
            pool.wait()
        dropped = weakref.ref(pool)
        del pool
        gc.collect()
    assert dropped() is None
    assert not [one for one in caught if "dropped without close" in str(one.message)]


def test_a_dropped_pool_is_named_although_its_process_exits() -> None:
    script = "from tests.support.fake_browser import FakePool as P; p = P(max_size=1).open(); p.wait(60)"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "dropped without close" in done.stderr


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert wait_until(lambda: not pool_threads()), pool_threads()
