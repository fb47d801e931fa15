"""The guard with small programs that are hard to end; no browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browserkeeper.guard.containment import Cgroup, Subreaper
from browserkeeper.guard.downloads import Downloads
from browserkeeper.guard.members import Members
from browserkeeper.guard.options import Options
from browserkeeper.guard.owner import to_json
from browserkeeper.guard.procfs import Stat, unreadable
from browserkeeper.guard.quitting import Quitting
from browserkeeper.guard.record import Report
from browserkeeper.guard.teardown import tear_down
from browserkeeper.process import guard_process
from browserkeeper.process.containment import choose, writable_cgroup
from browserkeeper.process.guard_process import COPY_TIMEOUT, GUARD_DIRECTORY, output_of
from browserkeeper.report import ExitReport
from tests.conftest import SETTLE, PidFile
from tests.support import witness
from tests.support.guards import (
    NO_PIDFD,
    PYTHON,
    altered_guard,
    pids_once_there,
    plan_for,
    program,
    start,
    start_owner,
    staying,
)
from tests.support.waiting import SECONDS, deadline_in, wait_until

SLEEP = ("/bin/sleep", "600")
MISBEHAVING = {
    "daemonise": 1,
    "ignore_term": 1,
    "clear_environment": 1,
    "stop_itself": 2,
    "zombie_maker": 4,
}
"""Each program, and the number of pids that it writes before it is ready."""

CONTAINMENTS = [
    "subreaper",
    pytest.param(
        "cgroup", marks=pytest.mark.skipif(not writable_cgroup()[0], reason=writable_cgroup()[1])
    ),
]


@pytest.mark.parametrize("containment", CONTAINMENTS)
@pytest.mark.parametrize("name", MISBEHAVING)
def test_ends_processes_that_misbehave(name: str, containment: str, pids_of: PidFile) -> None:
    running = start(staying(program(name, pids_of)), containment)
    started = pids_once_there(pids_of, MISBEHAVING[name])
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"
    assert report["containment"] == containment
    assert not [s for s in started if witness.is_same(s)]


def test_a_browser_that_does_not_quit_when_asked_is_killed_and_a_note_says_so(pids_of: PidFile) -> None:
    running = start(staying(program("ignore_term", pids_of)))
    (asked,) = pids_once_there(pids_of, 1)
    running.tell_how_to_quit(0.2, asked.pid, 0, "/session/none")
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"
    (note,) = report["notes"]
    assert note.startswith("the browser did not quit within 0.2 s when asked")
    assert report["seconds"]["quitting"] >= 0.2


def test_a_browser_that_is_stopped_is_continued_to_quit() -> None:
    running = start(SLEEP)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned
    os.kill(spawned["pid"], signal.SIGSTOP)
    running.tell_how_to_quit(60, spawned["pid"], 0, "/session/none")
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["notes"] == []
    assert report["status"] == -signal.SIGINT


def test_a_firefox_whose_driver_does_not_listen_cannot_be_asked_and_a_note_says_so() -> None:
    with socket.socket() as bound:  # no program listens there, and none can
        bound.bind(("127.0.0.1", 0))
        running = start(SLEEP)
        spawned = running.wait_for("spawned", deadline=deadline_in())
        assert spawned
        running.tell_how_to_quit(60, spawned["pid"], bound.getsockname()[1], "/session/none")
        report = running.end("closed", deadline_in())
    assert report is not None
    (note,) = report["notes"]
    assert note.startswith("the browser could not be asked to quit: ConnectionRefusedError")
    assert "quitting" not in report["seconds"]


class PartlyHidden(Subreaper):
    """Like a guard that can open no file for so many looks at a process."""

    def __init__(self, looks: int):
        super().__init__(Cgroup(""))
        self.left = looks

    def stat(self, pid: int) -> Stat | None:
        self.left -= 1
        return super().stat(pid) if self.left < 0 else unreadable(pid)


def quit_hidden(other: subprocess.Popen[bytes], looks: int, seconds: float) -> Report:
    """Ask a process to quit which cannot be read at so many looks after the first."""
    containment = PartlyHidden(0)
    nothing = SimpleNamespace(look=lambda _: None, living={}, reap=other.poll, wait=lambda _: None)
    guard: Any = SimpleNamespace(containment=containment, report=Report("none"))
    guard.downloads = guard.members = guard.signals = nothing
    quitting = Quitting(guard, [str(seconds), str(other.pid), "0", "/session/none"])
    containment.left = looks
    quitting.run()
    return guard.report  # type: ignore[no-any-return]


def test_a_browser_that_cannot_be_read_for_a_moment_is_waited_for_and_then_asked() -> None:
    with subprocess.Popen(SLEEP) as other:
        report = quit_hidden(other, 20, 60)
        assert other.wait() == -signal.SIGINT
    assert report.notes == []


def test_a_browser_that_cannot_be_read_is_not_signalled_and_not_taken_for_ended() -> None:
    with subprocess.Popen(SLEEP) as other:
        report = quit_hidden(other, 10**9, 0.2)
        assert other.poll() is None
        other.kill()
    assert report.seconds["quitting"] >= 0.2
    assert "did not quit within 0.2 s" in report.notes[0]


def test_control_a_browser_that_has_ended_is_not_waited_for() -> None:
    with subprocess.Popen(SLEEP) as other:
        other.kill()
    assert "quitting" not in quit_hidden(other, 0, 60).seconds


def test_a_browser_that_could_never_be_read_is_not_asked_and_the_error_says_why() -> None:
    with subprocess.Popen(SLEEP) as other:
        guard: Any = SimpleNamespace(containment=PartlyHidden(10**9), report=Report("none"))
        quitting = Quitting(guard, ["60", str(other.pid), "0", "/session/none"])
        with pytest.raises(OSError, match="/proc hid it"):
            quitting.run()
        assert other.poll() is None
        other.kill()


def test_another_process_with_the_number_of_a_browser_that_has_ended_is_not_asked() -> None:
    """The standby guard gets the start time with the number."""
    other = subprocess.Popen(SLEEP)
    try:
        guard = SimpleNamespace(containment=Subreaper(Cgroup("")), report=Report("none"))
        Quitting(guard, ["60", str(other.pid), "0", "/session/none", "1.5"]).run()  # type: ignore[arg-type]
        assert other.poll() is None
        assert not guard.report.seconds
    finally:
        other.kill()
        other.wait()


@pytest.mark.leaves_zombies(9, "cleaning up after the control")
@pytest.mark.parametrize("name", MISBEHAVING)
def test_control_misbehaving_processes_survive_without_a_guard(name: str, pids_of: PidFile) -> None:
    """Ended by ``terminate`` alone, the same programs leave processes, and the witness sees them."""
    child = subprocess.Popen(program(name, pids_of))
    started = pids_once_there(pids_of, MISBEHAVING[name])
    child.terminate()
    wait_until(
        lambda: not witness.alive([s for s in below() if s.pid == child.pid]), 0.5
    )  # some ignore it
    found = wait_until(lambda: witness.alive(below()) or [s for s in below() if s.pid != child.pid], 5)
    witness.end_by_pid(started)
    child.kill()
    child.wait()
    assert found


def below() -> list[witness.Seen]:
    return witness.below(os.getpid())


@pytest.mark.parametrize("containment", CONTAINMENTS)
@pytest.mark.slow
def test_ends_a_fork_bomb(containment: str, pids_of: PidFile) -> None:
    bomb = program("fork_while_killed", pids_of, 150, 2 * SECONDS)
    running = start(bomb, containment, kill_deadline=SECONDS)
    assert wait_until(lambda: len(pids_of.read()) >= 100)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"


def test_the_report_names_every_process_of_the_tree_and_how_it_ended(pids_of: PidFile) -> None:
    running = start(program("tree", pids_of, 2, 3))
    started = pids_once_there(pids_of, 14)
    report = running.end("closed", deadline_in())
    assert report is not None
    outcomes = {p["pid"]: p["outcome"] for p in report["processes"]}
    assert {outcomes[s.pid] for s in started} == {"killed"}
    assert {p["name"] for p in report["processes"]} & {s.name for s in started}


def test_the_report_marks_the_daemon_that_the_guard_adopted(pids_of: PidFile) -> None:
    running = start(staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    assert wait_until(lambda: (s := witness.look(daemon.pid)) and s.parent == spawned["primary"])
    report = running.end("closed", deadline_in())
    assert report is not None
    assert [p["pid"] for p in report["processes"] if p["adopted"]] == [daemon.pid]


def test_reaps_zombies_during_the_session(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"for i in 1 2 3 4 5; do (setsid sleep 0.05 &) ; done; touch {started}; sleep 600"
    running = start(("/bin/sh", "-c", script))
    assert wait_until(started.exists)

    def are_reaped() -> bool:
        """By one look: the last of them may end between two."""
        seen = witness.below(running.pid)
        return len(seen) <= 3 and not witness.zombies(seen)

    assert wait_until(are_reaped)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["zombies_reaped"] >= 5


def test_the_report_has_the_exit_status_of_a_command_that_exits() -> None:
    running = start(("/bin/sh", "-c", "exit 7"))
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "exited"
    assert ended["report"]["status"] == 7
    running.end("closed", deadline_in())


# ------------------------------------------------------------------ the owner's death


@pytest.mark.leaves_zombies(1, "the guard's own: its owner was killed, and pytest is PID 1")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owners_session_is_ended(number: signal.Signals, pids_of: PidFile) -> None:
    owner = start_owner(staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    owner.send_signal(number)
    owner.communicate()
    assert wait_until(lambda: not witness.is_same(daemon))


@pytest.mark.leaves_zombies(2, "the guard's own and the owner's fork")
def test_a_killed_owners_session_is_ended_while_a_fork_holds_the_pipe(pids_of: PidFile) -> None:
    owner = start_owner(staying(program("daemonise", pids_of)), fork=True)
    (daemon,) = pids_once_there(pids_of, 1)
    _wait_for_the_fork(owner)
    _kill_owner(owner)
    gone = wait_until(lambda: not witness.is_same(daemon), 30)
    wait_until(lambda: not [s for s in witness.alive(below()) if s.name == "bk-guard"], 30)
    witness.end_by_pid(below())
    assert gone


@pytest.mark.leaves_zombies(9, "cleaning up after the control")
def test_control_pipe_alone_leaks_when_a_fork_holds_it(tmp_path: Path, pids_of: PidFile) -> None:
    directory = altered_guard(tmp_path / "altered", *NO_PIDFD)
    owner = start_owner(staying(program("daemonise", pids_of)), directory=directory, fork=True)
    (daemon,) = pids_once_there(pids_of, 1)
    _wait_for_the_fork(owner)
    _kill_owner(owner)
    gone = wait_until(lambda: not witness.is_same(daemon), 1.5)
    witness.end_by_pid(witness.below(os.getpid()))
    assert not gone


def _wait_for_the_fork(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    assert owner.stdout.readline()


def _kill_owner(owner: subprocess.Popen[str]) -> None:
    """Without waiting for the end of its output, which its fork holds open."""
    owner.kill()
    owner.wait()
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.close()
    owner.stdout.close()


@pytest.mark.leaves_zombies(1, "the standby of an owner that is dead belongs to PID 1")
def test_the_session_of_an_owner_that_leaves_by_os_exit_is_ended(pids_of: PidFile) -> None:
    """No clean-up handler of the owner runs then."""
    owner = start_owner(staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    owner.communicate("exit\n")
    assert owner.returncode == 0
    assert wait_until(lambda: not witness.is_same(daemon))


# ------------------------------------------------------------------ the guard's own death


@pytest.mark.parametrize("victim", ["primary", "standby"])
@pytest.mark.leaves_zombies(1, "a primary guard whose standby was killed belongs to PID 1")
def test_when_one_guard_is_killed_the_other_ends_the_session(victim: str, pids_of: PidFile) -> None:
    running = start(staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(spawned["primary"] if victim == "primary" else running.pid, signal.SIGKILL)
    assert wait_until(lambda: running.event("ended"))  # wait_for() gives a primary alone some seconds
    ended = running.event("ended")
    assert ended is not None
    assert ended["report"]["reason"] == "guard-died"
    assert ended["report"]["certificate"] == "ECHILD"
    assert not witness.is_same(daemon)
    running.end("closed", deadline_in())


@pytest.mark.leaves_zombies(1, "a primary guard whose standby was killed belongs to PID 1")
def test_a_primary_guard_that_is_slow_after_the_death_of_its_standby_is_waited_for(
    pids_of: PidFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_process, "FINISHING_TIMEOUT", SECONDS)
    running = start(staying(program("daemonise", pids_of)))
    pids_once_there(pids_of, 1)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(spawned["primary"], signal.SIGSTOP)
    os.kill(running.pid, signal.SIGKILL)
    goes_on = threading.Timer(2 * COPY_TIMEOUT, os.kill, (spawned["primary"], signal.SIGCONT))
    goes_on.start()
    report = running.end("closed", deadline_in())
    goes_on.join()
    assert report is not None
    assert report["certificate"] == "ECHILD"


@pytest.mark.leaves_zombies(9, "no guard is left to reap")
def test_control_a_daemon_survives_when_both_guards_are_killed(pids_of: PidFile) -> None:
    """Such a daemon is for the owner or a sweep to end, by LeftoverProcesses."""
    running = start(staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(running.pid, signal.SIGSTOP)  # so that it cannot end the session
    os.kill(spawned["primary"], signal.SIGKILL)
    os.kill(running.pid, signal.SIGKILL)
    survived = not wait_until(lambda: not witness.is_same(daemon), 1)
    witness.end_by_pid([daemon])
    assert running.end("closed", deadline_in(5)) is None
    assert survived


@pytest.mark.parametrize("victim", ["primary", "standby"])
def test_a_stopped_guard_is_continued(victim: str) -> None:
    running = start(SLEEP)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(spawned["primary"] if victim == "primary" else running.pid, signal.SIGSTOP)
    time.sleep(0.1)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"


def test_sigterm_to_the_guard_ends_the_session(pids_of: PidFile) -> None:
    running = start(staying(program("daemonise", pids_of)))
    pids_once_there(pids_of, 1)
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "terminated"
    running.end("closed", deadline_in())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_the_guard_ignores_the_signals_of_a_terminal(number: signal.Signals) -> None:
    running = start(SLEEP)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    for pid in (running.pid, spawned["primary"]):
        os.kill(pid, number)
    assert running.wait_for("ending", deadline=deadline_in(0.3)) is None
    running.end("closed", deadline_in())


class OneLook:
    """Processes of which a look finds none; each has what ``there`` says."""

    def __init__(self, there: Stat | None):
        self.there = there

    def find(self) -> list[Stat]:
        return []

    def stat(self, pid: int) -> Stat | None:
        return self.there


@pytest.mark.parametrize(
    ("state", "start", "stays"),
    [("S", 5.0, True), ("S", 6.0, False), ("Z", 5.0, False), ("?", 0.0, False), ("", 0.0, False)],
)
def test_a_process_that_a_look_misses_is_asked_itself(state: str, start: float, stays: bool) -> None:
    """Its parent died during the look: it moved up to the guard, whose list was read already."""
    looks = OneLook(Stat(7, "crashpad", "S", 6, 6, 5.0))
    members = Members(looks, SimpleNamespace(pid=6, status=None), lambda: 1.0)
    assert members.note(7)
    looks.there = Stat(7, "crashpad", state, 1, 6, start) if state else None
    members.update()
    assert (7 in members.living) == stays
    assert bool(members.past) != stays


# ------------------------------------------------------------------ deadlines


def test_the_guard_ends_the_session_at_its_timeout() -> None:
    running = start(SLEEP, timeout=0.3)
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "timeout"
    running.end("closed", deadline_in())


def test_the_owner_can_move_the_deadline() -> None:
    running = start(SLEEP)
    running._send("deadline 0.3 late\ndeadline 0 late")  # one write: the first may be over meanwhile
    assert running.wait_for("ending", deadline=deadline_in(1)) is None
    running.set_deadline(0.1, "late")
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "late"
    assert not ended["report"]["problems"]
    running.end("closed", deadline_in())


@pytest.mark.parametrize("order", [("near", "far"), ("far", "near")])
def test_the_nearest_of_several_deadlines_ends_the_session(order: tuple[str, str]) -> None:
    """The limit of a lease and that of a Celery task: each has a deadline of its own."""
    running = start(SLEEP, timeout=600)
    # One write: on a busy machine the first one may be over before the second comes.
    lines = {"near": "deadline 0.2 near", "far": "deadline 500 far"}
    running._send("\n".join(lines[reason] for reason in order))
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "near"
    running.end("closed", deadline_in())


@pytest.mark.parametrize("taken_back", ["near", "later"])
def test_a_deadline_that_is_taken_back_leaves_the_others(taken_back: str) -> None:
    running = start(SLEEP, timeout=SECONDS / 2)
    running._send(f"deadline 0.2 near\ndeadline 0.7 later\ndeadline 0 {taken_back}")  # as above
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == {"near": "later", "later": "near"}[taken_back]
    running.end("closed", deadline_in())


def test_the_owner_cannot_take_the_timeout_of_the_options_back() -> None:
    running = start(SLEEP, timeout=0.5)
    running.set_deadline(500, "timeout")
    running.set_deadline(0, "timeout")
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "timeout"
    running.end("closed", deadline_in())


def test_empty_lines_from_the_owner_are_ignored() -> None:
    running = start(SLEEP)
    running._send("\n \ndeadline 0.1 late")
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert ended["report"]["reason"] == "late"
    running.end("closed", deadline_in())


def test_sends_sigterm_before_sigkill_where_the_timeout_has_a_grace(tmp_path: Path) -> None:
    said = tmp_path / "said"
    ready = tmp_path / "ready"
    script = f"trap 'echo bye > {said}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    running = start(("/bin/sh", "-c", script), grace=SECONDS)
    assert wait_until(ready.exists)
    running.set_deadline(0.1, "timeout")
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert said.read_text() == "bye\n"
    running.end("closed", deadline_in())


@pytest.mark.root
@pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/freezer"), reason="no cgroup v1 freezer")
def test_reports_processes_that_sigkill_cannot_end_and_goes_on_trying() -> None:
    """A process in a frozen v1 cgroup does not die of SIGKILL until it is thawed."""
    running = start(SLEEP, kill_deadline=0.5)
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    ice = Path("/sys/fs/cgroup/freezer", f"guard-test-{os.urandom(4).hex()}")
    ice.mkdir()
    try:
        (ice / "cgroup.procs").write_text(str(spawned["pid"]))
        (ice / "freezer.state").write_text("FROZEN")
        report = running.end("closed", deadline_in())
        assert report is not None
        assert report["certificate"] is None
        assert [s["pid"] for s in report["survivors"]] == [spawned["pid"]]
        (ice / "freezer.state").write_text("THAWED")
        ended = running.wait_for("ended", deadline=deadline_in())
        assert ended is not None
        assert ended["report"]["certificate"] == "ECHILD"
    finally:
        (ice / "freezer.state").write_text("THAWED")
        running.end("closed", deadline_in())
        assert wait_until(lambda: not (ice / "cgroup.procs").read_text())
        ice.rmdir()


@pytest.mark.parametrize("survivors", [[], [{"pid": 7}]])
def test_a_teardown_is_stuck_only_if_a_process_survives_the_kill_deadline(
    survivors: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline passes at once, and the certificate comes after the third round."""
    monkeypatch.setattr("browserkeeper.guard.teardown.UNSEEN_TIMEOUT", SECONDS)
    rounds: list[object] = []
    sent: list[tuple[str, object]] = []
    guard = SimpleNamespace(
        options=Options(["--kill-deadline", "0", "--"]),
        report=Report("none"),
        members=SimpleNamespace(end_all=lambda: None, hidden=lambda: 0, living=()),
        downloads=Downloads("", "", 0, ""),
        ask_to_quit=None,
        signals=SimpleNamespace(wait=time.sleep),
        owner=SimpleNamespace(send=lambda event, report: sent.append((event, report))),
        look=lambda: None,
        facts=lambda survivors: {"survivors": survivors, "problems": []},
        containment=SimpleNamespace(
            shortest_pause=0.01,
            kill=rounds.append,
            certify=lambda members: "ECHILD" if len(rounds) == 3 else None,
            survivors=lambda: survivors,
            unseen=lambda: "",
        ),
    )
    tear_down(guard)  # type: ignore[arg-type]
    assert guard.report.certificate == "ECHILD"
    report = {"survivors": survivors, "problems": []}
    assert sent == ([("stuck", report)] if survivors else [])


def test_a_teardown_says_that_a_process_is_left_which_proc_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a hidden child is, on a kernel without lists of children."""
    monkeypatch.setattr("browserkeeper.guard.teardown.UNSEEN_TIMEOUT", 0.0)
    rounds: list[object] = []
    sent: list[dict[str, object]] = []
    guard = SimpleNamespace(
        options=Options(["--kill-deadline", "0", "--"]),
        report=Report("none"),
        members=SimpleNamespace(end_all=lambda: None, hidden=lambda: 0, living=()),
        downloads=Downloads("", "", 0, ""),
        ask_to_quit=None,
        signals=SimpleNamespace(wait=time.sleep),
        owner=SimpleNamespace(send=lambda event, report: sent.append(report)),
        look=lambda: None,
        facts=lambda survivors: {"problems": ["another"]},
        containment=SimpleNamespace(
            shortest_pause=0.01,
            kill=rounds.append,
            certify=lambda members: "ECHILD" if len(rounds) == 3 else None,
            survivors=list,
            unseen=lambda: "",
        ),
    )
    tear_down(guard)  # type: ignore[arg-type]
    unseen = "a process of the session is left that /proc does not show"
    assert sent == [{"problems": ["another", unseen]}]
    assert guard.report.problems == []


# ------------------------------------------------------------------ files and records


def test_the_tmpdir_is_private_and_removed_as_a_whole(tmp_path: Path) -> None:
    directory, outside = tmp_path / "session", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep me")
    script = f"""
        mkdir -p $TMPDIR/a/b $TMPDIR/closed; echo data > $TMPDIR/a/b/file
        ln -s {outside} $TMPDIR/link; echo x > $TMPDIR/closed/x; chmod 000 $TMPDIR/closed
        mkfifo $TMPDIR/fifo; sleep 600"""
    running = start(("/bin/sh", "-c", script), tmpdir=str(directory))
    assert wait_until((directory / "fifo").exists)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1700
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["problems"] == []
    assert report["files"] >= 4
    assert report["bytes"] > 0
    assert not directory.exists()
    assert (outside / "precious").read_text() == "keep me"


@pytest.mark.slow
def test_removes_directories_too_deep_for_a_path(tmp_path: Path) -> None:
    directory = tmp_path / "session"
    script = (
        "cd $TMPDIR; for i in $(seq 1500); do mkdir dddd && cd dddd; done; touch end; touch $TMPDIR/done"
    )
    running = start(("/bin/sh", "-c", f"{script}; sleep 600"), tmpdir=str(directory))
    assert wait_until((directory / "done").exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["problems"] == []
    assert not directory.exists()


def test_a_tmpdir_that_was_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    directory, precious = tmp_path / "session", tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep me")
    script = f"rmdir $TMPDIR && ln -s {precious} $TMPDIR; sleep 600"
    running = start(("/bin/sh", "-c", script), tmpdir=str(directory))
    assert wait_until(directory.is_symlink)
    running.end("closed", deadline_in())
    assert not directory.is_symlink()
    assert (precious / "file").read_text() == "keep me"


@pytest.mark.parametrize("is_asked", [True, False], ids=["guard", "control"])
def test_another_directory_that_was_put_in_the_place_of_the_tmpdir_is_left(
    tmp_path: Path, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the owner and mode of a TMPDIR, but the guard did not make it.  The control goes by its
    path."""
    by_path = (
        "            made = guard.tmpdir if path == tmpdir else None\n",
        "            made = None\n",
    )
    if not is_asked:
        directory = altered_guard(tmp_path / "altered", by_path)
        monkeypatch.setattr("browserkeeper.process.guard_process.GUARD_DIRECTORY", directory)
    tmpdir, precious = tmp_path / "session", tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("keep me")
    script = f"mv $TMPDIR {tmp_path}/results && mv {precious} $TMPDIR; sleep 600"
    running = start(("/bin/sh", "-c", script), tmpdir=str(tmpdir))
    assert wait_until((tmpdir / "file").exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert (tmpdir / "file").exists() == is_asked
    why = f"TMPDIR not removed: {tmpdir}: not the directory that was made for the session"
    assert [problem.startswith(why) for problem in report["problems"]] == [True] * is_asked


def test_works_for_an_owner_that_blocks_all_signals(pids_of: PidFile) -> None:
    """Threads of servers do.  The guard inherits the signal mask and has to reset it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        running = start(("/bin/sh", "-c", "exit 3"))
        ended = running.wait_for("ended", deadline=deadline_in())
        running.end("closed", deadline_in())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert ended is not None
    assert ended["report"]["status"] == 3


@pytest.mark.leaves_zombies(1, "the standby of an owner that is dead belongs to PID 1")
def test_the_standby_ends_the_session_when_the_primary_guard_crashes(
    tmp_path: Path, pids_of: PidFile
) -> None:
    """Here the teardown raises an exception in the primary guard."""
    broken = (
        "def tear_down(guard: Guard) -> None:\n",
        "def tear_down(guard: Guard) -> None:\n    1 / bool(not guard.standby)\n",
    )
    directory = altered_guard(tmp_path / "broken", broken)
    owner = start_owner(staying(program("daemonise", pids_of)), directory=directory)
    (daemon,) = pids_once_there(pids_of, 1)
    _kill_owner(owner)
    assert wait_until(lambda: not witness.is_same(daemon))


def test_the_record_is_replaced_by_the_history_at_the_end(tmp_path: Path) -> None:
    record, history = tmp_path / "r.json", tmp_path / "h.json"
    running = start(SLEEP, record=str(record), history=str(history), document='{"some":"facts"}')
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    written = json.loads(record.read_text())
    assert written["session"] == {"some": "facts"}
    assert {g["pid"] for g in written["guards"]} == {running.pid, spawned["primary"]}
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    running.end("closed", deadline_in())
    assert not record.exists()
    assert json.loads(history.read_text())["exit"]["reason"] == "closed"


def test_the_report_says_that_no_history_could_be_written() -> None:
    running = start(SLEEP, history="/no/such/directory/history")
    assert running.wait_for("spawned", deadline=deadline_in())
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"
    assert "no history was written" in report["notes"][0]


def test_the_command_does_not_inherit_the_document(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    running = start(("/bin/sh", "-c", f"env > {seen}; sleep 600"), document='"secret"')
    assert wait_until(lambda: seen.exists() and "BROWSERKEEPER_SESSION" in seen.read_text())
    assert "BROWSERKEEPER_DOCUMENT" not in seen.read_text()
    running.end("closed", deadline_in())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"command": ("/no/such/program",)}, "exec"),
        ({"record": "/no/such/directory/record"}, "record"),
        ({"tmpdir": "/no/such/directory/tmp"}, "tmpdir"),
        ({"log": "/no/such/directory/log"}, "log"),
    ],
)
def test_a_failed_start_names_the_step_and_leaves_nothing(change: dict[str, object], where: str) -> None:
    command = change.pop("command", SLEEP)
    running = start(command, **change)  # type: ignore[arg-type]
    failed = running.wait_for("failed", deadline=deadline_in())
    assert failed is not None
    assert failed["where"] == where
    assert failed["errno"] == 2
    assert running.wait_for("ended", deadline=deadline_in())
    running.end("closed", deadline_in())


def test_refuses_a_tmpdir_that_exists(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    running = start(SLEEP, tmpdir=str(tmp_path))
    failed = running.wait_for("failed", deadline=deadline_in())
    assert failed is not None
    assert failed["where"] == "tmpdir"
    running.end("closed", deadline_in())
    assert (tmp_path / "mine").read_text() == "keep"


def test_output_of_ends_a_helper_that_hangs_and_daemonises(pids_of: PidFile) -> None:
    with pytest.raises(TimeoutError, match="did not answer within 1 s"):
        output_of(
            staying(program("daemonise", pids_of)), timeout=1, containment=choose(), env=os.environ
        )


def test_output_of_returns_status_and_output() -> None:
    status, text = output_of(
        ("/bin/sh", "-c", "echo out; echo err >&2; exit 3"),
        timeout=SECONDS,
        containment=choose("subreaper"),
        env=os.environ,
    )
    assert (status, text) == (3, "out\nerr\n")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        1e-9,
        "plain",
        'quo"te\\',
        "tab\tnl\n\x00",
        "é 漢 😀 \udc80",
        [1, [2]],
        {"a": {"b": []}},
    ],
)
def test_the_guards_json_is_read_by_the_json_module(value: object) -> None:
    read = json.loads(to_json(value))
    assert read == value or read == pytest.approx(value, abs=1e-6)


def test_the_guards_report_becomes_a_clean_exit_report() -> None:
    running = start(SLEEP)
    facts = running.end("closed", deadline_in())
    assert facts is not None
    report = ExitReport.from_guard(facts, session="x", browser="none")
    assert report.clean


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt between the fork and the end of the constructor."""
    real = subprocess.Popen

    def interrupted(*args: object, **kwargs: object) -> object:
        real(*args, **kwargs).returncode = 0  # type: ignore[call-overload]
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(SLEEP)
    monkeypatch.undo()
    assert not witness.wait_until_gone(os.getpid(), set(), SETTLE)
    witness.reap_orphans(set())


def test_a_fork_that_asks_for_the_primary_guard_takes_no_event_of_its_parent() -> None:
    """As in a fork that calls ``BrowserSession.processes()``."""
    running = start(SLEEP)
    assert running.wait_for("spawned", deadline=deadline_in())
    running.tell_to_end("closed")
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # all events are in the pipe
    if (fork := os.fork()) == 0:
        os._exit(0 if running.primary_pid else 1)
    _, status = os.waitpid(fork, 0)
    assert status == 0
    assert running.end("closed", deadline_in()) is not None


def test_a_plan_leaves_out_empty_options() -> None:
    options = plan_for(SLEEP).options()
    assert options == ["--kill-deadline", "10"]


WITHOUT_C_HALF = """
import _ctypes, os, sys
del _ctypes.call_function
sys.path.append(sys.argv[1])
from guard.containment import _prctl
print(_prctl(15, b"renamed"), open("/proc/self/comm").read().strip(), _prctl(36, 1), _prctl(9999, 0))
"""


def test_prctl_works_where_only_the_python_half_of_ctypes_has_it() -> None:
    """As in PyPy."""
    said = subprocess.check_output([*PYTHON, "-c", WITHOUT_C_HALF, GUARD_DIRECTORY], text=True)
    assert said.split() == ["0", "renamed", "0", "-1"]
