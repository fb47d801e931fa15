"""The gate with many real processes, which are killed, stopped and forked; no browser."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import HostBusy
from browserkeeper.admission import gate_files, tickets
from browserkeeper.admission.gate import SlotRequest
from browserkeeper.state.ledger import Ledger
from tests.support.owners import ROOT
from tests.support.waiters import Program, gate, held, labels, set_limits, state
from tests.support.waiting import SECONDS, wait_until

Programs = list[Program]


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Those that a test adds are ended after it."""
    found: Programs = []
    yield found
    for program in found:
        with contextlib.suppress(ProcessLookupError):
            program.process.send_signal(signal.SIGCONT)
        program.close()


def begin(programs: Programs, *names: str, **more: object) -> Programs:
    """Programs that wait, one after another in this order."""
    new = []
    for name in names:
        program = Program(name, **more)  # type: ignore[arg-type]
        programs.append(program)
        new.append(program.waits())
    return new


def holder(programs: Programs, name: str = "holder", **more: object) -> Program:
    """A program that has a slot."""
    program = Program(name, **more)  # type: ignore[arg-type]
    programs.append(program)
    program.got()
    return program


def nobody_waits() -> bool:
    now = state()
    return not now.waiting and not now.standby


# ------------------------------------------------------------------ never too many

CROWD = """
import os, sys, threading, time
sys.path.insert(0, {root!r})
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
gate, inside = Gate(Ledger.open()), sys.argv[1]
worst = 0
def visit():
    global worst
    for _ in range(3):
        slot = gate.acquire(SlotRequest(), 300)
        mine = os.path.join(inside, os.path.basename(slot.path) or os.urandom(8).hex())
        open(mine, "x").close()
        worst = max(worst, len(os.listdir(inside)))
        time.sleep(0.05)
        worst = max(worst, len(os.listdir(inside)))
        os.unlink(mine)
        slot.release()
threads = [threading.Thread(target=visit) for _ in range(4)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(worst)
"""


def crowd(directory: Path) -> int:
    """The most that were inside at once, of 4 programs with 4 threads each that start together."""
    words = [sys.executable, "-c", CROWD.format(root=str(ROOT)), str(directory)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(int(process.communicate()[0]) for process in running)


def test_programs_and_threads_never_have_more_slots_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "3")
    assert 2 <= crowd(tmp_path) <= 3
    assert nobody_waits()
    assert held() == 0


def test_control_without_a_limit_there_are_more(tmp_path: Path) -> None:
    assert crowd(tmp_path) > 3


# ------------------------------------------------------------------ the order


def test_first_come_first_served_and_standby_browsers_last(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    standby, promoted = begin(programs, "standby", "promoted", priority="standby")
    first, second = begin(programs, "first", "second")
    promoted.tell("promote")
    assert wait_until(lambda: labels(state().waiting) == ["first", "second", "promoted"])
    (last,) = begin(programs, "last")
    assert labels(state().standby) == ["standby"]
    for program in (first, second, promoted, last, standby):
        before.end()
        assert program.got()
        assert held() == 1
        before = program
    before.end()
    assert held() == 0


def test_a_program_with_a_lower_limit_of_its_own_holds_up_none_behind_it(programs: Programs) -> None:
    set_limits("max_browsers = 2\n")
    before = holder(programs)
    (modest,) = begin(programs, "modest", most=1)
    other = holder(programs, "other")
    (third,) = begin(programs, "third")
    before.end()
    assert third.got()
    other.end()
    third.end()
    assert modest.got()


def test_a_limit_that_is_raised_and_lowered_while_programs_wait(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    first, second, third = begin(programs, "first", "second", "third")
    set_limits("max_browsers = 3\n")
    assert first.got()
    assert second.got()
    set_limits("max_browsers = 1\n")
    before.end()
    first.end()
    time.sleep(2)
    assert held() == 1
    assert labels(state().waiting) == ["third"]
    second.end()
    assert third.got()


# ------------------------------------------------------------------ what dies


def test_files_that_belong_to_no_ticket_are_removed_by_those_that_wait(programs: Programs) -> None:
    """They stay where a program is killed that was about to remove a ticket's files, or its own."""
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    (waiting,) = begin(programs, "waits")
    queue = Ledger.open().queue
    os.mkfifo(queue / f"0-{0:015d}-{'a' * 16}.bell")
    for number, mark in enumerate((".bell", ".called", ".declined")):
        (queue / f"{number % 2}-{number:015d}-{'b' * 16}{mark}").touch()
    before.end()
    assert waiting.got()
    assert not list(queue.iterdir())
    waiting.end()


def test_a_start_that_has_left_the_queue_gets_no_mark(state_dir: Path) -> None:
    queue = Ledger.open().queue
    tickets.call(queue, f"0-{1:015d}-{'a' * 16}")
    assert not list(queue.iterdir())


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
def test_programs_that_wait_are_killed(programs: Programs, which: tuple[int, ...]) -> None:
    """The head of the queue, one in the middle, several, all but the last."""
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    waiting = begin(programs, "0", "1", "2", "3")
    for number in which:
        waiting[number].kill()
    before.end()
    for program in [one for one in waiting if one.label not in map(str, which)]:
        assert program.got()
        assert held() == 1
        program.end()
    assert held() == 0
    assert nobody_waits()
    assert not list(Ledger.open().queue.iterdir()), "the files of the dead are removed as well"


def test_a_program_that_has_a_slot_is_killed(programs: Programs) -> None:
    set_limits("max_browsers = 2\n")
    killed, ended = holder(programs), holder(programs)
    first, second = begin(programs, "first", "second")
    killed.kill()
    assert first.got()
    assert held() == 2
    ended.end()
    assert second.got()


def test_a_stopped_head_is_passed_over_and_comes_next_when_it_goes_on(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    stopped, second = begin(programs, "stopped", "second", late=None)
    stopped.kill(signal.SIGSTOP)
    before.end()
    assert second.got()
    assert held() == 1
    (third,) = begin(programs, "third")
    stopped.kill(signal.SIGCONT)
    assert wait_until(lambda: not list(Ledger.open().queue.glob("*.called")))
    second.end()
    assert stopped.got()
    assert held() == 1
    stopped.end()
    assert third.got()


@pytest.mark.parametrize("host_is_full", [True, False])
def test_a_start_that_was_called_and_cannot_go_keeps_its_place_where_the_host_is_full(
    host_is_full: bool,
) -> None:
    """It would lose it to one that looks a moment after the next slot is free.  Only what others may not
    know, as a limit of its own, is said by a mark: the control."""
    set_limits(f"max_browsers = {1 if host_is_full else 2}\n")
    slot, request = gate().acquire(SlotRequest(), 0), SlotRequest(max_browsers=1)
    thread = threading.Thread(target=lambda: gate().acquire(request, 300).release())
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    queue = Ledger.open().queue
    (name,) = tickets.ticket_names(queue)
    tickets.call(queue, name)
    assert wait_until(lambda: not list(queue.glob("*.called")))
    with gate()._files.locked(time.monotonic() + SECONDS):  # its look is over
        assert bool(list(queue.glob("*.declined"))) != host_is_full
    slot.release()
    thread.join()


def test_several_stopped_programs_hold_up_none_for_ever(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    waiting = begin(programs, "a", "b", "c", "last", late=None)
    for program in waiting[:3]:
        program.kill(signal.SIGSTOP)
    before.end()
    assert waiting[3].got()
    for program in waiting[:3]:
        program.kill(signal.SIGCONT)
    time.sleep(1)
    assert held() == 1, "a slot too many"


@pytest.mark.parametrize("has_slot", [True, False], ids=["slot", "ticket"])
def test_a_fork_that_outlives_its_program_holds_nothing(programs: Programs, has_slot: bool) -> None:
    set_limits("max_browsers = 1\n")
    if has_slot:
        owner = holder(programs, fork=True)
    else:
        before = holder(programs)
        (owner,) = begin(programs, "forks", fork=True)
    (after,) = begin(programs, "after")
    children = wait_until(lambda: children_of(owner.pid)) and children_of(owner.pid)
    assert children
    owner.process.kill()  # not close(): the child has its stdout
    owner.process.wait()
    try:
        if not has_slot:
            before.end()
        assert after.got()
        assert held() == 1
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # an orphan, and pytest is its subreaper


def children_of(pid: int) -> list[int]:
    """Of all its threads."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for file in files for word in file.read_text().split()]


# ------------------------------------------------------------------ how a wait ends


def test_no_wait_and_a_wait_that_is_over_say_who_has_the_slots_and_who_waits(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    has = holder(programs, "checkout-monitor")
    begin(programs, "nightly")
    for wait in (0, 0.3):
        with pytest.raises(HostBusy) as caught:
            gate().acquire(SlotRequest(label="mine"), wait)
        error = caught.value
        assert (error.reason, error.limit) == ("full", 1)
        assert error.limit_source == f"max_browsers = 1 in {Ledger.open().directory}/limits.toml"
        assert [(one.pid, one.label) for one in error.holders] == [(has.pid, "checkout-monitor")]
        assert labels(error.waiting) == ["nightly"]
        for word in ("checkout-monitor", f"pid {has.pid}", "nightly", "max_browsers = 1"):
            assert word in str(error)
        assert error.waited >= wait
    assert labels(state().waiting) == ["nightly"]
    assert held() == 1


class Stop(Exception):
    """Raised by a ``check``, as a closed session or a deadline does."""


def test_what_check_raises_ends_the_wait_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    slot = gate().acquire(SlotRequest(), 0)
    request, stop, raised = SlotRequest(), threading.Event(), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stop

    def wait() -> None:
        try:
            gate().acquire(request, None, check)
        except Stop:
            raised.set()

    monkeypatch.setattr("browserkeeper.admission.waiting.SHORTEST", 1000.0)
    monkeypatch.setattr("browserkeeper.admission.waiting.LONGEST", 1000.0)
    thread = threading.Thread(target=wait)
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    stop.set()
    request.wake()
    assert raised.wait(60)
    thread.join()
    assert nobody_waits()
    assert not list(Ledger.open().queue.iterdir())
    slot.release()


def test_check_says_when_it_wants_to_be_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    monkeypatch.setattr("browserkeeper.admission.waiting.SHORTEST", 1000.0)
    slot = gate().acquire(SlotRequest(), 0)
    until = time.monotonic() + 0.5

    def check() -> float:
        if time.monotonic() >= until:
            raise Stop
        return until

    with pytest.raises(Stop):
        gate().acquire(SlotRequest(), None, check)
    slot.release()


@pytest.mark.parametrize("where", ["the wait", "the lock"])
def test_an_exception_from_outside_in_the_main_thread(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    slot = gate().acquire(SlotRequest(), 0)

    def raise_stop(*_: object) -> None:
        raise Stop

    old = signal.signal(signal.SIGALRM, raise_stop)
    try:
        with contextlib.ExitStack() as stack:
            if where == "the lock":
                stack.enter_context(gate()._files.locked(time.monotonic() + 60))
            with pytest.raises(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                gate().acquire(SlotRequest(), None)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert nobody_waits()
    assert held() == 1
    slot.release()
    assert held() == 0


def test_an_exception_between_the_decision_and_the_answer_frees_the_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while a traceback keeps the objects of the start alive."""

    def interrupted(*_: object) -> None:
        raise Stop

    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    with monkeypatch.context() as patch:
        patch.setattr("browserkeeper.admission.gate_files.Slot", interrupted)
        with pytest.raises(Stop) as caught:
            gate().acquire(SlotRequest(), 0)
    assert held() == 0
    gate().acquire(SlotRequest(), 0).release()
    assert not list(Ledger.open().slots.iterdir())
    assert caught.value.__traceback__ is not None


def test_the_log_says_after_some_seconds_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    monkeypatch.setattr("browserkeeper.admission.waiting.TELL_AFTER", 0.2)
    slot = gate().acquire(SlotRequest(), 0)
    looks_since: list[int] = []

    def check() -> None:
        """Ends the wait at the second look after the log: it is said once."""
        if caplog.records:
            looks_since.append(1)
        if len(looks_since) > 1:
            raise Stop

    with pytest.raises(Stop):
        gate().acquire(SlotRequest(label="nightly"), SECONDS, check)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'nightly'" in record.message
    assert "BROWSERKEEPER_MAX_BROWSERS=1 is set" in record.message
    slot.release()


# ------------------------------------------------------------------ the pools' side


def test_a_pool_learns_that_others_wait(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits("max_browsers = 1\n")
    mine = SlotRequest(pool="mine")
    bell = gate().yield_bell()
    slot = gate().acquire(SlotRequest(pool="mine"), 0)
    assert gate().held_back_outside(mine) == []
    request = SlotRequest(pool="mine")
    thread = threading.Thread(target=lambda: gate().acquire(request, 300).release())
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    assert gate().held_back_outside(mine) == [], "its own request is none of the others"
    begin(programs, "standby", priority="standby")
    assert gate().held_back_outside(mine) == [], "a standby browser is a convenience"
    bell.clear()
    begin(programs, "other")
    (other,) = gate().held_back_outside(mine)
    assert 0 <= other.age < 60
    assert (other.has, other.pool_has, other.is_owed) == (0, 1, True)
    assert select.select([bell], [], [], 60)[0], "the pool's bell was rung"
    bell.remove()
    slot.release()
    thread.join()


def test_a_pool_owes_nothing_to_a_start_that_has_got_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """That slot fills the host when the pool looks, and the request was read before."""
    set_limits("max_browsers = 1\n")
    slot = gate().acquire(SlotRequest(pool="mine"), 0)
    request = SlotRequest()
    theirs: list[Any] = []
    thread = threading.Thread(target=lambda: theirs.append(gate().acquire(request, 300)))
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    look = tickets.ticket_names

    def read_and_wait(queue: Path) -> list[str]:
        names = look(queue)
        facts = {name: tickets.live_facts(queue, name, remove=False) for name in names}
        monkeypatch.setattr(gate_files, "ticket_names", look)
        monkeypatch.setattr(gate_files, "live_facts", lambda _, name, remove: facts.get(name))
        slot.release()
        assert wait_until(lambda: theirs)
        return names

    monkeypatch.setattr(gate_files, "ticket_names", read_and_wait)
    assert gate().held_back_outside(SlotRequest(pool="mine")) == []
    thread.join()
    theirs[0].release()


@pytest.mark.parametrize(
    ("own_limit", "can_follow"),
    [
        ({}, True),
        ({"max_browsers": 2}, True),
        ({"max_browsers": 1}, False),
        ({"min_memory": 10**9}, False),
    ],
)
def test_a_pool_owes_nothing_to_a_start_that_could_not_follow(
    monkeypatch: pytest.MonkeyPatch, own_limit: dict[str, int], can_follow: bool
) -> None:
    """Its own lower limit would hold it back, and the pool's next launch would take the slot."""
    set_limits("max_browsers = 2\n")
    if "min_memory" in own_limit:
        monkeypatch.setattr("browserkeeper.process.limits.memory_left", lambda: 10**8)
    slots = [gate().acquire(SlotRequest(pool="mine"), 0) for _ in range(2)]
    request = SlotRequest(**own_limit)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: gate().acquire(request, 300).release())
    thread.start()
    assert wait_until(lambda: request.bell is not None)
    (found,) = gate().held_back_outside(SlotRequest(pool="mine"))
    assert (found.can_follow, found.is_owed) == (can_follow, can_follow)
    (found,) = gate().held_back_outside(SlotRequest(pool="mine", max_browsers=1))
    assert found.is_owed, "the pool's own launch would be held back as well"
    if "min_memory" in own_limit:
        monkeypatch.setattr("browserkeeper.process.limits.memory_left", lambda: 10**10)
    for slot in slots:
        slot.release()
    thread.join()


# ------------------------------------------------------------------ files and their systems


def test_the_gates_directory_is_removed_while_programs_wait(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    before = holder(programs)
    waiting = begin(programs, "a", "b")
    directory = Ledger.open().gate
    gone = directory.rename(directory.with_name("gone"))  # at once: who looks may make files meanwhile
    shutil.rmtree(gone)
    assert wait_until(lambda: held() == 1), "those that wait make it again"
    assert wait_until(lambda: len(state().waiting) == 1)
    (last,) = labels(state().waiting)
    for program in sorted(waiting, key=lambda one: one.label == last):
        assert program.got()
        assert held() == 1
        program.end()
    before.end()
    assert held() == 0


def rubbish(directory: Path) -> None:
    slots, queue = directory / "gate" / "slots", directory / "gate" / "queue"
    name = "0-000000000000001-0123456789abcdef"
    (slots / "README").write_text("not a slot")
    (slots / "browser-0123456789abcdef").mkdir()
    (slots / "browser-0123456789abcde0").symlink_to("/etc/passwd")
    os.mkfifo(slots / "browser-0123456789abcde1")
    (slots / "browser-0123456789abcde2").write_text("{")  # as of a process that was killed
    (queue / name).write_bytes(b"\xff\x00")
    (queue / f"{name}.bell").write_text("no bell")
    (queue / "0-000000000000002-0123456789abcdef").symlink_to("/etc/passwd")
    (queue / "notes.txt").write_text("not a ticket")


def test_files_that_are_no_slots_and_no_tickets_count_for_nothing_and_stay(state_dir: Path) -> None:
    set_limits("max_browsers = 1\n")
    rubbish(state_dir)
    passwd = Path("/etc/passwd").read_bytes()
    slot = gate().acquire(SlotRequest(), 0)
    with pytest.raises(HostBusy):
        gate().acquire(SlotRequest(), 0.2)
    assert len(state().held) == 1
    assert nobody_waits()
    slot.release()
    left = {path.name for path in (state_dir / "gate" / "slots").iterdir()}
    ours = {"README", "browser-0123456789abcdef", "browser-0123456789abcde0", "browser-0123456789abcde1"}
    assert left == ours, "only the slot of a dead process is removed"
    assert Path("/etc/passwd").read_bytes() == passwd


def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    real = time.time
    slot = gate().acquire(SlotRequest(), 0)
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        began = time.monotonic()
        with pytest.raises(HostBusy):
            gate().acquire(SlotRequest(), 0.3)
        assert time.monotonic() - began < 60
        (one,) = state().held
        assert 0 <= time.time() - one.since < 60
    slot.release()


STOPPED = """
import os, sys, signal
sys.path.insert(0, {root!r})
from browserkeeper.admission import gate_files
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
before = gate_files.who_may_go
def stop_and_decide(*arguments):
    chosen = before(*arguments)
    gate_files.who_may_go = before
    print("stops", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return chosen
gate_files.who_may_go = stop_and_decide
slot = Gate(Ledger.open()).acquire(SlotRequest(label="stopped"), 300)
print("got", flush=True)
sys.stdin.readline()
slot.release()
"""


def test_a_process_that_is_stopped_while_it_decides_holds_up_none_and_gets_no_slot_too_many(
    programs: Programs,
) -> None:
    """It has the gate's lock then, and has decided that it may go."""
    set_limits("max_browsers = 1\n")
    words = [sys.executable, "-c", STOPPED.format(root=str(ROOT))]
    stopped = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "stops\n"
        assert wait_until(lambda: "T (stopped)" in Path(f"/proc/{stopped.pid}/status").read_text())
        other = holder(programs, "other", wait=SECONDS)
        assert labels(state().held) == ["other"]
        stopped.send_signal(signal.SIGCONT)
        assert wait_until(lambda: labels(state().waiting) == ["stopped"])
        assert labels(state().held) == ["other"]
        other.end()
        assert stopped.stdout.readline() == "got\n"
        assert labels(state().held) == ["stopped"]
    finally:
        stopped.kill()
        stopped.communicate()


STOPPED_BREAKER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
gate, before = Gate(Ledger.open()), os.listdir
def stop_and_list(directory):
    if directory == gate.ledger.turns:
        os.listdir = before
        os.kill(os.getpid(), signal.SIGSTOP)
    return before(directory)
os.listdir = stop_and_list
gate.acquire(SlotRequest(label="breaker"), 300)
print("got", flush=True)
sys.stdin.readline()
"""


def test_the_process_that_takes_the_lock_away_is_stopped_meanwhile(programs: Programs) -> None:
    set_limits("max_browsers = 1\n")
    words = [sys.executable, "-c", STOPPED_BREAKER.format(root=str(ROOT))]
    with gate()._files.locked(time.monotonic() + 60):  # as of a process that is stopped
        breaker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            status = Path(f"/proc/{breaker.pid}/status")
            assert wait_until(lambda: "T (stopped)" in status.read_text())
            other = holder(programs, "other")
            breaker.send_signal(signal.SIGCONT)
            assert wait_until(lambda: labels(state().waiting) == ["breaker"])
            assert labels(state().held) == ["other"]
            other.end()
            assert breaker.stdout is not None
            assert breaker.stdout.readline() == "got\n"
        finally:
            breaker.kill()
            breaker.communicate()


def test_a_lock_that_cannot_be_taken_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.admission.files.BREAK_AFTER", 1000.0)
    monkeypatch.setattr("browserkeeper.admission.waiting.MUTEX_PATIENCE", 0.3)
    with gate()._files.locked(time.monotonic() + 60):
        assert gate().acquire(SlotRequest(), 0).path == "", "without a limit a start goes ahead"
        monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
        with pytest.raises(HostBusy, match=rf"probably {os.getpid()}, holds the lock .*gate/lock"):
            gate().acquire(SlotRequest(), 0)
    slot = gate().acquire(SlotRequest(), 0)
    assert slot.path
    slot.release()


@pytest.mark.leaves_zombies(1, "unshare(1), the parent of a namespace's PID 1, is killed")
@pytest.mark.root
@pytest.mark.namespaces
def test_two_pid_namespaces_that_share_the_state_directory_count_together(programs: Programs) -> None:
    """As two containers do.  Their pids say nothing to each other; the locks do."""
    set_limits("max_browsers = 2\n")
    inner = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    there = holder(programs, "there", before=inner)
    here = holder(programs, "here")
    (waits,) = begin(programs, "waits", before=inner)
    assert labels(state().held) == ["there", "here"]
    assert labels(state().waiting) == ["waits"]
    there.kill()
    assert waits.got()
    assert held() == 2
    here.end()
    waits.end()
    assert held() == 0
