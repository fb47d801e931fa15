"""A start finishes what dead sessions left whose owner and both guards were killed, without a sweep."""

from __future__ import annotations

import _thread
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browserkeeper import browser
from browserkeeper.cleanup import in_passing
from browserkeeper.cleanup.in_passing import finish_the_dead
from browserkeeper.state import locks
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.locks import ask, holding
from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import ROOT, cli
from tests.support.evidence import Guarded, guarded, me
from tests.support.guards import SLEEP_FOREVER, pids_once_there, program, staying
from tests.support.waiting import SECONDS, wait_until


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open()


def dead_session(ledger: Ledger, tmp_path: Path, **changes: Any) -> Guarded:
    """A session whose owner is dead by its record, and whose guards have been killed.

    A daemon of it lives, which the death of the guards does not end.
    """
    pids = PidFile(tmp_path / "daemon")
    found = guarded(ledger, staying(program("daemonise", pids)), tmpdirs=tmp_path, **changes)
    (daemon,) = pids_once_there(pids, 1)
    assert wait_until(lambda: daemon.pid in [identity.pid for identity, _ in found.record.processes])
    found.kill_guards()
    assert wait_until(lambda: survivors(found) == [daemon.pid])
    return found


def is_finished(found: Guarded) -> bool:
    return not found.ledger.record_path(found.session.id).exists() and not found.lock.exists()


def survivors(found: Guarded) -> list[int]:
    """The pids of the processes of its record that live, the command's own shell or sleep left out."""
    seen = [witness.look(identity.pid) for identity, _ in found.record.processes]
    return [one.pid for one in seen if one and one.state != "Z"]


@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_a_start_finishes_a_dead_session(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = dead_session(ledger, tmp_path)
    pids = survivors(found)
    assert pids
    assert Path(found.session.tmpdir).exists()
    with caplog.at_level(logging.INFO, logger="browserkeeper"):
        finish_the_dead(ledger)
        assert wait_until(lambda: is_finished(found) and caplog.records)
    assert not [pid for pid in pids if (seen := witness.look(pid)) and seen.state != "Z"]
    assert not Path(found.session.tmpdir).exists()
    (ended,) = ledger.ended()
    assert (ended.report.reason, ended.report.certificate) == ("swept", "two-scans")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "whose guards were killed too, was finished at the start of another session" in line
    assert found.session.id in line


@pytest.mark.leaves_zombies(8, "both guards are killed; PID 1 reaps the process that finishes")
def test_browserkeeper_run_finishes_a_dead_session_and_waits_for_nothing(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Its streams close with the command, although the process that finishes the session lives on."""
    found = dead_session(ledger, tmp_path)
    with holding(ledger.record_path(found.session.id)):  # another start is at it
        assert cli("run", "--", "echo", "there").stdout == "there\n"
        assert not is_finished(found)
    assert cli("run", "--", "echo", "there").stdout == "there\n"
    assert wait_until(lambda: is_finished(found))


@pytest.mark.parametrize("alive", ["guard", "owner", "elsewhere"])
@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_a_start_harms_no_session_that_is_alive_or_not_ours_to_judge(
    alive: str, ledger: Ledger, tmp_path: Path
) -> None:
    if alive == "guard":
        found = guarded(ledger, SLEEP_FOREVER, tmpdirs=tmp_path)
    elif alive == "owner":
        found = dead_session(ledger, tmp_path, owner=me())
    else:
        found = dead_session(ledger, tmp_path, host="another-machine/boot/4026531836")
    pids = survivors(found)
    paths = in_passing._with_free_locks(ledger)
    assert bool(paths) == (alive != "guard")
    in_passing._finish(ledger, paths)
    assert survivors(found) == pids
    assert Path(found.session.tmpdir).exists()
    if alive == "guard":
        found.end()
        return
    witness.end_by_pid([seen for pid in pids if (seen := witness.look(pid))])
    ledger.record_path(found.session.id).unlink()
    Path(found.session.tmpdir).rmdir()


STARTS = """
import sys, time
from browserkeeper.cleanup import in_passing, sweeper
from browserkeeper.state.ledger import Ledger
ledger, done = Ledger.open(), []
in_passing._finish_one.__globals__["logger"].info = lambda *a, **k: done.append(1)
sys.stdin.readline()
in_passing._finish(ledger, in_passing._with_free_locks(ledger))
print(len(done))
"""


@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_of_several_starts_at_once_one_does_the_work(ledger: Ledger, tmp_path: Path) -> None:
    found, done = dead_session(ledger, tmp_path), 0
    for _ in range(5):  # each of them may meet the others at their questions, and leave it to the next
        starts = [
            subprocess.Popen([sys.executable, "-c", STARTS], cwd=ROOT, stdin=-1, stdout=-1, text=True)
            for _ in range(3)
        ]
        for one in starts:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        done += sum(int(one.communicate()[0]) for one in starts)
        if is_finished(found):
            break
    assert done == 1
    assert is_finished(found)


@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_a_start_that_has_the_record_waits_for_another_that_asks_the_lock(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the other may be stopped while it asks; it leaves the session to this one."""
    found = dead_session(ledger, tmp_path)
    paths = in_passing._with_free_locks(ledger)
    other = os.open(found.lock, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 100:
            os.close(other)

    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=sleep))
    in_passing._finish(ledger, paths)
    assert len(slept) == 100
    assert is_finished(found)


def _no_thread(*_: object) -> int:
    raise RuntimeError("can't start new thread")


def _no_work(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["thread", "work", "directory"])
@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_a_start_does_not_fail_where_dead_sessions_cannot_be_finished(
    where: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dead_session(ledger, tmp_path)
    pids = survivors(found)
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        _no_work()

    with monkeypatch.context() as patched:
        if where == "thread":
            patched.setattr(_thread, "start_new_thread", _no_thread)
        elif where == "work":
            patched.setattr(in_passing, "_finish_one", fail)
        else:
            patched.setattr(ledger, "live", tmp_path / "missing")
        finish_the_dead(ledger)
        assert where != "work" or tried.wait(SECONDS)
    assert not is_finished(found)
    # That thread may still have the record, which another start would leave to it.
    assert wait_until(lambda: ask(ledger.record_path(found.session.id)).state == "free")
    finish_the_dead(ledger)  # the next start can
    assert wait_until(lambda: is_finished(found))
    assert pids


def test_a_look_that_finds_no_dead_session_starts_no_thread(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the lock of each record once, and reads none."""
    live = guarded(ledger, SLEEP_FOREVER, tmpdirs=tmp_path)
    asked: list[Path] = []

    def count(path: Path, patience: float) -> object:
        asked.append(path)
        return ask(path, patience)

    monkeypatch.setattr(in_passing, "ask", count)
    monkeypatch.setattr(in_passing, "read_record", _no_work)
    monkeypatch.setattr(_thread, "start_new_thread", _no_thread)
    finish_the_dead(ledger)
    assert asked == [live.lock]
    live.end()


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_the_next_browser_finishes_a_dead_session(ledger: Ledger, tmp_path: Path) -> None:
    found = dead_session(ledger, tmp_path)
    with browser("chrome") as driver:
        driver.get("data:text/html,here")
        assert wait_until(lambda: is_finished(found))


def test_a_fork_does_not_keep_a_lock_that_was_asked_meanwhile(ledger: Ledger, tmp_path: Path) -> None:
    """A process that another thread forks during the question holds the same open file."""
    lock = tmp_path / "locks" / "0123456789ab"
    lock.parent.mkdir()
    lock.touch(0o600)
    with holding(lock) as answer:
        assert answer.state == "free"
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
    assert ask(lock).state == "free"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
