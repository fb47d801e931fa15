"""What is left when the worker itself ends, by each of the ways in which workers end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import types
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.exceptions import WorkerLostError

from browserkeeper.celery import TooManyDeliveries, redeliveries
from fixtures.server import Site
from tests.celery.rig import PATIENCE, SOON, Redis, Worker, running_redis, running_worker
from tests.celery.test_limits import POOLS, begin, browsers, nothing_is_left
from tests.support import witness
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.leaves_zombies(60, "plain Selenium's, and the worker's own")
def test_main_process_killed(redis: Redis, pool: str) -> None:
    """Nothing of ours soon; the control is plain Selenium in the same worker."""
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running_worker(redis, pool, concurrency=5))
        sites = [stack.enter_context(Site()) for _ in range(5)]
        plain: list[witness.Seen] = []
        if pool != "solo":  # where one task runs at a time
            worker.send("plain.hang", sites[0].url_for("never"))
            sites[0].wait_for("/never", PATIENCE)
            plain = worker.new_below()
            begin(worker, "chrome", "idle", sites[1])
            begin(worker, "chrome", "launch", sites[2])
            begin(worker, "firefox", "idle", sites[3])
        begin(worker, "firefox" if pool == "solo" else "chrome", "command", sites[4])
        assert len(worker.new_below()) > len(plain) + 5
        worker.signal(signal.SIGKILL)
        assert wait_until(lambda: not ours(worker, plain)), ours(worker, plain)
        assert not worker.records()
        assert pool == "solo" or len([p for p in plain if witness.is_same(p)]) > 3
        for process in plain:
            witness.end_by_pid([process])
        assert wait_until(lambda: not witness.alive(worker.new_below()))


def ours(worker: Worker, plain: list[witness.Seen]) -> list[witness.Seen]:
    """Alive, and not of plain Selenium's tree (whose browser goes on starting processes)."""
    roots = {process.pid for process in plain}
    found = witness.alive(worker.new_below())
    while more := {p.pid for p in found if p.parent in roots} - roots:
        roots |= more
    return [process for process in found if process.pid not in roots]


# ------------------------------------------------------------------ shutdowns


SHUTDOWNS = [
    *(pytest.param(pool, (signal.SIGQUIT,), id=f"cold-{pool}") for pool in POOLS),
    *(pytest.param(pool, (signal.SIGINT, signal.SIGINT), id=f"ctrl-c-{pool}") for pool in POOLS[:1]),
]


@pytest.mark.chrome
@pytest.mark.parametrize(("pool", "signals"), SHUTDOWNS)
@pytest.mark.leaves_zombies(8, "the worker's children")
def test_cold_shutdown_leaves_nothing(
    redis: Redis, pool: str, signals: tuple[signal.Signals, ...]
) -> None:
    """SIGQUIT, or Ctrl-C twice.  Celery cannot end threads: those go on to their limit."""
    with running_worker(redis, pool) as worker, contextlib.ExitStack() as stack:
        for phase in ("command", "idle") if pool != "solo" else ("command",):
            site = stack.enter_context(Site())
            begin(worker, "chrome", phase, site, soft_time_limit=4, time_limit=40)
        for number in signals:
            worker.signal(number)
            time.sleep(0.5)  # for its handler to put another one in its place
        worker.wait_ended()
        nothing_is_left(worker, SOON)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(8, "the worker's children")
def test_a_supervisor_stops_the_whole_group(redis: Redis) -> None:
    """``stopasgroup`` and ``killasgroup``: children get SIGTERM with their parent, then SIGKILL."""
    with running_worker(redis, "prefork") as worker, Site() as site:
        begin(worker, "chrome", "command", site)
        os.killpg(worker.process.pid, signal.SIGTERM)
        time.sleep(0.3)
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.wait_ended()
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        assert not worker.records()


# ------------------------------------------------------------------ children


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "the guards of owners that were killed")
def test_a_child_that_is_killed_leaves_nothing(redis: Redis) -> None:
    """By SIGKILL, which is what the kernel sends when memory is short."""
    with running_worker(redis, "prefork") as worker:
        result = worker.send("chrome.pids")
        assert wait_until(lambda: result.state == "PROGRESS")
        os.kill(result.result["child"], signal.SIGKILL)
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        with pytest.raises(WorkerLostError):
            result.get()
        assert not worker.records()


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "the guards of children that have gone")
def test_replaced_children_leave_nothing(redis: Redis) -> None:
    """With a pool, so that the child that goes has browsers to close."""
    install = {"pool": {"max_size": 1}}
    options = ("--max-tasks-per-child", "1")
    with (
        running_worker(redis, "prefork", *options, install=install, concurrency=1) as worker,
        Site() as site,
    ):
        children = [worker.run("installed.title", site.url)["pid"] for _ in range(3)]
        assert len(set(children)) == 3
        assert wait_until(lambda: owners(worker).isdisjoint(children[:2]))
        worker.signal(signal.SIGTERM)
        worker.wait_ended()
        nothing_is_left(worker, SOON)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "the guards of children that have gone")
def test_a_child_that_grew_too_large_leaves_nothing(redis: Redis) -> None:
    options = ("--max-memory-per-child", "1000")
    with running_worker(redis, "prefork", *options, concurrency=1) as worker, Site() as site:
        children = [worker.run("chrome.title", site.url)["pid"] for _ in range(2)]
        assert len(set(children)) == 2
        nothing_is_left(worker, SOON)


def owners(worker: Worker) -> set[int]:
    """Who owns the sessions that are recorded."""
    return {json.loads(path.read_text())["session"]["owner"]["pid"] for path in worker.records()}


@pytest.mark.chrome
@pytest.mark.leaves_zombies(12, "the guards of owners that were killed")
def test_a_child_that_is_killed_takes_its_pool_with_it(redis: Redis, site: Site) -> None:
    """Every child has a pool of its own; none is made before a task asks for it."""
    with running_worker(redis, "prefork", install={"pool": {}}) as worker:
        assert worker.new_below() == []
        child = worker.run("installed.title", site.url)["pid"]
        assert browsers(worker)
        os.kill(child, signal.SIGKILL)
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        assert worker.run("installed.title", site.url)["pid"] != child


# ------------------------------------------------------------------ broker


@pytest.mark.chrome
def test_the_broker_goes_and_comes_back() -> None:
    """The task that runs meanwhile ends as it would, and what was waiting is done.  One that was
    prefetched comes back with its visibility timeout: that is Celery's own way."""
    with (
        running_redis() as redis,
        running_worker(redis, "prefork", concurrency=1) as worker,
        Site() as site,
    ):
        first = worker.send("chrome.title", site.url_for("slow", seconds=3))
        site.wait_for("/slow", PATIENCE)
        _, waiting = (worker.send("chrome.title", site.url) for _ in range(2))
        redis.stop()
        time.sleep(0.5)
        redis.start()
        assert first.get()["title"] == "Slow"
        assert waiting.get()["title"] == "The Leaky Shelf"
        nothing_is_left(worker, SOON)


# ------------------------------------------------------------------ messages that come back


def test_the_broker_counts_where_the_backend_cannot(redis: Redis) -> None:
    with Celery("counting", broker=redis.url, set_as_current=False) as app:
        task = types.SimpleNamespace(app=app, backend=app.backend, name="check")
        assert [redeliveries.count(task, f"key-{os.getpid()}") for _ in range(3)] == [1, 2, 3]


@pytest.mark.chrome
@pytest.mark.leaves_zombies(12, "the guards of owners that were killed")
def test_a_task_that_kills_its_worker_does_so_a_few_times_only(redis: Redis) -> None:
    conf = {"task_acks_late": True, "task_reject_on_worker_lost": True}
    install = {"max_redeliveries": 1}
    with running_worker(redis, "prefork", install=install, conf=conf, concurrency=1) as worker:
        result = worker.send("chrome.die")
        with pytest.raises(TooManyDeliveries, match="was redelivered 2 times"):
            result.get()
        assert worker.lines().count("WorkerLostError") + worker.lines().count("signal 9") >= 2
        assert not witness.alive(worker.new_below())
        assert not worker.records()
