"""Celery settings for tasks that use browsers: recommended ones, and checks of those that an app has.

Here, and not in ``browserkeeper.celery``, since ``browserkeeper doctor`` needs it too.  The checks take
any object that has ``conf`` and ``tasks``; Celery is imported only to find an app by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..config import CLOSE_TIMEOUT, check_count, check_seconds
from ..errors import ConfigError
from .check import Check

TEARDOWN_BUDGET = CLOSE_TIMEOUT
"""Seconds between soft and hard limit: as long as the end of a session may take, if a profile has to be
written or a process does not die.  Most sessions end within 0.1."""
TIME_LIMIT = 120.0
TASKS_PER_CHILD = 100
MEMORY_PER_CHILD = 300_000
"""Kilobytes of the Python child alone; selenium, celery and an ordinary app's imports take 60,000 to
150,000."""
LEAST_VISIBILITY = 3600.0
"""Seconds: kombu's default for Redis."""
VISIBILITY_FACTOR = 2
"""Times the time limit.  A message is invisible from its prefetch on, so it may wait for a whole task
before its own runs."""


def recommended_settings(
    *,
    time_limit: float = TIME_LIMIT,
    max_tasks_per_child: int = TASKS_PER_CHILD,
    max_memory_per_child: int = MEMORY_PER_CHILD,
    visibility_timeout: float | None = None,
) -> dict[str, Any]:
    """Settings for ``app.conf.update(...)``.

    Args:
        time_limit: the hard limit for one task in seconds; the soft limit is earlier, which
            leaves time for the teardown.
        max_tasks_per_child: tasks after which a prefork child is replaced.
        max_memory_per_child: kilobytes of the child after which it is replaced.  Celery counts only
            the Python child; the browser's memory is bounded by ``pool=dict(max_memory=...)``.
        visibility_timeout: seconds after which Redis gives an unacknowledged message to another
            worker; must be above the longest countdown too.

    Raises:
        ConfigError: a number is out of range, or the time limit leaves no time for the task.
    """
    check_seconds("time_limit", time_limit)
    check_count("max_tasks_per_child", max_tasks_per_child, least=1)
    check_count("max_memory_per_child", max_memory_per_child, least=1)
    if time_limit <= TEARDOWN_BUDGET:
        raise ConfigError(
            f"time_limit={time_limit:g} leaves no time for the task: {TEARDOWN_BUDGET:g} s are kept for "
            "the browser's teardown. Set a higher limit."
        )
    visibility = visibility_timeout or max(LEAST_VISIBILITY, VISIBILITY_FACTOR * time_limit)
    check_seconds("visibility_timeout", visibility)
    if visibility <= time_limit:
        raise ConfigError(
            f"visibility_timeout={visibility:g} is not above time_limit={time_limit:g}: tasks would "
            "run twice. Set a higher timeout."
        )
    return {
        "task_time_limit": time_limit,
        "task_soft_time_limit": time_limit - TEARDOWN_BUDGET,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": max_tasks_per_child,
        "worker_max_memory_per_child": max_memory_per_child,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"visibility_timeout": visibility},
        "result_backend_transport_options": {"visibility_timeout": visibility},
    }


def check(app: Any) -> list[Check]:
    """Runs all checks on an app's settings."""
    return [result for check_settings in CHECKS for result in check_settings(app)]


# ------------------------------------------------------------------------------------ the checks


def time_limits(app: Any) -> Iterator[Check]:
    """The app's limits, and those of each task whose limits differ."""
    yield _check_limits("celery time limits", app.conf.task_soft_time_limit, app.conf.task_time_limit)
    for name, task in sorted(_own_tasks(app).items()):
        limits = (task.soft_time_limit, task.time_limit)
        if limits != (app.conf.task_soft_time_limit, app.conf.task_time_limit):
            yield _check_limits(f"celery {name}", *limits)


def _check_limits(name: str, soft: float | None, hard: float | None) -> Check:
    if not hard and not soft:
        remedy = "Set task_time_limit and task_soft_time_limit, or a page that hangs keeps its worker."
        return Check(name, "warn", "no time limit", remedy)
    if not soft:
        remedy = f"Set a soft limit of {_before(hard)}, so that the task can say what happened."
        return Check(name, "warn", f"hard {hard:g} s without a soft limit", remedy)
    if not hard:
        remedy = f"Set a hard limit of {soft + TEARDOWN_BUDGET:g} s or more, for tasks that swallow it."
        return Check(name, "warn", f"soft {soft:g} s without a hard limit", remedy)
    text = f"soft {soft:g} s, hard {hard:g} s"
    if hard - soft < TEARDOWN_BUDGET:
        remedy = f"Leave {TEARDOWN_BUDGET:g} s between them for the browser's teardown."
        return Check(name, "warn", text, remedy)
    return Check(name, "ok", text)


def _before(hard: float | None) -> str:
    return f"{max(1.0, (hard or 0) - TEARDOWN_BUDGET):g} s"


def acknowledgement(app: Any) -> Iterator[Check]:
    name, conf = "celery acks_late", app.conf
    if not conf.task_acks_late:
        remedy = (
            "Set task_acks_late and task_reject_on_worker_lost, if running a task twice does no harm."
        )
        yield Check(name, "warn", "off: a worker that dies takes its tasks with it", remedy)
    elif not (conf.task_reject_on_worker_lost or conf.get("task_retry_on_worker_lost")):
        remedy = "Set task_reject_on_worker_lost."
        yield Check(name, "warn", "on, but a child that dies loses its task all the same", remedy)
    else:
        yield Check(name, "ok", "on, and lost children's tasks come back")


def redeliveries(app: Any) -> Iterator[Check]:
    """Is the number of runs bounded for a task whose page kills its worker each time?"""
    name, conf = "celery redeliveries", app.conf
    comes_back = conf.task_acks_late and conf.task_reject_on_worker_lost
    if not comes_back:
        yield Check(name, "ok", "no message comes back without a bound")
    elif conf.get("browserkeeper_max_redeliveries", "unset") is None:
        remedy = "Set browserkeeper_max_redeliveries, or a page that kills its worker loops for ever."
        yield Check(name, "warn", "without a bound", remedy)
    elif any("redis" in str(url) for url in (conf.result_backend, conf.broker_url)):
        yield Check(name, "ok", "counted in Redis, for tasks with BrowserTask or @with_browser")
    else:
        remedy = (
            "Use a Redis result backend, or RabbitMQ's quorum queues with x-delivery-limit, or "
            "task_retry_on_worker_lost with max_retries (Celery 5.7)."
        )
        yield Check(name, "warn", "cannot be counted with this broker and result backend", remedy)


def prefetch(app: Any) -> Iterator[Check]:
    number = app.conf.worker_prefetch_multiplier
    if number == 1:
        yield Check("celery prefetch", "ok", "1 message for each process")
        return
    remedy = "Set worker_prefetch_multiplier = 1."
    what = f"{number}: short tasks wait behind long ones while other workers are idle"
    yield Check("celery prefetch", "warn", what, remedy)


def children(app: Any) -> Iterator[Check]:
    """Are prefork children replaced after a number of tasks, and at a size in memory?"""
    for key, unit in (("worker_max_tasks_per_child", "tasks"), ("worker_max_memory_per_child", "KB")):
        value, name = app.conf.get(key), f"celery {key.removeprefix('worker_')}"
        if value:
            yield Check(name, "ok", f"{value} {unit}")
        else:
            remedy = f"Set {key}; what a library leaks then goes with the child (prefork only)."
            yield Check(name, "warn", "no bound", remedy)


def visibility(app: Any) -> Iterator[Check]:
    """A task that runs for longer than the visibility timeout is given to a second worker."""
    if not str(app.conf.broker_url or "").startswith(("redis", "rediss", "sentinel", "sqs")):
        return
    options: Mapping[str, Any] = app.conf.broker_transport_options or {}
    seconds = float(options.get("visibility_timeout", LEAST_VISIBILITY))
    limits = [app.conf.task_time_limit, *(task.time_limit for task in _own_tasks(app).values())]
    longest = max([float(limit) for limit in limits if limit], default=None)
    name, text = "celery visibility timeout", f"{seconds:g} s"
    if longest is None:
        remedy = "Set task_time_limit below it; a task that runs longer is given to a second worker."
        yield Check(name, "warn", f"{text}, and tasks without a time limit", remedy)
    elif seconds <= longest:
        remedy = f"Set broker_transport_options visibility_timeout above {longest:g} s."
        yield Check(name, "warn", f"{text}, and tasks of up to {longest:g} s: they run twice", remedy)
    else:
        yield Check(name, "ok", f"{text}, above the longest task's {longest:g} s")


def results(app: Any) -> Iterator[Check]:
    backend = str(app.conf.result_backend or "disabled")
    if backend.startswith("disabled"):
        remedy = "Set result_backend (such as the same Redis) where results must not be lost."
        yield Check("celery results", "warn", "no result backend: results and failures are lost", remedy)
    elif backend.startswith("rpc"):
        remedy = "Use a Redis or database backend where results must not be lost."
        yield Check("celery results", "warn", "rpc: lost with the client that asked", remedy)
    else:
        yield Check("celery results", "ok", backend.partition(":")[0])


def _own_tasks(app: Any) -> dict[str, Any]:
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def worker_pool(app: Any) -> Iterator[Check]:
    """Only of an unusable worker pool: the command line of a worker may choose another one."""
    name = str(app.conf.get("worker_pool") or "")
    if "eventlet" in name:
        remedy = 'Set worker_pool = "prefork", "threads" or "gevent".'
        what = f"{name}: browserkeeper does not work under eventlet, and every task would fail"
        yield Check("celery worker pool", "fail", what, remedy)


CHECKS: tuple[Callable[[Any], Iterator[Check]], ...] = (
    *(worker_pool, time_limits, acknowledgement, redeliveries, prefetch, children, visibility, results),
)


def load_app(name: str) -> Any:
    """The app that ``celery -A NAME`` would find.

    Raises ConfigError if it cannot be loaded, or Celery is not installed.
    """
    try:
        from celery.app.utils import find_app
    except ImportError as error:
        raise ConfigError("Celery is not installed: pip install 'browserkeeper[celery]'.") from error
    try:
        app = find_app(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"The Celery app {name!r} cannot be loaded: {error}. Name it as for `celery -A`, such as "
            "`project.celery:app`, where `python -c 'import project.celery'` works."
        ) from error
    app.loader.import_default_modules()
    return app


__all__ = ["TEARDOWN_BUDGET", "check", "load_app", "recommended_settings"]
