"""``with_retry``: which errors are retried, and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry
from selenium.common.exceptions import NoSuchElementException, TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

from browserkeeper import (
    BrowserDied,
    ConfigError,
    HostBusy,
    LaunchError,
    PoolUnavailable,
)
from browserkeeper.celery import (
    TaskTimeout,
    with_retry,
)
from browserkeeper.celery.retry import helps


def raised(action: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # whatever it is
        action()
    return caught.value


def driver_error(message: str) -> Exception:
    from selenium.webdriver.remote.errorhandler import ErrorHandler

    value = {"value": {"error": "timeout", "message": message, "stacktrace": ""}}
    return raised(lambda: ErrorHandler().check_response({"status": 500, "value": json.dumps(value)}))


def test_errors_that_another_browser_can_cure_are_retried() -> None:
    assert helps(BrowserDied("gone"))
    assert helps(LaunchError("no port"))
    assert helps(HostBusy("3 browsers run"))
    assert helps(PoolUnavailable("none", LaunchError("no port")))
    assert helps(driver_error("timeout: Timed out receiving message from renderer: 3.000"))
    assert helps(driver_error("Navigation timed out after 3000 ms"))


def test_failed_checks_of_the_page_are_not_retried() -> None:
    assert not helps(AssertionError("wrong title"))
    assert not helps(NoSuchElementException("no such element"))
    assert not helps(raised(lambda: WebDriverWait(None, 0.01, 0.005).until(lambda _: False)))  # type: ignore[type-var]
    assert not helps(TimeoutException("raised by the task"))
    assert not helps(driver_error("script timeout"))
    assert not helps(LaunchError("no such binary", retryable=False))
    assert not helps(PoolUnavailable("none", LaunchError("no such binary", retryable=False)))
    assert not helps(TaskTimeout("the task's own limit"))


def test_with_retry_passes_pause_and_bound_to_celery(app: Celery) -> None:
    @app.task(bind=True)
    @with_retry(max_retries=2, backoff=4.0, jitter=False)
    def flaky(self: Any, error: Exception) -> None:
        raise error

    runs: list[dict[str, Any]] = []

    def retry(exc: Exception, **options: Any) -> Retry:
        # A direct call has the retries of the request around it in new versions of Celery.
        runs.append({**options, "countdown": options["countdown"] / 2**flaky.request.retries})
        return Retry(exc=exc)

    flaky.retry = retry
    flaky.push_request(retries=1)
    with pytest.raises(Retry):
        flaky(BrowserDied("gone"))
    flaky.pop_request()
    assert runs == [{"countdown": 4, "max_retries": 2}]
    with pytest.raises(AssertionError):
        flaky(AssertionError("a test of the page"))
    assert len(runs) == 1


def test_with_retry_outside_of_a_task_raises_the_error() -> None:
    @with_retry()
    def function() -> None:
        raise BrowserDied("gone")

    with pytest.raises(BrowserDied):
        function()


@pytest.mark.parametrize("given", [{"max_retries": -1}, {"backoff": 0}, {"backoff_max": "long"}])
def test_with_retry_refuses_invalid_arguments(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        with_retry(**given)
