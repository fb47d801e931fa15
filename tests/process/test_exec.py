"""The guard while its command's exec does not end, as on a dead NFS mount.

Here the child stops itself before the exec.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from browserkeeper.process import guard_process
from browserkeeper.process.guard_process import GuardProcess
from tests.conftest import SETTLE
from tests.support import witness
from tests.support.guards import SLEEP_FOREVER, altered_guard, plan_for, start, start_owner
from tests.support.waiting import SECONDS, deadline_in, wait_until

STOPPED = (
    '            where = "exec"\n',
    '            where = "exec"\n            os.kill(os.getpid(), signal.SIGSTOP)\n',
)
RESTORED = "            signal.pthread_sigmask(signal.SIG_SETMASK, mask)\n"
BLOCKING = (RESTORED, RESTORED + "        os.read(self.exec_fd, 64)\n")
"""The old rule: the guard reads until the exec is over."""


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    directory = altered_guard(tmp_path / "stopped", STOPPED)
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    return directory


def wait_for_the_child(guard: int) -> witness.Seen:
    """Until the child of the primary guard has stopped itself."""

    def found() -> list[witness.Seen]:
        return [seen for seen in witness.below(guard) if seen.state == "T"]

    assert wait_until(found)
    return found()[0]


def reason_of(running: GuardProcess) -> str:
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert running.event("spawned") is None
    running.end("closed", deadline_in())
    assert ended["report"]["certificate"] == "ECHILD"
    return str(ended["report"]["reason"])


@pytest.mark.usefixtures("stopped")
def test_an_exec_that_hangs_ends_at_the_timeout() -> None:
    running = start(SLEEP_FOREVER, timeout=0.5)  # it may pass before the child could be seen here
    assert reason_of(running) == "timeout"


@pytest.mark.usefixtures("stopped")
def test_an_exec_that_hangs_ends_when_the_owner_says_so() -> None:
    running = start(SLEEP_FOREVER)
    wait_for_the_child(running.pid)
    running.tell_to_end("failed")
    assert reason_of(running) == "failed"


@pytest.mark.usefixtures("stopped")
def test_an_exec_that_hangs_ends_at_sigterm() -> None:
    running = start(SLEEP_FOREVER)
    wait_for_the_child(running.pid)
    os.kill(running.pid, signal.SIGTERM)
    assert reason_of(running) == "terminated"


@pytest.mark.leaves_zombies(2, "the guards of an owner that was killed belong to PID 1")
def test_an_exec_that_hangs_ends_with_its_owner(stopped: str) -> None:
    owner = start_owner(SLEEP_FOREVER, directory=stopped)
    child = wait_for_the_child(owner.pid)
    owner.kill()
    owner.communicate()
    assert wait_until(lambda: not witness.is_same(child))


@pytest.mark.leaves_zombies(9, "cleaning up after the control")
def test_control_a_guard_that_waits_for_the_exec_does_not_hear_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = altered_guard(tmp_path / "altered", STOPPED, BLOCKING)
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    running = start(SLEEP_FOREVER)
    child = wait_for_the_child(running.pid)
    running.tell_to_end("failed")
    heard = running.wait_for("ending", deadline=deadline_in(1))
    guards = witness.below(os.getpid())
    os.kill(child.pid, signal.SIGKILL)
    running.end("closed", deadline_in(SETTLE / 2))
    witness.end_by_pid(guards)
    assert heard is None


def test_a_signal_that_comes_before_the_exec_reaches_the_command(tmp_path: Path) -> None:
    """``browserkeeper run`` passes it on to the child of its guard, which becomes the command."""
    forked, go = tmp_path / "forked", tmp_path / "go"
    step = '            where = "exec"\n'
    wait = f"""
            open({str(forked)!r}, "w").close()
            while not os.path.exists({str(go)!r}):
                pass
"""
    slow = (step, wait + step)
    directory = altered_guard(tmp_path / "slow", slow)
    plan = plan_for(SLEEP_FOREVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_process, "GUARD_DIRECTORY", directory)
        words = guard_process.foreground_command(plan, front=True)
    front = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    assert wait_until(forked.exists)
    front.terminate()
    time.sleep(0.3)  # for the way of the signal: a test that is too fast for it passes as well
    go.touch()
    assert front.wait(SECONDS) == 128 + signal.SIGTERM


def test_the_driver_has_its_own_name_in_the_record(tmp_path: Path) -> None:
    record = tmp_path / "record"
    running = start(SLEEP_FOREVER, record=str(record))
    assert running.wait_for("spawned", deadline=deadline_in())
    text = record.read_text()
    running.end("closed", deadline_in())
    assert '"sleep"' in text
