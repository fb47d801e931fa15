"""The browser of one running task: started when the task first asks for its driver, and ended and
verified before Celery stores the task's result."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from ..errors import BrowserkeeperError, LeaseTimeout, PoolTimeout
from ..options.labels import safe_label
from ..pool import BrowserPool, Lease
from ..session import BrowserSession, browser, control_of
from .browser_pools import POOLS
from .limits import Deadline, deadline_for, limits_of
from .settings import BrowserSpec

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

LIMIT_REASON = "task-limit"
"""The reason in the exit report of a leased browser that the guard ended at the task's limit."""


class Source(Protocol):
    """Opens and ends the browser of one task."""

    @property
    def session(self) -> BrowserSession[Any] | None: ...
    def open(self) -> Any: ...
    def end(self) -> None: ...


class NewSession:
    """A session of the task's own.  Its timeout is the sooner of the browser's and the task's."""

    def __init__(self, spec: BrowserSpec, deadline: Deadline | None, label: str = ""):
        arguments = dict(spec.arguments)
        if arguments.get("label") is None:
            arguments["label"] = label or None
        own = arguments.get("timeout")
        task_ends_first = deadline is not None and (own is None or deadline.left < own)
        if deadline is not None and task_ends_first:
            arguments["timeout"] = max(0.001, deadline.left)  # it may pass at any moment
        self.session: BrowserSession[Any] = browser(spec.name, **arguments)
        if deadline is not None and task_ends_first:
            control_of(self.session).deadline_errors["timeout"] = deadline.error

    def open(self) -> Any:
        return self.session.start()

    def end(self) -> None:
        """Raises LeakError."""
        self.session.close()


class PoolLease:
    """A lease from the worker process's pool, with the task's limit as the browser's deadline."""

    session: BrowserSession[Any] | None = None

    def __init__(self, pool: BrowserPool[Any], deadline: Deadline | None, label: str = ""):
        self._pool, self._deadline, self._label = pool, deadline, label or None
        self._lease: Lease[Any] | None = None

    def open(self) -> Any:
        """Blocks until the pool has a browser.  Raises PoolError, or TaskTimeout if the task's limit
        passes first."""
        deadline, checkout_timeout = self._deadline, self._pool.config.checkout_timeout
        if deadline is None or deadline.left > checkout_timeout:
            lease = self._pool.lease(label=self._label)
        else:
            try:
                lease = self._pool.lease(max(0.001, deadline.left), label=self._label)
            except PoolTimeout as error:
                raise deadline.error(f"{error}") from None
        self._lease, self.session = lease, lease.session
        if deadline is not None:
            control = control_of(self.session)
            control.deadline_errors[LIMIT_REASON] = deadline.error
            control.set_deadline(max(0.001, deadline.left), LIMIT_REASON)
        return lease.driver

    def end(self) -> None:
        """Gives the browser back.  Ignores LeaseTimeout: the command that hit the limit has raised it,
        or there was no such command."""
        if self._lease is None:
            return
        if self._deadline is not None and self.session is not None:
            control = control_of(self.session)
            control.set_deadline(None, LIMIT_REASON)
            # Where the guard has passed it at this very moment, the next task must not be told of ours.
            control.deadline_errors.pop(LIMIT_REASON, None)
        with contextlib.suppress(LeaseTimeout):
            self._lease.release()


class TaskBrowser:
    """The browser of one run of a task.  None is started before ``driver`` is read."""

    def __init__(self, spec: BrowserSpec, task: Any = None, request: Any = None):
        self.spec, self.task, self.request = spec, task, request
        self._deadline = deadline_for(limits_of(task, request))
        self._source: Source | None = None
        self._driver: Any = None
        self._owner = os.getpid()

    @property
    def task_id(self) -> str:
        """ "" for a task that is called like a function."""
        return str(getattr(self.request, "id", None) or "")

    @property
    def label(self) -> str:
        """The label of the task's browser, or of its lease: the task's name and id, as in Celery's log.
        "" where the user has given the browser a label, and outside of a task."""
        if self.spec.arguments.get("label") is not None:
            return ""
        name = str(getattr(self.task, "name", None) or "")
        return safe_label(f"{name}[{self.task_id}]" if self.task_id else name)

    @property
    def session_id(self) -> str:
        """ "" before the browser's start."""
        session = self._source.session if self._source else None
        return session.id if session else ""

    @property
    def driver(self) -> Any:
        """Selenium's driver; the first access starts the browser.

        Raises the errors of ``BrowserSession.start()`` or ``BrowserPool.lease()``; TaskTimeout if the
        task's limit has passed already.
        """
        if self._driver is None:
            if self._deadline is not None and self._deadline.left <= 0:
                raise self._deadline.error("No browser was started.")
            # Set before it is opened, so that end() also ends a start that an exception interrupts.
            self._source = self._new_source()
            self._driver = self._source.open()
        return self._driver

    def _new_source(self) -> Source:
        if self.spec.pool is not None:
            return PoolLease(POOLS.pool_for(self.spec), self._deadline, self.label)
        return NewSession(self.spec, self._deadline, self.label)

    def end(self) -> None:
        """End the browser, or give it back to its pool.  Idempotent.

        Raises nothing, since only the task's own code decides the task's state: problems are logged.
        A soft time limit that arrives meanwhile is logged too, and the end is tried again.
        """
        if os.getpid() != self._owner:
            return  # a fork that the task made, returning from the task: the browser is its parent's
        while self._source is not None:
            try:
                self._source.end()
                self._source = None
            except BrowserkeeperError as error:
                logger.error("the browser of task %s did not end well: %s", self.task_id, error)
                self._source = None
            except SoftTimeLimitExceeded:
                logger.info("a soft time limit passed while the browser was being ended")
            except Exception:
                logger.exception("the browser of task %s did not end well", self.task_id)
                self._source = None


_ACTIVE: contextvars.ContextVar[tuple[TaskBrowser, ...]] = contextvars.ContextVar(
    "browserkeeper-celery", default=()
)
"""The browsers of the tasks that run in this thread or greenlet, innermost last: a task may call
another one like a function."""


def active_browsers() -> Iterator[TaskBrowser]:
    """The browsers of the tasks that run in this thread or greenlet, innermost first."""
    return reversed(_ACTIVE.get())


def run_with_browser(task_browser: TaskBrowser, body: Callable[[], T]) -> T:
    """Run ``body``, end the browser, and return or raise what ``body`` did.

    Celery raises a soft time limit between any two lines.  One that arrives after ``body`` has
    returned is ignored: a task that has done its work must not fail.
    """
    returned: list[T] = []
    token = _ACTIVE.set((*_ACTIVE.get(), task_browser))
    try:
        try:
            returned.append(body())
        finally:
            task_browser.end()
    except SoftTimeLimitExceeded:
        if not returned:
            raise
        task_browser.end()
    finally:
        _ACTIVE.reset(token)
    return returned[0]


__all__ = ["TaskBrowser", "active_browsers", "run_with_browser"]
