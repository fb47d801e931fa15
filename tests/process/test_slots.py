"""The slot of a session: its guards hold it from before the browser starts until nothing is left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import Slot
from browserkeeper.guard import lock as guard_lock
from browserkeeper.guard import slot as guard_slot
from browserkeeper.process.guard_process import GUARD_DIRECTORY, GuardProcess
from browserkeeper.state.ledger import Ledger
from tests.conftest import PidFile
from tests.support import witness
from tests.support.guards import PYTHON, SLEEP_FOREVER, altered_guard, program, start, staying
from tests.support.waiting import deadline_in, wait_until


@pytest.fixture
def gate(state_dir: Path) -> Gate:
    return Gate(Ledger.open())


def take(gate: Gate, label: str = "") -> Slot:
    return gate.acquire(SlotRequest(label=label), 0)


def held(gate: Gate) -> int:
    return len(gate.state().held)


def remove_at_once(directory: Path) -> None:
    """So that no guard can make its slot again in the middle of the removal."""
    shutil.rmtree(directory.rename(f"{directory}.removed"))


def started(slot: Slot, command: tuple[str, ...] = SLEEP_FOREVER) -> GuardProcess:
    """A guard that has started its command and was told that the start is done."""
    running = start(command, slot=slot.path)
    assert running.wait_for("spawned", deadline=deadline_in()) is not None
    running.tell_started(0.1)
    slot.hand_over()
    return running


def test_the_guards_hold_the_slot_until_the_session_has_ended(gate: Gate) -> None:
    slot = take(gate)
    running = started(slot)
    assert held(gate) == 1
    # Removed before the event: who is told of the end can start the next browser at once.
    running.tell_to_end("closed")
    assert running.wait_for("ended", deadline=deadline_in()) is not None
    assert not os.path.exists(slot.path)
    assert running.end("closed", deadline_in()) is not None
    assert held(gate) == 0


def test_the_slot_is_held_as_long_as_a_process_of_the_session_lives(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the guard waits in the middle of the teardown, before it kills."""
    line = "    members.tearing_down = True\n"
    altered = altered_guard(tmp_path, (line, f"{line}    import time; time.sleep(1)\n"))
    monkeypatch.setattr("browserkeeper.process.guard_process.GUARD_DIRECTORY", altered)
    running = started(take(gate))
    command = running.event("spawned")
    assert command is not None
    running.tell_to_end("closed")
    while running.event("ended") is None:
        assert held(gate) == 1 or witness.look(command["pid"]) is None
    running.end("closed", deadline_in())
    assert held(gate) == 0


@pytest.mark.leaves_zombies(2, "both guards are killed, and PID 1, here pytest, has to reap them")
def test_both_guards_killed_frees_the_slot(gate: Gate) -> None:
    running = started(take(gate))
    standby, primary = running.pid, running.primary_pid
    os.kill(standby, signal.SIGSTOP)  # it would finish in the place of the primary guard
    os.kill(primary, signal.SIGKILL)
    os.kill(standby, signal.SIGKILL)
    assert wait_until(lambda: held(gate) == 0)
    running.end("closed", deadline_in())
    take(gate).release()
    assert not list(gate.ledger.slots.iterdir()), "who counts next removes what the dead have left"


@pytest.mark.leaves_zombies(
    1, "a guard is killed, or its parent, and PID 1, here pytest, has to reap it"
)
@pytest.mark.parametrize("which", ["primary", "standby"])
def test_one_guard_killed_keeps_the_slot_until_the_other_has_finished(gate: Gate, which: str) -> None:
    slot = take(gate)
    running = started(slot)
    os.kill(running.primary_pid if which == "primary" else running.pid, signal.SIGKILL)
    assert wait_until(lambda: running.event("ended"))  # wait_for() gives a primary alone some seconds
    assert not os.path.exists(slot.path)
    running.end("closed", deadline_in())
    assert held(gate) == 0


@pytest.mark.leaves_zombies(1, "a guard's parent is killed, and PID 1, here pytest, has to reap it")
@pytest.mark.parametrize("when", ["before it looks for the reason to end", "in the teardown"])
def test_a_start_that_is_done_while_the_session_ends_leaves_the_slot_to_the_guard(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The primary guard waits there while its owner writes that the start is done."""
    go = tmp_path / "go"
    line = "        self.guard.members.reap()\n"
    indent, line = (8, line) if when.startswith("before") else (4, "    members.tearing_down = True\n")
    waiting = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    altered = altered_guard(tmp_path, (line, line + textwrap.indent(waiting, " " * indent)))
    monkeypatch.setattr("browserkeeper.process.guard_process.GUARD_DIRECTORY", altered)
    slot = take(gate)
    running = start(SLEEP_FOREVER, slot=slot.path)
    assert running.wait_for("spawned", deadline=deadline_in()) is not None
    os.kill(running.pid, signal.SIGKILL)
    if when == "in the teardown":
        assert wait_until(lambda: running.event("ending"))  # as above: not by wait_for()
    running.tell_started(0.1)
    slot.hand_over()
    go.touch()
    assert wait_until(lambda: running.event("ended"))
    ended = running.event("ended")
    assert ended is not None
    assert ended["report"]["reason"] == "guard-died"
    assert ended["report"]["seconds"]["start"] == 0.1
    assert not os.path.exists(slot.path)
    running.end("closed", deadline_in())
    assert held(gate) == 0


def test_a_slot_of_a_start_that_fails_stays_with_the_owner_for_the_next_attempt(gate: Gate) -> None:
    slot = take(gate)
    for _ in range(2):
        running = start(("/nonexistent",), slot=slot.path)
        assert running.wait_for("failed", deadline=deadline_in()) is not None
        running.end("failed", deadline_in())
        assert held(gate) == 1
    running = started(slot)
    running.end("closed", deadline_in())
    assert held(gate) == 0


def test_an_owner_that_gives_up_frees_the_slot_at_once(gate: Gate) -> None:
    slot = take(gate)
    running = start(SLEEP_FOREVER, slot=slot.path)
    running.end("failed", deadline_in())
    slot.release()
    assert not os.path.exists(slot.path)
    slot.release()  # idempotent


def test_a_slot_that_is_released_while_a_guard_has_it_stays_held(gate: Gate) -> None:
    slot = take(gate)
    running = start(SLEEP_FOREVER, slot=slot.path)
    assert running.wait_for("spawned", deadline=deadline_in()) is not None
    slot.release()
    assert held(gate) == 1
    running.end("closed", deadline_in())
    assert not os.path.exists(slot.path), "the last guard removes it, and wakes who waits"
    assert held(gate) == 0


@pytest.mark.parametrize("what", ["slot", "lock"])
def test_a_guard_waits_for_a_program_that_is_stopped_while_it_has_the_lock(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a busy machine stops it, for more than a second: one that counts the slots, or a sweep."""
    path = tmp_path / "file"
    path.touch()
    holder, slept = os.open(path, os.O_RDWR), list[float]()
    fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 500:
            os.close(holder)

    monkeypatch.setattr(f"browserkeeper.guard.{what}.time", SimpleNamespace(sleep=sleep))
    file = guard_slot.Slot(str(path)) if what == "slot" else guard_lock.SessionLock(str(path))
    file.take()
    assert len(slept) == 500
    assert path.exists()
    os.close(file._fd)


def test_without_the_slots_file_the_command_is_not_started(gate: Gate, pids_of: PidFile) -> None:
    """As after the death of an owner whose slot another program has counted as free."""
    slot = take(gate)
    os.unlink(slot.path)
    running = start(program("daemonise", pids_of), slot=slot.path)
    failed = running.wait_for("failed", deadline=deadline_in())
    assert failed is not None
    assert failed["where"] == "slot"
    running.end("failed", deadline_in())
    assert not pids_of.read()


OWNER = """
import os, sys, time
sys.path.insert(0, {root!r})
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.process import guard_process
from browserkeeper.state.ledger import Ledger
from tests.support.guards import start
guard_process.GUARD_DIRECTORY = {directory!r}
slot = Gate(Ledger.open()).acquire(SlotRequest(), 0)
running = start({command!r}, slot=slot.path)
print("started", slot.path, flush=True)
time.sleep(600)
"""


@pytest.mark.leaves_zombies(1, "the owner, the guard's parent, is killed")
@pytest.mark.parametrize("when", ["before the guard has the lock", "after that", "after the start"])
def test_the_owner_is_killed(gate: Gate, when: str, tmp_path: Path, pids_of: PidFile) -> None:
    """Between its admission and the start of the browser, or later: the slot is free when nothing is
    left, and not before."""
    from tests.support.owners import ROOT, Owner

    go = tmp_path / "go"
    pause = f"        import time\n        while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    line = "        self.slot.take()  # first: an owner that lives afterwards has held it until now\n"
    change = {"before the guard has the lock": (line, pause + line), "after that": (line, line + pause)}
    directory = GUARD_DIRECTORY
    if when in change:
        directory = altered_guard(tmp_path, change[when])
    command = staying(program("daemonise", pids_of))
    script = OWNER.format(root=str(ROOT), directory=directory, command=command)
    owner = Owner(*PYTHON[:1], "-c", script)
    path = owner.wait_for("started").split()[1]
    if when == "after the start":
        assert wait_until(lambda: len(pids_of.read()) >= 1)
    guards = witness.below(owner.pid)
    owner.kill()
    if when == "after that":
        go.touch()
    assert wait_until(lambda: held(gate) == 0)
    seen = [one for pid in pids_of.read() if (one := witness.look(pid))]
    assert not seen, "the slot was free while the session's processes lived"
    take(gate).release()
    # By the guard's end at the latest: it may lock the slot at just this moment.
    assert wait_until(lambda: not os.path.exists(path))
    if when != "after the start":
        go.touch()
        assert wait_until(lambda: not any(map(witness.is_same, guards)))
        assert not pids_of.read()


def test_the_end_of_a_session_wakes_the_first_that_waits(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    monkeypatch.setattr("browserkeeper.admission.waiting.SHORTEST", 1000.0)
    monkeypatch.setattr("browserkeeper.admission.waiting.LONGEST", 1000.0)
    running = started(take(gate))
    got: list[Slot] = []
    request = SlotRequest()
    waiter = threading.Thread(target=lambda: got.append(gate.acquire(request, 300)))
    waiter.start()
    assert wait_until(lambda: request.bell is not None)
    time.sleep(0.2)
    assert not got
    running.end("closed", deadline_in())
    waiter.join(60)
    assert got
    got[0].release()


def test_guards_make_their_slot_again_where_the_directory_was_removed(gate: Gate) -> None:
    running = started(take(gate, "kept"))
    remove_at_once(gate.ledger.gate)
    # A slot is there, and held, a moment before its label is in it.
    assert wait_until(lambda: [one.label for one in gate.state().held] == ["kept"])
    running.end("closed", deadline_in())
    assert held(gate) == 0


def test_a_slot_that_was_made_again_is_held_by_the_guard_that_is_left(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby guard had locked the file that was removed.  Here it kills when it is told to."""
    line, go = "    members.tearing_down = True\n", tmp_path / "go"
    waiting = f"    import time\n    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    altered = altered_guard(tmp_path, (line, line + waiting))
    monkeypatch.setattr("browserkeeper.process.guard_process.GUARD_DIRECTORY", altered)
    running = started(take(gate), ("/bin/sh", "-c", "sleep 600 & wait"))  # the kernel kills sh only
    assert wait_until(lambda: len(witness.below(running.primary_pid)) == 2)
    processes = witness.below(running.primary_pid)
    remove_at_once(gate.ledger.gate)
    assert wait_until(lambda: held(gate) == 1)
    os.kill(running.primary_pid, signal.SIGKILL)
    assert running.wait_for("ending", deadline=deadline_in()) is not None
    assert wait_until(lambda: held(gate) == 1)
    go.touch()
    while running.event("ended") is None:
        assert held(gate) == 1 or not any(map(witness.is_same, processes))
    running.end("closed", deadline_in())
    assert held(gate) == 0


def test_the_slot_says_who_has_it(gate: Gate) -> None:
    slot = take(gate, "checkout")
    slot.bind("abcdef")
    facts = json.loads(Path(slot.path).read_text())
    assert facts["pid"] == os.getpid()
    (holder,) = gate.state().held
    assert (holder.pid, holder.label, holder.session) == (os.getpid(), "checkout", "abcdef")
    assert abs(holder.since - time.time()) < 60
    slot.release()
