"""What is left when the worker itself ends, by each of the ways in which workers end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest
from celery.exceptions import WorkerLostError

from fixtures.server import Site

from . import oracle
from .celery_rig import PATIENCE, SOON, Redis, Worker, running_redis, running_worker
from .guards import wait_for
from .test_celery import POOLS, begin, nothing_is_left


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


def remove_profiles(before: set[str]) -> None:
    """What plain Selenium's browser left on the disk, for the control's own tidiness."""
    for path in oracle.files() - before:
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.leaves_zombies(60, "plain Selenium's, and the worker's own")
def test_main_process_killed(redis: Redis, pool: str) -> None:
    """Nothing of ours within a second; the control is plain Selenium in the same worker."""
    before = oracle.files()
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running_worker(redis, pool, concurrency=5))
        sites = [stack.enter_context(Site()) for _ in range(5)]
        plain: list[oracle.Seen] = []
        if pool != "solo":  # where one task runs at a time
            worker.send("plain.hang", sites[0].url_for("never"))
            sites[0].wait_for("/never", PATIENCE)
            plain = worker.strangers()
            begin(worker, "chrome", "idle", sites[1])
            begin(worker, "chrome", "launch", sites[2])
            begin(worker, "firefox", "idle", sites[3])
        begin(worker, "firefox" if pool == "solo" else "chrome", "command", sites[4])
        assert len(worker.strangers()) > len(plain) + 5
        worker.signal(signal.SIGKILL)
        assert wait_for(lambda: not ours(worker, plain), SOON), ours(worker, plain)
        assert not worker.records()
        assert pool == "solo" or len([p for p in plain if oracle.is_same(p)]) > 3
        for process in plain:
            oracle.end_by_pid([process])
        assert wait_for(lambda: not oracle.alive(worker.strangers()), PATIENCE)
    remove_profiles(before)


def ours(worker: Worker, plain: list[oracle.Seen]) -> list[oracle.Seen]:
    """Alive, and not of plain Selenium's tree (whose browser goes on starting processes)."""
    roots = {process.pid for process in plain}
    found = oracle.alive(worker.strangers())
    while more := {p.pid for p in found if p.parent in roots} - roots:
        roots |= more
    return [process for process in found if process.pid not in roots]


# ------------------------------------------------------------------ shutdowns


@pytest.mark.chrome
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.leaves_zombies(2, "the worker's children")
def test_warm_shutdown_lets_the_task_finish_and_closes_the_pool(redis: Redis, pool: str) -> None:
    with running_worker(redis, pool, install={"pool": {"max_size": 2}}) as worker, Site() as site:
        assert worker.run("installed.title", site.url)["title"] == "The Leaky Shelf"
        assert worker.strangers(), "the pool keeps no browser"
        result = worker.send("installed.title", site.url_for("slow", seconds=2))
        site.wait_for("/slow", PATIENCE)
        worker.signal(signal.SIGTERM)
        assert worker.wait_ended() == 0
        assert result.get(timeout=PATIENCE)["title"] == "Slow"
        nothing_is_left(worker, SOON)


@pytest.mark.chrome
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "signals", [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)], ids=["cold", "ctrl-c"]
)
@pytest.mark.leaves_zombies(8, "the worker's children")
def test_cold_shutdown_leaves_nothing(
    redis: Redis, pool: str, signals: tuple[signal.Signals, ...]
) -> None:
    """SIGQUIT, and Ctrl-C twice.  Threads cannot be ended by Celery: they go on to their limit."""
    with running_worker(redis, pool) as worker, contextlib.ExitStack() as stack:
        for phase in ("command", "idle") if pool != "solo" else ("command",):
            begin(worker, "chrome", phase, stack.enter_context(Site()), soft_time_limit=6, time_limit=40)
        for number in signals:
            worker.signal(number)
            time.sleep(0.5)
        began = time.monotonic()
        worker.wait_ended()
        print(pool, time.monotonic() - began)
        nothing_is_left(worker, SOON)
