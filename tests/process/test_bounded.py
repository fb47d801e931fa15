"""Reads of ``/proc`` that hang; a pipe to which nobody writes stands for such a file."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.process import Platform, bounded, system
from browserkeeper.process.bounded import read_within
from browserkeeper.process.identity import ProcessFacts
from browserkeeper.process.leftover_processes import (
    MARKER,
    UNREADABLE,
    LeftoverProcesses,
    MarkedOrphans,
)
from tests.support import witness
from tests.support.waiting import wait_until

SHORT, LONG = 0.2, 60.0


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """Its reader hangs in open(2) until the test ends."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path

    def is_free() -> bool:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets a reader go on, to the end of file
        return not readers()

    assert wait_until(is_free)


def readers() -> list[bounded._Reader]:
    return [*bounded._running]


def test_a_read_that_hangs_is_given_up(pipe: Path) -> None:
    assert read_within(SHORT, str(pipe)) is None


def test_other_reads_go_on_beside_one_that_hangs(pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert read_within(SHORT, str(pipe)) is None
    assert read_within(LONG, str(tmp_path / "file")) == b"x"
    assert read_within(LONG, "/no/such/file") is None


def test_a_path_that_hangs_costs_one_thread_however_often_it_is_read(pipe: Path) -> None:
    before = len(readers())
    for _ in range(5):
        assert read_within(SHORT, str(pipe)) is None
    assert len(readers()) <= before + 1


def test_a_path_is_read_again_when_its_read_has_ended(pipe: Path, tmp_path: Path) -> None:
    assert read_within(SHORT, str(pipe)) is None
    reader = bounded._hanging[str(pipe)]
    assert wait_until(lambda: write_late(pipe))
    assert wait_until(lambda: not reader.hangs())
    pipe.unlink()
    pipe.write_bytes(b"now")
    assert read_within(LONG, str(pipe)) == b"now"
    pipe.unlink()
    os.mkfifo(pipe)


def write_late(pipe: Path) -> bool:
    """False as long as the thread has not come to open it: it would find no writer then."""
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # ENXIO: there is no reader
        return False
    os.write(fd, b"late")
    os.close(fd)
    return True


def test_an_idle_thread_ends(tmp_path: Path) -> None:
    read_within(LONG, "/proc/self/environ")
    assert wait_until(lambda: not readers())
    assert bounded._idle == []
    assert read_within(LONG, "/proc/self/environ")


def test_a_thread_is_started_although_the_lock_of_threading_is_held() -> None:
    """A signal handler that has interrupted ``Thread.start`` ends a session whose guards were killed."""
    assert wait_until(lambda: not readers())
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        found = read_within(LONG, "/proc/self/environ")
    assert found


def test_a_fork_reads_by_a_thread_of_its_own() -> None:
    assert read_within(LONG, "/proc/self/environ")
    if (fork := os.fork()) == 0:
        os._exit(0 if read_within(LONG, "/proc/self/environ") else 1)
    assert os.waitpid(fork, 0)[1] == 0


@pytest.mark.parametrize("hangs", [True, False])
def test_a_scan_whose_read_hangs_ends_and_certifies_nothing(
    pipe: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process could be the session's: nothing but its environment could tell.  The control is the
    same process with an environment that can be read."""
    began = system.now()
    victim = subprocess.Popen(["setsid", "sleep", "600"])
    try:
        assert wait_until(lambda: system.command_line(victim.pid).startswith(b"sleep"))

        def reading(seconds: float, path: str) -> bytes | None:
            hung = hangs and path == f"/proc/{victim.pid}/environ"
            return read_within(SHORT if hung else LONG, str(pipe) if hung else path)

        monkeypatch.setattr("browserkeeper.process.linux.read_within", reading)
        marked = MarkedOrphans(f"{MARKER}=none", began - 1, system.now() + 600, cgroups())
        left = LeftoverProcesses((), orphans=marked)
        assert left.end(LONG) == []
        seen = witness.look(victim.pid)
        assert seen is not None
        assert witness.is_same(seen)
        expected = f"the environment of sleep ({victim.pid}) cannot be read"
        assert left.doubts() == (expected if hangs else "")
    finally:
        victim.kill()
        victim.wait()


def test_an_orphan_whose_environment_is_read_late_is_ended_all_the_same() -> None:
    """As on a busy machine, where the thread that reads does not come to it in time."""
    victim = subprocess.Popen(["sleep", "600"])
    scans: list[ProcessFacts] = []

    class Late(MarkedOrphans):
        """The victim's environment can be read at the fifth scan."""

        def has(self, process: ProcessFacts, platform: Platform) -> bool:
            if process.pid == victim.pid:
                scans.append(process)
            return process.pid == victim.pid and len(scans) >= 5

        def doubt_about(self, process: ProcessFacts, platform: Platform) -> str:
            return UNREADABLE if process.pid == victim.pid else ""

    left = LeftoverProcesses((), orphans=Late("", 0, 0, ""))
    try:
        assert left.end(LONG) == []
        assert wait_until(lambda: victim.poll() == -signal.SIGKILL)
        assert left.doubts() == ""
    finally:
        victim.kill()
        victim.wait()


def cgroups() -> str:
    return system.resources(os.getpid())
