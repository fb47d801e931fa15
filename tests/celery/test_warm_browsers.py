"""Tasks with warm browsers from the worker's BrowserPool, on workers of each kind."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import BrowserDied
from browserkeeper.celery import TaskTimeout
from fixtures.server import Site
from tests.celery.phases import WORKER_POOLS, drivers
from tests.celery.workers import START_TIMEOUT, Redis, Worker, running_worker
from tests.support import witness
from tests.support.clock import patience
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chrome, pytest.mark.redis]


@pytest.fixture(params=WORKER_POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    """With one child in prefork, since each child has a pool of its own."""
    install = {"pool": {"max_size": 2, "min_idle": 1, "checkout_timeout": START_TIMEOUT}}
    concurrency = 1 if request.param == "prefork" else 9
    with running_worker(redis, request.param, install=install, concurrency=concurrency) as running:
        yield running


@pytest.mark.leaves_zombies(12, "the worker's children")
def test_a_pool_serves_tasks_until_a_warm_shutdown(worker: Worker, site: Site) -> None:
    """One test, since the pool's state is carried from step to step; the last step ends the worker."""
    assert_browsers_are_warm_and_keep_no_cookies(worker, site)
    assert_a_limit_costs_one_browser(worker, site)
    assert_a_browsers_death_fails_one_task(worker, site)
    assert worker.send("installed.fail", site.url).final_state() == "FAILURE"
    assert worker.run("installed.again", site.url) == 1
    assert worker.run("installed.title", site.url)["cookies"] == []
    assert len(drivers(worker)) <= 2
    assert_a_warm_shutdown_waits_for_the_task(worker)
    assert wait_until(lambda: not witness.alive(worker.new_below()))
    assert not worker.records()


def assert_browsers_are_warm_and_keep_no_cookies(worker: Worker, site: Site) -> None:
    for _ in range(3):
        before = drivers(worker)
        found = worker.run("installed.title", site.url)
        assert found["title"] == "The Leaky Shelf"
        assert found["cookies"] == []
        assert 1 <= len(drivers(worker)) <= 2
    assert drivers(worker) & before


def assert_a_limit_costs_one_browser(worker: Worker, site: Site) -> None:
    with Site() as other:
        found = worker.run("installed.hang", other.url_for("never"), soft_time_limit=2)
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert (TaskTimeout.__name__ in found["caught"]) == (worker.pool != "prefork")
    assert worker.run("installed.title", site.url)["cookies"] == []


def assert_a_browsers_death_fails_one_task(worker: Worker, site: Site) -> None:
    with Site() as other:
        result = worker.send("installed.hang", other.url_for("never"))
        other.wait_for("/never", patience())
        assert wait_until(lambda: labels_of_leases(worker) == [f"installed.hang[{result.id}]"])
        witness.end_by_pid([s for s in worker.new_below() if s.name == "chromedriver"])
        with pytest.raises(BrowserDied):
            result.get()
    assert worker.run("installed.title", site.url)["title"] == "The Leaky Shelf"


def labels_of_leases(worker: Worker) -> list[str]:
    """Of the worker's pools, as they are published for `browserkeeper ps`."""
    states = (read_json(path)["pool"] for path in (worker.state / "pools").glob("*.json"))
    return [label for state in states for label in state["labels"].values()]


def read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def assert_a_warm_shutdown_waits_for_the_task(worker: Worker) -> None:
    with Site() as other:
        result = worker.send("installed.title", other.url_for("slow", seconds=1))
        other.wait_for("/slow", patience())
        worker.signal(signal.SIGTERM)
        assert worker.wait_ended() == 0
    assert result.get()["title"] == "Slow"
