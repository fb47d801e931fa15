"""The Celery examples, as their readers run them: one command each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.chrome


def run(name: str) -> str:
    """What it printed.  Fails where it does."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sessions left" in done.stdout
    assert done.stdout.split()[-1] == "none"
    return done.stdout


@pytest.mark.leaves_zombies(6, "the worker's children")
def test_celery_app() -> None:
    output = run("celery_app")
    assert "a page that never loads      did not load in time" in output


@pytest.mark.leaves_zombies(6, "the worker's children")
def test_django_project() -> None:
    output = run("django_project")
    assert output.count("The Leaky Shelf") == 2
    assert "did not load in time" in output
    assert "ERR_" in output


@pytest.mark.leaves_zombies(30, "a worker that is killed by its example")
def test_supervisor() -> None:
    if not shutil.which("supervisord", path=str(Path(sys.executable).parent)):
        pytest.skip("supervisor is not installed")
    output = run("supervisor")
    assert "supervisord has started another one" in output
    assert "which does the next task: The Leaky Shelf" in output
    assert "a watch runs beside it" in output
