"""Attacks by another local user through the file system and the process table.

Each attack is carried out by uid 65534 against root.  Attacks over ports are in test_reach.py.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browserkeeper import ConfigError, LedgerError, sweep
from browserkeeper.cleanup.evidence import session_directories
from browserkeeper.guard import trees
from browserkeeper.guard.files import PLACE, write_atomically
from browserkeeper.guard.trees import LeftBehind, remove_tree
from browserkeeper.process import system
from browserkeeper.process.containment import writable_cgroup
from browserkeeper.state.documents import BadRecord
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.permissions import first_untrusted_directory
from browserkeeper.state.records import new_id
from browserkeeper.state.tmpdirs import choose_root
from tests.process.test_ledger import session, write
from tests.support import witness
from tests.support.other_user import NOBODY, shell_as_nobody
from tests.support.waiting import wait_until

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that all users can write, with the sticky bit, like ``/tmp``."""
    directory = Path(tempfile.mkdtemp(prefix="tmp-shared-"))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    directory = tmp_path / "precious"
    directory.mkdir(mode=0o700)
    (directory / "file").write_text("precious")
    return directory


@pytest.fixture
def ledger(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr("browserkeeper.cleanup.evidence.roots", list)  # so that a test sweeps no others
    return Ledger.open()


def is_untouched(directory: Path) -> bool:
    return [path.name for path in directory.iterdir()] == ["file"]


# --------------------------------------------------------- directories that another user prepared


def other_users_directory(shared: Path) -> Path:
    shell_as_nobody('mkdir -m 0777 "$1/theirs"', shared)
    return shared / "theirs"


def other_users_link(shared: Path) -> Path:
    (shared / "ours").mkdir(mode=0o700)
    shell_as_nobody('ln -s ours "$1/theirs"', shared)
    return shared / "theirs"


def our_link_to_theirs(shared: Path) -> Path:
    other_users_directory(shared).rename(shared / "away")
    (shared / "ours").symlink_to("away")
    return shared / "ours"


def our_link_through_theirs(shared: Path) -> Path:
    """A chain of links, of which the other user can exchange the second; both ends are ours."""
    theirs = other_users_directory(shared)
    theirs.chmod(0o777)
    (shared / "real").mkdir(mode=0o700)
    (theirs / "second").symlink_to(shared / "real")  # ours, but they own the directory
    (shared / "first").symlink_to("theirs/second")
    return shared / "first"


def our_link_up_from_theirs(shared: Path) -> Path:
    """The target leads through their directory and out of it again."""
    other_users_directory(shared)
    (shared / "real").mkdir(mode=0o700)
    (shared / "first").symlink_to(f"{shared}/theirs/../real")
    return shared / "first"


def our_links_through_their_link(shared: Path) -> Path:
    """Three links; the one in the middle is theirs, in a directory of root's."""
    (shared / "real").mkdir(mode=0o700)
    shell_as_nobody('ln -s real "$1/second"', shared)
    (shared / "first").symlink_to("second")
    (shared / "zeroth").symlink_to(shared / "first")
    return shared / "zeroth"


def our_link_in_a_directory_of_all(shared: Path) -> Path:
    """Without the sticky bit each user can exchange it."""
    (shared / "open").mkdir()
    (shared / "open").chmod(0o777)
    (shared / "real").mkdir(mode=0o700)
    (shared / "open" / "link").symlink_to(shared / "real")
    return shared / "open" / "link"


PREPARED = pytest.mark.parametrize(
    "prepare",
    [
        other_users_directory,
        other_users_link,
        our_link_to_theirs,
        our_link_through_theirs,
        our_link_up_from_theirs,
        our_links_through_their_link,
        our_link_in_a_directory_of_all,
    ],
)


@pytest.mark.parametrize(
    ("prepare", "link"),
    [(our_link_through_theirs, "theirs/second"), (our_links_through_their_link, "second")],
)
def test_control_a_link_in_the_middle_leads_elsewhere_although_both_ends_are_ours(
    shared: Path, prepare: Callable[[Path], Path], link: str
) -> None:
    """A look at the path and at its real path, each with its parents, sees only files of ours."""
    place = prepare(shared)
    real = place.resolve()
    assert {part.lstat().st_uid for part in (place, *place.parents, real, *real.parents)} == {0}
    shell_as_nobody('cd "$1"; mkdir -m 777 evil; rm -f "$2"; ln -s "$1/evil" "$2"', shared, link)
    assert place.resolve() == shared / "evil"


def test_links_of_ours_and_of_root_are_trusted(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "up" / "down").mkdir(parents=True)
    (tmp_path / "up" / "down" / "second").symlink_to("../../real")
    (tmp_path / "first").symlink_to("up/down/second")
    (shared / "zeroth").symlink_to(tmp_path / "first")  # in a directory of all, with the sticky bit
    assert first_untrusted_directory(shared / "zeroth" / "not" / "there") == ""
    shared.chmod(0o777)
    assert (
        first_untrusted_directory(shared / "not" / "there") == ""
    )  # no link: an emptyDir of Kubernetes
    assert first_untrusted_directory(shared / "zeroth") == str(shared)


def test_a_relative_path_is_examined_from_the_current_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = our_link_through_theirs(shared)
    monkeypatch.chdir(shared)
    assert first_untrusted_directory(place.name) == str(shared / "theirs")
    assert first_untrusted_directory("nowhere/../theirs") == str(shared / "theirs")


@PREPARED
@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_state_directory_below_another_users_directory_is_refused(
    shared: Path, prepare: Callable[[Path], Path], below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of a directory can exchange each entry in it, whatever mode the entry has.  Firefox's
    wrapper, a program, is in the state directory."""
    theirs = prepare(shared)
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(theirs / below))
    with pytest.raises(LedgerError, match=r"belongs to another user.* Set BROWSERKEEPER_STATE_DIR"):
        Ledger.open()
    assert list(theirs.iterdir()) == []


def test_a_state_directory_below_a_loop_of_links_is_refused(shared: Path) -> None:
    (shared / "loop").symlink_to("loop")
    with pytest.raises(LedgerError, match="Set BROWSERKEEPER_STATE_DIR"):
        Ledger.open(shared / "loop" / "state")


def test_a_fallback_directory_that_another_user_made_is_refused(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROWSERKEEPER_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/no/such")
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    shell_as_nobody('mkdir -m 0777 "$1/browserkeeper-0"', shared)
    with pytest.raises(LedgerError, match=r"browserkeeper-0 .*Set BROWSERKEEPER_STATE_DIR"):
        Ledger.open()


@pytest.mark.parametrize("part", ["live", "history"])
def test_a_link_inside_the_state_directory_is_refused(tmp_path: Path, part: str, precious: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / part).symlink_to(precious)
    with pytest.raises(LedgerError, match="is a link"):
        Ledger.open(tmp_path / "state")


@PREPARED
def test_a_tmpdir_below_another_users_directory_is_refused(
    shared: Path, prepare: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = prepare(shared)
    monkeypatch.setenv("BROWSERKEEPER_TMPDIR", str(theirs))
    with pytest.raises(ConfigError, match=r"belongs to another user.* set BROWSERKEEPER_TMPDIR"):
        choose_root()
    monkeypatch.delenv("BROWSERKEEPER_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(theirs))  # su(1) keeps the variable: skipped, not refused
    monkeypatch.setattr("tempfile.tempdir", None)
    assert choose_root() in ("/dev/shm", "/tmp")


def test_nothing_is_swept_below_another_users_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other user could rename a private directory of ours in there to the name of a session."""
    theirs = other_users_directory(shared)
    (theirs / "private").mkdir()
    (theirs / "private").chmod(0o1700)
    name = f"bk-{new_id()}"
    shell_as_nobody('mv "$1/private" "$1/$2"', theirs, name)
    monkeypatch.setenv("BROWSERKEEPER_TMPDIR", str(theirs))
    assert theirs / name not in session_directories()
    os.chown(theirs, 0, 0)  # the control: the same directory in one of ours
    assert theirs / name in session_directories()


# ------------------------------------------------------------- files at the path of a draft


def plant_link(draft: Path, target: Path) -> None:
    draft.symlink_to(target)


def plant_hardlink(draft: Path, target: Path) -> None:
    draft.hardlink_to(target)


def plant_pipe(draft: Path, target: Path) -> None:
    os.mkfifo(draft, 0o666)


@pytest.mark.parametrize("plant", [plant_link, plant_hardlink, plant_pipe])
def test_a_file_at_the_drafts_path_is_not_written_into(
    tmp_path: Path, precious: Path, plant: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "record.json"
    plant(Path(f"{path}.{os.getpid()}.tmp"), precious / "file")
    write_atomically(str(path), "{}")
    assert (path.read_text(), path.stat().st_mode & 0o777, path.stat().st_nlink) == ("{}", 0o600, 1)
    assert not path.is_symlink()
    assert (precious / "file").read_text() == "precious"


# ------------------------------------------- a directory that is exchanged while it is removed


def session_directory_in_open(shared: Path) -> Path:
    """A session directory where all users can rename it: below a directory without the sticky bit, as
    an emptyDir of Kubernetes is."""
    shared.chmod(0o777)
    directory = shared / f"bk-{new_id()}"
    (directory / "profile").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (directory / "profile" / "cookies").write_text("x")
    return directory


@pytest.mark.parametrize("protected", [True, False])
def test_a_tmpdir_that_is_exchanged_for_a_link_after_the_check(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    """The other user exchanges it at the worst moment, right after the check.  The control follows
    links and removes the other directory's files."""
    directory = session_directory_in_open(shared)
    victim = shared / "victim"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("precious")

    def is_link(name: str, inside: int) -> bool:
        shell_as_nobody('mv "$1" "$1.away"; ln -s victim "$1"', directory)
        return False

    monkeypatch.setattr(trees, "_is_link", is_link)
    if not protected:
        monkeypatch.setattr(trees, "PLACE", PLACE & ~os.O_NOFOLLOW)
    with pytest.raises(LeftBehind, match="Not a directory"):  # the control fails at rmdir of the link
        remove_tree(str(directory))
    assert is_untouched(victim) == protected


def test_a_tmpdir_that_is_exchanged_for_another_users_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = session_directory_in_open(shared)

    def is_link(name: str, inside: int) -> bool:
        shell_as_nobody('mv "$1" "$1.away"; mkdir "$1"; echo precious >"$1/file"', directory)
        return False

    monkeypatch.setattr(trees, "_is_link", is_link)
    with pytest.raises(LeftBehind, match="another user's directory"):
        remove_tree(str(directory))
    assert is_untouched(directory)


@pytest.mark.parametrize("protected", [True, False])
def test_a_directory_in_a_tmpdir_that_is_exchanged_for_a_link(
    shared: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    """By a process of this user: a survivor of the session, say."""
    directory = session_directory_in_open(shared)
    really = trees._place

    def exchanging(name: str, inside: int) -> int:
        if name == "profile":
            (directory / name).rename(directory / "away")
            (directory / name).symlink_to(precious)
        return really(name, inside)

    monkeypatch.setattr(trees, "_place", exchanging)
    if not protected:
        monkeypatch.setattr(trees, "PLACE", PLACE & ~os.O_NOFOLLOW)
    with pytest.raises(LeftBehind, match=r"Not a directory|it was moved"):
        remove_tree(str(directory))
    assert is_untouched(precious) == protected


def test_unusual_names_and_permissions_do_not_stop_a_removal(tmp_path: Path) -> None:
    """The downloads of a page can have any name, and directories can lack all permissions."""
    top = tmp_path / "top"
    for name in (".1~", ".1-1", "a/b/c", "é\n/x"):
        (top / name / "inner").mkdir(parents=True)
        (top / name / "file").write_text("x")
    (top / "a").chmod(0)
    assert remove_tree(str(top))[0] == 4
    assert not top.exists()


def test_a_removal_that_fails_closes_its_file_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``browserkeeper watch`` tries again in each round, in the same process."""
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "inner" / "immutable").write_text("x")
    before = witness.own("fd")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.unlink", refuse)
    with pytest.raises(LeftBehind, match=r"immutable: Operation not permitted .*lsattr"):
        remove_tree(str(tmp_path / "top"))
    monkeypatch.undo()
    assert witness.own("fd") == before


# ------------------------------------------------------------------------------ invalid records


def test_a_record_of_another_user_kills_no_process(ledger: Ledger) -> None:
    """It can only get there by a mistake of root (cp -p, a restored backup)."""
    victim = subprocess.Popen(["sleep", "600"])
    seen = witness.look(victim.pid)
    assert seen
    path = write(ledger, session(), [seen])
    os.chown(path, NOBODY, NOBODY)
    (finding,) = sweep(dry_run=False)
    assert "another user could have written it" in finding.what
    assert finding.problem == "left alone"
    assert victim.poll() is None
    victim.kill()
    victim.wait()
    path.unlink()


def a_directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("make", [a_directory, a_socket, a_pipe])
def test_a_record_that_is_not_a_regular_file_is_left_alone(
    ledger: Ledger, make: Callable[[Path], None]
) -> None:
    path = ledger.record_path(new_id())
    make(path)
    (finding,) = sweep(dry_run=False)
    assert finding.problem == "left alone"
    path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("size", [100_000, 6_000_000])
def test_a_huge_or_deeply_nested_record_is_corrupt(ledger: Ledger, size: int) -> None:
    path = ledger.record_path(new_id())
    path.write_text("[" * size)
    path.chmod(0o600)
    (bad,) = ledger.records()
    assert isinstance(bad, BadRecord)
    assert bad.corrupt
    assert sweep(dry_run=False)[0].removed


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("guards", [{"pid": -1, "start": 1.0}]),
        ("guards", [3]),
        ("processes", [[0, 1.0, "all of our group"]]),
        ("processes", [["1", 1.0, "init"]]),
        ("owner", {"pid": 1, "start": "now"}),
        ("host", 5),
        ("tmpdir", ["/"]),
        ("created", None),
        ("deadline", "soon"),
    ],
)
def test_a_record_with_invalid_values_is_corrupt(ledger: Ledger, part: str, value: object) -> None:
    path = write(ledger, session())
    document = json.loads(path.read_text())
    (document if part in document else document["session"])[part] = value
    path.write_text(json.dumps(document))
    (bad,) = ledger.records()
    assert isinstance(bad, BadRecord)
    assert bad.corrupt
    assert sweep(dry_run=False)[0].removed


@pytest.mark.parametrize("tmpdir", ["/", "/home", "/home/../etc", "{shared}/bk-{id}"])
def test_a_record_removes_no_directory_but_that_of_a_session(
    ledger: Ledger, shared: Path, precious: Path, tmpdir: str
) -> None:
    """The last parameter is a link with the right name to another directory."""
    of = session()
    named = tmpdir.format(shared=shared, id=of.id)
    if named.endswith(of.id):
        Path(named).symlink_to(precious)
    write(ledger, session(of.id, tmpdir=named))
    (finding,) = sweep(dry_run=False)
    assert "does not look like a session's directory" in finding.problem
    assert is_untouched(precious)
    assert Path("/etc/passwd").exists()


@pytest.mark.leaves_zombies(1, "the process of the control is a child of pytest")
@pytest.mark.parametrize("protected", [True, False])
def test_a_record_kills_no_cgroup_but_that_of_a_session(ledger: Ledger, protected: bool) -> None:
    if not writable_cgroup()[0]:
        pytest.skip("no writable cgroup v2 with cgroup.kill")
    of = session()
    name = "tmp-bystanders" if protected else f"browserkeeper-{of.id}"
    with witness.leaf(name) as leaf:
        assert leaf
        bystander = subprocess.Popen(["sleep", "600"])
        (leaf / "cgroup.procs").write_text(str(bystander.pid))
        write(ledger, session(of.id, cgroup=str(leaf)))
        (finding,) = sweep(dry_run=False)
        assert finding.removed
        if protected:
            assert bystander.poll() is None
        else:  # it leaves its cgroup before it can be waited for
            assert wait_until(lambda: bystander.poll() is not None)
        bystander.kill()
        bystander.wait()


# ------------------------------------------------------------------------------------- processes


def test_marked_processes_of_another_user_are_left_alone(ledger: Ledger) -> None:
    """Root can read the environment of all processes.  The control is
    ``test_ledger.test_marked_processes_without_a_record_are_swept``."""
    env = {"BROWSERKEEPER_SESSION": new_id()}
    theirs = subprocess.Popen(["/bin/sleep", "600"], env=env, user=NOBODY, group=NOBODY, extra_groups=[])
    assert system.users(theirs.pid) == {NOBODY}
    assert sweep(dry_run=False) == []
    assert theirs.poll() is None
    theirs.kill()
    theirs.wait()


RECYCLED = """
import json, os, subprocess, sys, time
from pathlib import Path
from browserkeeper import sweep
from browserkeeper.cleanup import evidence
from browserkeeper.state.ledger import Ledger
from browserkeeper.process import system
from tests.process.test_ledger import session, write
from tests.support import witness

evidence.roots = list
ledger = Ledger.open()
first = subprocess.Popen(["sleep", "600"])
dead = witness.look(first.pid)
first.kill()
first.wait()
time.sleep(0.05)  # start times are told apart in hundredths of a second
Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
second = subprocess.Popen(["sleep", "600"])
now = witness.look(second.pid)
print(json.dumps([dead.pid == now.pid, dead.start != now.start]))
for seen in (dead, now):
    write(ledger, session(), [seen])
    (finding,) = sweep(dry_run=False)
    print(json.dumps([finding.removed, second.poll()]))
second.kill()
"""


@pytest.mark.namespaces
def test_a_recycled_pid_is_told_apart_by_its_start_time() -> None:
    """A process lives that got the pid of a dead one.  The record of the dead one does nothing to it;
    its own record (the control) ends it."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    done = subprocess.run(
        [*inside, sys.executable, "-c", RECYCLED], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [[True, True], [True, None], [True, -9]]
