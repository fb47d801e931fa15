"""A task's time limits, and which of them the browser's guard has to enforce.

Read in Celery 5.7 and billiard 4.3:

* ``prefork`` enforces both.  Soft: SIGUSR1, whose handler raises ``SoftTimeLimitExceeded`` in the
  child's main thread, out of a blocking read too.  Hard: SIGTERM, 0.1 s, SIGKILL of the child.
* ``gevent`` enforces the hard one with ``gevent.Timeout``, raised in the greenlet; it ignores the
  soft one.
* ``threads`` and ``solo`` ignore both (``on_apply(..., **_)``), and so does ``task.apply()``.

Where Celery enforces none, the guard does: it ends the browser, and the command that the task is
waiting for then fails at once.  Where Celery enforces the hard limit, the guard acts ``SECOND_LINE``
seconds later, in case the worker's main process hangs itself.
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

Enforcer = Literal["prefork", "gevent", "none"]
"""The kind of worker pool that enforces limits in this process; ``none``: Celery enforces no limit."""
_WORKERS: list[weakref.ref[Any]] = []


@dataclasses.dataclass(frozen=True)
class Limits:
    """Time limits in seconds from the task's start, None for no limit; ``enforced_by``: see
    :data:`Enforcer`."""

    soft: float | None = None
    hard: float | None = None
    enforced_by: Enforcer = "none"

    def for_guard(self) -> tuple[float, str] | None:
        """(seconds until the guard has to act, name of the limit), or None if it need not."""
        celery_comes_first = self.enforced_by == "prefork" or (
            self.enforced_by == "gevent" and not self.soft
        )
        if celery_comes_first:
            return (self.hard + SECOND_LINE, "time_limit") if self.hard else None
        given = [(self.soft, "soft_time_limit"), (self.hard, "time_limit")]
        return min([(seconds, name) for seconds, name in given if seconds], default=None)


@dataclasses.dataclass(frozen=True)
class Deadline:
    """When the guard is to end the browser: ``at`` on the clock of ``time.monotonic()``; ``limit`` and
    ``seconds`` are the name and the value of the task's time limit behind it."""

    at: float
    limit: str
    seconds: float

    @property
    def left(self) -> float:
        """Seconds until then; negative when it has passed."""
        return self.at - time.monotonic()

    def error(self, text: str, report: ExitReport | None = None) -> TaskTimeout:
        return TaskTimeout(f"{text} The task had passed its {self.limit} of {self.seconds:g} s.", report)


def deadline_for(limits: Limits) -> Deadline | None:
    """The guard's deadline for a task that starts now; None if the guard has no limit to enforce."""
    enforced = limits.for_guard()
    if enforced is None:
        return None
    seconds, name = enforced
    given = limits.soft if name == "soft_time_limit" else limits.hard
    assert given is not None
    return Deadline(time.monotonic() + seconds, name, given)


def limits_of(task: Any, request: Any) -> Limits:
    """The limits of one run of a task.

    Those of the message win over those of the task (which Celery takes from ``app.conf``), and those
    win over the worker's command line.  A task that is called like a function has no limits.
    """
    if task is None or request is None or request.called_directly:
        return Limits()
    hard, soft = request.timelimit or (None, None)
    worker = this_worker()
    return Limits(
        soft or task.soft_time_limit or getattr(worker, "soft_time_limit", None),
        hard or task.time_limit or getattr(worker, "time_limit", None),
        "none" if request.is_eager else _enforcer(),
    )


def _enforcer() -> Enforcer:
    """Concluded from the process that this runs in: a task does not know its worker pool."""
    if in_pool_process():
        return "prefork"
    return "gevent" if is_green() else "none"


def in_pool_process() -> bool:
    """Is this a child of a ``prefork`` worker?  The same test as Celery's own."""
    from billiard import current_process

    return bool(current_process().name != "MainProcess")


def is_green() -> bool:
    """Has gevent replaced threads and sockets in this process?"""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def remember_worker(worker: Any) -> None:
    """Keep a weak reference to this process's worker: its command line may set limits."""
    _WORKERS[:] = [weakref.ref(worker)]


def this_worker() -> Any:
    """The worker of this process, or None."""
    return _WORKERS[0]() if _WORKERS else None


__all__ = ["Deadline", "Limits", "deadline_for", "in_pool_process", "is_green", "limits_of"]
