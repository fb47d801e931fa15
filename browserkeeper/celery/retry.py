"""``with_retry``: run a task again after errors that a second run can cure, and only after those."""

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
    HostBusy,
    LaunchError,
    PoolTimeout,
    PoolUnavailable,
    TooManyWaiting,
)

T = TypeVar("T")

RETRY_HELPS = (BrowserDied, HostBusy, LaunchError, PoolTimeout, PoolUnavailable, TooManyWaiting)
"""For Celery's own ``autoretry_for``.  That goes by the class alone: it retries every LaunchError, even
one that no retry can cure, and cannot tell the timeout of a page load from that of a WebDriverWait."""
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
    """Goes below ``@app.task`` and above ``@with_browser``.  Retries errors that another browser, or a
    later moment, can cure: the browser died, a launch failed, the host or the pool had no browser, a
    page did not load in time.

    Does not retry a failed check of the page (AssertionError, NoSuchElementException, the timeout of
    a WebDriverWait), nor a task that passed its own time limit.

    Args:
        max_retries: the largest number of runs after the first.
        backoff: seconds before the first retry, doubled before each one after it.
        backoff_max: the longest pause, in seconds.
        jitter: wait a random part of that pause, so that tasks which failed together do not all come
            back together.
        also: further exception classes to retry.

    Raises:
        ConfigError: an argument is not valid.
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
    """Can another run of the same task succeed?"""
    if isinstance(error, LaunchError):
        return error.retryable
    if isinstance(error, PoolUnavailable) and isinstance(error.cause, LaunchError):
        return error.cause.retryable
    return isinstance(error, RETRY_HELPS) or is_page_load_timeout(error)


def is_page_load_timeout(error: BaseException) -> bool:
    """Selenium raises the same TimeoutException for a page that did not load, a script that did not end
    and a WebDriverWait.  The first two are raised by Selenium's error handler for the driver's answers,
    and the drivers' messages for scripts contain the word "script"."""
    from selenium.common.exceptions import TimeoutException

    if not isinstance(error, TimeoutException):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    from_driver = trace is not None and str(trace.tb_frame.f_globals.get("__name__")).endswith(
        "remote.errorhandler"
    )
    return from_driver and "script" not in str(error.msg).lower()


__all__ = ["RETRY_HELPS", "helps", "is_page_load_timeout", "with_retry"]
