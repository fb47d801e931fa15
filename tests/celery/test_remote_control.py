"""``celery browserkeeper ps|sweep`` and Beat's sweep: remote control of a real worker."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fixtures.server import Site
from tests.celery.phases import assert_no_browser_is_left, begin
from tests.celery.workers import ROOT, Redis, Worker, running_worker
from tests.support import witness
from tests.support.clock import patience, start_seconds
from tests.support.waiting import wait_until

CELERY = (sys.executable, "-m", "celery", "-A", "tests.celery.celery_app", "browserkeeper")
pytestmark = [pytest.mark.chrome, pytest.mark.redis]


@pytest.fixture(scope="module")
def worker(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    beat = ("-B", "-s", str(tmp_path_factory.mktemp("beat") / "schedule"))
    with running_worker(redis, "prefork", *beat, install={"sweep_every": 3.0}) as running:
        yield running


NO_ANSWER = 69


def celery(worker: Worker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``celery -A tests.celery.celery_app browserkeeper ...``, again if the worker is too busy to
    answer in time."""
    done = celery_once(worker, *arguments)

    def is_answered() -> bool:
        nonlocal done
        if done.returncode == NO_ANSWER:
            done = celery_once(worker, *arguments)
        return done.returncode != NO_ANSWER

    assert wait_until(is_answered, patience()), done.stderr
    return done


def celery_once(worker: Worker, *arguments: str) -> subprocess.CompletedProcess[str]:
    wait_for_answers = f"{max(1.0, 2 * start_seconds()):g}"  # all of it is waited
    return subprocess.run(
        [*CELERY, *arguments, "--timeout", wait_for_answers],
        cwd=ROOT,
        env={**os.environ, **worker.environment},
        capture_output=True,
        text=True,
        timeout=patience(),
    )


def orphan(worker: Worker, site: Site) -> str:
    """Make a session whose owner and guards are killed together, so that its record and files stay; its
    id.

    They are stopped first, since the last one of them that lives would end the session.
    """
    result = begin(worker, "chrome", "idle", site)
    (path,) = worker.state.glob("live/*.json")
    record = json.loads(path.read_text())
    pids = {guard["pid"] for guard in record["guards"]}
    guards = [seen for pid in pids if (seen := witness.look(pid))]
    assert len(guards) == 2
    # The standby guard first: it would continue the primary one.
    standby, primary = sorted(guards, key=lambda guard: guard.parent in pids)
    owner = witness.look(record["session"]["owner"]["pid"])
    assert owner is not None
    for process in (owner, standby, primary):
        os.kill(process.pid, signal.SIGSTOP)
        assert wait_until(functools.partial(witness.is_stopped, process.pid))
    # The primary guard first: the death of its parent would continue it.
    witness.end_by_pid([primary, standby, owner])
    with pytest.raises(Exception, match="signal 9"):
        result.get()
    return str(record["session"]["id"])


@pytest.mark.leaves_zombies(2, "the guards of a child that Celery killed")
def test_ps_lists_the_sessions_of_each_host(worker: Worker, site: Site) -> None:
    result = begin(worker, "chrome", "idle", site)
    done = celery(worker, "ps")

    def is_well() -> bool:
        """Chromium may take a while to reap its own children, and ps names zombies."""
        nonlocal done
        if done.returncode:
            done = celery(worker, "ps")
        return done.returncode == 0

    assert wait_until(is_well, patience()), done.stdout
    label = re.escape(f"chrome.idle[{result.id}]")
    line = r"^\S+  [0-9a-f]{12}  chrome  live  owner \d+ .* processes  \d+ MB  " + label + "$"
    assert re.search(line, done.stdout, re.MULTILINE)
    document = json.loads(celery(worker, "ps", "--json").stdout)
    (answer,) = document.values()
    assert [session["state"] for session in answer["sessions"]] == ["live"]
    worker.client.control.revoke(result.id, terminate=True)
    assert_no_browser_is_left(worker)
    assert "no live sessions" in celery(worker, "ps").stdout


def test_sweep_without_yes_only_lists(worker: Worker) -> None:
    done = celery(worker, "sweep", "--older-than", "1000000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("nothing is left of any dead owner")


def test_ps_exits_with_69_if_no_worker_answers(redis: Redis, worker: Worker) -> None:
    elsewhere = json.loads(worker.environment["CELERY_RIG"])
    elsewhere["redis"] += "?virtual_host=7"
    environment = {**worker.environment, "CELERY_RIG": json.dumps(elsewhere)}
    done = celery_once(dataclasses.replace(worker, environment=environment), "ps")
    assert done.returncode == NO_ANSWER
    assert "No worker answered" in done.stderr


@pytest.mark.leaves_zombies(60, "a session whose guards were killed with it")
def test_beat_has_the_host_swept(worker: Worker) -> None:
    with Site() as site:
        session = orphan(worker, site)
    assert wait_until(lambda: not worker.records()), worker.lines()
    assert wait_until(lambda: f"swept: session {session}" in worker.lines())
