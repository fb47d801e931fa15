"""The Celery helper on real workers and a real Redis: what each event leaves, for each kind of pool.

One worker for each kind of pool serves all events that it survives; those that end it have a worker
of their own.  ``witness.py`` is the witness; the control is plain Selenium in the same worker.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded

from browserkeeper import BrowserDied
from browserkeeper.celery import TaskTimeout
from fixtures.server import Site
from tests.celery.rig import (
    PATIENCE,
    SOON,
    VERSIONS,
    Redis,
    Sent,
    Worker,
    running_redis,
    running_worker,
)
from tests.support import witness
from tests.support.waiting import wait_until

POOLS = ("prefork", "threads", "solo", "gevent")
CONCURRENCY = 9
"""Tasks at a time: as many as ``WAYS``."""
PHASES = ("idle", "command", "launch")
NOTHING = 1.0
"""Seconds for the last process to be reaped, where a task's result is stored after its browser's end."""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    install = {"pool": {"max_size": 2, "min_idle": 1}}  # for the tasks called installed.*
    with running_worker(redis, request.param, install=install, concurrency=CONCURRENCY) as running:
        yield running


def begin(worker: Worker, browser: str, phase: str, site: Site, **options: Any) -> Sent:
    """A task that has come to this phase, and stays in it."""
    ready, result = start(worker, browser, phase, site, **options)
    ready()
    return result


def start(
    worker: Worker, browser: str, phase: str, site: Site, **options: Any
) -> tuple[Callable[[], None], Sent]:
    """The same; the caller waits for the phase by calling what comes first."""
    if phase == "launch":
        result = worker.send(f"{browser}.launch", **options)
        return lambda: hangs_at_its_start(worker, browser), result
    path, body = ("never", "hang") if phase == "command" else ("about", "idle")
    result = worker.send(f"{browser}.{body}", site.url_for(path), **options)
    return lambda: site.wait_for(f"/{path}", PATIENCE), result


def send(
    worker: Worker, stack: contextlib.ExitStack, limit: int, browser: str, phase: str, kind: str
) -> tuple[Callable[[], None], Sent]:
    """With a site of its own, and a soft or a hard limit."""
    options = {"time_limit": limit}
    if kind == "soft":
        options = {"soft_time_limit": limit, "time_limit": limit + 30}
    return start(worker, browser, phase, stack.enter_context(Site()), **options)


def hangs_at_its_start(worker: Worker, browser: str) -> None:
    mark = VERSIONS[browser].split()[0]
    assert wait_until(lambda: any(mark in c for c in commands(worker))), worker.lines()


def commands(worker: Worker) -> list[str]:
    """What hangs at its start, by its environment; not what only says its version."""
    found = []
    for process in worker.new_below():
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


@pytest.mark.chrome
@pytest.mark.firefox
def test_a_task_that_returns_leaves_nothing(worker: Worker, site: Site) -> None:
    for browser in ("chrome", "firefox"):
        result = worker.send(f"{browser}.title", site.url)
        found = result.get()
        nothing_is_left(worker)
        assert (found["title"], found["id"]) == ("The Leaky Shelf", result.id)
        assert found["cookies"] == []


@pytest.mark.chrome
def test_the_state_is_what_the_task_said(worker: Worker, site: Site) -> None:
    """All at once: they fail, are rejected and ignored, retry, with the base and with the decorator."""
    names = ("chrome.fail", "chrome.reject", "chrome.again", "decorated.bound", "decorated.unbound")
    results = {name: worker.send(name, site.url) for name in (*names, "decorated.retry")}
    ignored = worker.send("chrome.ignore", site.url)
    states = {name: result.final_state() for name, result in results.items()}
    assert wait_until(lambda: f"[{ignored.id}] received" in worker.lines())
    nothing_is_left(worker, PATIENCE)
    failed = {name for name, state in states.items() if state == "FAILURE"}
    assert failed == {"chrome.fail", "chrome.reject"}
    assert {name for name, state in states.items() if state == "SUCCESS"} == set(results) - failed
    assert "the task's own failure" in str(results["chrome.fail"].result)
    assert "the task's own refusal" in str(results["chrome.reject"].result)
    assert results["chrome.again"].result == results["decorated.retry"].result == 1
    bound = results["decorated.bound"]
    assert bound.result == ["The Leaky Shelf", bound.id, ""]
    assert results["decorated.unbound"].result == "The Leaky Shelf"
    assert ignored.state == "PENDING"


# ------------------------------------------------------------------ time limits


LIMIT = 10
"""Seconds in which the browsers of ``WAYS``, all started at once, are surely there."""
SOLO_LIMITS = {"chrome": 3, "firefox": 8}
"""The same, for one that starts alone."""


WAYS = [
    *itertools.product(("chrome",), PHASES, ("soft", "hard")),
    *(("firefox", phase, kind) for phase, kind in zip(PHASES, ("hard", "soft", "hard"), strict=True)),
]
"""Browser, phase, limit."""


@pytest.mark.chrome
@pytest.mark.firefox
def test_limits_reach_the_task_and_leave_nothing(worker: Worker) -> None:
    """The soft one by Celery's signal in a prefork child, elsewhere by the end of the browser.

    All at once, since most of it is waiting.
    """
    if worker.pool == "solo":
        pytest.skip("one at a time: test_limits_in_solo")
    with contextlib.ExitStack() as stack:
        begun = [(send(worker, stack, LIMIT, *way), JUDGES[way[2]]) for way in WAYS]
        for (ready, _), _ in begun:
            ready()
        for (_, result), judge in begun:
            judge(worker, result, LIMIT)
        nothing_is_left(worker, SOON)


@pytest.mark.parametrize(
    ("browser", "phase"), [("chrome", "idle"), ("chrome", "launch"), ("firefox", "command")]
)
def test_limits_in_solo(worker: Worker, browser: str, phase: str) -> None:
    if worker.pool != "solo":
        pytest.skip("all at once: test_limits_reach_the_task_and_leave_nothing")
    kind = "hard" if phase == "idle" else "soft"
    with contextlib.ExitStack() as stack:
        ready, result = send(worker, stack, SOLO_LIMITS[browser], browser, phase, kind)
        ready()
        JUDGES[kind](worker, result, SOLO_LIMITS[browser])
        nothing_is_left(worker, SOON)


def soft_limit_is_seen(worker: Worker, result: Sent, limit: float) -> None:
    found = result.get()
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert ("SessionTimeout" in found["caught"]) == (worker.pool != "prefork")
    assert limit - 1 < found["after"] < limit + 15  # the hard one comes after 30
    assert result.state == "SUCCESS"


def hard_limit_is_kept(worker: Worker, result: Sent, limit: float) -> None:
    if worker.pool in ("prefork", "gevent"):
        with pytest.raises(TimeLimitExceeded):
            result.get()
    else:  # Celery keeps none here; what the task makes of ours is its result
        found = result.get()
        assert "TaskTimeout" in found["caught"]
        assert f"time_limit of {limit} s" in found["text"]


JUDGES = {"soft": soft_limit_is_seen, "hard": hard_limit_is_kept}


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
    assert wait_until(lambda: result.state == "REVOKED")
    nothing_is_left(worker)


# ------------------------------------------------------------------ warm browsers


@pytest.mark.chrome
@pytest.mark.leaves_zombies(12, "the worker's children")
def test_warm_browsers_until_a_warm_shutdown(worker: Worker, site: Site) -> None:
    """The last test of each worker: its pool lasts until the worker ends, which lets a task finish."""
    if worker.pool == "prefork":  # each child has a pool of its own
        worker.client.control.pool_shrink(CONCURRENCY - 1, reply=True)
    browsers_are_warm_and_without_a_memory(worker, site)
    a_limit_costs_one_browser(worker, site)
    a_browsers_death_is_one_tasks_error(worker, site)
    assert worker.send("installed.fail", site.url).final_state() == "FAILURE"
    assert worker.run("installed.again", site.url) == 1
    assert worker.run("installed.title", site.url)["cookies"] == []
    assert len(browsers(worker)) <= 2
    a_warm_shutdown_waits(worker)
    assert not witness.alive(worker.left_after(SOON))
    assert not worker.records()


def browsers(worker: Worker) -> set[int]:
    """The drivers' pids stand for them; a pool's go on living between tasks."""
    return {s.pid for s in worker.new_below() if s.name == "chromedriver" and s.state != "Z"}


def browsers_are_warm_and_without_a_memory(worker: Worker, site: Site) -> None:
    for _ in range(3):
        before = browsers(worker)
        found = worker.run("installed.title", site.url)
        assert found["title"] == "The Leaky Shelf"
        assert found["cookies"] == []
        assert 1 <= len(browsers(worker)) <= 2
    assert browsers(worker) & before


def a_limit_costs_one_browser(worker: Worker, site: Site) -> None:
    with Site() as other:
        found = worker.run("installed.hang", other.url_for("never"), soft_time_limit=2)
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert (TaskTimeout.__name__ in found["caught"]) == (worker.pool != "prefork")
    assert worker.run("installed.title", site.url)["cookies"] == []


def a_browsers_death_is_one_tasks_error(worker: Worker, site: Site) -> None:
    with Site() as other:
        result = worker.send("installed.hang", other.url_for("never"))
        other.wait_for("/never", PATIENCE)
        witness.end_by_pid([s for s in worker.new_below() if s.name == "chromedriver"])
        with pytest.raises(BrowserDied):
            result.get()
    assert worker.run("installed.title", site.url)["title"] == "The Leaky Shelf"


def a_warm_shutdown_waits(worker: Worker) -> None:
    with Site() as other:
        result = worker.send("installed.title", other.url_for("slow", seconds=1))
        other.wait_for("/slow", PATIENCE)
        worker.signal(signal.SIGTERM)
        assert worker.wait_ended() == 0
    assert result.get()["title"] == "Slow"
