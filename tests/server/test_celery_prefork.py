"""Celery's prefork workers with 8 children, whose tasks have the browsers of one server."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fixtures.server import Site
from tests.celery.workers import (
    START_TIMEOUT,
    Redis,
    Sent,
    Worker,
    running_redis,
    running_worker,
)
from tests.server.serve_process import Serve, serve
from tests.support.clock import patience
from tests.support.waiting import wait_until

__all__ = ["serve"]  # a fixture

pytestmark = [pytest.mark.chrome, pytest.mark.redis]

CHILDREN = 8
LIMIT = 10
"""Seconds for the hard limit.  On a slow machine it may come before the task has its page."""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


class Sessions:
    """The server's open sessions, by the ids of the tasks whose they are."""

    def __init__(self, server: Serve):
        self.server = server

    def of(self, *tasks: Sent) -> list[dict[str, Any]]:
        found = self.server.sessions
        return [one for one in found if any(f"[{task.id}]" in one["label"] for task in tasks)]

    def wait_begun(self, *tasks: Sent) -> None:
        assert wait_until(
            lambda: len(self.of(*tasks)) == len(tasks) or any(task.is_done() for task in tasks),
            patience(CHILDREN),
        ), self.server.sessions
        assert len(self.of(*tasks)) == len(tasks), [task.meta() for task in tasks]

    def wait_ended(self, *tasks: Sent) -> None:
        assert wait_until(lambda: not self.of(*tasks), patience()), self.of(*tasks)


@pytest.mark.leaves_zombies(CHILDREN, "the children of the worker that is killed in the end")
@pytest.mark.parametrize(
    "pool",
    [None, {"max_size": 1, "checkout_timeout": START_TIMEOUT}],
    ids=["sessions", "pools of the server"],
)
def test_whatever_ends_a_task_or_its_child_frees_the_lease(
    serve: Callable[..., Serve], redis: Redis, pool: dict[str, Any] | None
) -> None:
    """Hard limits, revokes and SIGKILL, of tasks in a command that hangs and of idle ones.  The control
    is a task that goes on: it keeps its lease until the worker ends."""
    server = serve("--max", 2, "--leases-per-browser", CHILDREN // 2, "--queue-timeout", 600)
    install: dict[str, Any] = {"server": f"unix:{server.socket}"}
    if pool is not None:
        install["pool"] = pool
    sessions = Sessions(server)
    with (
        running_worker(redis, "prefork", install=install, concurrency=CHILDREN) as worker,
        contextlib.ExitStack() as stack,
    ):
        site = stack.enter_context(Site())
        never = site.url_for("never")
        before = [worker.send("installed.title", site.url) for _ in range(CHILDREN)]
        assert [task.get()["cookies"] for task in before] == [[]] * CHILDREN, "the server is warm"

        control = worker.send("installed.pids")
        terminated = [worker.send(f"installed.{body}", never) for body in ("hang", "idle")]
        killed = [worker.send("installed.hang", never), worker.send("installed.pids")]
        child = worker.send("installed.pids")
        sessions.wait_begun(control, child, *terminated, *killed)
        assert wait_until(lambda: child.state == control.state == "PROGRESS", patience(CHILDREN))
        limited = [
            worker.send(f"installed.{body}", never, time_limit=LIMIT) for body in ("hang", "idle")
        ]

        for task in terminated:
            worker.client.control.revoke(task.id, terminate=True)
        for task in killed:
            worker.client.control.revoke(task.id, terminate=True, signal="SIGKILL")
        os.kill(child.result["child"], signal.SIGKILL)
        dying = worker.send("installed.die")
        assert dying.final_state() == child.final_state() == "FAILURE"
        assert {task.final_state() for task in (*terminated, *killed)} == {"REVOKED"}
        assert [task.final_state() for task in limited] == ["FAILURE"] * 2
        sessions.wait_ended(child, dying, *terminated, *killed, *limited)

        assert [one["label"] for one in server.sessions] == [f"installed.pids[{control.id}]"]
        assert control.state == "PROGRESS"
        os.kill(control.result["browser"], 0)
        after = [worker.send("installed.title", site.url) for _ in range(CHILDREN)]
        assert [task.get()["cookies"] for task in after] == [[]] * CHILDREN
        # A task's result is there before its lease has ended: Celery stores it first.
        sessions.wait_ended(*after)
        assert len(server.sessions) == 1
        assert_a_killed_worker_frees_all(worker, sessions, control, never)
    assert server.end() == 0


def assert_a_killed_worker_frees_all(
    worker: Worker, sessions: Sessions, control: Sent, never: str
) -> None:
    more = [worker.send("installed.hang", never) for _ in range(3)]
    sessions.wait_begun(control, *more)
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.wait_ended()
    assert wait_until(lambda: not sessions.server.sessions, patience())
    assert not worker.records(), "no guard was started here"
