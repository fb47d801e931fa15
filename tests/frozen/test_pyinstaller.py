"""A program made by PyInstaller, named ``python-job``: it runs real browsers, and one copy of itself."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browserkeeper
from browserkeeper import frozen
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
ROOT = Path(browserkeeper.__file__).parent.parent
NOT_NEEDED = (
    *("celery", "click", "django", "docker", "jinja2", "opentelemetry", "prometheus_client", "pygments"),
    *("pytest", "_pytest", "rich", "gevent", "eventlet", "aiohttp", "IPython", "ipykernel", "jedi"),
    *("nbformat", "zmq", "tornado", "jsonschema", "pydantic", "hypothesis", "twisted", "robot"),
    *("cryptography", "dns", "numpy", "tkinter", "mypy", "setuptools", "pkg_resources"),
)
"""Packages that ours and Selenium's can do without, and what else the tests' environment has of what
those import: with all of them the build takes three times as long."""
PYTHON = next(
    (path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), ""
)

pytestmark = [
    pytest.mark.chrome,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the guards' processes are those of Linux"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The frozen program, in one directory: 15 s on a quiet machine, once for the whole file."""
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    directory = tmp_path_factory.mktemp("pyinstaller")
    words = [
        sys.executable,
        "-m",
        "PyInstaller",
        "--onedir",
        "--name",
        "python-job",
        "--log-level",
        "WARN",
    ]
    words += [f"--{kind}path={directory / kind}" for kind in ("dist", "work", "spec")]
    words += [word for name in NOT_NEEDED for word in ("--exclude-module", name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYINSTALLER_CONFIG_DIR": str(directory)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [*words, str(HERE / "job.py")], env=environment, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr
    return str(directory / "dist" / "python-job" / "python-job")


class Job:
    """Runs of the frozen program, on a PATH with browser and driver and no Python."""

    def __init__(self, program: str, directory: Path):
        self.program, self.copies = program, directory / "copies"
        path = directory / "bin"
        path.mkdir()
        for name in ("chromium", "google-chrome", "chromedriver"):
            if found := shutil.which(name):
                Path(path, name).symlink_to(found)
        self.environment = {**os.environ, "COPIES": str(self.copies), "PATH": str(path)}

    def start(self, kind: str, arguments: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, kind, json.dumps(arguments)],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: dict[str, Any], **environment: str) -> dict[str, Any]:
        said, _ = self.start("run", arguments, **environment).communicate(timeout=300)
        found: dict[str, Any] = json.loads(said)
        return found

    def number_of_copies(self) -> int:
        """How often the code of the program has begun."""
        return len(self.copies.read_text().splitlines())

    def processes(self) -> dict[int, list[str]]:
        """What runs of the program's executable, and its first arguments."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "exe") == self.program:
                    found[int(entry.name)] = (entry / "cmdline").read_text().split("\0")[1:3]
            except OSError:
                continue
        return found


@pytest.fixture
def job(built: str, tmp_path: Path) -> Iterator[Job]:
    job = Job(built, tmp_path)
    yield job
    for pid in job.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_entry_point_for_pyinstaller_leads_to_the_hooks() -> None:
    points = importlib.metadata.entry_points(group="pyinstaller40")
    (ours,) = (point for point in points if point.value.startswith("browserkeeper."))
    (directory,) = ours.load()()
    assert Path(directory, "hook-browserkeeper.py").exists()
    runtime_hooks = json.loads(Path(directory, "rthooks.dat").read_text())
    assert all(Path(directory, "rthooks", name).exists() for name in runtime_hooks["browserkeeper"])


@pytest.mark.leaves_zombies(40, "the portable guard does not get the browser's orphans")
@pytest.mark.parametrize("containment", ["auto", "portable"])
def test_a_frozen_program_runs_a_browser_without_any_python(containment: str, job: Job) -> None:
    said = job.run({"containment": containment})
    assert said["title"] == "frozen"
    assert said["certificate"] == ("ECHILD" if containment == "auto" else "two-scans")
    assert job.number_of_copies() == 1


@pytest.mark.leaves_zombies(1, "the standby guard is left without a parent")
@pytest.mark.parametrize("python", ["", PYTHON])
def test_nothing_is_left_of_a_frozen_program_that_is_killed(python: str, job: Job) -> None:
    """Its guards are its own executable, or the interpreter that the user names."""
    running = job.start("wait", {}, **({frozen.VARIABLE: python} if python else {}))
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["title"] == "frozen"
    guards = [words for pid, words in job.processes().items() if pid != running.pid]
    assert len(guards) == (0 if python else 2)
    running.kill()
    running.wait()
    running.stdout.close()
    assert wait_until(lambda: not job.processes())
    assert job.number_of_copies() == 1


def test_a_frozen_program_that_is_named_as_interpreter_ends_before_its_own_code(job: Job) -> None:
    said = job.run({}, **{frozen.VARIABLE: job.program})
    assert said["error"] == "LaunchError"
    assert "it is another program that uses browserkeeper" in said["text"]
    assert job.number_of_copies() == 1
