"""``BrowserTask``: a base class for tasks that use a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Task

from ..errors import SessionClosed
from . import installation, redeliveries
from .settings import BrowserSpec, settings_of
from .task_browser import TaskBrowser, active_browsers, run_with_browser

if TYPE_CHECKING:
    from selenium import webdriver


class BrowserTask(Task):  # type: ignore[misc] # celery has no types
    """``@app.task(base=BrowserTask, bind=True)``: the task has a browser in ``self.driver``.

    The browser is started at the first use of ``self.driver``, without a memory of other tasks, and
    ended and verified before the task's result is stored.  Celery sees what the task returns or
    raises; problems with the end of the browser are logged.

    Options of the task, next to Celery's own: ``browser`` and ``browser_arguments``, for another
    browser than the one that ``install()`` named.  Such a browser does not come from a pool.
    """

    abstract = True
    browser: str | None = None
    browser_arguments: Mapping[str, Any] | None = None
    _own_spec: BrowserSpec | None = None

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Celery calls this when the task is bound to its app."""
        super().on_bound(app)
        installation.connect()

    @property
    def driver(self) -> webdriver.Remote:
        """The running task's driver.

        Raises SessionClosed outside of a run, LaunchError if no browser starts, PoolError if the pool
        has none, TaskTimeout if the task's time limit has passed.
        """
        for task_browser in active_browsers():
            if task_browser.task is self:
                driver: webdriver.Remote = task_browser.driver
                return driver
        raise SessionClosed(
            f"self.driver of {self.name} exists only while the task runs, in the thread that runs "
            "it. Read it there, and pass the driver to other threads and functions."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Called by Celery's tracer, and by code that calls the task like a function.

        Under the tracer this must not call ``super().__call__``, which pushes a second request.  A
        worker patches that method so that it does not (``trace._install_stack_protection``);
        ``task.apply()`` does not patch it.  So this marks the request in the same way as the patch.
        Requests of calls inside of the run are copies of it, with the mark.
        """
        request = self.request_stack.top
        if request is not None and not (request.called_directly or request._protected):  # noqa: SLF001
            request._protected = 1  # noqa: SLF001
            redeliveries.check(self, request)
            browser = TaskBrowser(self.spec, self, request)
            return run_with_browser(browser, lambda: self.run(*args, **kwargs))
        call = super().__call__
        return run_with_browser(TaskBrowser(self.spec, self), lambda: call(*args, **kwargs))

    @property
    def spec(self) -> BrowserSpec:
        """The browser of this task: its own, or the app's.  Raises ConfigError."""
        installed = settings_of(self.app).spec
        if self.browser is None and self.browser_arguments is None:
            return installed
        if self._own_spec is None:
            name = self.browser or installed.name
            given = installed.arguments if name == installed.name else {}
            self._own_spec = BrowserSpec(name, {**given, **(self.browser_arguments or {})})
        return self._own_spec


__all__ = ["BrowserTask"]
