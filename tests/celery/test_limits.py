"""Time limits of tasks without a worker: which of them the guard enforces, and TaskTimeout."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from browserkeeper import (
    SessionTimeout,
)
from browserkeeper.celery import (
    BrowserTask,
    TaskTimeout,
)
from browserkeeper.celery.limits import SECOND_LINE, Limits, deadline_for
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import TaskBrowser
from fixtures.server import Site


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(90, 120, "prefork"), (120 + SECOND_LINE, "time_limit")),
        (Limits(90, None, "prefork"), None),
        (Limits(90, 120, "gevent"), (90, "soft_time_limit")),
        (Limits(None, 120, "gevent"), (120 + SECOND_LINE, "time_limit")),
        (Limits(90, 120, "none"), (90, "soft_time_limit")),
        (Limits(None, 120, "none"), (120, "time_limit")),
        (Limits(200, 120, "none"), (120, "time_limit")),
        (Limits(), None),
    ],
)
def test_the_guard_enforces_what_celery_does_not(limits: Limits, kept: tuple[float, str] | None) -> None:
    assert limits.for_guard() == kept


def test_no_browser_is_started_after_the_limit() -> None:
    task_browser = TaskBrowser(BrowserSpec())
    task_browser._deadline = dataclasses.replace(deadline_for(Limits(1)), at=time.monotonic())  # type: ignore[type-var]
    with pytest.raises(TaskTimeout, match=r"No browser was started.* soft_time_limit of 1 s"):
        _ = task_browser.driver


@pytest.mark.chrome
def test_the_guard_enforces_the_limits_of_apply(app: Celery) -> None:
    @app.task(base=BrowserTask, bind=True, soft_time_limit=3)
    def hang(self: Any, url: str) -> str:
        try:
            self.driver.get(url)
        except SoftTimeLimitExceeded as error:
            return str(error)
        return "loaded"

    with Site() as site:
        result = hang.apply((site.url_for("never"),))
    assert "passed its soft_time_limit of 3 s" in result.get()


def test_a_task_timeout_is_a_soft_limit_and_a_session_timeout() -> None:
    assert issubclass(TaskTimeout, SoftTimeLimitExceeded)
    assert issubclass(TaskTimeout, SessionTimeout)
