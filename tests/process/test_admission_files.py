"""The gate on file systems that lack something, with no descriptor left, and as a plain user.

With a limit a start is refused by name where its slot cannot be counted; without one it goes ahead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browserkeeper import HostBusy, LedgerError, LimitError
from browserkeeper.admission import tickets
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
from tests.support import other_user
from tests.support.waiters import gate, held, set_limits, state
from tests.support.waiting import SECONDS, wait_until

LIMIT = "BROWSERKEEPER_MAX_BROWSERS"


def failing(number: int) -> Callable[..., None]:
    """A function of the operating system that always fails."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# ------------------------------------------------------------------ no locks, no pipes


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    slot = gate().acquire(SlotRequest(), 0)
    assert slot.path == ""
    slot.bind("session")
    slot.hand_over()
    slot.release()
    assert gate().force().path == ""
    assert state().held == ()
    monkeypatch.setenv(LIMIT, "3")
    for wait in (0, 5, None):
        with pytest.raises(LedgerError, match=f"{LIMIT}=3 is set: it has no locks.*local file system"):
            gate().acquire(SlotRequest(), wait)


def test_a_file_system_without_fifos_has_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waiters look by themselves, some times a second."""
    monkeypatch.setenv(LIMIT, "1")
    monkeypatch.setattr(os, "mkfifo", failing(errno.EPERM))
    monkeypatch.setattr(tickets, "LATE", SECONDS)  # else a busy machine changes the order
    slot = gate().acquire(SlotRequest(), 0)
    order: list[str] = []
    requests = {name: SlotRequest(label=name) for name in ("a", "b")}

    def wait(name: str) -> None:
        got = gate().acquire(requests[name], 300)
        order.append(name)
        got.release()

    threads = []
    for name in requests:
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        assert wait_until(lambda: len(state().waiting) == len(threads))
    slot.release()
    for thread in threads:
        thread.join(60)
    assert order == ["a", "b"]
    assert not list(Ledger.open().queue.iterdir())


# ------------------------------------------------------------------ no space, no descriptors


@pytest.fixture
def small_disk(state_dir: Path) -> Iterator[Path]:
    """The state directory on a file system that can be filled."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40,mode=700", "tmpfs", str(state_dir)],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    yield state_dir
    subprocess.run(["umount", "--lazy", str(state_dir)], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), open(directory / "filler", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


@pytest.mark.root
def test_a_disk_without_space_counts_all_the_same(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    Ledger.open()
    fill(small_disk)
    slot = gate().acquire(SlotRequest(label="on a full disk"), 0)
    with pytest.raises(HostBusy) as caught:
        gate().acquire(SlotRequest(), 0.2)
    assert len(caught.value.holders) == 1
    slot.release()
    assert held() == 0


@pytest.mark.root
def test_a_disk_without_inodes(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger.open()
    with contextlib.suppress(OSError):
        for number in range(100):
            (small_disk / f"filler-{number}").touch()
    assert gate().acquire(SlotRequest(), 0).path == ""
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises((LimitError, LedgerError), match=f"{LIMIT}=1 is set"):
        gate().acquire(SlotRequest(), 0)
    (small_disk / "filler-0").unlink()
    (small_disk / "filler-1").unlink()
    gate().acquire(SlotRequest(), 0).release()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """A block in which this process may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 2, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_descriptors_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.process import reserve

    there = gate()
    there.acquire(SlotRequest(), 0).release()
    monkeypatch.setattr(reserve._reserve, "_kept", [])
    with no_descriptors(), pytest.raises(LimitError, match="RLIMIT_NOFILE"):
        there.acquire(SlotRequest(), 0)
    monkeypatch.setenv(LIMIT, "1")
    with no_descriptors(), pytest.raises(LimitError, match="RLIMIT_NOFILE"):
        there.acquire(SlotRequest(), 0)
    there.acquire(SlotRequest(), 0).release()


# ------------------------------------------------------------------ directories that are not as expected


@pytest.mark.parametrize("part", ["gate", "gate/slots", "gate/queue"])
def test_a_directory_of_the_gate_that_is_a_file(
    part: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = gate()
    path = state_dir / part
    if part == "gate":
        for name in ("slots", "turns", "queue", "yield"):
            (path / name).rmdir()
    path.rmdir()
    path.write_text("a file")
    if part == "gate":  # so it is not known whether the host is drained
        with pytest.raises(HostBusy, match="counts as drained"):
            there.acquire(SlotRequest(), 0)
        return
    assert there.acquire(SlotRequest(), 0).path == ""
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises(LedgerError, match=f"{LIMIT}=1 is set"):
        there.acquire(SlotRequest(), 0)
    assert path.read_text() == "a file"


def test_a_gates_directory_that_others_can_write_is_refused(state_dir: Path) -> None:
    Ledger.open()
    (state_dir / "gate" / "slots").chmod(0o777)
    with pytest.raises(LedgerError, match="gate/slots is a link, belongs to another user, or can be"):
        Ledger.open()


@pytest.mark.root
def test_a_plain_users_programs_have_a_gate_of_their_own(tmp_path: Path) -> None:
    python, env = other_user.python_for_nobody()
    script = """
import os
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.errors import HostBusy
from browserkeeper.state.ledger import Ledger
gate = Gate(Ledger.open())
slot = gate.acquire(SlotRequest(label="plain"), 0)
try:
    gate.acquire(SlotRequest(), 0.2)
except HostBusy as error:
    print(error.reason, [one.label for one in error.holders])
slot.release()
gate.acquire(SlotRequest(), 0).release()
"""
    done = subprocess.run(
        [python, "-c", script],
        user=other_user.NOBODY,
        group=other_user.NOBODY,
        extra_groups=[],
        env={**env, LIMIT: "1", "BROWSERKEEPER_STATE_DIR": "/tmp/bkstate-of-nobody"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    subprocess.run(["rm", "-rf", "/tmp/bkstate-of-nobody"], check=True)
    assert done.stdout.strip() == "full ['plain']", done.stderr


def test_rubbish_in_the_limits_file_while_a_start_waits_lets_none_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_limits("max_browsers = 1\n")
    slot = gate().acquire(SlotRequest(), 0)
    got = []
    request = SlotRequest()
    thread = threading.Thread(target=lambda: got.append(gate().acquire(request, 300)))
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    set_limits("max_browsers = lots\n")
    slot.release()
    time.sleep(1.5)
    assert not got
    set_limits("max_browsers = 1\n")
    thread.join(60)
    assert got
    got[0].release()
    warned = [record.message for record in caplog.records if "limits.toml, line 1" in record.message]
    assert len(warned) == 1, "it is said once"


def test_gates_of_two_state_directories_do_not_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    one = gate().acquire(SlotRequest(), 0)
    other = Gate(Ledger.open(tmp_path / "other")).acquire(SlotRequest(), 0)
    assert other.path != one.path
    one.release()
    other.release()
