"""The part to copy: an app, its settings, and three tasks.

celery -A examples.celery_app.app worker -c 2
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from browserkeeper.celery import (
    BrowserTask,
    install,
    recommended_settings,
    with_browser,
    with_retry,
)

REDIS = os.environ.get("EXAMPLE_REDIS", "redis://localhost:6379/0")

app = Celery("shop", broker=REDIS, backend=REDIS)
app.conf.update(recommended_settings(time_limit=60))
install(app, browser="chrome", pool={"max_size": 2})  # two warm browsers in each worker process


@app.task(base=BrowserTask, bind=True)
@with_retry(max_retries=2)
def title(self: Any, url: str) -> str:
    """Gets a fresh session of a warm browser, which goes back to the pool when the task ends."""
    self.driver.get(url)
    return str(self.driver.title)


@app.task(base=BrowserTask, bind=True, soft_time_limit=5, time_limit=15)
def impatient(self: Any, url: str) -> str:
    """For pages that hang: the soft limit is raised here, in the middle of ``get``."""
    from celery.exceptions import SoftTimeLimitExceeded

    try:
        self.driver.get(url)
    except SoftTimeLimitExceeded:
        return "did not load in time"
    return str(self.driver.title)


@app.task
@with_browser("firefox")
def with_firefox(url: str, driver: Any) -> str:
    """A new browser, other than the app's.  Callers pass the URL only."""
    driver.get(url)
    return str(driver.title)
