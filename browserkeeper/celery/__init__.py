"""Browsers in Celery tasks that cannot leak: ``pip install browserkeeper[celery]``.

In this package: everything that imports Celery.  It uses the layers below (``session``, ``pool``,
``cleanup``, ``status``); no other package imports it.

    task.py             BrowserTask: a base class whose tasks have ``self.driver``
    decorator.py        with_browser: fills a task's parameter ``driver``
    task_browser.py     the browser of one running task: started, and ended with the task
    limits.py           a task's time limits, and whether Celery or the guard enforces them
    browser_pools.py    the BrowserPools of a worker process
    redeliveries.py     a bound on how often a message may be redelivered
    retry.py            with_retry: retries errors that a second run can cure
    settings.py         the settings from install() and app.conf, checked
    installation.py     install(), and the Celery signals that it connects to
    remote_control.py   the remote control commands ps and sweep, as a worker answers them
    periodic_sweep.py   the task by which Beat has all hosts swept
    commands.py         the command line ``celery -A app browserkeeper ps|sweep``
    logs.py             task id, session id and host on each log line
    errors.py           errors that only occur in tasks

The check of an app's settings is ``browserkeeper/status/celery_advice.py``: ``browserkeeper doctor``
uses it too.
"""

from ..status.celery_advice import check, recommended_settings
from .decorator import with_browser
from .errors import TaskTimeout, TooManyDeliveries
from .installation import install
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
