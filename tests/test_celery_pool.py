"""``install(app, pool=...)``: warm browsers in each worker process, a fresh one for each task."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from browserkeeper import BrowserDied
from browserkeeper.celery import TaskTimeout
from fixtures.server import Site

from . import oracle
from .celery_rig import PATIENCE, SOON, Redis, Worker, running_redis, running_worker
from .guards import wait_for
from .test_celery import POOLS

pytestmark = pytest.mark.chrome


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    """One process, or none, for tasks; so that two tasks in turn meet the same pool."""
    concurrency = 1 if request.param in ("prefork", "solo") else 2
    install = {"pool": {"max_size": 2, "min_idle": 1}}
    with running_worker(redis, request.param, install=install, concurrency=concurrency) as running:
        yield running


def browsers(worker: Worker) -> set[int]:
    """Guards' children are drivers; a pool's go on living between tasks."""
    return {s.pid for s in worker.strangers() if s.name == "chromedriver" and s.state != "Z"}


def test_a_task_gets_a_warm_browser_without_a_memory(worker: Worker, site: Site) -> None:
    for _ in range(4):
        found = worker.run("installed.title", site.url)
        assert found["title"] == "The Leaky Shelf"
        assert found["cookies"] == []
        assert 1 <= len(browsers(worker)) <= 2
    first = browsers(worker)
    worker.run("installed.title", site.url)
    assert browsers(worker) & first


def test_a_limit_that_passes_costs_the_browser_only(worker: Worker, site: Site) -> None:
    with Site() as other:
        result = worker.send("installed.hang", other.url_for("never"), soft_time_limit=3)
        found = result.get(timeout=PATIENCE)
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert (TaskTimeout.__name__ in found["caught"]) == (worker.pool != "prefork")
    assert worker.run("installed.title", site.url)["cookies"] == []


def test_a_browser_that_dies_is_the_tasks_error_and_nobody_elses(worker: Worker, site: Site) -> None:
    with Site() as other:
        result = worker.send("installed.hang", other.url_for("never"))
        other.wait_for("/never", PATIENCE)
        victims = [s for s in worker.strangers() if s.name == "chromedriver"]
        for victim in victims:
            oracle.end_by_pid([victim])
        with pytest.raises(BrowserDied):
            result.get(timeout=PATIENCE)
    assert worker.run("installed.title", site.url)["title"] == "The Leaky Shelf"


def test_a_task_that_fails_or_retries_gives_its_browser_back(worker: Worker, site: Site) -> None:
    assert worker.state_of(worker.send("installed.fail", site.url)) == "FAILURE"
    assert worker.run("installed.again", site.url) == 1
    assert worker.run("installed.title", site.url)["cookies"] == []
    assert len(browsers(worker)) <= 2


@pytest.mark.leaves_zombies(12, "the guards of owners that were killed")
def test_a_child_that_is_killed_takes_its_pool_with_it(redis: Redis, site: Site) -> None:
    """Every child has a pool of its own; none is made before a task asks for it."""
    with running_worker(redis, "prefork", install={"pool": {}}) as worker:
        assert worker.strangers() == []
        child = worker.run("installed.title", site.url)["pid"]
        assert browsers(worker)
        os.kill(child, signal.SIGKILL)
        assert wait_for(lambda: not oracle.alive(worker.strangers()), SOON)
        assert worker.run("installed.title", site.url)["pid"] != child
