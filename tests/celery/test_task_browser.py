"""The end of a task's browser: errors, soft limits at any moment, forks."""

from __future__ import annotations

import os
import signal
import time
import types
from collections.abc import Iterator
from typing import Any, cast

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from browserkeeper import (
    LeakError,
)
from browserkeeper.celery import (
    TaskTimeout,
)
from browserkeeper.celery.limits import Deadline
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import LIMIT_REASON, PoolLease, TaskBrowser, run_with_browser


class FakeSource:
    """A browser whose end takes ``slow`` seconds; it raises each error in turn, and then succeeds."""

    session = None

    def __init__(self, *errors: Exception, slow: float = 0):
        self.errors, self.ended, self.slow = list(errors), 0, slow

    def open(self) -> str:
        return "driver"

    def end(self) -> None:
        time.sleep(self.slow)
        if self.errors:
            raise self.errors.pop(0)
        self.ended += 1


def task_browser_with(source: FakeSource) -> TaskBrowser:
    task_browser = TaskBrowser(BrowserSpec())
    task_browser._new_source = lambda: source  # type: ignore[method-assign]
    return task_browser


def test_a_soft_limit_during_the_browsers_end_is_ignored() -> None:
    source = FakeSource(SoftTimeLimitExceeded(), SoftTimeLimitExceeded())
    task_browser = task_browser_with(source)
    assert run_with_browser(task_browser, lambda: task_browser.driver) == "driver"
    assert source.ended == 1


@pytest.mark.parametrize("error", [LeakError("left"), TaskTimeout("late"), RuntimeError("bug")])
def test_errors_of_the_browsers_end_are_logged_and_not_raised(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    task_browser = task_browser_with(FakeSource(error))
    assert run_with_browser(task_browser, lambda: task_browser.driver) == "driver"
    assert "did not end well" in caplog.text


def test_the_tasks_error_wins_over_that_of_the_browsers_end() -> None:
    task_browser = task_browser_with(source := FakeSource(LeakError("left")))

    def body() -> None:
        _ = task_browser.driver
        raise ValueError("the task's")

    with pytest.raises(ValueError, match="the task's"):
        run_with_browser(task_browser, body)
    assert source.errors == []


class FakeControl:
    def __init__(self) -> None:
        self.deadline_errors: dict[str, Any] = {}
        self.deadlines: dict[str, float | None] = {}

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        self.deadlines[reason] = seconds


def test_a_warm_browser_goes_back_without_the_tasks_limit() -> None:
    """Neither the limit nor the error that names it is left for the next task."""
    control = FakeControl()
    session = types.SimpleNamespace(_control=control)
    lease = types.SimpleNamespace(session=session, driver="driver", release=lambda: None)
    config = types.SimpleNamespace(checkout_timeout=1.0)
    pool = types.SimpleNamespace(config=config, lease=lambda timeout=None, label=None: lease)
    deadline = Deadline(time.monotonic() + 600, "time_limit", 600)
    source = PoolLease(cast("Any", pool), deadline)
    source.open()
    assert control.deadline_errors == {LIMIT_REASON: deadline.error}
    assert control.deadlines[LIMIT_REASON] is not None
    source.end()
    assert control.deadline_errors == {}
    assert control.deadlines == {LIMIT_REASON: None}


def raise_soft_limit(_: int, frame: types.FrameType | None) -> None:
    """A signal handler: raises as billiard's does, but only inside of ``run_with_browser``."""
    while frame is not None:
        if frame.f_code is run_with_browser.__code__:
            raise SoftTimeLimitExceeded
        frame = frame.f_back


@pytest.fixture
def alarms() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, raise_soft_limit)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarms")
def test_a_soft_limit_at_any_moment_loses_neither_browser_nor_result() -> None:
    """Tried at 300 moments, half of them after the task's own code has ended."""
    outcomes = []
    for moment in range(300):
        task_browser = task_browser_with(source := FakeSource(slow=0.001))
        finished: list[int] = []

        def body(task_browser: TaskBrowser = task_browser, finished: list[int] = finished) -> str:
            driver = str(task_browser.driver)
            time.sleep(0.001)
            finished.append(1)
            return driver

        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + moment * 0.000009)
            outcomes.append((run_with_browser(task_browser, body), True))
        except SoftTimeLimitExceeded:
            outcomes.append(("", bool(finished)))
        assert source.ended == 1 or task_browser._driver is None
    assert ("driver", True) in outcomes
    assert ("", False) in outcomes
    # A signal between two bytecodes of our own code can lose a result, which is rare.
    assert outcomes.count(("", True)) <= 6


def test_a_fork_does_not_end_its_parents_browser() -> None:
    task_browser = task_browser_with(source := FakeSource())
    _ = task_browser.driver
    if (child := os.fork()) == 0:
        task_browser.end()
        os._exit(source.ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    task_browser.end()
    assert source.ended == 1
