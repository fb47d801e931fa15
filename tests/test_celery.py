"""The Celery helper on real workers and a real Redis: what each event leaves, for each kind of pool.

One worker for each kind of pool serves all events that it survives; those that end it have a worker
of their own.  ``oracle.py`` is the witness; the control is plain Selenium in the same worker.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded
from celery.result import AsyncResult

from fixtures.server import Site

from .celery_rig import PATIENCE, SOON, VERSIONS, Redis, Worker, running_redis, running_worker
from .guards import BOTH, wait_for

POOLS = ("prefork", "threads", "solo", "gevent")
PHASES = ("idle", "command", "launch")
Judge = Callable[[Worker, AsyncResult, float], None]
NOTHING = 0.2
"""Seconds for the last process to be reaped, where a task's result is stored after its browser's end."""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    with running_worker(redis, request.param, concurrency=12) as running:
        yield running


def begin(worker: Worker, browser: str, phase: str, site: Site, **options: Any) -> AsyncResult:
    """A task that has come to this phase, and stays in it."""
    ready, result = start(worker, browser, phase, site, **options)
    ready()
    return result


def start(
    worker: Worker, browser: str, phase: str, site: Site, **options: Any
) -> tuple[Callable[[], None], AsyncResult]:
    """The same; the caller waits for the phase by calling what comes first."""
    if phase == "launch":
        result = worker.send(f"{browser}.launch", **options)
        return lambda: hangs_at_its_start(worker, browser), result
    path, body = ("never", "hang") if phase == "command" else ("about", "idle")
    result = worker.send(f"{browser}.{body}", site.url_for(path), **options)
    return lambda: site.wait_for(f"/{path}", PATIENCE), result


def send(
    worker: Worker, stack: contextlib.ExitStack, limit: int, browser: str, phase: str, judge: Judge
) -> tuple[Callable[[], None], AsyncResult]:
    """With a site of its own, and the limit that the judge is for."""
    soft = judge is soft_limit_is_seen
    options = {"soft_time_limit": limit, "time_limit": limit + 30} if soft else {"time_limit": limit}
    return start(worker, browser, phase, stack.enter_context(Site()), **options)


def hangs_at_its_start(worker: Worker, browser: str) -> None:
    mark = VERSIONS[browser].split()[0]
    assert wait_for(lambda: any(mark in c for c in commands(worker)), PATIENCE), worker.lines()


def commands(worker: Worker) -> list[str]:
    """What hangs at its start, by its environment; not what only says its version."""
    found = []
    for process in worker.strangers():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process.pid}/cmdline").read_text()
            if "fake_browser" in command and "--version" not in command:
                found.append(Path(f"/proc/{process.pid}/environ").read_text())
    return found


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


@pytest.mark.chrome
def test_an_ignored_task_leaves_nothing(worker: Worker, site: Site) -> None:
    worker.send("chrome.ignore", site.url)
    assert wait_for(lambda: "chrome.ignore" in worker.lines(), PATIENCE)
    assert wait_for(lambda: bool(worker.strangers()), PATIENCE)
    nothing_is_left(worker, PATIENCE)


@pytest.mark.chrome
def test_a_decorated_task_gets_its_driver(worker: Worker, site: Site) -> None:
    result = worker.send("decorated.bound", site.url, kwargs={"more": "yes"})
    assert result.get(timeout=PATIENCE) == ["The Leaky Shelf", result.id, "yes"]
    assert worker.run("decorated.unbound", site.url) == "The Leaky Shelf"
    nothing_is_left(worker)


@pytest.mark.chrome
def test_a_retry_helps_where_the_browser_died(worker: Worker, site: Site) -> None:
    assert worker.run("decorated.retry", site.url) == 1
    nothing_is_left(worker)


# ------------------------------------------------------------------ time limits


LIMIT = 15
"""Seconds in which eight browsers that start at once are surely there."""
SOLO_LIMITS = {"chrome": 3, "firefox": 8}
"""The same, for one that starts alone."""


@pytest.mark.chrome
@pytest.mark.firefox
def test_limits_reach_the_task_and_leave_nothing(worker: Worker) -> None:
    """The soft one by Celery's signal in a prefork child, elsewhere by the end of the browser.

    Both browsers, in each phase, with each limit, all at once, since most of it is waiting.
    """
    if worker.pool == "solo":
        pytest.skip("one at a time: test_limits_in_solo")
    with contextlib.ExitStack() as stack:
        ways = itertools.product(("firefox", "chrome"), PHASES, (soft_limit_is_seen, hard_limit_is_kept))
        begun = [(send(worker, stack, LIMIT, *way), way[2]) for way in ways]
        for (ready, _), _ in begun:
            ready()
        for (_, result), judge in begun:
            judge(worker, result, LIMIT)
        nothing_is_left(worker, 3 * SOON)


@pytest.mark.parametrize(
    ("browser", "phase"), [("chrome", "idle"), ("chrome", "launch"), ("firefox", "command")]
)
def test_limits_in_solo(worker: Worker, browser: str, phase: str) -> None:
    if worker.pool != "solo":
        pytest.skip("all at once: test_limits_reach_the_task_and_leave_nothing")
    judge = hard_limit_is_kept if phase == "idle" else soft_limit_is_seen
    with contextlib.ExitStack() as stack:
        ready, result = send(worker, stack, SOLO_LIMITS[browser], browser, phase, judge)
        ready()
        judge(worker, result, SOLO_LIMITS[browser])
        nothing_is_left(worker, SOON)


def soft_limit_is_seen(worker: Worker, result: AsyncResult, limit: float) -> None:
    found = result.get(timeout=PATIENCE)
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert ("SessionTimeout" in found["caught"]) == (worker.pool != "prefork")
    assert limit - 1 < found["after"] < limit + 3
    assert result.state == "SUCCESS"


def hard_limit_is_kept(worker: Worker, result: AsyncResult, limit: float) -> None:
    if worker.pool in ("prefork", "gevent"):
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=PATIENCE)
    else:  # Celery keeps none here; what the task makes of ours is its result
        found = result.get(timeout=PATIENCE)
        assert "TaskTimeout" in found["caught"]
        assert f"time_limit of {limit} s" in found["text"]


# ------------------------------------------------------------------ revoke


@pytest.mark.chrome
@pytest.mark.parametrize("phase", PHASES)
def test_revoked_and_terminated(worker: Worker, phase: str) -> None:
    if worker.pool not in ("prefork", "gevent"):
        pytest.skip("Celery can terminate no task of threads and solo")
    with Site() as site:
        result = begin(worker, "chrome", phase, site)
        worker.client.control.revoke(result.id, terminate=True)
        assert worker.left_after(PATIENCE) == []
    assert wait_for(lambda: result.state == "REVOKED", PATIENCE)
    nothing_is_left(worker)
