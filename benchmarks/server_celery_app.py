"""The Celery app that ``server_celery.py`` measures: a visit, and a task that keeps its page open."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from browserkeeper.celery import BrowserTask, install

REDIS = os.environ.get("EXAMPLE_REDIS", "redis://localhost:6379/0")
SERVER = os.environ.get("BENCH_SERVER")
PATIENCE = 300.0

app = Celery("bench", broker=REDIS, backend=REDIS)
app.conf.worker_prefetch_multiplier = 1
if SERVER:
    install(app, server=SERVER)
else:
    install(app, pool={"max_size": 1, "min_idle": 1})  # the least that a pool in each child can have


@app.task(name="visit", base=BrowserTask, bind=True)
def visit(self: Any, url: str) -> str:
    self.driver.get(url)
    return str(self.driver.title)


@app.task(name="hold", base=BrowserTask, bind=True)
def hold(self: Any, url: str, folder: str) -> None:
    """Opens a page, says so, and keeps it until the file ``go`` is there."""
    self.driver.get(url)
    Path(folder, self.request.id).touch()
    until = time.monotonic() + PATIENCE
    while not Path(folder, "go").exists() and time.monotonic() < until:
        time.sleep(0.05)
