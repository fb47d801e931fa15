"""Who is a session's, and who only looks like it: sweeps among processes and hosts that mislead.

Each case has a control: the rule before would have harmed the bystander, or a true orphan is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper import sweep
from browserkeeper.cleanup import evidence
from browserkeeper.cleanup.evidence import NEXT_LOOK, state_of
from browserkeeper.cleanup.removal import end_dead_session, report_without_guard
from browserkeeper.cleanup.sweeper import Finding, LeftAlone, Sweeper
from browserkeeper.guard.guard import SAMPLES
from browserkeeper.process import own_line, system
from browserkeeper.process.identity import ALWAYS, INITIAL_NAMESPACE, UNKNOWN, Host, ProcessIdentity
from browserkeeper.process.leftover_processes import LOCK, MARKER
from browserkeeper.report import ExitReport
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.locks import ask, holding
from browserkeeper.state.records import Record, new_id, read_ended
from tests.conftest import PidFile
from tests.process.test_ledger import session, write
from tests.support import witness
from tests.support.cli import CLI, ROOT, cli, cli_json
from tests.support.evidence import (
    Guarded,
    call_as_nobody,
    guarded,
    marked_by_the_old_rule,
    me,
    state_by_the_old_rule,
    sweep_in,
    sweep_program,
)
from tests.support.guards import SLEEP_FOREVER, pids_once_there, program, staying
from tests.support.ledger import add_ended, add_free_lock
from tests.support.other_user import NOBODY
from tests.support.waiting import wait_until

ORPHANS = pytest.mark.leaves_zombies(9, "both guards were killed, so no guard reaps")


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open()


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only directory in which session directories are searched."""
    directory = Path(tempfile.mkdtemp(prefix="tmp-evidence-"))
    monkeypatch.setattr("browserkeeper.cleanup.evidence.roots", lambda: [str(directory)])
    yield directory
    directory.rmdir()


@pytest.fixture
def bystanders() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Are ended after the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def sweep_fully(ledger: Ledger) -> tuple[list[Finding], list[LeftAlone]]:
    sweeper = Sweeper(ledger, dry_run=False, older_than=0)
    return list(sweeper.run()), sweeper.left_alone


# ------------------------------------------------------------------ the lock


def test_both_guards_hold_the_lock_and_no_other_process_does(ledger: Ledger) -> None:
    found = guarded(ledger, SLEEP_FOREVER)
    spawned = found.guard.wait_for("spawned", deadline=0)
    assert spawned
    inode = str(found.lock.stat().st_ino)
    assert {spawned["primary"], found.guard.pid} <= holders(inode)
    assert ask(found.lock).state == "held"
    assert str(found.lock) not in opened(spawned["pid"])
    os.kill(spawned["primary"], signal.SIGKILL)
    assert wait_until(lambda: found.guard.event("ended"))
    assert not found.lock.exists(), "the standby guard has ended the session"
    found.end()


def opened(pid: int) -> set[str]:
    """What it has open.  A program that has just been executed opens and closes its libraries."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(fd))
    return found


def holders(inode: str) -> set[int]:
    lines = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return {int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].endswith(f":{inode}")}


def test_the_standby_guard_alone_keeps_a_session_alive(ledger: Ledger) -> None:
    """While it ends what the primary guard left, which takes long where a process hangs."""
    found = guarded(ledger, SLEEP_FOREVER)
    spawned = found.guard.wait_for("spawned", deadline=0)
    assert spawned
    os.kill(found.guard.pid, signal.SIGSTOP)
    os.kill(spawned["primary"], signal.SIGKILL)
    assert wait_until(lambda: not witness.alive(witness.below(found.guard.pid)))
    assert ask(found.lock).state == "held"
    assert sweep(dry_run=False) == []
    os.kill(found.guard.pid, signal.SIGCONT)
    assert found.end()["certificate"] == "ECHILD"


@pytest.mark.parametrize("containment", ["subreaper", "portable"])
def test_a_sweep_continues_the_stopped_guards_of_a_dead_owner(ledger: Ledger, containment: str) -> None:
    """The start times in a portable guard's record are of another clock than those of the others.  The
    control: without a sweep they stay stopped."""
    found = guarded(ledger, SLEEP_FOREVER, containment=containment)
    guards = [guard.pid for guard in found.record.guards]

    def stopped() -> list[int]:
        return [pid for pid in guards if (seen := witness.look(pid)) and seen.state == "T"]

    def stop() -> bool:
        """A standby guard that is not stopped yet continues its primary, so this may be needed twice."""
        for pid in guards:
            os.kill(pid, signal.SIGSTOP)
        return wait_until(lambda: stopped() == guards, 1)

    assert wait_until(stop)
    assert sweep(dry_run=True) == []
    assert stopped() == guards
    assert sweep(dry_run=False) == []
    assert wait_until(lambda: stopped() == [])
    found.end()


def test_a_lock_that_cannot_be_asked_means_not_ours_to_judge(ledger: Ledger) -> None:
    """A dead session is left alone while its lock is missing, a link, or may be another user's.  The
    control: with its lock back it is swept."""
    of = session()
    path = write(ledger, of)
    lock = ledger.lock_path(of.id)
    lock.chmod(0o666)
    assert_is_left_alone(ledger, of.id, str(lock))
    lock.unlink()
    assert_is_left_alone(ledger, of.id, str(lock))
    lock.symlink_to(path)
    assert_is_left_alone(ledger, of.id, str(lock))
    lock.unlink()
    add_free_lock(ledger.directory, of.id)
    assert [finding.removed for finding in sweep_fully(ledger)[0]] == [True]
    assert not lock.exists()


def assert_is_left_alone(ledger: Ledger, session: str, why: str) -> None:
    findings, left_alone = sweep_fully(ledger)
    assert findings == []
    assert [(thing.session, why in thing.why) for thing in left_alone] == [(session, True)]


def test_a_second_sweep_does_not_work_on_a_session_that_is_being_swept(ledger: Ledger) -> None:
    of = session()
    write(ledger, of)
    with holding(ledger.lock_path(of.id)) as answer:
        assert answer.state == "free"
        assert sweep(dry_run=False) == []
    assert [finding.removed for finding in sweep(dry_run=False)] == [True]


def test_a_lock_without_a_record_is_swept_when_it_is_old(ledger: Ledger) -> None:
    lock = add_free_lock(ledger.directory, new_id())
    assert sweep(dry_run=False) == []
    os.utime(lock, (0, 0))
    assert [finding.what for finding in sweep(dry_run=False)] == ["a lock of no session"]
    assert not lock.exists()


def test_a_session_in_a_copied_state_directory_is_alive(ledger: Ledger, tmp_path: Path) -> None:
    """No guard holds the copy of the lock, and to a container the pids in the record say nothing."""
    found = guarded(ledger, SLEEP_FOREVER, host=f"{system.host().machine}/{system.host().boot}/pid:[1]")
    copy = tmp_path / "copy"
    drafts = shutil.ignore_patterns("*.tmp")  # of the record, which the guard replaces meanwhile
    shutil.copytree(ledger.directory, copy, ignore=drafts)
    assert ask(copy / "locks" / found.session.id).state == "free"
    findings, (thing,) = sweep_fully(Ledger.open(copy))
    assert findings == []
    assert "a guard of it lives" in thing.why
    found.end()


def test_a_record_of_a_version_without_locks_is_judged_by_its_identities(ledger: Ledger) -> None:
    """Only where its pids are known to mean the same processes: in the initial pid namespace."""
    of = session(lock="", init_start=None, uid=None, owner=me())
    write(ledger, of, guard=me())
    (record,) = ledger.records()
    assert isinstance(record, Record)
    is_initial = system.host().namespace == INITIAL_NAMESPACE
    assert state_of(record) == ("live" if is_initial else "foreign")
    assert sweep(dry_run=False) == []
    record.path.unlink()


def test_the_window_of_orphans_ends_when_the_guards_would_have_looked_again() -> None:
    assert max(SAMPLES) == NEXT_LOOK


# ------------------------------------------------------------------ 1: a live application is swept


@pytest.mark.root
def test_the_application_of_a_service_of_root_is_left_alone_by_its_own_users_sweep(
    ledger: Ledger, pids_of: PidFile
) -> None:
    """``browserkeeper run -- setpriv USER app``: the user sees marked processes, and no guard."""
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    pids_of.path.touch()
    pids_of.path.chmod(0o666)
    pids_of.path.parent.chmod(0o777)
    for above in (pids_of.path.parent, *pids_of.path.parent.parents):
        above.chmod(above.stat().st_mode | 0o055) if above != Path("/") else None
    words = (*CLI, "run", "--keep-tmpdir", "--", *drop, "/bin/sh", "-c", f"echo $$ >{pids_of}; read x")
    front = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE)
    (app,) = pids_once_there(pids_of, 1)
    with tempfile.TemporaryDirectory(prefix="tmp-nobody-") as name:
        os.chown(name, NOBODY, NOBODY)

        def sweep_as_user() -> list[object]:
            old = [pid for pid in marked_by_the_old_rule() if pid == app.pid]
            findings, left_alone = sweep_fully(Ledger.open(Path(name, "state")))
            return [old, len(findings), [thing.why for thing in left_alone]]

        old, number, (why,) = call_as_nobody(sweep_as_user)
    assert old == [app.pid], "the control: the old rule would have ended it"
    assert number == 0
    assert "cannot be asked: Permission denied" in why
    assert witness.is_same(app)
    assert front.stdin
    front.stdin.close()
    front.wait()


def test_a_session_of_another_state_directory_is_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    """Of this user, and with a guard; its lock is asked, also for a process whose guards cannot be
    told from other processes."""
    found = guarded(Ledger.open(tmp_path / "other"), SLEEP_FOREVER)
    copy = subprocess.Popen(["sleep", "600"], env=found.environment)
    assert sweep_fully(ledger) == ([], [])
    assert copy.poll() is None
    copy.kill()
    copy.wait()
    found.end()


@ORPHANS
def test_a_dead_session_of_another_state_directory_is_swept(
    ledger: Ledger, tmp_path: Path, pids_of: PidFile
) -> None:
    """The control: the process that bears the marker names the lock, and so the record."""
    found = guarded(Ledger.open(tmp_path / "other"), staying(program("daemonise", pids_of)))
    (daemon,) = pids_once_there(pids_of, 1)
    assert wait_until(lambda: daemon.pid in recorded(found))
    found.kill_guards()
    findings, _ = sweep_fully(ledger)
    assert [(finding.session, finding.removed) for finding in findings] == [(found.session.id, True)]
    assert not witness.is_same(daemon)
    assert not found.lock.exists()


def recorded(found: Guarded) -> set[int]:
    return {identity.pid for identity, _ in found.record.processes}


def test_a_state_directory_that_others_can_write_is_not_believed(
    ledger: Ledger, tmp_path: Path, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """A marked process names it, and a record in it names the process.  The control: the same record in
    a directory of this user alone."""
    other, of = Ledger.open(tmp_path / "other"), session()
    env = {MARKER: of.id, LOCK: str(other.lock_path(of.id))}
    bystanders.append(subprocess.Popen(["/bin/sleep", "600"], env=env))
    assert wait_until(lambda: system.marker_value(bystanders[0].pid, MARKER)), "its exec may last"
    seen = witness.look(bystanders[0].pid)
    assert seen
    write(other, of, [seen])
    other.live.chmod(0o777)
    findings, (thing,) = sweep_fully(ledger)
    assert findings == []
    assert "can be written by others" in thing.why
    assert bystanders[0].poll() is None
    other.live.chmod(0o700)
    assert [finding.removed for finding in sweep_fully(ledger)[0]] == [True]
    assert bystanders[0].wait() == -signal.SIGKILL


@pytest.mark.parametrize("path", ["", "locks/ID", "/tmp/elsewhere/ID", "/tmp/no such/locks/ID"])
def test_a_lock_that_does_not_fit_is_not_believed(
    ledger: Ledger, path: str, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    identifier = new_id()
    env = {MARKER: identifier, LOCK: path.replace("ID", identifier)}
    bystanders.append(subprocess.Popen(["/bin/sleep", "600"], env=env))
    assert wait_until(lambda: bystanders[0].pid in marked_by_the_old_rule()), "the control"
    findings, (thing,) = sweep_fully(ledger)
    assert findings == []
    assert "does not name its lock" in thing.why or "cannot be asked" in thing.why
    assert bystanders[0].poll() is None


# ------------------------------------------------------------------ 2: a job server


class JobServer:
    """Outside of every session: starts jobs with the environment that its clients send."""

    def __init__(self) -> None:
        self.jobs: list[subprocess.Popen[bytes]] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def serve_one(self, *command: str, detached: bool) -> subprocess.Popen[bytes]:
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rb") as file:
            env = dict(item.split("=", 1) for item in json.loads(file.read()))
        job = subprocess.Popen(command, env=env, start_new_session=detached)
        self.jobs.append(job)
        return job


@pytest.fixture
def job_server() -> Iterator[JobServer]:
    server = JobServer()
    yield server
    server.socket.close()
    for job in server.jobs:
        job.kill()
        job.wait()


CLIENT = """
import json, os, socket, time
with socket.create_connection(("127.0.0.1", {port})) as connection:
    connection.sendall(json.dumps([f"{{k}}={{v}}" for k, v in os.environ.items()]).encode())
time.sleep(600)
"""


def client_of(server: JobServer) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", CLIENT.format(port=server.port))


@pytest.mark.parametrize("history", [True, False])
def test_the_job_of_a_job_server_outlives_a_session_that_ended(
    ledger: Ledger, job_server: JobServer, history: bool
) -> None:
    """ECHILD itself proves that the job was no descendant.  Without the history nothing says whose it
    is."""
    found = guarded(ledger, client_of(job_server))
    job = job_server.serve_one("/bin/sleep", "600", detached=True)
    assert found.end()["certificate"] == "ECHILD"
    if not history:
        ledger.history_path(found.session.id).unlink()
    assert wait_until(lambda: job.pid in marked_by_the_old_rule()), "the control"
    findings, (thing,) = sweep_fully(ledger)
    assert findings == []
    assert thing.what == f"sleep (pid {job.pid})"
    assert ("ECHILD" if history else "cannot be asked") in thing.why
    assert job.poll() is None


@ORPHANS
@pytest.mark.parametrize("detached", [True, False])
def test_the_job_of_a_job_server_outlives_a_session_whose_guards_were_killed(
    ledger: Ledger, job_server: JobServer, detached: bool
) -> None:
    """There is no ECHILD, but the job's parent started it, so it is no orphan.  A job that is older than
    the guards' last look would be in the record if it were the session's; of a younger one nothing says
    whose it is, so there is no certificate."""
    found = guarded(ledger, client_of(job_server))
    job = job_server.serve_one("/bin/sleep", "600", detached=detached)
    found.kill_guards()
    set_last_look(found, before=job.pid)
    assert wait_until(lambda: job.pid in marked_by_the_old_rule()), "the control"
    (finding,), left_alone = sweep_fully(ledger)
    assert_is_named(finding.report, job.pid)
    assert [thing.what for thing in left_alone] == [f"sleep (pid {job.pid})"]
    assert job.poll() is None


@ORPHANS
@pytest.mark.parametrize("seconds", [-1.0, 1.0, 6.0])
def test_a_marked_orphan_counts_only_if_the_guards_cannot_have_seen_it(
    ledger: Ledger, pids_of: PidFile, seconds: float
) -> None:
    """The daemon has the session's environment and no parent that started it: either it escaped from
    the session after the guards' last look at their processes, or it is a job of another program.

    ``seconds``: from that look to its start.  Before the look the guards would have recorded it, and six
    seconds later they would have looked again, so they were dead.
    """
    found = guarded(ledger, SLEEP_FOREVER)
    found.kill_guards()
    subprocess.run(program("daemonise", pids_of), env=found.environment, check=True)
    (daemon,) = pids_once_there(pids_of, 1)
    facts = system.facts(daemon.pid)
    assert facts
    found.lock.write_text(f"{facts.identity.start - seconds:20.2f}\n")
    findings, _ = sweep_fully(ledger)
    assert [finding.removed for finding in findings] == [True]
    assert witness.is_same(daemon) == (seconds != 1.0)
    witness.end_by_pid([daemon])


@ORPHANS
@pytest.mark.parametrize("change", ["user", "cgroups"])
@pytest.mark.root
def test_a_marked_orphan_of_another_user_or_cgroup_is_left_alone(
    ledger: Ledger, pids_of: PidFile, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cgroup is that of a unit that a service manager started with an imported environment.  The
    control is the test before."""
    found = guarded(ledger, SLEEP_FOREVER)
    found.kill_guards()
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    words = program("daemonise", pids_of)
    if change == "user":
        pids_of.path.touch()
        pids_of.path.chmod(0o666)
        words = (*drop, "/usr/bin/python3", "-I", "-S", "-c", DAEMON, str(pids_of))
        for above in (pids_of.path.parent, *pids_of.path.parent.parents):
            above.chmod(above.stat().st_mode | 0o055) if above != Path("/") else None
    else:
        monkeypatch.setattr(system, "resources", lambda pid: "0::/system.slice/job.service\n")
    subprocess.run(words, env=found.environment, check=True)
    (daemon,) = pids_once_there(pids_of, 1)
    facts = system.facts(daemon.pid)
    assert facts
    found.lock.write_text(f"{facts.identity.start - 1:20.2f}\n")
    sweep_fully(ledger)
    assert witness.is_same(daemon)
    witness.end_by_pid([daemon])


DAEMON = (ROOT / "fixtures" / "programs" / "daemonise.py").read_text()


def set_last_look(found: Guarded, *, before: int, seconds: float = 1.0) -> None:
    """As if the guards had last looked at their processes so many seconds before this one began."""
    facts = system.facts(before)
    assert facts
    found.lock.write_text(f"{facts.identity.start - seconds:20.2f}\n")


def assert_is_named(report: ExitReport | None, pid: int) -> None:
    """The report names this process of which nothing says whose it is, and certifies nothing."""
    assert report
    assert (report.certificate, report.clean) == (None, False)
    (problem,) = report.problems
    assert f"nothing says whether the session or a job server started sleep ({pid})" in problem
    assert pid not in [process.pid for process in report.processes]


WORKER = """
import json, os, signal, subprocess, sys
env = json.loads(sys.argv[1])
os.setsid()
if (worker := os.fork()) == 0:
    job = subprocess.Popen(["/bin/sleep", "600"], env=env).pid
    os.setsid()  # the worker makes itself a daemon afterwards
    print(job, flush=True)
    sys.stdin.read()
    os.kill(job, signal.SIGKILL)
    os._exit(0)
sys.stdin.read()
os.waitpid(worker, 0)
"""
SUBREAPER = """
import ctypes, json, os, signal, sys
env = json.loads(sys.argv[1])
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
reading, writing = os.pipe()
if (launcher := os.fork()) == 0:
    os.setsid()
    if (job := os.fork()) == 0:
        os.execve("/bin/sleep", ["sleep", "600"], env)
    os.write(writing, str(job).encode())
    os._exit(0)
os.waitpid(launcher, 0)
job = int(os.read(reading, 32))
print(job, flush=True)
sys.stdin.read()
os.kill(job, signal.SIGKILL)
os.waitpid(job, 0)
"""


@ORPHANS
@pytest.mark.parametrize("server", [WORKER, SUBREAPER], ids=["setsid after the start", "subreaper"])
def test_a_job_outlives_its_session_whatever_process_sessions_its_living_parent_makes(
    ledger: Ledger, server: str
) -> None:
    """The worker of a job server starts a job, and then calls setsid(2); or the server adopts its jobs
    itself.  The control: by their process sessions alone the jobs are orphans."""
    found = guarded(ledger, SLEEP_FOREVER)
    words = [sys.executable, "-I", "-S", "-c", server, json.dumps(found.environment)]
    pipe = subprocess.PIPE
    running = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
    assert running.stdin
    assert running.stdout
    pid = int(running.stdout.readline())
    assert wait_until(lambda: (seen := system.facts(pid)) and (seen.name, seen.state) == ("sleep", "S"))
    found.kill_guards()
    set_last_look(found, before=pid)
    job = system.facts(pid)
    assert job
    parent = system.facts(job.parent)
    assert parent
    assert job.session not in (pid, parent.session), "the control"
    (finding,), left_alone = sweep_fully(ledger)
    assert_is_named(finding.report, pid)
    assert [thing.what for thing in left_alone] == [f"sleep (pid {pid})"]
    now = system.facts(pid)
    assert now
    assert (now.identity, now.state) == (job.identity, job.state), "neither killed nor stopped"
    running.stdin.close()
    assert running.wait() == 0
    running.stdout.close()


@ORPHANS
@pytest.mark.parametrize("recorded", [True, False])
def test_an_orphan_with_a_subreaper_as_parent_counts_only_if_that_is_an_ancestor_of_the_guards(
    ledger: Ledger, pids_of: PidFile, recorded: bool
) -> None:
    """pytest is the subreaper (tests/conftest.py), and above the guards.  A record of an older version
    names no ancestor."""
    found = guarded(ledger, SLEEP_FOREVER, ancestors=own_line() if recorded else ())
    found.kill_guards()
    subprocess.run(program("daemonise", pids_of), env=found.environment, check=True)
    (daemon,) = pids_once_there(pids_of, 1)
    facts = system.facts(daemon.pid)
    assert facts
    assert facts.parent == os.getpid()
    set_last_look(found, before=daemon.pid)
    (finding,), _ = sweep_fully(ledger)
    assert finding.report
    assert finding.report.clean == recorded
    assert (f"({daemon.pid})" in finding.problem) == (not recorded)
    now = system.facts(daemon.pid)
    assert now
    assert now.is_zombie == recorded
    os.kill(daemon.pid, signal.SIGKILL)
    os.waitpid(daemon.pid, 0)


@ORPHANS
@pytest.mark.parametrize("change", ["", "cgroups", "older"])
def test_no_end_is_certified_beside_a_newborn_that_may_be_the_sessions(
    ledger: Ledger, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It made itself a process session (setsid(2)) after the guards' last look, and lost its parents; or
    it also moved to another cgroup.  The control: of one that is older than that look the guards knew
    that it was not theirs."""
    found = guarded(ledger, SLEEP_FOREVER)
    found.kill_guards()
    line = "setsid sleep 600 >/dev/null & echo $!"
    done = subprocess.run(["sh", "-c", line], env=found.environment, stdout=subprocess.PIPE, check=True)
    pid = int(done.stdout)

    def has_made_a_session() -> bool:
        facts = system.facts(pid)
        is_leader = facts is not None and facts.session == pid and facts.name == "sleep"
        return is_leader and bool(system.marker_value(pid, MARKER))  # empty in the middle of the exec

    assert wait_until(has_made_a_session)
    newborn = witness.look(pid)
    assert newborn
    set_last_look(found, before=pid, seconds=-1 if change == "older" else 1)
    if change == "cgroups":
        monkeypatch.setattr(system, "resources", lambda pid: "0::/elsewhere\n")
    report = report_without_guard(ledger, found.record)
    if change == "older":
        assert (report.certificate, report.clean) == ("two-scans", True)
    else:
        assert_is_named(report, pid)
    assert [thing.what for thing in sweep_fully(ledger)[1]] == [f"sleep (pid {pid})"]
    assert witness.is_same(newborn)
    witness.end_by_pid([newborn])


@pytest.mark.parametrize("marked", [True, False])
def test_a_portable_guard_certifies_nothing_beside_a_job_that_may_be_the_sessions(
    ledger: Ledger, marked: bool, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """The control is a process with another marker."""
    found = guarded(ledger, SLEEP_FOREVER, containment="portable")
    env = found.environment if marked else {**found.environment, MARKER: new_id()}
    bystanders.append(subprocess.Popen(["/bin/sleep", "600"], env=env))
    job = bystanders[0]
    assert wait_until(lambda: system.program(job.pid) != os.path.basename(sys.executable))
    assert wait_until(lambda: system.marker_value(job.pid, MARKER))  # empty in the middle of the exec
    report = found.end()
    assert report["certificate"] == (None if marked else "two-scans")
    assert [f"sleep ({job.pid})" in problem for problem in report["problems"]] == [True] * marked
    assert job.poll() is None


# ------------------------------------------------------------------ 3: a recycled number


RECYCLED = """
import json, os, subprocess, sys, time
from pathlib import Path
from browserkeeper.cleanup import evidence
from browserkeeper.process import system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.state.ledger import Ledger
from tests.process.test_ledger import session, write
from browserkeeper import sweep

evidence.roots = list
ledger = Ledger.open()
daemonise = [sys.executable, "-I", "-S", {daemonise!r}, {pids!r}]
for _ in range(5):
    subprocess.run(["true"], check=True)
shell = subprocess.Popen(["sleep", "600"])
guard = system.facts(shell.pid).identity
shell.kill()
shell.wait()
time.sleep(0.05)  # start times are told apart in hundredths of a second
Path("/proc/sys/kernel/ns_last_pid").write_text(str(shell.pid - 2))
subprocess.run(daemonise, check=True, env={{**os.environ, **{env!r}}})
daemon = int(Path({pids!r}).read_text())
facts = system.facts(daemon)
of = session(**{change!r})
write(ledger, of, guard=guard)
# The rule before: the process session has the guard's number, is younger, and has no other leader.
old = facts.session == guard.pid and facts.identity.start >= guard.start
old = old and system.facts(guard.pid) is None
findings = sweep(dry_run=False)
alive = system.facts(daemon)
print(json.dumps([old, [f.removed for f in findings], bool(alive) and not alive.is_zombie]))
"""


@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("later_container", [False, True])
def test_a_process_session_with_the_number_of_a_recorded_guard_is_not_the_sessions(
    pids_of: PidFile, later_container: bool
) -> None:
    """A daemon whose process session has the number that a guard had; also in a later container whose
    pid namespace got the same inode number."""
    script = RECYCLED.format(
        daemonise=str(ROOT / "fixtures" / "programs" / "daemonise.py"),
        pids=str(pids_of),
        env={},
        change={"init_start": 1.0} if later_container else {},
    )
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    done = subprocess.run(
        [*inside, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, [True], True]


def test_recorded_numbers_of_an_earlier_namespace_with_the_same_inode_end_nothing(
    ledger: Ledger, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """Even pid and start time together: they were those of a process in another namespace.  The control
    is the same record with the start time of our own PID 1."""
    bystanders.append(subprocess.Popen(["sleep", "600"]))
    seen = witness.look(bystanders[0].pid)
    assert seen
    write(ledger, session(init_start=1.0), [seen])
    ((finding,), _) = sweep_fully(ledger)
    assert finding.report
    assert (finding.removed, finding.report.certificate) == (True, "ended-with-namespace")
    assert bystanders[0].poll() is None
    write(ledger, session(), [seen])
    ((finding,), _) = sweep_fully(ledger)
    assert finding.report
    assert finding.report.certificate == "two-scans"
    assert bystanders[0].wait() == -signal.SIGKILL


# ------------------------------------------------------------------ 4: hosts that cannot be read


WITHOUT_BOOT_ID = "mount -t proc -o subset=pid proc /proc"
WITHOUT_MACHINE_ID = "mount --bind /dev/null /etc/machine-id"
OWN_BOOT_ID = """
echo 11111111-2222-3333-4444-555555555555 >{file}
mount --bind {file} /proc/sys/kernel/random/boot_id
"""
OWN_MACHINE_ID = "echo 0123456789abcdef0123456789abcdef >{file}\nmount --bind {file} /etc/machine-id"


@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("place", "why"),
    [
        (WITHOUT_BOOT_ID, r"this process cannot read the .*boot id"),
        (WITHOUT_MACHINE_ID, "of another machine, or of an earlier boot of this one"),
        (OWN_BOOT_ID, "was written after this machine was started"),
        (OWN_MACHINE_ID, "it is of another machine$"),
    ],
    ids=["no boot id", "no machine id", "own boot id", "own machine id"],
)
@ORPHANS
@pytest.mark.parametrize("alive", [True, False])
def test_a_session_is_left_alone_where_its_host_or_ours_cannot_be_told(
    ledger: Ledger, roots: Path, tmp_path: Path, place: str, why: str, alive: bool
) -> None:
    """A live session, and one that died a moment ago: of a host that may be another one.  The control:
    where the host is whole, the dead one is swept."""
    if place == OWN_BOOT_ID and not Path("/etc/machine-id").exists():
        pytest.skip("this image has no machine id")
    found = guarded(ledger, SLEEP_FOREVER, tmpdirs=roots)
    if not alive:
        found.kill_guards()
    findings, left_alone = sweep_in(place.format(file=tmp_path / "id"), ledger.directory, roots=(roots,))
    assert findings == []
    kind, identifier, _, reason = left_alone[0]
    assert (kind, identifier) == ("session", found.session.id)
    assert re.search("a guard of it lives" if alive else why, reason)
    assert os.path.isdir(found.session.tmpdir)
    assert found.record
    if alive:
        found.end()
        return
    ((_, _, removed, problem),) = sweep_in("", ledger.directory, roots=(roots,))[0]
    assert (removed, problem) == (True, "")
    assert not os.path.exists(found.session.tmpdir)


HOSTS = {
    "no machine id, no boot id": "//pid:[4026531836]",
    "no machine id, another boot": "/another-boot/pid:[4026531836]",
    "no machine id, this boot": "/{boot}/{namespace}",
    "another boot": "{machine}/another-boot/{namespace}",
    "no boot id": "{machine}//{namespace}",
    "no namespace": "{machine}/{boot}/",
    "nothing": "",
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_record_of_a_host_that_is_not_whole_is_not_ours_to_judge(ledger: Ledger, host: str) -> None:
    """Of two hosts whose images have no machine id, and that share the state directory, say.  The
    record is new, so ``another boot`` is none that has ended."""
    here = dataclasses.asdict(system.host())
    of = session(host=host.format(**here))
    path = write(ledger, of)
    findings, left_alone = sweep_fully(ledger)
    assert findings == []
    assert [thing.session for thing in left_alone] == [of.id]
    path.unlink()


@pytest.mark.parametrize("guards_live", [True, False])
def test_control_the_old_rule_took_an_unreadable_boot_id_for_an_ended_boot(guards_live: bool) -> None:
    here = system.host()
    assert state_by_the_old_rule(f"{here.machine}//{here.namespace}", guards_live) == "orphaned"
    assert state_by_the_old_rule(f"{here.machine}/another/{here.namespace}", guards_live) == "orphaned"


@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("offset", [0, 100_000, -10])
@pytest.mark.leaves_zombies(2, "the guard and the command: PID 1 reaps them")
def test_a_sweep_in_another_time_namespace_leaves_a_session_alone_whose_owner_lives(
    ledger: Ledger, tmp_path: Path, offset: int
) -> None:
    """All start times are other numbers there, that of PID 1 too: the owner seemed to be dead, and the
    pid namespace to be gone.  With the offset 0 the session is known, as one without guards."""
    found = guarded(ledger, SLEEP_FOREVER, tmpdirs=tmp_path, owner=me())
    found.kill_guards()
    words = ["unshare", "--time", "--fork", "--boottime", str(offset)]
    program = sweep_program(ledger.directory, roots=(tmp_path,))
    done = subprocess.run([*words, *program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    findings, left_alone = json.loads(done.stdout)
    assert findings == []
    assert [session for _, session, _, _ in left_alone] == ([found.session.id] if offset else [])
    assert os.path.isdir(found.session.tmpdir)
    assert end_dead_session(ledger, found.record, "closed", by_owner=True).clean


def test_a_part_that_could_not_be_read_equals_nothing() -> None:
    whole = Host("machine", "boot", "pid:[1]", 5.0, 0)
    assert whole.is_same_as(dataclasses.replace(whole))
    for change in ({"machine": ""}, {"boot": ""}, {"namespace": ""}, {"init_start": UNKNOWN}):
        partial = dataclasses.replace(whole, **change)
        assert not partial.is_same_as(partial)
        assert len(partial.missing_parts()) == 1
    for other in ({"init_start": 6.0}, {"uid": 1}, {"init_start": ALWAYS}):
        assert not whole.is_same_as(dataclasses.replace(whole, **other))
    nothing = ProcessIdentity(1, UNKNOWN)
    assert not nothing.is_same_as(nothing)


def test_the_lock_is_asked_again_right_before_the_files_are_removed(
    ledger: Ledger, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict that was wrong, or is no longer right, does no harm to the files."""
    found = guarded(ledger, SLEEP_FOREVER, tmpdirs=roots)
    monkeypatch.setattr(
        "browserkeeper.cleanup.sweeper.verdict_of",
        lambda *_: evidence.Verdict("orphaned", "ended-with-boot"),
    )
    monkeypatch.setattr("browserkeeper.cleanup.removal.LOCK_PATIENCE", 0.1)
    ((finding,), _) = sweep_fully(ledger)
    assert not finding.removed
    assert "files are kept: the lock" in finding.problem
    assert os.path.isdir(found.session.tmpdir)
    assert found.record
    found.end()


def age(ledger: Ledger, identifier: str, seconds: float) -> None:
    """As if the last sign of life of the session's guards were so much older."""
    for path in (ledger.record_path(identifier), ledger.lock_path(identifier)):
        written = path.stat().st_mtime - seconds
        os.utime(path, (written, written))


def test_a_session_of_another_boot_that_wrote_a_moment_ago_is_left_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied disk gives two machines one id; this one has just been started, and its clock is fast."""
    host = system.host()
    of = session(host=f"{host.machine}/another-boot/{host.namespace}")
    write(ledger, of)
    monkeypatch.setattr(system, "booted", lambda: time.time() + 5)
    findings, (thing,) = sweep_fully(ledger)
    assert (findings, thing.session) == ([], of.id)
    assert "a moment ago" in thing.why
    age(ledger, of.id, evidence.CLOCK_SKEW)
    assert [finding.session for finding in sweep_fully(ledger)[0]] == [of.id]


def test_the_certificate_of_an_earlier_boot_says_that_nothing_was_scanned(ledger: Ledger) -> None:
    host = system.host()
    of = session(host=f"{host.machine}/another-boot/{host.namespace}")
    path = write(ledger, of)
    before = (min(system.booted(), time.time()) - 2 * evidence.CLOCK_SKEW,) * 2
    os.utime(path, before)
    assert sweep_fully(ledger)[0] == [], "a guard has written into its lock since"
    os.utime(ledger.lock_path(of.id), before)
    ((finding,), _) = sweep_fully(ledger)
    assert finding.removed
    report = read_ended(ledger.history_path(of.id)).report
    assert (report.certificate, report.clean) == ("ended-with-boot", True)


def test_a_record_that_was_left_beside_a_certified_end_ends_no_process(
    ledger: Ledger, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """The guard was killed between its two last steps.  The control: without that history the recorded
    process is ended."""
    bystanders.append(subprocess.Popen(["sleep", "600"]))
    seen = witness.look(bystanders[0].pid)
    assert seen
    of = session()
    add_ended(ledger, of)
    write(ledger, of, [seen])
    ((finding,), _) = sweep_fully(ledger)
    assert finding.removed
    assert bystanders[0].poll() is None
    assert not list(ledger.records())
    assert [ended.report.reason for ended in ledger.ended()] == ["closed"]
    write(ledger, session(), [seen])
    sweep_fully(ledger)
    assert bystanders[0].wait() == -signal.SIGKILL


# ------------------------------------------------------------------ 21: killed containers


CONTAINED = """
import os, sys, time
from pathlib import Path
from browserkeeper.state.ledger import Ledger
from tests.support.evidence import guarded, me
from tests.support.guards import SLEEP_FOREVER
found = guarded(Ledger.open(), SLEEP_FOREVER, tmpdirs=Path(sys.argv[1]), owner=me())
print(found.session.id, flush=True)
if sys.stdin.readline() == "kill\\n":
    found.kill_guards()
    print("killed", flush=True)
time.sleep(600)
"""


def container(roots: Path) -> subprocess.Popen[str]:
    """A pid namespace of its own with a session in it; SIGKILL ends all of it."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    words = [*inside, sys.executable, "-c", CONTAINED, str(roots)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.leaves_zombies(9, "the processes of a killed pid namespace")
def test_the_session_of_a_killed_container_is_retired_and_that_of_a_live_one_is_not(
    ledger: Ledger, roots: Path
) -> None:
    running = container(roots)
    assert running.stdout
    assert running.stdin
    identifier = running.stdout.readline().strip()
    findings, (thing,) = sweep_fully(ledger)
    assert (findings, thing.session) == ([], identifier)
    assert "a guard of it lives" in thing.why
    running.stdin.write("kill\n")
    running.stdin.flush()
    assert running.stdout.readline() == "killed\n"
    findings, (thing,) = sweep_fully(ledger)
    assert (findings, thing.session) == ([], identifier)
    assert "its pid namespace is in use" in thing.why
    assert list(roots.iterdir())
    running.kill()
    running.wait()
    running.stdin.close()
    running.stdout.close()
    sees_all = system.host().namespace == INITIAL_NAMESPACE
    if not sees_all:
        assert wait_until(lambda: "its owner may live" in sweep_fully(ledger)[1][0].why)
        age(ledger, identifier, evidence.SILENCE)
    assert wait_until(lambda: [f.session for f in sweep(dry_run=True)] == [identifier])
    ((finding,), _) = sweep_fully(ledger)
    assert (finding.session, finding.removed) == (identifier, True)
    assert finding.report
    assert finding.report.certificate == ("ended-with-namespace" if sees_all else None)
    assert not list(roots.iterdir())
    assert not list(ledger.records())
    assert sweep_fully(ledger) == ([], [])
    for kept in ledger.unseen.iterdir():
        os.utime(kept, (0, 0))
    assert sweep_fully(ledger) == ([], [])
    assert not list(ledger.unseen.iterdir())
    assert not ledger.lock_path(identifier).exists()


def test_a_sweep_that_sees_the_processes_ends_what_a_sweep_elsewhere_has_retired(
    ledger: Ledger, bystanders: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sweep is in a container that shares the state directory: its pid namespace is another
    one.  It sees that the lock is free, and no process."""
    bystanders.append(subprocess.Popen(["sleep", "600"]))
    seen = witness.look(bystanders[0].pid)
    assert seen
    of = session()
    write(ledger, of, [seen])
    elsewhere = dataclasses.replace(system.host(), namespace="pid:[2]", init_start=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(system, "host", lambda: elsewhere)
        patch.setattr(system, "is_namespace_in_use", lambda *_: False)
        findings, (thing,) = sweep_fully(ledger)
        assert (findings, thing.session) == ([], of.id), "its owner may live, and will end it"
        age(ledger, of.id, evidence.SILENCE)
        ((finding,), _) = sweep_fully(ledger)
        assert finding.report
        assert (finding.removed, finding.report.certificate) == (True, None)
        assert sweep_fully(ledger) == ([], [])
    assert bystanders[0].poll() is None
    ((finding,), _) = sweep_fully(ledger)
    assert finding.report
    assert (finding.removed, finding.report.certificate) == (True, "two-scans")
    assert bystanders[0].wait() == -signal.SIGKILL
    assert not list(ledger.unseen.iterdir())
    assert not ledger.lock_path(of.id).exists()
    assert [ended.report.certificate for ended in ledger.ended()] == ["two-scans"]


def test_an_owner_does_not_believe_the_report_of_a_sweep_that_saw_no_process(
    ledger: Ledger, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """A sweep in another container has retired its session; the process still lives here."""
    bystanders.append(subprocess.Popen(["sleep", "600"]))
    seen = witness.look(bystanders[0].pid)
    assert seen
    write(ledger, session(), [seen])
    (record,) = ledger.records()
    assert isinstance(record, Record)
    assert end_dead_session(ledger, record, "swept", scope="unseen").certificate is None
    assert bystanders[0].poll() is None
    report = report_without_guard(ledger, record)
    assert (report.reason, report.certificate) == ("guard-died", "two-scans")
    assert bystanders[0].wait() == -signal.SIGKILL


# ------------------------------------------------------------------ what the commands say


def test_the_command_names_what_it_leaves_alone(
    ledger: Ledger, bystanders: list[subprocess.Popen[bytes]]
) -> None:
    """It is no finding: the exit status is 0."""
    of = session(host="another-machine/boot/pid:[1]")
    path = write(ledger, of)
    env = {**os.environ, MARKER: new_id()}
    env.pop(LOCK, None)
    bystanders.append(subprocess.Popen(["sleep", "600"], env=env))
    assert wait_until(lambda: system.marker_value(bystanders[0].pid, MARKER)), "its exec may last"
    done = cli("sweep", "--yes")
    assert done.returncode == 0
    assert "Left alone, not ours to judge: chrome session" in done.stdout
    assert "it is of another machine" in done.stdout
    assert f"sleep (pid {bystanders[0].pid})" in done.stdout
    things = {thing["session"]: thing for thing in cli_json("sweep", "--yes")["left_alone"]}
    assert things[of.id]["why"] == "it is of another machine"
    assert things[env[MARKER]]["kind"] == "processes"
    (shown,) = cli_json("ps")["sessions"]
    assert (shown["state"], shown["why"]) == ("foreign", "it is of another machine")
    path.unlink()
