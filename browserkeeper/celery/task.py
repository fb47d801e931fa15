"""``BrowserTask``: a base for tasks that use a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Task

from ..errors import SessionClosed
from . import deliveries, hooks
from .settings import BrowserSpec, settings_of
from .task_browser import TaskBrowser, run_holding, running

if TYPE_CHECKING:
    from selenium import webdriver


class BrowserTask(Task):  # type: ignore[misc] # celery has no types
    """``@app.task(base=BrowserTask, bind=True)``: the task has a browser in ``self.driver``.

    It is made at its first use, fresh and isolated, and ended and verified before the task's result
    is stored.  What the task returns or raises is what Celery sees, whatever becomes of the browser.

    Options of the task, next to Celery's own: ``browser`` and ``browser_arguments`` for another
    browser than ``install()`` named, which then is not from a pool.
    """

    abstract = True
    browser: str | None = None
    browser_arguments: Mapping[str, Any] | None = None
    _wish: BrowserSpec | None = None

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Celery calls it when the task gets its app."""
        super().on_bound(app)
        hooks.connect()

    @property
    def driver(self) -> webdriver.Remote:
        """The running task's driver.

        Raises SessionClosed outside of a run; LaunchError and its kin where no browser starts;
        PoolError where the pool has none; TaskTimeout where the task's time is over.
        """
        for hold in running():
            if hold.task is self:
                driver: webdriver.Remote = hold.driver
                return driver
        raise SessionClosed(
            f"self.driver of {self.name} is there while the task runs, in its own thread. Pass the "
            "driver itself to other threads and functions."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's tracer calls this; so does whoever calls the task like a function.

        For the tracer it must not be ``super().__call__``, which pushes a second request.  A worker
        patches that method to notice (``trace._install_stack_protection``), ``task.apply()`` does
        not; so we mark the request as that patch does.  Requests of calls inside of the run are
        copies of it, mark and all.
        """
        request = self.request_stack.top
        if request is not None and not (request.called_directly or request._protected):  # noqa: SLF001
            request._protected = 1  # noqa: SLF001
            deliveries.check(self, request)
            return run_holding(TaskBrowser(self.wish, self, request), lambda: self.run(*args, **kwargs))
        call = super().__call__
        return run_holding(TaskBrowser(self.wish, self), lambda: call(*args, **kwargs))

    @property
    def wish(self) -> BrowserSpec:
        """The browser that this task wants.  Raises ConfigError."""
        if self.browser is None and self.browser_arguments is None:
            return settings_of(self.app).wish
        if self._wish is None:
            installed = settings_of(self.app).wish
            name = self.browser or installed.name
            given = installed.arguments if name == installed.name else {}
            self._wish = BrowserSpec(name, {**given, **(self.browser_arguments or {})})
        return self._wish


__all__ = ["BrowserTask"]
