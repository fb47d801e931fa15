"""One task's browser: made at its first use, and ended, verified, before Celery stores the result."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from ..errors import BrowserkeeperError, LeaseTimeout, PoolTimeout
from ..pool import BrowserPool, Lease
from ..session import BrowserSession, browser
from .limits import Deadline, deadline_for, limits_of
from .pools import POOLS
from .settings import BrowserSpec

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

LIMIT_REASON = "task-limit"
"""Why a guard ended a leased browser: the word in its report."""


class Source(Protocol):
    """Where the browser comes from, and where it goes."""

    @property
    def session(self) -> BrowserSession[Any] | None: ...
    def open(self) -> Any: ...
    def end(self) -> None: ...


class Fresh:
    """A session of the task's own."""

    def __init__(self, wish: BrowserSpec, deadline: Deadline | None):
        arguments = dict(wish.arguments)
        own = arguments.get("timeout")
        first = deadline is not None and (own is None or deadline.left < own)
        if deadline is not None and first:
            arguments["timeout"] = deadline.left
        self.session: BrowserSession[Any] = browser(wish.name, **arguments)
        if deadline is not None and first:
            self.session.deadline_errors["timeout"] = deadline.error

    def open(self) -> Any:
        return self.session.start()

    def end(self) -> None:
        """Raises LeakError."""
        self.session.close()


class Leased:
    """A lease of the process's pool, which has its deadline from the task."""

    session: BrowserSession[Any] | None = None

    def __init__(self, pool: BrowserPool[Any], deadline: Deadline | None):
        self._pool, self._deadline = pool, deadline
        self._lease: Lease[Any] | None = None

    def open(self) -> Any:
        """Raises PoolError, or TaskTimeout where the task's time is over before one is free."""
        lease = self._lease = self._wait()
        self.session = lease.session
        if self._deadline is not None:
            self.session.deadline_errors[LIMIT_REASON] = self._deadline.error
            self.session.set_deadline(max(0.001, self._deadline.left), LIMIT_REASON)
        return lease.driver

    def _wait(self) -> Lease[Any]:
        limit = self._pool.config.checkout_timeout
        if self._deadline is None or self._deadline.left > limit:
            return self._pool.lease()
        try:
            return self._pool.lease(max(0.001, self._deadline.left))
        except PoolTimeout as error:
            raise self._deadline.error(f"{error}") from error

    def end(self) -> None:
        """A limit that has passed was raised by a command, or nobody was waiting for one."""
        if self._lease is None:
            return
        if self._deadline is not None and self.session is not None:
            self.session.set_deadline(None, LIMIT_REASON)
        with contextlib.suppress(LeaseTimeout):
            self._lease.release()


class TaskBrowser:
    """A running task's claim to a browser: there is none until ``driver`` is asked for."""

    def __init__(self, wish: BrowserSpec, task: Any = None, request: Any = None):
        self.wish, self.task, self.request = wish, task, request
        self._deadline = deadline_for(limits_of(task, request))
        self._source: Source | None = None
        self._driver: Any = None
        self._owner = os.getpid()

    @property
    def task_id(self) -> str:
        return str(getattr(self.request, "id", None) or "")

    @property
    def session_id(self) -> str:
        """ "" before the start."""
        session = self._source.session if self._source else None
        return session.id if session else ""

    @property
    def driver(self) -> Any:
        """Selenium's driver.  Raises what starting a session, or waiting for a pool, raises;
        TaskTimeout where no time is left for it."""
        if self._driver is None:
            if self._deadline is not None and self._deadline.left <= 0:
                raise self._deadline.error("No browser was started.")
            # Known before it is opened, so that what an exception interrupts is ended too.
            self._source = self._new_source()
            self._driver = self._source.open()
        return self._driver

    def _new_source(self) -> Source:
        if self.wish.pool is not None:
            return Leased(POOLS.pool_for(self.wish), self._deadline)
        return Fresh(self.wish, self._deadline)

    def end(self) -> None:
        """End the browser, or give it back.  The task's state is the task's word alone, so nothing
        is raised: what goes wrong is logged, and a soft limit that strikes here comes too late to
        mean anything; it must not keep us from finishing.  The second call does nothing."""
        if os.getpid() != self._owner:
            return  # a fork that the task made and that came this far: the browser is its parent's
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


_RUNNING: contextvars.ContextVar[tuple[TaskBrowser, ...]] = contextvars.ContextVar(
    "browserkeeper-celery", default=()
)
"""The holds of this thread or greenlet, innermost last: a task may call another one directly."""


def running() -> Iterator[TaskBrowser]:
    """Innermost first."""
    return reversed(_RUNNING.get())


def run_holding(hold: TaskBrowser, body: Callable[[], T]) -> T:
    """What ``body`` returns or raises, after the browser has ended.

    A soft limit may strike between any two lines.  One that comes after ``body`` has returned is
    swallowed; else a task that had done its work would fail.
    """
    returned: list[T] = []
    token = _RUNNING.set((*_RUNNING.get(), hold))
    try:
        try:
            returned.append(body())
        finally:
            hold.end()
    except SoftTimeLimitExceeded:
        if not returned:
            raise
        hold.end()
    finally:
        _RUNNING.reset(token)
    return returned[0]


__all__ = ["TaskBrowser", "run_holding", "running"]
