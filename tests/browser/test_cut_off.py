"""``cut_off()`` of a session and of a pool: for signal handlers, which must not wait and take no lock.

The command that hangs is one that opens a page: the fake driver never answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browserkeeper import PoolClosed, SessionClosed, SessionTimeout
from browserkeeper.session import control_of
from browserkeeper.session.launch import Attempt
from tests.browser.test_limits_named import NEVER, new_pool
from tests.browser.test_outside import PHASES, alarm_when, fake_driver, new_session  # noqa: F401
from tests.support.waiting import wait_until

Handle = Callable[[Callable[[], object]], None]


@pytest.fixture
def on_alarm() -> Iterator[Handle]:
    """Makes a function the handler of SIGALRM."""
    before = signal.getsignal(signal.SIGALRM)

    def handle(function: Callable[[], object]) -> None:
        def handler(number: int, frame: object) -> None:
            function()

        signal.signal(signal.SIGALRM, handler)

    yield handle
    signal.signal(signal.SIGALRM, before)


def test_a_handler_that_cuts_the_session_off_has_the_command_in_flight_raise(
    fake_driver: str,  # noqa: F811
    on_alarm: Handle,
) -> None:
    session = new_session(fake_driver)
    on_alarm(session.cut_off)
    with pytest.raises(SessionClosed, match="was closed during 'get'") as caught, session as driver:
        sender = alarm_when(lambda: not control_of(session).at_rest)
        driver.get(NEVER)
    sender.join()
    assert caught.value.report is session.report
    assert session.report
    assert (session.report.reason, session.report.clean) == ("closed", True)
    session.cut_off()  # nothing, after the end
    assert session.close() is session.report


def test_a_session_that_was_cut_off_without_a_command_is_ended_and_verified_by_close(
    fake_driver: str,  # noqa: F811
) -> None:
    session = new_session(fake_driver)
    driver = session.start()
    session.cut_off()
    session.cut_off()
    report = session.close()
    assert (report.reason, report.clean) == ("closed", True)
    with pytest.raises(SessionClosed):
        _ = driver.title


def test_a_handler_that_cuts_the_session_off_has_its_start_raise(
    fake_driver: str,  # noqa: F811
    on_alarm: Handle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver)
    on_alarm(session.cut_off)
    sender = alarm_when(lambda: PHASES["silent-session"](session))
    with pytest.raises(SessionClosed, match="was closed during its start"):
        session.start()
    sender.join()
    assert session.report
    assert session.report.clean


def test_a_session_that_is_cut_off_before_its_start_does_not_start(fake_driver: str) -> None:  # noqa: F811
    session = new_session(fake_driver)
    session.cut_off()
    with pytest.raises(SessionClosed):
        session.start()
    assert not session.id


def test_cut_off_takes_no_lock_of_the_session_and_of_its_guard(
    fake_driver: str,  # noqa: F811
    on_alarm: Handle,
) -> None:
    """The interrupted code holds them all, and the interpreter's own lock for threads that start."""
    session = new_session(fake_driver)
    session.start()
    control = control_of(session)
    assert isinstance(control.attempt, Attempt)
    locks = [control._lock, control.attempt.ending._lock, control.attempt.guard._reading]
    with contextlib.ExitStack() as held:
        for lock in (*locks, threading._active_limbo_lock):  # type: ignore[attr-defined]
            held.enter_context(lock)
        on_alarm(session.cut_off)
        signal.raise_signal(signal.SIGALRM)  # runs the handler here
    assert session.close().clean


def test_a_fork_that_inherits_the_handler_cuts_nothing_off(fake_driver: str, on_alarm: Handle) -> None:  # noqa: F811
    session = new_session(fake_driver)
    with new_pool(fake_driver) as pool, session as driver, pool.lease() as lease:
        on_alarm(lambda: [end() for end in (session.cut_off, pool.cut_off)])
        pid = os.fork()
        if pid == 0:
            try:
                signal.raise_signal(signal.SIGALRM)
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert (driver.title, lease.driver.title) == ("done", "done")


# ------------------------------------------------------------------ pools


def test_a_handler_that_cuts_the_pool_off_has_commands_and_requests_raise(
    fake_driver: str,  # noqa: F811
    on_alarm: Handle,
) -> None:
    pool = new_pool(fake_driver)
    waiting: list[BaseException] = []

    def ask() -> None:
        try:
            pool.lease(300)
        except BaseException as error:
            waiting.append(error)

    on_alarm(pool.cut_off)
    with pool:
        with pytest.raises(SessionClosed) as caught, pool.lease() as lease:
            thread = threading.Thread(target=ask)
            thread.start()
            assert wait_until(lambda: pool.stats()["requests_waiting"] == 1)
            sender = alarm_when(lambda: not control_of(lease.session).at_rest)
            lease.driver.get(NEVER)
        sender.join()
        thread.join()
        with pytest.raises(PoolClosed):
            pool.lease()
    assert [type(error) for error in waiting] == [PoolClosed]
    assert caught.value.report
    assert caught.value.report.clean
    assert all(report.clean for report in pool.close())


def test_cut_off_takes_no_lock_of_the_pool_and_its_sessions(
    fake_driver: str,  # noqa: F811
    on_alarm: Handle,
) -> None:
    pool = new_pool(fake_driver).open()
    lease = pool.lease()
    control = control_of(lease.session)
    assert isinstance(control.attempt, Attempt)
    locks = [control._lock, control.attempt.ending._lock, control.attempt.guard._reading]
    with contextlib.ExitStack() as held:
        for lock in (*locks, threading._active_limbo_lock):  # type: ignore[attr-defined]
            held.enter_context(lock)
        on_alarm(pool.cut_off)
        signal.raise_signal(signal.SIGALRM)
    reports = pool.close()
    assert reports
    assert all(report.clean for report in reports)


def test_a_handler_that_cuts_the_pool_off_ends_a_map(fake_driver: str, on_alarm: Handle) -> None:  # noqa: F811
    with new_pool(fake_driver) as pool:
        on_alarm(pool.cut_off)
        outcomes = pool.map(lambda driver, item: driver.get(item), [NEVER, NEVER])
        sender = alarm_when(lambda: any(not control_of(one).at_rest for one in pool.sessions()))
        errors = [outcome.error for outcome in outcomes]
        sender.join()
    assert errors
    assert all(isinstance(error, (SessionClosed, PoolClosed)) for error in errors)


def test_a_pool_that_was_cut_off_before_it_was_opened_stays_closed(fake_driver: str) -> None:  # noqa: F811
    pool = new_pool(fake_driver)
    pool.cut_off()
    with pytest.raises(PoolClosed):
        pool.open()


# ------------------------------------------------------------------ asyncio


def is_under_way(session: Any) -> bool:
    """Does a command run?"""
    return not control_of(session).at_rest


def run_in_time(
    fake_driver: str,  # noqa: F811
    job: Callable[[Any], Any],
    end: Callable[[Any], None],
    limit: float = 2,
    begins: Callable[[Any], object] = lambda session: True,
) -> Any:
    """What docs/troubleshooting.md shows: the error of ``asyncio.wait_for``, or of the job.

    The time counts from the moment when ``begins`` is true of the session.
    """
    session = new_session(fake_driver)

    def work() -> None:
        with session as driver:
            job(driver)

    async def main() -> None:
        try:
            working = asyncio.ensure_future(asyncio.to_thread(work))
            while not (begins(session) or working.done()):
                await asyncio.sleep(0.01)
            await asyncio.wait_for(working, limit)
        finally:
            end(session)

    try:
        asyncio.run(main())
    except (asyncio.TimeoutError, SessionClosed, SessionTimeout) as error:
        return error, session
    return None, session


@pytest.mark.parametrize("phase", ["works", "silent-session"])
def test_cut_off_lets_asyncio_run_return_after_wait_for(
    phase: str,
    fake_driver: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the start hangs."""
    monkeypatch.setenv("FAKE_DRIVER", phase)
    error, session = run_in_time(
        fake_driver,
        lambda d: d.get(NEVER),
        lambda s: s.cut_off(),
        begins=PHASES.get(phase, is_under_way),
    )
    assert isinstance(error, asyncio.TimeoutError)
    assert wait_until(lambda: session.report)  # verified by the thread's ``with``
    assert session.report.clean
    assert not [one for one in threading.enumerate() if one.name.startswith("asyncio_")]


def test_a_job_that_is_in_time_is_not_changed_by_cut_off(fake_driver: str) -> None:  # noqa: F811
    error, session = run_in_time(fake_driver, lambda d: d.title, lambda s: s.cut_off(), limit=60)
    assert error is None
    assert session.report.clean


def test_control_without_cut_off_asyncio_run_waits_for_the_commands_own_limit(
    fake_driver: str,  # noqa: F811
) -> None:
    def begin(session: Any) -> None:
        assert not control_of(session).at_rest
        session.set_deadline(1.5)  # instead of 120 s

    error, session = run_in_time(fake_driver, lambda d: d.get(NEVER), begin, begins=is_under_way)
    assert isinstance(error, asyncio.TimeoutError)
    assert session.report.reason == "timeout"  # asyncio.run had to wait for it


def test_a_timeout_of_the_session_itself_is_raised_in_asyncio(fake_driver: str) -> None:  # noqa: F811
    session = new_session(fake_driver)

    def work() -> None:
        with session as driver:
            session.set_deadline(3)
            driver.get(NEVER)

    async def main() -> None:
        await asyncio.to_thread(work)

    with pytest.raises(SessionTimeout, match=r"passed the deadline of 3 s .* during 'get'"):
        asyncio.run(main())
