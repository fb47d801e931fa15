"""Browsers in Celery tasks that cannot leak: ``pip install browserkeeper[celery]``.

    task.py         BrowserTask: self.driver
    decorator.py    with_browser: a parameter driver
    holding.py      one task's browser, fresh or leased, and its end
    limits.py       a task's time limits, and who keeps them
    pools.py        the pool of a worker process
    deliveries.py   a bound for messages that come back again and again
    retry.py        with_retry: again, where that helps
    settings.py     what install() and app.conf say, checked
    hooks.py        install(), and what Celery tells us
    sweeping.py     Beat's entry: sweep every worker's host
    remote_control.py        the worker's answers to ps and sweep
    commands.py     celery -A app browserkeeper ps|sweep
    logs.py         task id, session id and host on each line
    errors.py       errors that only tasks meet

What is right and wrong in an app's settings is in ``browserkeeper/celery_advice.py``, since the
doctor asks that too.
"""

from ..status.celery_advice import check, recommended_settings
from .decorator import with_browser
from .errors import TaskTimeout, TooManyDeliveries
from .hooks import install
from .logs import TaskFilter
from .retry import RETRY_HELPS, with_retry
from .task import BrowserTask

__all__ = [
    "RETRY_HELPS",
    "BrowserTask",
    "TaskFilter",
    "TaskTimeout",
    "TooManyDeliveries",
    "check",
    "install",
    "recommended_settings",
    "with_browser",
    "with_retry",
]
