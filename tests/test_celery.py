"""The Celery helper on real workers and a real Redis: what each event leaves, for each kind of pool.

One worker for each kind of pool serves all events that it survives; those that end it have a worker
of their own.  ``oracle.py`` is the witness; the control is plain Selenium in the same worker.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded
from celery.result import AsyncResult

from browserkeeper import LaunchError
from fixtures.server import Site

from . import oracle
from .celery_rig import PATIENCE, SOON, Redis, Worker, running_redis, running_worker
from .guards import BOTH, wait_for

POOLS = ("prefork", "threads", "solo", "gevent")
PHASES = ("idle", "command", "launch")
NOTHING = 0.2
"""Seconds for the last process to be reaped, where a task's result is stored after its browser's end."""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    with running_worker(redis, request.param) as running:
        yield running


def begin(worker: Worker, browser: str, phase: str, site: Site, **options: Any) -> AsyncResult:
    """A task that has come to this phase, and stays in it."""
    if phase == "launch":
        result = worker.send(f"{browser}.launch", **options)
        assert wait_for(lambda: any("fake_browser" in c for c in commands(worker)), PATIENCE)
        return result
    path = "never" if phase == "command" else "about"
    body = "hang" if phase == "command" else "idle"
    result = worker.send(f"{browser}.{body}", site.url_for(path), **options)
    site.wait_for(f"/{path}", PATIENCE)
    return result


def commands(worker: Worker) -> list[str]:
    """Command lines of what hangs at its start; not of those that only say their version."""
    found = []
    for process in worker.strangers():
        try:
            with open(f"/proc/{process.pid}/cmdline") as file:
                found.append(file.read())
        except OSError:
            continue
    return [line for line in found if "--version" not in line]


def nothing_is_left(worker: Worker, seconds: float = NOTHING) -> None:
    left = worker.left_after(seconds)
    assert not left, f"{left}\n{worker.lines()}"
    assert not worker.records()


# ------------------------------------------------------------------ how a task ends by itself


@pytest.mark.parametrize("browser", BOTH)
def test_a_task_that_returns_leaves_nothing(worker: Worker, site: Site, browser: str) -> None:
    result = worker.send(f"{browser}.title", site.url)
    found = result.get(timeout=PATIENCE)
    nothing_is_left(worker)
    assert found["title"] == "The Leaky Shelf"
    assert found["id"] == result.id
    assert found["cookies"] == []


@pytest.mark.chrome
@pytest.mark.parametrize(
    ("body", "state"),
    [("fail", "FAILURE"), ("reject", "FAILURE"), ("again", "SUCCESS")],
)
def test_the_state_is_what_the_task_said(worker: Worker, site: Site, body: str, state: str) -> None:
    result = worker.send(f"chrome.{body}", site.url)
    assert worker.state_of(result) == state
    nothing_is_left(worker)
    said = {"fail": "the task's own failure", "reject": "the task's own refusal", "again": "1"}[body]
    assert said in str(result.result)
