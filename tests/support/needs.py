"""Markers by what a test needs (and ``slow``), and the reasons why a need is missing on this machine.

A marker is set on the test, on its module (``pytestmark``), or here: by a fixture that the test uses, or
by its file.  ``-m "not (chrome or firefox)"`` selects by them; a test whose need is missing is skipped.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent.parent / ".tools"
UNPACKED = TOOLS / "usr"
"""Where scripts/unpack.sh puts daemons from Debian's packages, which an installation would start."""
GRID_JARS = TOOLS / "grid" / "lib"
JAVASCRIPT = TOOLS / "clients" / "javascript" / "node_modules"
JAVA_JARS = TOOLS / "clients" / "java" / "lib"
"""Selenium's clients of other languages (scripts/clients.sh)."""
SYSTEMD = "/lib/systemd/systemd"

REQUIRED_BY_CI = ("chrome", "firefox")
"""Needs whose absence fails a test under ``CI=true``, where everything else is skipped."""

BY_FIXTURE = {
    "docker_daemon": "docker",
    "grid": "grid",
    "inner": "slow",  # a whole run of pytest
    "leader": "systemd",
    "redis": "redis",
    "units": "systemd",
}
BY_FILE = {
    "cli/test_top.py": "slow",
    "system/test_grafana.py": "slow",
    "grid/test_grid.py": "grid",
    "celery/test_examples.py": "redis",
    "grid/test_failures.py": "slow",
    "pytest_plugin/test_leaks.py": "slow",
    "pytest_plugin/test_ownership.py": "slow",
    "pytest_plugin/test_usage_errors.py": "slow",
}
"""For tests that start a daemon in their own body, and for files that take long as a whole."""


def extend_path() -> None:
    """Programs that the set-up puts outside of the machine's own directories."""
    for folder in (Path.home() / ".cargo" / "bin", UNPACKED / "bin", UNPACKED / "sbin"):
        os.environ["PATH"] += f"{os.pathsep}{folder}"


def implied(item: pytest.Item) -> Iterator[str]:
    """The markers that a test's fixtures and its file imply."""
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in BY_FIXTURE:
            yield BY_FIXTURE[fixture]
    for file, need in BY_FILE.items():
        if item.path.as_posix().endswith(f"tests/{file}"):
            yield need


def lacks(what: str, *programs: str) -> str:
    gone = [program for program in programs if not shutil.which(program)]
    return f"no {what}: {', '.join(gone)} not found" if gone else ""


def chrome() -> str:
    have = shutil.which("chromium") or shutil.which("google-chrome")
    return "" if have and shutil.which("chromedriver") else "no Chromium with chromedriver"


def firefox() -> str:
    have = shutil.which("firefox") or shutil.which("firefox-esr")
    return "" if have and shutil.which("geckodriver") else "no Firefox with geckodriver"


def root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def docker() -> str:
    if os.geteuid() != 0:
        return "a Docker daemon needs root"
    return lacks("Docker daemon (scripts/unpack.sh .tools)", "dockerd", "containerd", "runc", "tini")


def grid() -> str:
    if shutil.which("java") is None:
        return "no java for Selenium Grid"
    return "" if GRID_JARS.is_dir() else "no Selenium Grid; run scripts/grid.sh .tools/grid"


def javascript() -> str:
    if why := lacks("JavaScript", "node"):
        return why
    have = (JAVASCRIPT / "selenium-webdriver").is_dir()
    return "" if have else "no selenium-webdriver for Node.js; run scripts/clients.sh .tools/clients"


def java() -> str:
    if why := lacks("Java", "java", "javac"):
        return why
    return "" if JAVA_JARS.is_dir() else "no selenium-java; run scripts/clients.sh .tools/clients"


def namespaces() -> str:
    """Root of a container without CAP_SYS_ADMIN can make none, nor can a machine without unshare(1)."""
    words = ["unshare", "--pid", "--mount", "--fork", "true"]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no namespaces can be made here: {error}"
    return ""


def systemd() -> str:
    return "" if Path(SYSTEMD).exists() else "needs systemd"


NEEDS: dict[str, Callable[[], str]] = {
    "chrome": chrome,
    "firefox": firefox,
    "root": root,
    "redis": lambda: lacks("Redis", "redis-server"),
    "cron": lambda: lacks("cron daemon (scripts/unpack.sh .tools)", "cron"),
    "docker": docker,
    "grid": grid,
    "javascript": javascript,
    "java": java,
    "namespaces": namespaces,
    "systemd": systemd,
}


@functools.cache
def missing(need: str) -> str:
    """Why this machine lacks it, "" where it has it."""
    return NEEDS[need]()
