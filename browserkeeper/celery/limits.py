"""A task's time limits, and which of them the browser's guard has to keep.

Read in Celery 5.7 and billiard 4.3:

* ``prefork`` keeps both.  Soft: SIGUSR1, whose handler raises ``SoftTimeLimitExceeded`` in the
  child's main thread, out of a blocking read too.  Hard: SIGTERM, 0.1 s, SIGKILL of the child.
* ``gevent`` keeps the hard one with ``gevent.Timeout``, raised in the greenlet; it drops the soft one.
* ``threads`` and ``solo`` drop both (``on_apply(..., **_)``), and ``task.apply()`` knows none.

Where Celery keeps none, the guard does: it ends the browser, which frees the task from the command
that it is stuck in.  Where Celery keeps the hard one, the guard comes ``SECOND_LINE`` later, for the
case in which the worker's main process is stuck itself.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import weakref
from typing import Any, Literal

from ..report import ExitReport
from .errors import TaskTimeout

SECOND_LINE = 5.0
"""Seconds after the hard limit; billiard needs 0.1 from its SIGTERM to its SIGKILL."""

CommandHandler = Literal["prefork", "gevent", "nobody"]
_WORKERS: list[weakref.ref[Any]] = []


@dataclasses.dataclass(frozen=True)
class Limits:
    """In seconds from the task's start; None where there is none.  ``keeper``: who keeps them."""

    soft: float | None = None
    hard: float | None = None
    keeper: CommandHandler = "nobody"

    def for_guard(self) -> tuple[float, str] | None:
        """(seconds, the limit's name) of the one that the guard is to keep."""
        if self.keeper == "prefork":
            return (self.hard + SECOND_LINE, "time_limit") if self.hard else None
        if self.keeper == "gevent" and not self.soft:
            return (self.hard + SECOND_LINE, "time_limit") if self.hard else None
        given = [(self.soft, "soft_time_limit"), (self.hard, "time_limit")]
        return min([(seconds, name) for seconds, name in given if seconds], default=None)


@dataclasses.dataclass(frozen=True)
class Deadline:
    """When the guard is to end the browser: ``at`` by the monotonic clock, and for which limit."""

    at: float
    limit: str
    seconds: float

    @property
    def left(self) -> float:
        return self.at - time.monotonic()

    def error(self, text: str, report: ExitReport | None = None) -> TaskTimeout:
        return TaskTimeout(f"{text} The task had passed its {self.limit} of {self.seconds:g} s.", report)


def deadline_for(limits: Limits) -> Deadline | None:
    """The guard's deadline for a task that starts now."""
    kept = limits.for_guard()
    if kept is None:
        return None
    seconds, name = kept
    given = limits.soft if name == "soft_time_limit" else limits.hard
    assert given is not None
    return Deadline(time.monotonic() + seconds, name, given)


def limits_of(task: Any, request: Any) -> Limits:
    """The message's own limits, else the task's, which Celery takes from ``app.conf``, else those of
    the worker's command line.  None for a task that is called like a function: Celery has none."""
    if task is None or request is None or request.called_directly:
        return Limits()
    hard, soft = request.timelimit or (None, None)
    worker = this_worker()
    return Limits(
        soft or task.soft_time_limit or getattr(worker, "soft_time_limit", None),
        hard or task.time_limit or getattr(worker, "time_limit", None),
        "nobody" if request.is_eager else keeper(),
    )


def keeper() -> CommandHandler:
    """By the process that we are in, since a task does not know its pool."""
    if in_pool_process():
        return "prefork"
    return "gevent" if is_green() else "nobody"


def in_pool_process() -> bool:
    """Is this a child of a ``prefork`` worker?  Asked as Celery itself asks."""
    from billiard import current_process

    return bool(current_process().name != "MainProcess")


def is_green() -> bool:
    """Has gevent taken the place of threads and sockets?"""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def remember_worker(worker: Any) -> None:
    """The worker of this process, whose command line may have had limits."""
    _WORKERS[:] = [weakref.ref(worker)]


def this_worker() -> Any:
    """None in a process without one."""
    return _WORKERS[0]() if _WORKERS else None


__all__ = ["Deadline", "Limits", "deadline_for", "in_pool_process", "is_green", "limits_of"]
