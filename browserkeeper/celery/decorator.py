"""``with_browser``: fills the parameter ``driver`` of a task function with any base class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from celery import current_task

from ..errors import ConfigError
from . import redeliveries
from .settings import BrowserSpec, settings_of
from .task import BrowserTask
from .task_browser import TaskBrowser, run_with_browser

T = TypeVar("T")


def with_browser(
    name: str | None = None, /, **browser_arguments: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Goes below ``@app.task``: each run gets a browser, its driver as the parameter ``driver``.

        @app.task(bind=True)
        @with_browser("firefox", window_size=(1280, 800))
        def check(self, driver, url): ...

        check.delay("https://example.com/")     # callers do not pass the driver

    Without arguments it is the browser that ``install()`` named, from its pool if it has one.
    Raises ConfigError for arguments that are not valid, and for functions without ``driver``.
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
            task_browser = _browser_of_running_task(own)

            def body() -> T:
                named = {**given.arguments, "driver": task_browser.driver}
                ordered = {key: named[key] for key in signature.parameters}
                full = inspect.BoundArguments(signature, ordered)
                return function(*full.args, **full.kwargs)

            return run_with_browser(task_browser, body)

        # Celery checks callers' arguments against it (``task_strict_typing``).
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


def _browser_of_running_task(own: BrowserSpec | None) -> TaskBrowser:
    """A browser for the task that runs here; without limits where the function is called directly."""
    task = current_task._get_current_object() if current_task else None  # noqa: SLF001 # the proxy's own way
    if task is None:
        return TaskBrowser(own or BrowserSpec())
    request = task.request
    if not isinstance(task, BrowserTask):  # its __call__ has counted the delivery already
        redeliveries.check(task, request)
    return TaskBrowser(own or settings_of(task.app).spec, task, request)


__all__ = ["with_browser"]
