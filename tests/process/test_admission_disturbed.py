"""The gate while other programs look at its files, remove them, or know less than a start itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import HostBusy
from browserkeeper.admission import files
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
from tests.support.waiters import set_limits
from tests.support.waiting import SECONDS, wait_until

LIMIT = "BROWSERKEEPER_MAX_BROWSERS"


@pytest.fixture
def gate(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """One whose directories are there, on a host with a limit of one."""
    monkeypatch.setenv(LIMIT, "1")
    gate = Gate(Ledger.open(state_dir))
    gate.acquire(SlotRequest(), 0).release()
    return gate


@contextlib.contextmanager
def looked_at(directory: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Each file that is made in this directory is locked by who looks at it, before its own process
    locks it.  The list has their paths."""
    before, seen, threads = files.lock, list[str](), list[threading.Thread]()

    def look(fd: int, how: int) -> bool:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.basename(os.path.dirname(path)) == directory and path not in seen:
            seen.append(path)
            other = os.open(path, os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX)
            threads.append(threading.Timer(0.05, os.close, [other]))
            threads[-1].start()
        return before(fd, how)

    with monkeypatch.context() as patch:
        patch.setattr(files, "lock", look)
        patch.setattr(files, "LOOKED_AT", SECONDS)  # the timer's thread may be late
        yield seen
    for thread in threads:
        thread.join()


def test_a_look_at_a_file_that_is_just_being_made_refuses_no_start(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with looked_at("turns", monkeypatch) as seen:
        slot = gate.acquire(SlotRequest(), 0)
        assert slot.path
        assert len(seen) == 1
    with looked_at("slots", monkeypatch) as seen:
        forced = gate.force()
        assert seen == [forced.path]
    with looked_at("queue", monkeypatch) as seen:
        request = SlotRequest()
        waiting = threading.Thread(target=lambda: gate.acquire(request, 60).release())
        waiting.start()
        assert wait_until(lambda: len(gate.state().waiting) == 1)
        assert len(seen) == 1
        forced.release()
        slot.release()
        waiting.join()


def test_the_lock_is_taken_from_a_stopped_process_while_a_start_gives_up(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start removes its file in turns/ between the breaker's listdir and unlink."""
    listed = os.listdir

    def list_one_more(directory: Any) -> list[str]:
        found = listed(directory)
        return [*found, "0123456789abcdef"] if directory == gate.ledger.turns else found

    monkeypatch.setattr(files, "BREAK_AFTER", 0.3)
    with gate._files.locked(time.monotonic() + 60):
        monkeypatch.setattr(os, "listdir", list_one_more)
        gate.acquire(SlotRequest(), 0).release()


def test_the_gates_directory_is_removed_again_and_again_while_programs_start(gate: Gate) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    met = [0] * 4  # removals since each thread's present start began

    def start(number: int) -> None:
        while not stop.is_set():
            met[number] = 0
            try:
                gate.acquire(SlotRequest(), None).release()
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        time.sleep(0.02)
        # A start begins anew a few times only: on a busy machine it could meet a removal each time.
        wait_until(lambda: max(met) < 3)
        shutil.rmtree(gate.ledger.gate, ignore_errors=True)
        met[:] = [number + 1 for number in met]
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("ends_by", ["its own time", "check"])
def test_a_wait_ends_while_the_limits_file_changes_all_the_time(
    ends_by: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.admission.limits.PATIENCE", 0.3)
    path, stop, request = gate.ledger.directory / "limits.toml", threading.Event(), SlotRequest()
    held = gate.acquire(SlotRequest(), 0)

    def write_on() -> None:
        wait_until(lambda: request.bell is not None)
        number = 0
        while not stop.wait(0.005):
            number += 1
            path.write_text(f"max_browsers = {number}\n")

    def check() -> None:
        if ends_by == "check" and path.exists():
            raise KeyError("called off")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        with pytest.raises((HostBusy, KeyError)):
            gate.acquire(request, 2 if ends_by == "its own time" else None, check)
    finally:
        stop.set()
        writer.join()
    assert not os.listdir(gate.ledger.queue)
    held.release()


def test_a_state_directory_that_is_gone_is_an_error_and_no_endless_loop(gate: Gate) -> None:
    shutil.rmtree(gate.ledger.directory)
    with pytest.raises(OSError, match="cannot be counted"):
        gate.acquire(SlotRequest(), None)
    with pytest.raises(OSError, match="cannot be counted"):
        gate.force()
    gate.ledger.directory.mkdir(mode=0o700)


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_gates_files(
    state_dir: Path,
) -> None:
    mine = PermissionError("a handler's")

    def check() -> None:
        raise mine

    with pytest.raises(PermissionError) as caught:
        Gate(Ledger.open(state_dir)).acquire(SlotRequest(), 0, check)
    assert caught.value is mine


@pytest.mark.root
def test_a_start_whose_own_limit_could_not_be_written_holds_up_none_behind_it(state_dir: Path) -> None:
    """A full disk: others do not know that it cannot go, and call it in vain."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(state_dir)]
    mounted = subprocess.run(words, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        gate = Gate(Ledger.open(state_dir))
        set_limits("max_browsers = 2\n")
        gate.acquire(SlotRequest(), 0).release()
        with contextlib.suppress(OSError), open(state_dir / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        held = gate.acquire(SlotRequest(), 0)
        first = SlotRequest(max_browsers=1)
        waiting = threading.Thread(target=lambda: gate.acquire(first, None).release())
        waiting.start()
        assert wait_until(lambda: len(gate.state().waiting) == 1)
        gate.acquire(SlotRequest(), 60).release()
        held.release()
        waiting.join()
    finally:
        subprocess.run(["umount", "--lazy", str(state_dir)], check=True)
