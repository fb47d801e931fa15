"""What the guard's tests share: plans for tiny programs, and guards with a part taken out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper.process.containment import choose
from browserkeeper.process.guard_process import GUARD_DIRECTORY, GuardPlan, GuardProcess
from browserkeeper.state.records import new_id
from tests.conftest import PROGRAMS, PidFile
from tests.support import witness
from tests.support.waiting import wait_until

BOTH = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]
"""The browsers, for ``parametrize``."""

PYTHON = (sys.executable, "-I", "-S")

SLEEP_FOREVER = ("/bin/sleep", "600")


def program(name: str, *arguments: object) -> tuple[str, ...]:
    """The command line of a program in ``fixtures/programs``."""
    return (*PYTHON, str(PROGRAMS / f"{name}.py"), *map(str, arguments))


def staying(command: tuple[str, ...]) -> tuple[str, ...]:
    """Run a command, then sleep: without that the guard would end the session with the command."""
    return ("/bin/sh", "-c", '"$@"; exec sleep 600', "sh", *command)


def plan_for(command: tuple[str, ...], containment: str = "subreaper", **more: object) -> GuardPlan:
    return GuardPlan(
        session=str(more.pop("session", new_id())),
        command=command,
        env=dict(os.environ),
        containment=choose(containment),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def start(command: tuple[str, ...], containment: str = "subreaper", **more: object) -> GuardProcess:
    return GuardProcess(plan_for(command, containment, **more))


def pids_once_there(file: PidFile, number: int) -> list[witness.Seen]:
    """Wait until a program has written that many pids; what those processes are, while they live."""
    assert wait_until(lambda: len(file.read()) >= number), f"only {file.read()} of {number}"
    return [seen for pid in file.read() if (seen := witness.look(pid))]


def altered_guard(directory: Path, *changes: tuple[str, str]) -> str:
    """A copy of the guard package with lines replaced, for negative controls; the directory it is in."""
    copy = directory / "guard"
    shutil.copytree(Path(GUARD_DIRECTORY, "guard"), copy, ignore=shutil.ignore_patterns("__pycache__"))
    for old, new in changes:
        holders = [path for path in copy.glob("*.py") if old in path.read_text()]
        assert len(holders) == 1, f"the guard has no such line any more, or several: {old!r}"
        text = holders[0].read_text()
        assert text.count(old) == 1, f"the guard has no such line any more, or several: {old!r}"
        holders[0].write_text(text.replace(old, new))
    return str(directory)


NO_PIDFD = (
    ("            self.pidfd = os.pidfd_open(self.pid)\n", "            pass\n"),
    ("        if self.pidfd >= 0:\n            return _is_readable(self.pidfd)\n", ""),
    (
        "        return bool(self.pid) and self.is_parent and os.getppid() != self.pid\n",
        "        return False\n",
    ),
)
"""A guard that learns of its owner's death by the pipe alone."""

OWNER = """
import sys, time, os
sys.path.insert(0, {root!r})
from tests.support.guards import start
from tests.support.waiting import wait_until
from browserkeeper.process import guard_process
guard_process.GUARD_DIRECTORY = {directory!r}
running = start({command!r}, {containment!r})
if {fork!r} and os.fork() == 0:
    time.sleep(600)  # holds the pipe to the guard open
    os._exit(0)
print(running.pid, flush=True)
sys.stdin.readline()
os._exit(0)
"""


def start_owner(
    command: tuple[str, ...],
    *,
    containment: str = "subreaper",
    directory: str = GUARD_DIRECTORY,
    fork: bool = False,
) -> subprocess.Popen[str]:
    """A process that owns a guard with a command.

    It prints a line when it has its fork, and exits by ``os._exit`` when it reads one; most tests kill
    it.
    """
    root = str(Path(__file__).resolve().parent.parent.parent)
    script = OWNER.format(
        root=root, directory=directory, command=command, containment=containment, fork=fork
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
