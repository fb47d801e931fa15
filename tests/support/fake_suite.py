"""Inner suites that start programs which only have the names of browsers."""

from __future__ import annotations

FAKES = """
import os, shutil, subprocess, sys, time
import pytest
from pathlib import Path
from browserkeeper.pytest_plugin import leaks

leaks.QUIET_LOOKS = 10  # these programs end at once or never

def fake(name):
    if not os.path.exists(name):
        shutil.copy("/bin/sleep", name)
    return os.path.abspath(name)

DRIVER, OTHER = fake("geckodriver"), fake("worker")
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
PIDS = []

def start(*words):
    "Start a program that no Python object stands for."
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    PIDS.append(os.posix_spawnp(words[0], words, os.environ, file_actions=actions))
    return PIDS[-1]

def popen(*words, **more):
    "Returns when the program has been executed."
    return subprocess.Popen(words or (DRIVER, "600"), **{**QUIET, **more})

def orphan(program, **more):
    script = f"{program} 600 >/dev/null 2>&1 </dev/null & echo $!"
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, **more)
    wait_for_driver(int(done.stdout))
    return int(done.stdout)

def wait_for(condition):
    while not condition():
        time.sleep(0.01)

def wait_for_driver(pid):
    "Until the process has executed DRIVER: the name comes a moment before the environment."
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "geckodriver")
    wait_for(lambda: Path(f"/proc/{pid}/environ").read_bytes())

def wait_for_child(pid):
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.01)
    return int(children[0])

def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def pid_in(name):
    "The pid that another program writes into a file, with a newline."
    wait_for(lambda: os.path.exists(name) and Path(name).read_text().endswith("\\n"))
    return int(Path(name).read_text())
"""
"""The first lines of such a suite."""

LENIENT = ("-Wignore::ResourceWarning", "-Wignore::pytest.PytestUnraisableExceptionWarning")
"""For an inner run that drops a ``Popen`` whose process lives."""
