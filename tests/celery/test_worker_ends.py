"""What is left when a worker or one of its children ends: killed, shut down, replaced, cut off from its
broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import pytest
from celery.exceptions import WorkerLostError

from fixtures.server import Site
from tests.celery.phases import (
    WORKER_POOLS,
    assert_no_browser_is_left,
    assert_nothing_is_left,
    begin,
    drivers,
    send,
)
from tests.celery.workers import START_TIMEOUT, Redis, Worker, running_redis, running_worker
from tests.support import witness
from tests.support.clock import patience, task_limit
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chrome, pytest.mark.redis]


@pytest.mark.firefox
@pytest.mark.parametrize("pool", WORKER_POOLS)
@pytest.mark.leaves_zombies(60, "plain Selenium's, and the worker's own")
def test_a_killed_main_process_leaves_no_browser(redis: Redis, pool: str) -> None:
    """The control is plain Selenium in the same worker: its browser stays."""
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running_worker(redis, pool, concurrency=5))
        sites = [stack.enter_context(Site()) for _ in range(5)]
        plain: list[witness.Seen] = []
        if pool != "solo":  # where one task runs at a time
            worker.send("plain.hang", sites[0].url_for("never"))
            sites[0].wait_for("/never", patience())
            plain = worker.new_below()
            begin(worker, "chrome", "idle", sites[1])
            begin(worker, "chrome", "launch", sites[2])
            begin(worker, "firefox", "idle", sites[3])
        begin(worker, "firefox" if pool == "solo" else "chrome", "command", sites[4])
        assert len(worker.new_below()) > len(plain) + 5
        worker.signal(signal.SIGKILL)
        gone = wait_until(lambda: not without_plain_selenium(worker, plain), patience())
        assert gone, without_plain_selenium(worker, plain)
        assert not worker.records()
        assert pool == "solo" or len([p for p in plain if witness.is_same(p)]) > 3
        for process in plain:
            witness.end_by_pid([process])
        assert wait_until(lambda: not witness.alive(worker.new_below()))


def without_plain_selenium(worker: Worker, plain: list[witness.Seen]) -> list[witness.Seen]:
    """The living processes that are not in plain Selenium's tree, whose browser starts further ones."""
    roots = {process.pid for process in plain}
    found = witness.alive(worker.new_below())
    while more := {p.pid for p in found if p.parent in roots} - roots:
        roots |= more
    return [process for process in found if process.pid not in roots]


# ------------------------------------------------------------------ shutdowns


ATTEMPTS = 3
SHUTDOWNS = [
    *(pytest.param(pool, (signal.SIGQUIT,), id=f"cold-{pool}") for pool in WORKER_POOLS),
    *(
        pytest.param(pool, (signal.SIGINT, signal.SIGINT), id=f"ctrl-c-{pool}")
        for pool in WORKER_POOLS[:1]
    ),
]


@pytest.mark.parametrize(("pool", "signals"), SHUTDOWNS)
@pytest.mark.leaves_zombies(8 * ATTEMPTS, "the worker's children")
def test_cold_shutdown_leaves_nothing(
    redis: Redis, pool: str, signals: tuple[signal.Signals, ...]
) -> None:
    """SIGQUIT, or Ctrl-C twice.  Celery cannot end threads and greenlets: they run until their limit."""
    phases = ("command",) if pool == "solo" else ("command", "idle")
    limit = 5 * task_limit(chrome=len(phases))
    for _ in range(ATTEMPTS):
        if shut_down_cold(redis, pool, phases, signals, limit):
            return
        limit *= 2
    pytest.fail(f"{ATTEMPTS} times a task did not come to its phase before its limit")


def shut_down_cold(
    redis: Redis, pool: str, phases: tuple[str, ...], signals: tuple[signal.Signals, ...], limit: int
) -> bool:
    """Whether all tasks had come to their phases before the signals."""
    with running_worker(redis, pool) as worker, contextlib.ExitStack() as stack:
        for phase in phases:
            site = stack.enter_context(Site())
            limits = {"soft_time_limit": limit, "time_limit": 10 * limit}
            if not send(worker, "chrome", phase, site, **limits).reaches():
                return False
        for number in signals:
            worker.signal(number)
            if number == signal.SIGINT:  # the next one is only a second one when this was handled
                assert wait_until(lambda: "worker: Warm shutdown" in worker.lines(), patience())
        worker.wait_ended(limit)
        assert_no_browser_is_left(worker)
    return True


@pytest.mark.leaves_zombies(8, "the worker's children")
def test_a_supervisor_that_kills_the_group_leaves_no_browser(redis: Redis) -> None:
    """``stopasgroup`` and ``killasgroup``: children get SIGTERM with their parent, then SIGKILL."""
    with running_worker(redis, "prefork") as worker, Site() as site:
        begin(worker, "chrome", "command", site)
        os.killpg(worker.process.pid, signal.SIGTERM)
        time.sleep(0.3)  # shorter than any shutdown takes, as an impatient supervisor's pause
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.wait_ended()
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        assert not worker.records()


# ------------------------------------------------------------------ children


@pytest.mark.leaves_zombies(4, "the guards of owners that were killed")
def test_a_killed_child_leaves_no_browser(redis: Redis) -> None:
    """By SIGKILL, which is what the kernel sends when memory is short."""
    with running_worker(redis, "prefork") as worker:
        result = worker.send("chrome.pids")
        assert wait_until(lambda: result.state == "PROGRESS", patience())
        os.kill(result.result["child"], signal.SIGKILL)
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        with pytest.raises(WorkerLostError):
            result.get()
        assert not worker.records()


@pytest.mark.leaves_zombies(4, "the guards of children that have gone")
def test_replaced_children_leave_nothing(redis: Redis) -> None:
    """They have a BrowserPool, so that each child has browsers to close."""
    install = {"pool": {"max_size": 1, "checkout_timeout": START_TIMEOUT}}
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
        assert_nothing_is_left(worker)


@pytest.mark.leaves_zombies(4, "the guards of children that have gone")
def test_a_child_above_its_memory_limit_leaves_nothing(redis: Redis) -> None:
    options = ("--max-memory-per-child", "1000")
    with running_worker(redis, "prefork", *options, concurrency=1) as worker, Site() as site:
        children = [worker.run("chrome.title", site.url)["pid"] for _ in range(2)]
        assert len(set(children)) == 2
        assert_nothing_is_left(worker)


def owners(worker: Worker) -> set[int]:
    """The pids of the owners of the recorded sessions.  A record may be removed while this looks."""
    found = set()
    for path in worker.state.glob("live/*.json"):
        with contextlib.suppress(FileNotFoundError):
            found.add(json.loads(path.read_text())["session"]["owner"]["pid"])
    return found


@pytest.mark.leaves_zombies(12, "the guards of owners that were killed")
def test_a_killed_child_leaves_no_browser_of_its_pool(redis: Redis, site: Site) -> None:
    """Each child has a pool of its own, opened by the first task that asks for a driver."""
    install = {"pool": {"checkout_timeout": START_TIMEOUT}}
    with running_worker(redis, "prefork", install=install) as worker:
        assert worker.new_below() == []
        child = worker.run("installed.title", site.url)["pid"]
        assert drivers(worker)
        os.kill(child, signal.SIGKILL)
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        assert worker.run("installed.title", site.url)["pid"] != child


# ------------------------------------------------------------------ broker


def test_tasks_survive_a_restart_of_the_broker() -> None:
    """The task that runs meanwhile ends normally, and one that waits in the queue is done.  A prefetched
    one comes back after its visibility timeout only: that is Celery's own behaviour."""
    with (
        running_redis() as redis,
        running_worker(redis, "prefork", concurrency=1) as worker,
        Site() as site,
    ):
        first = worker.send("chrome.title", site.url_for("slow", seconds=3))
        site.wait_for("/slow", patience())
        _, waiting = (worker.send("chrome.title", site.url) for _ in range(2))
        redis.stop()
        time.sleep(0.5)
        redis.start()
        assert first.get()["title"] == "Slow"
        assert waiting.get()["title"] == "The Leaky Shelf"
        assert_nothing_is_left(worker)
