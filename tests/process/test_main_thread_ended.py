"""A process whose main thread has ended while another goes on: the kernel shows "Z", and it lives."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.cleanup.foreign_profiles import ProfileUsers
from browserkeeper.guard.procfs import read_stat
from browserkeeper.process import identity_of, is_alive, system
from browserkeeper.process.leftover_processes import LeftoverProcesses
from tests.support import witness
from tests.support.guards import start, staying
from tests.support.waiting import deadline_in, wait_until

EXIT = {"x86_64": 60, "aarch64": 93}.get(platform.machine(), 0)
"""The number of _exit(2) of one thread."""
PROGRAM = f"""
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(ctypes.c_long({EXIT}), 0)
"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc"),
    pytest.mark.skipif(not EXIT, reason="the number of a system call is not known here"),
]


def kernel_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It has a file below ``tmp_path`` open."""
    env = {**os.environ, "NAMED_BY_A_TEST": "yes"}
    program = f"file = open({str(tmp_path / 'file')!r}, 'w'){PROGRAM}"
    with subprocess.Popen([sys.executable, "-c", program], env=env) as process:
        try:
            assert wait_until(lambda: kernel_state(process.pid) == "Z")
            yield process
        finally:
            process.kill()


def test_it_is_alive_and_no_zombie(process: subprocess.Popen[bytes]) -> None:
    stat, facts = read_stat(process.pid), system.facts(process.pid)
    assert stat is not None
    assert facts is not None
    assert (stat.state, facts.is_zombie) == ("S", False)
    assert is_alive(identity_of(process.pid))
    process.kill()
    assert wait_until(lambda: (now := read_stat(process.pid)) is not None and now.state == "Z")


def test_its_environment_and_its_files_are_seen(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert system.marker_value(process.pid, "NAMED_BY_A_TEST") == "yes"
    assert system.bears_marker(process.pid, "NAMED_BY_A_TEST=yes")
    assert ProfileUsers([tmp_path]).of(tmp_path) == [process.pid]


def test_it_is_seen_to_be_stopped(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: (facts := system.facts(process.pid)) is not None and facts.state == "T")


def test_it_is_no_zombie_where_its_threads_cannot_be_looked_at(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(path: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr("browserkeeper.guard.procfs.os.listdir", no_descriptor)
    stat = read_stat(process.pid)
    monkeypatch.undo()
    assert stat is not None
    assert stat.state == "R"


def test_it_is_ended_with_what_dead_guards_have_left(process: subprocess.Popen[bytes]) -> None:
    seen = witness.look(process.pid)
    assert seen is not None
    assert witness.is_same(seen)
    leftovers = LeftoverProcesses([identity_of(process.pid)])
    assert [found.pid for found in leftovers.find()] == [process.pid]
    assert not leftovers.end(60)
    assert not witness.is_same(seen)


def test_a_guard_ends_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begin = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    running = start(staying((sys.executable, "-c", f"{begin}{PROGRAM}")))
    assert wait_until(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    assert wait_until(lambda: kernel_state(pid) == "Z")
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"
    assert witness.look(pid) is None
