"""How the guard tells an owner that died from one that lives and has closed the pipe to its guard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper.process.guard_process import GUARD_DIRECTORY
from tests.support.guards import altered_guard
from tests.support.owners import ROOT
from tests.support.waiting import wait_until

OWNER = """
import ctypes, os, sys, threading, time
sys.path.insert(0, {root!r})
libc = ctypes.CDLL(None)

def slow_files():
    # The kernel waits up to a few milliseconds for each of these when it is closed.
    for _ in range(50):
        watched = libc.inotify_init1(os.O_CLOEXEC)
        libc.inotify_add_watch(watched, b"/", 2)

def close_the_pipe():
    running._control.close()

def close_the_pipe_in_a_thread():
    def run():
        while " Z " not in open(f"/proc/{{os.getpid()}}/stat").read():
            time.sleep(0.001)
        close_the_pipe()
        time.sleep(600)
    threading.Thread(target=run).start()
    print("ready", flush=True)
    libc.pthread_exit(None)

if {action!r} == "die-slowly":
    slow_files()
from tests.support.guards import start
from browserkeeper.process import guard_process
guard_process.GUARD_DIRECTORY = {directory!r}
running = start(("/bin/sleep", "600"), history={history!r})
running.wait_for("spawned", deadline=time.monotonic() + 60)
if {action!r} == "die-slowly":
    slow_files()
elif {action!r} == "close":
    close_the_pipe()
elif {action!r} == "exec":
    print("ready", flush=True)
    os.execv("/bin/sleep", ["sleep", "600"])
elif {action!r} == "close-in-a-thread":
    close_the_pipe_in_a_thread()
print("ready", flush=True)
time.sleep(600)
"""


def reason_of(action: str, tmp_path: Path, directory: str = GUARD_DIRECTORY) -> str:
    """Start an owner that does this; the reason in the history of its session."""
    history = tmp_path / f"history-{os.urandom(4).hex()}"
    script = OWNER.format(root=str(ROOT), action=action, directory=directory, history=str(history))
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    if action == "die-slowly":
        owner.kill()
    ended = wait_until(history.exists)
    owner.kill()
    owner.communicate()
    assert ended
    return str(json.loads(history.read_text())["exit"]["reason"])


pytestmark = pytest.mark.leaves_zombies(20, "the guards of owners that were killed belong to PID 1")


def test_an_owner_that_dies_slowly_has_died(tmp_path: Path) -> None:
    """It closes the pipe long before the kernel says that the process has ended."""
    assert reason_of("die-slowly", tmp_path) == "owner-died"


@pytest.mark.slow
def test_control_an_owner_that_dies_slowly_is_alive_after_it_closed_the_pipe(tmp_path: Path) -> None:
    """The pidfd alone, asked at EOF, takes it for an owner that lives on.

    On a busy machine the guard may come too late to see that, so it is tried several times.
    """
    directory = altered_guard(
        tmp_path / "altered", ("        exiting = is_exiting(self.pid)\n", "        exiting = False\n")
    )
    assert any(reason_of("die-slowly", tmp_path, directory) == "abandoned" for _ in range(10))


def test_an_unsure_guard_asks_again_at_the_end(tmp_path: Path) -> None:
    """As where /proc hides the owner from the guard."""
    until_dead = "    while not guard.owner.is_dead(): select.poll().poll(10)\n"
    directory = altered_guard(
        tmp_path / "altered",
        ("        exiting = is_exiting(self.pid)\n", "        exiting = None\n"),
        ("    tear_down(guard)\n", f"    tear_down(guard)\n{until_dead}"),
    )
    assert reason_of("die-slowly", tmp_path, directory) == "owner-died"


@pytest.mark.parametrize("action", ["close", "exec", "close-in-a-thread"])
def test_an_owner_that_lives_on_has_abandoned_its_session(action: str, tmp_path: Path) -> None:
    """``exec`` closes the pipe too.  In the last case the owner's first thread has ended, but not the
    process."""
    assert reason_of(action, tmp_path) == "abandoned"
