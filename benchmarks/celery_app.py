"""The Celery app that ``celery_tasks.py`` measures: the same visit as a task of each rival."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from browserkeeper.celery import BrowserTask, install, with_browser

from . import plain as plain_selenium

REDIS = os.environ.get("EXAMPLE_REDIS", "redis://localhost:6379/0")
POOL = {"max_size": 2, "min_idle": 2}

app = Celery("bench", broker=REDIS, backend=REDIS)
app.conf.worker_prefetch_multiplier = 1
install(app, pool=POOL)


@app.task(name="plain")
def plain(url: str) -> str:
    """Plain Selenium, as most tutorials write it."""
    driver = plain_selenium.chrome()
    try:
        driver.get(url)
        return str(driver.title)
    finally:
        driver.quit()


@app.task(name="fresh")
@with_browser("chrome")
def fresh(url: str, driver: Any) -> str:
    driver.get(url)
    return str(driver.title)


@app.task(name="pooled", base=BrowserTask, bind=True)
def pooled(self: Any, url: str) -> str:
    self.driver.get(url)
    return str(self.driver.title)
