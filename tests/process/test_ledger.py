"""The state directory and the sweep: which records are valid, what is swept, and what is left alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper import LedgerError, sweep
from browserkeeper.cleanup.evidence import state_of
from browserkeeper.guard.files import make_session_directory
from browserkeeper.guard.lock import SessionLock
from browserkeeper.process import own_line, system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.state.documents import BadRecord
from browserkeeper.state.ledger import HISTORY_LIMIT, Ledger
from browserkeeper.state.locks import ask, last_look
from browserkeeper.state.records import Record, Session, new_id
from tests.conftest import PidFile
from tests.support import witness
from tests.support.guards import pids_once_there, program, start, staying
from tests.support.ledger import add_free_lock
from tests.support.waiting import deadline_in, wait_until

DEAD = ProcessIdentity(2**22 - 3, 1.0)
MODE = 0o600


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open()


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only directory in which session directories are searched, so that a test sweeps no others."""
    directory = Path(tempfile.mkdtemp(prefix="tmp-sweep-"))
    monkeypatch.setattr("browserkeeper.cleanup.evidence.roots", lambda: [str(directory)])
    yield directory
    directory.rmdir()


def session(identifier: str = "", **changes: object) -> Session:
    facts: dict[str, object] = {
        "id": identifier or new_id(),
        "kind": "session",
        "browser": "chrome",
        "owner": DEAD,
        "owner_name": "test",
        "host": system.host().id,
        "init_start": system.host().init_start,
        "uid": os.geteuid(),
        "lock": "there is one",
        "containment": "subreaper",
        "created": time.time(),
        "ancestors": own_line(),
    }
    return Session(**{**facts, **changes})  # type: ignore[arg-type]


def write(
    ledger: Ledger,
    of: Session,
    processes: list[witness.Seen] | None = None,
    guard: ProcessIdentity = DEAD,
) -> Path:
    """Write the record of a session, and its lock, which no guard holds."""
    ticks = os.sysconf("SC_CLK_TCK")
    path = ledger.record_path(of.id)
    document = {
        "schema": 1,
        "session": json.loads(of.to_json()),
        "guards": [{"pid": guard.pid, "start": guard.start}],
        "processes": [[s.pid, s.start / ticks, s.name] for s in processes or []],
    }
    path.write_text(json.dumps(document))
    path.chmod(MODE)
    if of.lock:
        add_free_lock(ledger.directory, of.id)
    return path


def remove_records(ledger: Ledger) -> None:
    for path in ledger.live.iterdir():
        path.unlink()


# ------------------------------------------------------------------ the directory


def test_the_state_directory_is_made_private(tmp_path: Path) -> None:
    directory = Ledger.open(tmp_path / "state").directory
    for part in (directory, directory / "live", directory / "history"):
        assert part.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["", "live"])
def test_a_state_directory_that_others_can_write_is_refused_and_not_changed(
    tmp_path: Path, part: str
) -> None:
    """It may be ``/tmp`` by mistake: a mode of 0700 there would break the machine for other users."""
    directory = tmp_path / "state" / part
    directory.mkdir(parents=True)
    directory.chmod(0o1777)
    with pytest.raises(LedgerError, match="can be written by others"):
        Ledger.open(tmp_path / "state")
    assert directory.stat().st_mode & 0o7777 == 0o1777


def test_a_state_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(LedgerError, match="belongs to another user"):
        Ledger.open(tmp_path / "link")


@pytest.mark.root
def test_a_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with pytest.raises(LedgerError, match="belongs to another user"):
        Ledger.open(directory)


@pytest.mark.parametrize(("part", "refused"), [("history", False), ("pools", False), ("live", True)])
def test_only_the_directory_of_live_records_has_to_be_writable(
    part: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``access`` is replaced, since root may write everywhere."""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != part)
    with pytest.raises(LedgerError) if refused else contextlib.nullcontext():
        Ledger.open(tmp_path / "state")


def test_without_a_home_the_state_directory_is_in_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BROWSERKEEPER_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/no/such")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Ledger.open().directory == tmp_path / f"browserkeeper-{os.getuid()}"


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "corrupt or truncated"),
        ("{", "corrupt or truncated"),
        ("\x00\xff", "corrupt or truncated"),
        ('{"schema": 1}', "not a record"),
        ('{"schema": 1, "session": {"owner": 3}, "guards": [], "processes": []}', "not a record"),
    ],
)
def test_a_corrupt_record_is_reported_and_swept(ledger: Ledger, text: str, why: str) -> None:
    path = ledger.record_path(new_id())
    path.write_text(text, encoding="latin-1")
    path.chmod(MODE)
    (bad,) = ledger.records()
    assert isinstance(bad, BadRecord)
    assert why in bad.why
    (dry,) = sweep()
    assert not dry.removed
    assert path.exists()
    (done,) = sweep(dry_run=False)
    assert done.removed
    assert not path.exists()


@pytest.mark.parametrize("text", ["[]", '{"schema": 99}'])
def test_a_newer_versions_record_is_left_alone(ledger: Ledger, text: str) -> None:
    path = ledger.record_path(new_id())
    path.write_text(text)
    path.chmod(MODE)
    (finding,) = sweep(dry_run=False)
    assert "not of schema" in finding.what
    assert finding.problem == "left alone"
    assert path.exists()
    remove_records(ledger)


def test_a_record_that_others_could_have_written_is_ignored(ledger: Ledger, pids_of: PidFile) -> None:
    """The record names a living process of this user.  Another user could have it killed by such a
    record."""
    victim = subprocess.Popen(["sleep", "600"])
    seen = witness.look(victim.pid)
    assert seen
    path = write(ledger, session(), [seen])
    path.chmod(0o666)
    (finding,) = sweep(dry_run=False)
    assert "another user could have written it" in finding.what
    assert finding.problem == "left alone"
    assert path.exists()
    assert victim.poll() is None
    victim.kill()
    victim.wait()
    remove_records(ledger)


def test_a_record_that_is_a_link_is_not_followed(ledger: Ledger, tmp_path: Path) -> None:
    real = write(ledger, session())
    moved = real.rename(tmp_path / "real.json")
    ledger.record_path(new_id()).symlink_to(moved)
    (finding,) = sweep(dry_run=False)
    assert finding.problem == "left alone"
    assert moved.exists()
    remove_records(ledger)


def test_a_record_that_is_a_pipe_does_not_block(ledger: Ledger) -> None:
    os.mkfifo(ledger.record_path(new_id()), MODE)
    (bad,) = ledger.records()
    assert isinstance(bad, BadRecord)
    remove_records(ledger)


def test_a_record_under_another_name_is_refused(ledger: Ledger) -> None:
    write(ledger, session()).rename(ledger.record_path(new_id()))
    (bad,) = ledger.records()
    assert isinstance(bad, BadRecord)
    assert "does not match" in bad.why
    remove_records(ledger)


def test_the_history_keeps_a_bounded_number_of_sessions(ledger: Ledger) -> None:
    for number in range(HISTORY_LIMIT + 7):
        path = ledger.history_path(f"{number:012x}")
        path.write_text("{}")
        os.utime(path, (number, number))
    ledger.prune()
    names = sorted(path.stem for path in ledger.history.iterdir())
    assert len(names) == HISTORY_LIMIT
    assert names[0] == f"{7:012x}"


# ------------------------------------------------------------------ states and sweeping


def _only(ledger: Ledger) -> Record:
    (record,) = ledger.records()
    assert isinstance(record, Record)
    return record


def test_the_state_of_a_session_by_its_owner_and_its_guards(ledger: Ledger) -> None:
    me = system.facts(os.getpid())
    assert me
    cases = {
        "live": (session(owner=me.identity), me.identity),
        "unguarded": (session(owner=me.identity), DEAD),
        "ending": (session(), me.identity),
        "orphaned": (session(), DEAD),
        "foreign": (session(host="another-machine/" + system.host_id().partition("/")[2]), DEAD),
    }
    for expected, (of, guard) in cases.items():
        write(ledger, of, guard=guard)
        assert state_of(_only(ledger)) == expected.strip()
        remove_records(ledger)


def test_only_orphaned_sessions_are_swept(ledger: Ledger) -> None:
    me = system.facts(os.getpid())
    assert me
    write(ledger, session(owner=me.identity), guard=me.identity)
    write(ledger, session(host="another-machine/" + system.host_id().partition("/")[2]))
    assert sweep(dry_run=False) == []
    assert len(list(ledger.records())) == 2
    remove_records(ledger)


def test_another_process_with_a_recorded_pid_is_left_alone(ledger: Ledger) -> None:
    """The record has the pid of a living process with another start time."""
    bystander = subprocess.Popen(["sleep", "600"])
    seen = witness.look(bystander.pid)
    assert seen
    stale = witness.Seen(seen.pid, seen.parent, seen.state, seen.name, seen.start - 500)
    write(ledger, session(), [stale])
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_record_of_another_boot_kills_no_process(ledger: Ledger) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    seen = witness.look(bystander.pid)
    assert seen
    machine = system.host().machine
    path = write(ledger, session(host=f"{machine}/another-boot/pid:[1]"), [seen])
    for file in (path, *ledger.lock_files()):
        os.utime(file, (0, 0))
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert finding.report
    assert finding.report.certificate == "ended-with-boot"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_directory_that_is_not_a_sessions_is_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    write(ledger, session(tmpdir=str(tmp_path)))
    (finding,) = sweep(dry_run=False)
    assert "does not look like" in finding.problem
    assert (tmp_path / "precious").exists()


@pytest.mark.leaves_zombies(9, "both guards were killed, so no guard reaps")
def test_a_session_whose_guards_were_both_killed_is_swept(
    ledger: Ledger, root: Path, pids_of: PidFile
) -> None:
    """Its owner is dead too.  Processes are found by the record, the marker and their descent."""
    me = session(tmpdir=f"{root}/bk-{new_id()}")
    me = Session(**{**me.__dict__, "id": me.tmpdir[-12:]})
    running = start(
        staying(program("daemonise", pids_of)),
        session=me.id,
        tmpdir=me.tmpdir,
        record=str(ledger.record_path(me.id)),
        lock=str(ledger.lock_path(me.id)),
        document=me.to_json(),
    )
    (daemon,) = pids_once_there(pids_of, 1)
    assert wait_until(lambda: daemon.pid in [one.pid for one, _ in _only(ledger).processes])
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(running.pid, signal.SIGSTOP)
    os.kill(spawned["primary"], signal.SIGKILL)
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    running.close()
    assert wait_until(lambda: state_of(_only(ledger)) == "orphaned")
    assert witness.is_same(daemon)
    (dry,) = sweep()
    assert daemon.pid in {p.pid for p in dry.processes}
    assert witness.is_same(daemon)
    assert sweep(older_than=3600) == []
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert finding.report
    assert finding.report.clean
    assert not witness.is_same(daemon)
    assert not os.path.exists(me.tmpdir)
    assert [ended.report.reason for ended in ledger.ended()] == ["swept"]
    assert sweep() == []


@pytest.mark.parametrize("now", [1234.001, 1234.009])
def test_no_process_that_was_born_after_a_look_is_older_than_its_stamp(
    now: float, tmp_path: Path
) -> None:
    """The kernel rounds start times down, to a hundredth of a second."""
    path = tmp_path / "lock"
    lock = SessionLock(str(path))
    lock.take()
    lock.stamp(now)
    assert last_look(path) == 1234.0


def test_a_live_guards_session_without_a_record_is_left_alone(ledger: Ledger, pids_of: PidFile) -> None:
    """As a session with another state directory: its guard will end it."""
    running = start(staying(program("daemonise", pids_of)))
    pids_once_there(pids_of, 1)
    assert sweep(dry_run=False) == []
    report = running.end("closed", deadline_in())
    assert report
    assert report["reason"] == "closed"


def test_a_forgotten_directory_is_swept_when_it_is_old(ledger: Ledger, root: Path) -> None:
    directory = root / f"bk-{new_id()}"
    make_session_directory(str(directory))
    (directory / "profile").write_text("x")
    assert sweep(dry_run=False) == [], "it may be of a session that is just starting"
    old = time.time() - 120
    os.utime(directory, (old, old))
    assert [f.kind for f in sweep()] == ["directory"]
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert not directory.exists()


def test_a_directory_with_the_name_of_a_sessions_that_no_guard_made_is_left_alone(
    ledger: Ledger, root: Path
) -> None:
    """Private, of this user, and old; it lacks the sign that a guard gives.  The control is the test
    before."""
    directory = root / f"bk-{new_id()}"
    directory.mkdir(mode=0o700)
    os.utime(directory, (0, 0))
    assert sweep(dry_run=False) == []
    directory.rmdir()


def test_a_directory_that_a_guard_holds_is_left_alone(ledger: Ledger, root: Path) -> None:
    """As one of another container: its record and its processes cannot be seen here, its lock can."""
    directory = root / f"bk-{new_id()}"
    running = start(("/bin/sleep", "600"), tmpdir=str(directory))
    assert running.wait_for("spawned", deadline=deadline_in())
    old = time.time() - 120
    os.utime(directory, (old, old))
    assert ask(directory).state == "held"
    assert sweep(dry_run=False) == []
    running.end("closed", deadline_in())
    assert not directory.exists()


def test_half_written_records_are_swept_when_they_are_old(ledger: Ledger) -> None:
    draft = ledger.live / "abc.json.123.tmp"
    draft.write_text("{")
    assert sweep(dry_run=False) == []
    old = time.time() - 120
    os.utime(draft, (old, old))
    assert sweep(dry_run=False)[0].removed
    assert not draft.exists()


def test_a_signal_needs_the_start_time_of_the_process_too() -> None:
    child = subprocess.Popen(["sleep", "600"])
    found = system.facts(child.pid)
    assert found
    wrong = ProcessIdentity(child.pid, found.identity.start + 10)
    assert not system.send_signal(wrong, signal.SIGKILL)
    assert child.poll() is None
    assert system.send_signal(found.identity, signal.SIGKILL)
    child.wait()
    assert not system.send_signal(found.identity, signal.SIGKILL)
