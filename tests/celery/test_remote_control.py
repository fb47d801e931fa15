"""Over all hosts: ``celery browserkeeper ps|sweep``, Beat's entry; and what the logs say."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fixtures.server import Site
from tests.celery.rig import PATIENCE, ROOT, Redis, Worker, running_redis, running_worker
from tests.celery.test_limits import begin, nothing_is_left
from tests.support import witness
from tests.support.waiting import wait_until

CELERY = (sys.executable, "-m", "celery", "-A", "tests.celery.celery_app", "browserkeeper")
pytestmark = pytest.mark.chrome


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="module")
def worker(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    beat = ("-B", "-s", str(tmp_path_factory.mktemp("beat") / "schedule"))
    with running_worker(redis, "prefork", *beat, install={"sweep_every": 3.0}) as running:
        yield running


def celery(worker: Worker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``celery -A tests.celery.celery_app browserkeeper ...`` as somebody at a shell runs it."""
    return subprocess.run(
        [*CELERY, *arguments, "--timeout", "1"],
        cwd=ROOT,
        env={**os.environ, **worker.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def orphan(worker: Worker, site: Site) -> str:
    """A session whose owner and guards were killed at once; its id.  Its record and files stay."""
    result = begin(worker, "chrome", "idle", site)
    record = json.loads(worker.records()[0].read_text())
    guards = [witness.look(guard["pid"]) for guard in record["guards"]]
    owner = witness.look(record["session"]["owner"]["pid"])
    for process in [*guards, owner]:
        assert process is not None
        witness.end_by_pid([process])
    with pytest.raises(Exception, match="signal 9"):
        result.get()
    return str(record["session"]["id"])


def test_ps_lists_the_sessions_of_all_workers(worker: Worker, site: Site) -> None:
    result = begin(worker, "chrome", "idle", site)
    # On a busy machine Chromium takes a while to reap its own children, and ps says so.
    assert wait_until(lambda: celery(worker, "ps").returncode == 0)
    done = celery(worker, "ps")
    assert re.search(
        r"^\S+  [0-9a-f]{12}  chrome  live  owner \d+ .* processes  \d+ MB$", done.stdout, re.MULTILINE
    )
    document = json.loads(celery(worker, "ps", "--json").stdout)
    (answer,) = document.values()
    assert [session["state"] for session in answer["sessions"]] == ["live"]
    worker.client.control.revoke(result.id, terminate=True)
    nothing_is_left(worker, PATIENCE)
    assert "no live sessions" in celery(worker, "ps").stdout


def test_sweep_says_what_it_would_do(worker: Worker) -> None:
    done = celery(worker, "sweep", "--older-than", "1000000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("nothing is left of any dead owner")


def test_where_no_worker_runs_nobody_answers(redis: Redis, worker: Worker) -> None:
    elsewhere = json.loads(worker.environment["CELERY_RIG"])
    elsewhere["redis"] += "?virtual_host=7"
    told = {**worker.environment, "CELERY_RIG": json.dumps(elsewhere)}
    done = celery(dataclasses.replace(worker, environment=told), "ps")
    assert done.returncode == 69
    assert "No worker answered" in done.stderr


@pytest.mark.leaves_zombies(60, "a session whose guards were killed with it")
def test_beat_has_every_host_swept(worker: Worker) -> None:
    with Site() as site:
        session = orphan(worker, site)
    assert wait_until(lambda: not worker.records()), worker.lines()
    assert wait_until(lambda: f"swept: session {session}" in worker.lines())


def test_lines_name_task_session_and_host(worker: Worker, site: Site) -> None:
    result = worker.send("chrome.title", site.url)
    result.get()
    host = os.uname().nodename
    found = re.findall(
        rf"\[task={result.id} session=([0-9a-f]{{12}}) host={re.escape(host)}\]", worker.lines()
    )
    assert len(found) >= 2, worker.lines()  # its start and its report
    assert len(set(found)) == 1
