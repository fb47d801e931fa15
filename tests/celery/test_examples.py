"""The Celery examples, each run by the command that it documents."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clock import start_seconds

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.chrome


def run(name: str, **environment: str) -> str:
    """Run an example that must succeed; its output."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sessions left" in done.stdout
    assert done.stdout.split()[-1] == "none"
    return done.stdout


@pytest.mark.leaves_zombies(6, "the worker's children")
def test_the_celery_app_runs_its_tasks() -> None:
    output = run("celery_app")
    assert "a page that never loads      did not load in time" in output


@pytest.mark.leaves_zombies(18, "the workers' children")
def test_the_django_project_checks_its_pages() -> None:
    limit = max(6, math.ceil(10 * start_seconds()))
    for more in (1, 2, 4):  # two browsers start at once, and a page that is late is not tried again
        output = run("django_project", EXAMPLE_TIME_LIMIT=str(min(more * limit, 240)))
        if output.count("did not load in time") == 1:
            break
    assert output.count("The Leaky Shelf") == 2
    assert "did not load in time" in output
    assert "ERR_" in output


@pytest.mark.leaves_zombies(30, "the processes of a worker that the example kills")
def test_the_supervisor_example_restarts_a_killed_worker() -> None:
    if not shutil.which("supervisord", path=str(Path(sys.executable).parent)):
        pytest.skip("supervisor is not installed")
    output = run("supervisor")
    assert "supervisord has started another one" in output
    assert "which does the next task: The Leaky Shelf" in output
    assert "a watch runs beside it" in output
