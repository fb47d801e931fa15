"""``with_browser``: a browser for a task function of any base, as its parameter ``driver``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from celery import current_task

from ..errors import ConfigError
from . import deliveries
from .settings import BrowserSpec, settings_of
from .task import BrowserTask
from .task_browser import TaskBrowser, run_holding

T = TypeVar("T")


def with_browser(
    name: str | None = None, /, **browser_arguments: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Below ``@app.task``: each run has a browser of its own, its driver as ``driver``.

        @app.task(bind=True)
        @with_browser("firefox", window_size=(1280, 800))
        def check(self, driver, url): ...

        check.delay("https://example.com/")     # callers do not know of the driver

    Without arguments it is the browser that ``install()`` named, from its pool where there is one.
    Raises ConfigError for arguments that make no sense, and for functions without ``driver``.
    """
    own = BrowserSpec(name or "chrome", browser_arguments) if name or browser_arguments else None

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        _check(function)
        signature = inspect.signature(function)
        outer = signature.replace(
            parameters=[p for key, p in signature.parameters.items() if key != "driver"]
        )

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            given = outer.bind(*args, **kwargs)
            given.apply_defaults()
            hold = _hold(own)

            def body() -> T:
                named = {**given.arguments, "driver": hold.driver}
                ordered = {key: named[key] for key in signature.parameters}
                full = inspect.BoundArguments(signature, ordered)
                return function(*full.args, **full.kwargs)

            return run_holding(hold, body)

        # Celery checks callers' arguments by it (``task_strict_typing``).
        wrapper.__signature__ = outer  # type: ignore[attr-defined]
        return wrapper

    return decorate


def _check(function: Any) -> None:
    if not inspect.isfunction(function):
        raise ConfigError(f"@with_browser() goes below @app.task, onto a function; got {function!r}.")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(
            f"@with_browser() cannot decorate {function.__name__}: its body runs after the call returns."
        )
    if "driver" not in inspect.signature(function).parameters:
        raise ConfigError(
            f"{function.__name__}() has no parameter `driver` for @with_browser() to fill."
        )


def _hold(own: BrowserSpec | None) -> TaskBrowser:
    """For the task that runs here, or for nobody's, where the function is simply called."""
    task = current_task._get_current_object() if current_task else None  # noqa: SLF001 # the proxy's own way
    if task is None:
        return TaskBrowser(own or BrowserSpec())
    request = task.request
    if not isinstance(task, BrowserTask):  # whose own call has counted it
        deliveries.check(task, request)
    return TaskBrowser(own or settings_of(task.app).wish, task, request)


__all__ = ["with_browser"]
