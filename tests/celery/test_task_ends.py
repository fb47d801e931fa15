"""How a task ends, and what is left then, on workers of each kind: it returns or fails, passes a time
limit, is revoked.

One worker for each kind of worker pool serves all tests.  The control for the limits is plain Selenium
in test_worker_ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator

import celery
import pytest
from celery.exceptions import TimeLimitExceeded

from fixtures.server import Site
from tests.celery.phases import (
    PHASES,
    WORKER_POOLS,
    assert_no_browser_is_left,
    assert_nothing_is_left,
    begin,
    drivers,
    send,
)
from tests.celery.workers import Redis, Sent, Worker, running_worker
from tests.support.clock import patience, task_limit
from tests.support.waiting import wait_until

WAYS = [
    *itertools.product(("chrome",), PHASES, ("soft", "hard")),
    *(("firefox", phase, kind) for phase, kind in zip(PHASES, ("hard", "soft", "hard"), strict=True)),
]
"""Browser, phase, kind of limit."""
SOLO_WAYS = [("chrome", "idle", "hard"), ("chrome", "launch", "soft"), ("firefox", "command", "soft")]
"""The same for a worker that runs one task at a time."""
ATTEMPTS = 5
STORES_A_REJECTION = celery.VERSION[:2] >= (5, 7)
"""Celery before 5.7 stores no end of a task that raises Reject(requeue=False) (celery issue 4222)."""
TERMINATES_GREENLETS = celery.VERSION[:2] >= (5, 5)
"""The gevent pool of Celery before 5.5 has no ``terminate_job``."""

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module", params=WORKER_POOLS)
def worker(request: pytest.FixtureRequest, redis: Redis) -> Iterator[Worker]:
    with running_worker(redis, request.param, concurrency=len(WAYS)) as running:
        yield running


# ------------------------------------------------------------------ how a task ends by itself


@pytest.mark.chrome
@pytest.mark.firefox
def test_a_task_that_returns_has_ended_its_browser(worker: Worker, site: Site) -> None:
    for browser in ("chrome", "firefox"):
        result = worker.send(f"{browser}.title", site.url)
        found = result.get()
        assert not drivers(worker)  # ended before the result was stored
        assert_nothing_is_left(worker)
        assert (found["title"], found["id"]) == ("The Leaky Shelf", result.id)
        assert found["cookies"] == []


@pytest.mark.chrome
def test_the_state_is_decided_by_the_task_alone(worker: Worker, site: Site) -> None:
    names = [f"chrome.{end}" for end in ("title", "fail", "again")]
    names += ["decorated.bound", "decorated.unbound"]
    results = {name: worker.send(name, site.url) for name in (*names, "decorated.retry")}
    ignored = worker.send("chrome.ignore", site.url)
    rejected = worker.send("chrome.reject", site.url)
    states = {name: result.final_state() for name, result in results.items()}
    assert wait_until(lambda: f"[{ignored.id}] ignored" in worker.lines(), patience())
    refusal = re.compile(rf"\[{rejected.id}\] .*the task's own refusal")
    assert wait_until(lambda: refusal.search(worker.lines()) is not None, patience())
    assert_nothing_is_left(worker)
    failed = {name for name, state in states.items() if state == "FAILURE"}
    assert failed == {"chrome.fail"}
    assert {name for name, state in states.items() if state == "SUCCESS"} == set(results) - failed
    assert "the task's own failure" in str(results["chrome.fail"].result)
    if STORES_A_REJECTION:
        assert rejected.final_state() == "FAILURE"
        assert "the task's own refusal" in str(rejected.result)
    else:
        assert rejected.state in ("PENDING", "STARTED")
    assert results["chrome.again"].result == results["decorated.retry"].result == 1
    bound = results["decorated.bound"]
    assert bound.result == ["The Leaky Shelf", bound.id, ""]
    assert results["decorated.unbound"].result == "The Leaky Shelf"
    assert ignored.state == "PENDING"


@pytest.mark.chrome
def test_log_lines_name_task_session_and_host(worker: Worker, site: Site) -> None:
    result = worker.send("chrome.title", site.url)
    result.get()
    host = re.escape(os.uname().nodename)
    found = re.findall(rf"\[task={result.id} session=([0-9a-f]{{12}}) host={host}\]", worker.lines())
    assert len(found) >= 2, worker.lines()  # the session's start and its report
    assert len(set(found)) == 1


# ------------------------------------------------------------------ time limits


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.leaves_zombies(2 * len(WAYS) * ATTEMPTS, "the guards of children killed at a hard limit")
def test_a_limit_ends_the_browser_in_every_phase(worker: Worker) -> None:
    """Soft limits come by Celery's signal in a prefork child, elsewhere by the end of the browser.

    All tasks run at once, since most of the time is waiting (one after the other in ``solo``).  A limit
    that passes before its task has come to its phase shows nothing of that phase, so all is repeated
    with twice the limit.
    """
    if worker.pool == "solo":
        for browser, phase, kind in SOLO_WAYS:
            pass_limits(worker, [(browser, phase, kind)], task_limit(**{browser: 1}))
    else:
        pass_limits(worker, WAYS, task_limit(chrome=4, firefox=2))


def pass_limits(worker: Worker, ways: list[tuple[str, str, str]], limit: int) -> None:
    for _ in range(ATTEMPTS):
        with contextlib.ExitStack() as stack:
            begun = []
            for browser, phase, kind in ways:
                site = stack.enter_context(Site())
                # The hard limit must leave time to see the soft one.
                limits = {"soft_time_limit": limit, "time_limit": 4 * limit + 30}
                options = limits if kind == "soft" else {"time_limit": limit}
                begun.append(send(worker, browser, phase, site, **options))
            reached = [each.reaches() for each in begun]
            for each, (_, _, kind) in zip(begun, ways, strict=True):
                JUDGES[kind](worker, each.result, limit)
            assert_no_browser_is_left(worker)
        if all(reached):
            return
        limit *= 2
    pytest.fail(f"{ATTEMPTS} times a task did not come to its phase before its limit: {reached}")


def assert_the_task_saw_the_soft_limit(worker: Worker, result: Sent, limit: int) -> None:
    found = result.get()  # a hard limit would be raised here
    assert "SoftTimeLimitExceeded" in found["caught"]
    assert ("SessionTimeout" in found["caught"]) == (worker.pool != "prefork")
    if worker.pool != "prefork":
        assert f"soft_time_limit of {limit} s" in found["text"]
    assert found["after"] > limit / 2
    assert result.state == "SUCCESS"


def assert_the_hard_limit_was_enforced(worker: Worker, result: Sent, limit: int) -> None:
    if worker.pool in ("prefork", "gevent"):
        try:
            found = result.get()
        except TimeLimitExceeded:
            return
        # Celery's main process stood still, and the guard's own limit came first.
        assert worker.pool == "prefork"
        assert "TaskTimeout" in found["caught"]
    else:  # Celery enforces none here; the task catches ours and returns what it saw
        found = result.get()
        assert "TaskTimeout" in found["caught"]
        assert f"time_limit of {limit} s" in found["text"]


JUDGES = {
    "soft": assert_the_task_saw_the_soft_limit,
    "hard": assert_the_hard_limit_was_enforced,
}


# ------------------------------------------------------------------ revoke


@pytest.mark.chrome
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.leaves_zombies(2, "the guards of a prefork child that was killed")
def test_a_revoked_and_terminated_task_leaves_no_browser(worker: Worker, phase: str) -> None:
    if worker.pool not in ("prefork", "gevent"):
        pytest.skip("Celery can terminate no task of threads and solo")
    if worker.pool == "gevent" and not TERMINATES_GREENLETS:
        pytest.skip("Celery terminates a task of gevent from 5.5 on")
    with Site() as site:
        result = begin(worker, "chrome", phase, site)
        worker.client.control.revoke(result.id, terminate=True)
        assert wait_until(lambda: result.state == "REVOKED", patience())
        assert_no_browser_is_left(worker)
