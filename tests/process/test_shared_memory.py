"""Stray files of browsers in ``/dev/shm``: what is removed at the end of a session, and what is not."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browserkeeper.guard.files import SHARED_MEMORY_PREFIXES, remove_stray_shared_memory
from browserkeeper.report import ExitReport
from tests.support.guards import SLEEP_FOREVER, start
from tests.support.other_user import NOBODY
from tests.support.waiting import deadline_in

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs /dev/shm")
PLACE = Path("/dev/shm")


@pytest.fixture
def name() -> Iterator[Path]:
    """A path with a name of Chromium's."""
    path = PLACE / f".org.chromium.Chromium.{os.urandom(4).hex()}"
    yield path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def a_directory(path: Path) -> None:
    """As the profile of a driver of another program, whose TMPDIR is ``/dev/shm``."""
    path.mkdir()
    (path / "Cookies").write_text("x")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_link_to_a_stray_file(path: Path) -> None:
    path.symlink_to(path.with_suffix(".target"))


def a_file_of_before(path: Path) -> None:
    path.write_text("x")
    os.utime(path, (0, 0))


def a_file_of_another_user(path: Path) -> None:
    path.write_text("x")
    os.chown(path, NOBODY, NOBODY)


STRANGERS = [
    a_directory,
    a_pipe,
    a_socket,
    a_link,
    a_link_to_a_stray_file,
    a_file_of_before,
    pytest.param(a_file_of_another_user, marks=pytest.mark.root),
]


@pytest.mark.parametrize("make", STRANGERS)
def test_what_is_no_fresh_file_of_ours_stays_and_makes_no_session_unclean(
    name: Path, make: Callable[[Path], None]
) -> None:
    """The control is a stray file beside it, which is removed."""
    control = name.with_suffix(".control")
    running = start(SLEEP_FOREVER)
    assert running.wait_for("spawned", deadline=deadline_in())
    make(name)
    control.write_text("x")
    facts = running.end("closed", deadline_in())
    assert facts is not None
    assert os.path.lexists(name)
    assert not control.exists()
    report = ExitReport.from_guard(facts, session="x", browser="none")
    assert report.clean
    assert report.notes == ()


@pytest.mark.parametrize("prefix", SHARED_MEMORY_PREFIXES)
def test_a_stray_file_of_each_browser_is_removed(prefix: str) -> None:
    path = PLACE / f"{prefix}{os.urandom(4).hex()}"
    path.write_text("x")
    path.chmod(0o400)
    assert remove_stray_shared_memory(time.time() - 60)[0] >= 1
    assert not path.exists()


# ---------------------------------------------------------------------- files that are in use


def opened_to_write(path: Path) -> object:
    return path.open("r+")


def opened_to_read(path: Path) -> object:
    return path.open()


def mapped(path: Path) -> object:
    """The descriptor is closed; only the mapping is left."""
    with path.open("r+") as file:
        return mmap.mmap(file.fileno(), 0)


def mapped_to_read(path: Path) -> object:
    with path.open() as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


USES = pytest.mark.parametrize("use", [opened_to_write, opened_to_read, mapped, mapped_to_read])


@USES
@pytest.mark.parametrize("is_asked", [True, False], ids=["removal", "control"])
def test_a_file_that_a_process_uses_stays(
    name: Path, use: Callable[[Path], object], is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control does not ask the kernel for the lease."""
    name.write_bytes(bytes(4096))
    held = use(name)
    if not is_asked:
        monkeypatch.setattr(fcntl, "F_SETLEASE", fcntl.F_GETFD)
    remove_stray_shared_memory(time.time() - 60)
    assert name.exists() == is_asked
    monkeypatch.undo()
    held.close()  # type: ignore[attr-defined]
    remove_stray_shared_memory(time.time() - 60)
    assert not name.exists()


@pytest.mark.root
def test_a_file_stays_that_a_process_uses_which_cannot_be_looked_at(name: Path) -> None:
    """This user removes; a process of the same user holds the file, and is not dumpable, so that its
    descriptors and mappings are hidden."""
    name.write_bytes(bytes(4096))
    os.chown(name, NOBODY, NOBODY)
    ready, told = os.pipe()
    if (holder := os.fork()) == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        held = name.open("r+")
        os.write(told, b"x")
        signal.pause()
        held.close()
    os.read(ready, 1)
    if (remover := os.fork()) == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        try:
            os.listdir(f"/proc/{holder}/fd")
        except PermissionError:
            remove_stray_shared_memory(time.time() - 60)
            os._exit(0)
        os._exit(1)  # it can be looked at
    assert os.waitpid(remover, 0)[1] == 0
    assert name.exists()
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    for fd in (ready, told):
        os.close(fd)


def test_the_holder_of_a_lease_is_not_ended_by_a_process_that_opens_the_file(
    name: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells the holder by a signal: SIGIO by default, whose default is to end the process."""
    name.write_text("x")
    really = os.unlink

    def opening(path: str, dir_fd: int) -> None:
        if (other := os.fork()) == 0:
            try:
                os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(other, 0)[1] == 0  # the lease was there
        really(path, dir_fd=dir_fd)

    received: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: received.append(number))
    monkeypatch.setattr(os, "unlink", opening)
    try:
        assert remove_stray_shared_memory(time.time() - 60)[0] >= 1
    finally:
        signal.signal(signal.SIGIO, before)
        monkeypatch.undo()
    assert received == []
    assert not name.exists()


def test_a_file_whose_use_cannot_be_asked_for_stays_and_is_named(
    name: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels (gVisor) have no leases."""
    name.write_text("x")
    monkeypatch.setattr(fcntl, "F_SETLEASE", 9999)
    _, notes = remove_stray_shared_memory(time.time() - 60)
    assert name.exists()
    assert [note for note in notes if f"{name} was left" in note]
