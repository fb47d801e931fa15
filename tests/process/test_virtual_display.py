"""The virtual display of a session: an Xvfb below the guard, whose lock and socket end with it."""

from __future__ import annotations

import dataclasses
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.guard import displays
from browserkeeper.process.guard_process import GuardPlan, GuardProcess
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import new_id
from browserkeeper.state.tmpdirs import new_tmpdir_path
from tests.support import witness
from tests.support.guards import SLEEP_FOREVER, plan_for
from tests.support.waiting import SECONDS, wait_until

XVFB = shutil.which("Xvfb")
pytestmark = pytest.mark.skipif(XVFB is None, reason="no Xvfb")
LOCKS, SOCKETS = Path("/tmp"), Path("/tmp/.X11-unix")


def files_of_displays() -> set[Path]:
    """Every lock, lock of a lock, socket and keymap of the displays :100 to :199.

    Reads the directories itself.  Displays with greater numbers are those of other tests.
    """
    number = "1[0-9][0-9]"
    keymaps = [place / f"server-{number}.xkm" for place in (Path("/var/lib/xkb"), LOCKS)]
    others = (LOCKS / f".X{number}-lock", LOCKS / f".tX{number}-lock", SOCKETS / f"X{number}")
    return {Path(path) for pattern in (*keymaps, *others) for path in glob.glob(str(pattern))}


@pytest.fixture(autouse=True)
def nothing_of_a_display_is_left() -> Iterator[None]:
    before = files_of_displays()
    yield
    assert wait_until(lambda: files_of_displays() <= before), files_of_displays() - before


def plan_of_display(command: tuple[str, ...] = SLEEP_FOREVER, **more: object) -> GuardPlan:
    """A command in the place of a driver, with the record that a sweep needs."""
    from browserkeeper.process.containment import choose
    from browserkeeper.session.record import describe

    ledger, session = Ledger.open(), new_id()
    tmpdir, kind = new_tmpdir_path(session), str(more.pop("containment", "subreaper"))
    lock = str(ledger.lock_path(session))
    facts = describe(
        *(session, "chrome", choose(kind)),  # type: ignore[arg-type]
        created=time.time(),
        timeout=None,
        tmpdir=tmpdir,
        lock=lock,
    )
    return plan_for(
        command,
        kind,
        session=session,
        document=facts.to_json(),
        tmpdir=tmpdir,
        record=str(ledger.record_path(session)),
        history=str(ledger.history_path(session)),
        lock=lock,
        display=XVFB,
        screen="640x480x24",
        **more,
    )


def started(plan: GuardPlan) -> tuple[GuardProcess, int, int]:
    """The guard, the number of the display and the pid of Xvfb."""
    guard = GuardProcess(plan)
    spawned = guard.wait_for("spawned", "failed", "ended", deadline=time.monotonic() + SECONDS)
    assert spawned is not None
    assert spawned["event"] == "spawned", spawned
    return guard, int(spawned["display"].removeprefix(":")), spawned["display_pid"]


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_the_command_gets_a_display_with_a_lock_a_socket_and_a_key() -> None:
    before = dict(os.environ)
    guard, number, xvfb = started(plan_of_display())
    command = guard.wait_for("spawned", deadline=0)["pid"]  # type: ignore[index]
    assert wait_until(lambda: environment_of(command))  # it is empty in the middle of the exec
    assert environment_of(command)["DISPLAY"] == f":{number}"
    assert os.environ == before
    assert int(Path(f"/tmp/.X{number}-lock").read_text()) == xvfb
    assert (SOCKETS / f"X{number}").is_socket()
    assert os.getsid(xvfb) == xvfb  # keys of the terminal do not reach it
    key = Path(guard.plan.tmpdir, "Xauthority")
    assert key.stat().st_mode & 0o777 == 0o600
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    assert f":{6000 + number:04X} " not in listening
    report = guard.end("closed", time.monotonic() + SECONDS)
    assert report
    assert report["certificate"] == "ECHILD"
    assert not report["problems"]
    assert "Xvfb" in {process["name"] for process in report["processes"]}
    assert f"/X{number}\n" not in Path("/proc/net/unix").read_text()  # the abstract socket, too


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("containment", ["subreaper", "portable"])
@pytest.mark.parametrize("end", ["Xvfb", "primary guard", "standby guard"])
@pytest.mark.leaves_zombies(1, "the primary guard's own, where PID 1 does not reap")
def test_a_death_takes_the_display_and_its_files_with_it(end: str, containment: str) -> None:
    if containment == "portable" and end != "Xvfb":
        pytest.skip("a portable guard is a single process")
    guard, _, xvfb = started(plan_of_display(containment=containment))
    kill({"Xvfb": xvfb, "primary guard": guard.primary_pid, "standby guard": guard.pid}[end])
    assert wait_until(lambda: guard.event("ended"))  # wait_for() gives a primary alone some seconds
    ended = guard.event("ended")
    assert ended is not None
    reason = {"Xvfb": "display-died"}.get(end, "guard-died")
    assert (ended["report"]["reason"], ended["report"]["problems"]) == (reason, [])
    guard.end("closed", time.monotonic() + SECONDS)  # reaps our child


OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from tests.process.test_virtual_display import plan_of_display, started
guard, number, xvfb = started(plan_of_display())
print(xvfb, guard.pid, guard.primary_pid, flush=True)
time.sleep(600)
"""


def has_ended(process: witness.Seen) -> bool:
    """True as well for a zombie."""
    now = witness.look(process.pid)
    return now is None or now.start != process.start or now.state == "Z"


def words_of_owner() -> list[str]:
    root = str(Path(__file__).resolve().parent.parent.parent)
    return [sys.executable, "-c", OWNER.format(root=root)]


@pytest.mark.slow
@pytest.mark.leaves_zombies(2, "the guards' own, where PID 1 does not reap")
def test_a_killed_owner_leaves_no_file_of_the_display() -> None:
    with subprocess.Popen(words_of_owner(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        xvfb = witness.look(int(owner.stdout.readline().split()[0]))
        assert xvfb is not None
        owner.kill()
    assert wait_until(lambda: not witness.is_same(xvfb))


@pytest.mark.slow
@pytest.mark.leaves_zombies(4, "guards, Xvfb and command, where PID 1 does not reap")
def test_what_two_dead_guards_and_a_dead_owner_leave_of_a_display_is_swept() -> None:
    from browserkeeper import sweep

    with subprocess.Popen(words_of_owner(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        (xvfb, *guards) = [seen for pid in pids if (seen := witness.look(pid))]
        standby, primary = (guard.pid for guard in guards)
        for process in (owner.pid, standby, primary):  # a standby that runs continues its primary
            os.kill(process, signal.SIGSTOP)
        for process in (primary, standby, owner.pid):  # the death of a parent continues its child
            os.kill(process, signal.SIGKILL)
    assert wait_until(lambda: has_ended(xvfb))  # by the kernel: PR_SET_PDEATHSIG
    assert wait_until(lambda: not any(map(witness.is_same, guards)))  # else the session is still theirs
    assert len(files_of_displays()) == 2  # the control of all tests here: lock and socket
    assert [finding.kind for finding in sweep(dry_run=False)]
    assert not files_of_displays()


@pytest.mark.slow
@pytest.mark.leaves_zombies(20, "the guards' own, where PID 1 does not reap")
def test_a_start_that_is_cut_off_at_any_moment_leaves_no_file_of_a_display() -> None:
    """SIGKILL to Xvfb, or the end of the session, at random moments of its start."""
    moments = random.Random(18)
    for attempt in range(8):
        guard = GuardProcess(plan_of_display())
        time.sleep(moments.uniform(0, 0.4))
        if attempt % 2:
            names = {seen.name: seen for seen in witness.below(guard.pid)}
            if "Xvfb" in names:
                kill(names["Xvfb"].pid)
        report = guard.end("closed", time.monotonic() + SECONDS)
        assert report
        assert not report["problems"]


@pytest.mark.leaves_zombies(1, "the guard's own, where PID 1 does not reap")
def test_the_error_of_a_display_that_does_not_start_has_the_words_of_xvfb() -> None:
    guard = GuardProcess(dataclasses.replace(plan_of_display(), screen="none"))
    failed = guard.wait_for("failed", deadline=time.monotonic() + SECONDS)
    assert failed
    assert failed["where"] == "display"
    assert "none" in failed["text"]
    guard.end("failed", time.monotonic() + SECONDS)


@pytest.mark.leaves_zombies(1, "the guard's own, where PID 1 does not reap")
def test_a_program_in_place_of_xvfb_that_never_is_ready_ends_with_its_session() -> None:
    plan = dataclasses.replace(plan_of_display(), display="/bin/cat", timeout=1.0)
    guard = GuardProcess(plan)
    ended = guard.wait_for("ended", deadline=time.monotonic() + SECONDS)
    assert ended is not None


# ------------------------------------------------------------------ what is not the session's


def lock_of(number: int, pid: int) -> Path:
    path = Path(f"/tmp/.X{number}-lock")
    path.write_text(f"{pid:10d}\n")
    return path


def dead_pid() -> int:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def number() -> Iterator[int]:
    number = random.randint(5000, 50000)
    yield number
    for path in (Path(f"/tmp/.X{number}-lock"), SOCKETS / f"X{number}"):
        path.unlink(missing_ok=True)


def test_a_number_that_another_program_has_is_not_taken(number: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(f"\0/tmp/.X11-unix/X{displays.FIRST}")
        listener.listen()
        stale = lock_of(displays.FIRST + 1, dead_pid())
        guard, taken, _ = started(plan_of_display())
        guard.end("closed", time.monotonic() + SECONDS)
        assert stale.exists()
        stale.unlink()
    assert taken > displays.FIRST + 1


def test_two_sessions_at_once_have_different_displays() -> None:
    guards = [started(plan_of_display()) for _ in range(2)]
    assert guards[0][1] != guards[1][1]
    guards[0][0].end("closed", time.monotonic() + SECONDS)
    assert Path(f"/tmp/.X{guards[1][1]}-lock").exists()
    guards[1][0].end("closed", time.monotonic() + SECONDS)


def test_a_lock_of_another_process_stays(number: int) -> None:
    """Another X server has taken the number meanwhile, or made its lock before the session."""
    pid = dead_pid()
    lock = lock_of(number, os.getpid())
    assert displays.remove_display_files({pid}, time.time()) == (0, [])
    assert displays.remove_display_files({os.getpid()}, time.time()) == (0, [])  # it lives
    lock.write_text(f"{pid:10d}\n")
    os.utime(lock, (time.time() - 60, time.time() - 60))
    assert displays.remove_display_files({pid}, time.time()) == (0, [])
    assert lock.exists()
    assert displays.remove_display_files({pid}, time.time() - 120) == (1, [])  # the control


def test_a_link_in_the_place_of_a_lock_stays(number: int, tmp_path: Path) -> None:
    pid = dead_pid()
    target = tmp_path / "file"
    target.write_text(f"{pid:10d}\n")
    lock = Path(f"/tmp/.X{number}-lock")
    lock.symlink_to(target)
    assert displays.remove_display_files({pid}, time.time()) == (0, [])
    assert lock.is_symlink()
    assert target.exists()


def test_a_socket_at_which_a_program_listens_stays(number: int) -> None:
    """It has the number without a lock, as X servers do with ``-displayfd`` alone."""
    pid, place = dead_pid(), SOCKETS / f"X{number}"
    lock_of(number, pid)
    SOCKETS.mkdir(exist_ok=True, mode=0o1777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        assert displays.remove_display_files({pid}, time.time()) == (0, [])  # nor does its lock go
        assert place.is_socket()
    assert displays.remove_display_files({pid}, time.time()) == (2, [])  # the control


def test_the_lock_of_another_display_stays_though_its_pid_is_equal(number: int) -> None:
    """Programs in two pid namespaces that share /tmp may have the same pid."""
    pid = dead_pid()
    theirs = lock_of(number, pid)
    assert displays.remove_display_files({pid}, time.time(), number + 1) == (0, [])
    assert theirs.exists()
    assert displays.remove_display_files({pid}, time.time(), number) == (1, [])  # the control


def test_the_guard_file_of_a_killed_program_does_not_keep_a_lock(number: int) -> None:
    pid = dead_pid()
    lock_of(number, pid)
    guarded = Path(f"/tmp/.tX{number}-lock")
    guarded.write_text(f"{pid:10d}\n")
    assert displays.remove_display_files({pid}, time.time()) == (1, [])
    assert not guarded.exists()


def test_a_lock_is_left_while_an_x_server_changes_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = dead_pid()
    lock = lock_of(number, pid)
    guarded = Path(f"/tmp/.tX{number}-lock")
    guarded.write_text("")
    monkeypatch.setattr(displays, "ATTEMPTS", 2)
    removed, problems = displays.remove_display_files({pid}, time.time())
    assert (removed, len(problems)) == (0, 1)
    assert f":{number}" in problems[0]
    assert lock.exists()
    guarded.unlink()
    assert displays.remove_display_files({pid}, time.time()) == (1, [])
