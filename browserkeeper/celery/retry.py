"""``with_retry``: run a task again where that helps, and only there."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from typing import Any, TypeVar

from celery import current_task
from celery.exceptions import Ignore, Reject, Retry

from ..config import check_count, check_seconds
from ..errors import (
    BrowserDied,
    ConfigError,
    LaunchError,
    PoolTimeout,
    PoolUnavailable,
    TooManyWaiting,
)

T = TypeVar("T")

RETRY_HELPS = (BrowserDied, LaunchError, PoolTimeout, PoolUnavailable, TooManyWaiting)
"""For ``autoretry_for``, by those who want Celery's own way.  It knows classes only: it retries a
LaunchError that no retry can mend, and cannot tell a page load's timeout from a WebDriverWait's."""
BACKOFF = 2.0
BACKOFF_MAX = 600.0
MAX_RETRIES = 3


def with_retry(
    *,
    max_retries: int = MAX_RETRIES,
    backoff: float = BACKOFF,
    backoff_max: float = BACKOFF_MAX,
    jitter: bool = True,
    also: type[Exception] | tuple[type[Exception], ...] = (),
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Below ``@app.task``, above ``@with_browser``: retry what another browser, or a later moment,
    may cure: the browser died, a launch failed, the pool had none, a page did not load in time.

    Never a failed check of the page: no AssertionError, no NoSuchElementException, no timeout of a
    WebDriverWait.  Nor a task that passed its own time limit.

    Args:
        max_retries: runs after the first.
        backoff: seconds before the first retry, twice as many before each one after it.
        backoff_max: seconds at the most.
        jitter: any part of that pause, so that tasks which failed together come apart.
        also: more exceptions that are worth a retry.

    Raises:
        ConfigError: an argument makes no sense.
    """
    check_count("max_retries", max_retries, least=0)
    check_seconds("backoff", backoff)
    check_seconds("backoff_max", backoff_max)

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        _check(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            try:
                return function(*args, **kwargs)
            except (Ignore, Reject, Retry):
                raise
            except Exception as error:
                if not current_task or not (helps(error) or isinstance(error, also)):
                    raise
                task = current_task._get_current_object()  # noqa: SLF001 # the proxy's own way
                pause = min(backoff_max, backoff * 2.0**task.request.retries)
                if jitter:
                    pause = random.uniform(0, pause)  # noqa: S311 # no secret
                raise task.retry(exc=error, countdown=pause, max_retries=max_retries) from error

        return wrapper

    return decorate


def _check(function: object) -> None:
    if not inspect.isfunction(function):
        raise ConfigError(f"@with_retry() goes below @app.task, onto a function; got {function!r}.")


def helps(error: BaseException) -> bool:
    """May the same task fare better another time?"""
    if isinstance(error, LaunchError):
        return error.retryable
    if isinstance(error, PoolUnavailable) and isinstance(error.cause, LaunchError):
        return error.cause.retryable
    return isinstance(error, RETRY_HELPS) or is_page_load_timeout(error)


def is_page_load_timeout(error: BaseException) -> bool:
    """Selenium has one TimeoutException for a page that did not load, a script that did not end and
    a WebDriverWait that saw nothing.  The first two come out of the wire's error handler, and the
    drivers name the script in theirs."""
    from selenium.common.exceptions import TimeoutException

    if not isinstance(error, TimeoutException):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    from_wire = trace is not None and str(trace.tb_frame.f_globals.get("__name__")).endswith(
        "remote.errorhandler"
    )
    return from_wire and "script" not in str(error.msg).lower()


__all__ = ["RETRY_HELPS", "helps", "is_page_load_timeout", "with_retry"]
