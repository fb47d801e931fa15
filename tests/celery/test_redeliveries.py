"""The bound on redeliveries: counted in the backend, in the broker, or not at all."""

from __future__ import annotations

import os
import types
from typing import Any

import pytest
from celery import Celery

from browserkeeper.celery import (
    TooManyDeliveries,
    redeliveries,
)
from browserkeeper.celery.settings import MAX_REDELIVERIES
from tests.celery.workers import Redis, running_worker
from tests.support import witness
from tests.support.waiting import wait_until


def request(app: Celery, *, redelivered: bool, eager: bool = False) -> Any:
    info = {"redelivered": redelivered}
    return types.SimpleNamespace(
        id="t1", retries=0, delivery_info=info, is_eager=eager, called_directly=False
    )


class Counting:
    """A backend that can count."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def incr(self, key: str) -> int:
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def expire(self, key: str, seconds: int) -> None:
        assert seconds > 3600


def test_only_redelivered_messages_are_counted(app: Celery) -> None:
    task = types.SimpleNamespace(app=app, backend=Counting(), name="check")
    redeliveries.check(task, request(app, redelivered=False))
    redeliveries.check(task, request(app, redelivered=True, eager=True))
    assert task.backend.counts == {}
    for _ in range(MAX_REDELIVERIES):
        redeliveries.check(task, request(app, redelivered=True))
    with pytest.raises(TooManyDeliveries, match=f"was redelivered {MAX_REDELIVERIES + 1} times"):
        redeliveries.check(task, request(app, redelivered=True))


def test_the_task_runs_where_redeliveries_cannot_be_counted(app: Celery) -> None:
    uncounted = types.SimpleNamespace(app=app, backend=object(), name="check")
    assert redeliveries.count(uncounted, "key") is None
    for _ in range(2 * MAX_REDELIVERIES):
        redeliveries.check(uncounted, request(app, redelivered=True))


def test_the_broker_counts_where_the_backend_cannot(redis: Redis) -> None:
    with Celery("counting", broker=redis.url, set_as_current=False) as app:
        task = types.SimpleNamespace(app=app, backend=app.backend, name="check")
        assert [redeliveries.count(task, f"key-{os.getpid()}") for _ in range(3)] == [1, 2, 3]


@pytest.mark.chrome
@pytest.mark.leaves_zombies(12, "the guards of owners that were killed")
def test_a_task_that_kills_its_worker_is_given_up_after_the_bound(redis: Redis) -> None:
    conf = {"task_acks_late": True, "task_reject_on_worker_lost": True}
    install = {"max_redeliveries": 1}
    with running_worker(redis, "prefork", install=install, conf=conf, concurrency=1) as worker:
        result = worker.send("chrome.die")
        with pytest.raises(TooManyDeliveries, match="was redelivered 2 times"):
            result.get()
        assert worker.lines().count("WorkerLostError") + worker.lines().count("signal 9") >= 2
        assert wait_until(lambda: not witness.alive(worker.new_below()))
        assert not worker.records()
