"""What a removal leaves: mount points above all.  The mounts are real ones, so most tests need root."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browserkeeper import sweep
from browserkeeper.guard import procfs, trees
from browserkeeper.guard.files import is_private_directory
from browserkeeper.guard.trees import LeftBehind, remove_tree, try_to_remove
from browserkeeper.pytest_plugin.output_folder import Folder, remove_stale
from browserkeeper.state.records import new_id
from browserkeeper.state.tmpdirs import tmpdir_name
from tests.support.guards import start
from tests.support.waiting import SECONDS, deadline_in, wait_until

mounts = pytest.mark.usefixtures("unmounted")
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
HANGING = 3.0
"""Seconds until something hangs that takes milliseconds."""


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    directory = tmp_path / "precious"
    (directory / "inner").mkdir(parents=True)
    (directory / "file").write_text("precious")
    (directory / "inner" / "file").write_text("precious")
    return directory


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A tree with some files besides what a test mounts in it."""
    directory = tmp_path / "top"
    (directory / "a" / "b").mkdir(parents=True)
    for place in (directory, directory / "a", directory / "a" / "b"):
        (place / "file").write_text("x")
    return directory


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Takes away what is still mounted below the test's directory."""
    yield
    unmount_below(tmp_path)


def unmount_below(place: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    for point in reversed([os.fsdecode(line.split()[4]) for line in lines if line]):
        if point.startswith(f"{place}/"):
            path = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
            subprocess.run(["umount", "-l", path], check=True)


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def is_whole(directory: Path) -> bool:
    return all((directory / name).read_text() == "precious" for name in ("file", "inner/file"))


# ------------------------------------------------------------------------- mounted directories


def bind_at(place: str) -> Callable[[Path, Path], Path]:
    """A bind mount: of the same file system, so that the device is the same."""

    def make(top: Path, precious: Path) -> Path:
        point = top / place
        point.mkdir(parents=True, exist_ok=True)
        mount("--bind", precious, point)
        return point

    return make


def a_temporary_file_system(top: Path, precious: Path) -> Path:
    point = top / "a" / "b" / "tmpfs"
    point.mkdir()
    mount("-t", "tmpfs", "none", point)
    shutil.copytree(precious, point, dirs_exist_ok=True)
    return point


def an_overlay(top: Path, precious: Path) -> Path:
    point, layers = top / "merged", precious.parent / "layers"
    point.mkdir()
    layers.mkdir()
    mount("-t", "tmpfs", "none", layers)  # an overlay takes no overlay as its upper layer
    for name in ("upper", "work"):
        (layers / name).mkdir()
    options = f"lowerdir={precious},upperdir={layers}/upper,workdir={layers}/work"
    mount("-t", "overlay", "-o", options, "none", point)
    return point


def a_mount_in_a_mount(top: Path, precious: Path) -> Path:
    a_temporary_file_system(top, precious)
    return bind_at("a/b/tmpfs/inner")(top, precious).parent


def a_part_of_the_tree_itself(top: Path, precious: Path) -> Path:
    """Mounted at a second place of the tree: the files are the tree's own, but the place is not."""
    shutil.copytree(precious, top / "original")
    mount("--bind", top / "original", top / "a")
    (top / "a" / "mounted").write_text("x")
    return top / "a"


DIRECTORIES = {
    "at depth 1": bind_at("mnt"),
    "at depth 3": bind_at("a/b/mnt"),
    "on a directory with files": bind_at("a"),
    "on the tree's top": bind_at(""),
    "with a newline": bind_at("a/new\nline"),
    "not UTF-8": bind_at("a/\udcff"),
    "tmpfs": a_temporary_file_system,
    "overlay": an_overlay,
    "nested": a_mount_in_a_mount,
}
each_directory = pytest.mark.parametrize("make", DIRECTORIES.values(), ids=DIRECTORIES)


@mounts
@pytest.mark.root
@pytest.mark.namespaces
@each_directory
def test_what_is_mounted_in_a_tree_is_left_and_named(
    top: Path, precious: Path, make: Callable[[Path, Path], Path]
) -> None:
    point = make(top, precious)
    with pytest.raises(LeftBehind) as caught:
        remove_tree(str(top))
    assert is_whole(point)
    assert is_whole(precious)
    shown = str(point) if str(point).isprintable() else ascii(str(point))
    assert str(caught.value) == f"{shown}: a mount point; unmount it and sweep"
    on_the_way = {point, *point.parents}
    others = [path for path in top.rglob("*") if point not in path.parents and path not in on_the_way]
    assert point == top or not others


@mounts
@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("remove", [shutil.rmtree, remove_tree])
@pytest.mark.parametrize("place", ["mnt", "a/b/mnt"])
def test_control_without_a_look_at_the_mount_a_bind_mount_is_emptied(
    top: Path,
    precious: Path,
    place: str,
    remove: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``shutil.rmtree`` and a removal that knows devices only."""
    bind_at(place)(top, precious)
    monkeypatch.setattr(trees, "mount_of", lambda fd: b"")
    with pytest.raises(OSError, match=r"busy|mount point"):  # rmdir of the mount point itself
        remove(str(top))
    assert list(precious.iterdir()) == []


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_a_tree_is_removed_once_nothing_is_mounted_in_it_any_more(top: Path, precious: Path) -> None:
    bind_at("a/b/mnt")(top, precious)
    assert "mount point" in try_to_remove(str(top))[2]
    unmount_below(top)
    assert try_to_remove(str(top))[2] == ""
    assert not top.exists()
    assert is_whole(precious)


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_a_directory_of_the_tree_that_is_mounted_in_it_again_is_left(top: Path, precious: Path) -> None:
    point = a_part_of_the_tree_itself(top, precious)
    _, _, left = try_to_remove(str(top))
    assert left == f"{point}: a mount point; unmount it and sweep"
    assert not (top / "file").exists()


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_the_mode_of_a_mounted_directory_is_not_changed(top: Path, precious: Path) -> None:
    """A directory of the tree's own without permissions is made accessible."""
    precious.chmod(0o500)
    bind_at("mnt")(top, precious)
    (top / "a").chmod(0)
    try_to_remove(str(top))
    assert precious.stat().st_mode & 0o777 == 0o500
    assert not (top / "a").exists()


# ------------------------------------------------------------------------------ mounted files


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_a_file_that_is_mounted_over_a_file_is_left_and_named(top: Path, precious: Path) -> None:
    mount("--bind", precious / "file", top / "a" / "file")
    files, _, left = try_to_remove(str(top))
    assert left == f"{top}/a/file: a mount point; unmount it and sweep"
    assert files == 2
    assert is_whole(precious)
    assert (top / "a" / "file").read_text() == "precious"
    assert sorted(top.rglob("*")) == [top / "a", top / "a" / "file"]


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_files_of_a_tree_are_removed_although_they_are_mounted_elsewhere(
    top: Path, tmp_path: Path
) -> None:
    """They are the tree's own.  The mount shows the empty directory then, as after an rm."""
    outside = tmp_path / "outside"
    outside.mkdir()
    mount("--bind", top / "a", outside)
    assert try_to_remove(str(top))[2] == ""
    assert not top.exists()
    assert list(outside.iterdir()) == []


# ------------------------------------------------------------------------- dead file systems


def dead_file_system(point: Path) -> int:
    """A FUSE file system whose server never answers, as one on the network whose server is gone; what
    ends the waiting: the close of the descriptor that is returned."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    kind = "40000" if point.is_dir() else "100000"
    options = f"fd={fd},rootmode={kind},user_id={os.geteuid()},group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"dead", os.fsencode(point), b"fuse", ctypes.c_ulong(0), options) != 0:
        pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
    return fd


def ends(function: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether the function ends in a fork; SIGKILL ends a wait for FUSE."""
    if (fork := os.fork()) == 0:
        function()
        os._exit(0)
    is_over = bool(wait_until(lambda: os.waitid(os.P_PID, fork, ENDED) is not None, seconds))
    os.kill(fork, signal.SIGKILL)
    os.waitpid(fork, 0)
    return is_over


@mounts
@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
@pytest.mark.parametrize("place", ["a", "a/file", ""])
def test_a_removal_does_not_wait_for_a_dead_file_system(top: Path, place: str) -> None:
    """The control is a look at the mounted file."""
    fd = dead_file_system(top / place)
    try:
        assert ends(lambda: try_to_remove(str(top)))
        assert ends(lambda: is_private_directory(str(top)))
        assert not ends((top / place).stat, HANGING)
    finally:
        os.close(fd)
    unmount_below(top.parent)
    assert (top / "file").exists() == (place == "")


# --------------------------------------------------------------------------- other obstacles


@pytest.mark.root
def test_an_immutable_file_is_named_and_the_rest_removed(top: Path) -> None:
    fixed = top / "a" / "fixed"
    fixed.write_text("x")
    done = subprocess.run(["chattr", "+i", str(fixed)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no immutable files here: {done.stderr}")
    try:
        left = try_to_remove(str(top))[2]
    finally:
        subprocess.run(["chattr", "-i", str(fixed)], check=True)
    assert left.startswith(f"{fixed}: Operation not permitted")
    assert "lsattr" in left
    assert sorted(top.rglob("*")) == [top / "a", fixed]


def test_a_directory_that_is_moved_away_during_the_removal_is_not_followed(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk would come out in the directory that ``..`` is now, and go on there."""
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    (other / "file").write_text("precious")
    really = trees._place

    def moving(name: str, inside: int) -> int:
        place = really(name, inside)
        if name == "b":
            (top / "a").rename(other / "moved")
        return place

    monkeypatch.setattr(trees, "_place", moving)
    assert "it was moved while it was removed" in try_to_remove(str(top))[2]
    assert (other / "file").read_text() == "precious"
    assert (other / "a").is_dir()


@pytest.mark.parametrize(("times", "is_removed"), [(2, True), (100, False)])
def test_a_directory_that_is_filled_during_the_removal_is_looked_at_again(
    top: Path, monkeypatch: pytest.MonkeyPatch, times: int, is_removed: bool
) -> None:
    really = os.rmdir
    filled: list[str] = []

    def filling(name: str, dir_fd: int) -> None:
        if name == "b" and len(filled) < times:
            filled.append(name)
            (top / "a" / "b" / f"late{len(filled)}").write_text("x")
        really(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", filling)
    left = try_to_remove(str(top))[2]
    assert top.exists() != is_removed
    assert left == ("" if is_removed else f"{top}/a/b: Directory not empty")


def test_many_obstacles_are_named_in_part(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (top / f"fixed{number}").write_text("x")
    really = os.unlink

    def refusing(name: str, dir_fd: int) -> None:
        if name.startswith("fixed"):
            raise PermissionError(13, "Permission denied")
        really(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    left = try_to_remove(str(top))[2]
    assert left.count("Permission denied") == 3
    assert left.endswith("; and 7 more")


def test_a_deep_and_wide_tree_needs_few_open_files(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    inside = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 20, dir_fd=inside)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=inside)
        os.close(os.open("file", os.O_CREAT, dir_fd=inside))
        os.close(inside)
        inside = below
    os.close(inside)
    (top / "wide").mkdir()
    for number in range(2000):
        (top / "wide" / str(number)).write_text("")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
    try:
        files, _, left = try_to_remove(str(top))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (files, left) == (3500, "")
    assert not top.exists()


def test_without_a_look_at_mount_points_nothing_is_removed(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``/proc/self/fdinfo`` cannot be read."""
    monkeypatch.setattr(procfs, "read_bytes", lambda path: None)
    assert "mount points cannot be told" in try_to_remove(str(top))[2]
    assert (top / "a" / "b" / "file").exists()


def test_a_tree_that_does_not_exist_is_no_problem(tmp_path: Path) -> None:
    assert try_to_remove(str(tmp_path / "none")) == (0, 0, "")
    with pytest.raises(FileNotFoundError):
        remove_tree(str(tmp_path / "none"))


def test_a_tree_below_a_link_is_removed(tmp_path: Path, top: Path) -> None:
    """``/dev/shm`` is a link on some systems, and TMPDIR may name one."""
    (tmp_path / "link").symlink_to(tmp_path)
    assert try_to_remove(f"{tmp_path}/link/top/") == (3, 3 * 4096, "")
    assert not top.exists()


# ------------------------------------------------------------------------- other removals


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_a_failed_tests_folder_keeps_what_is_mounted_in_it(tmp_path: Path, precious: Path) -> None:
    folder = Folder(tmp_path, "test_a", 1, "run")
    folder.put("page.html", "x")
    bind_at("mnt")(folder.path, precious)
    remove_stale(tmp_path, "another run")
    folder.discard()
    assert is_whole(precious)
    assert list(folder.path.iterdir()) == [folder.path / "mnt"]


# ------------------------------------------------------------------------- whole sessions


@mounts
@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("place", ["mnt", "a/b/mnt", ""])
def test_what_a_killed_script_had_mounted_in_its_tmpdir_stays_whole(
    tmp_path: Path, precious: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next sweep removes the rest of the TMPDIR, once nothing is mounted there any more."""
    tmpdir = tmp_path / tmpdir_name(new_id())
    script = (
        f'cd /; echo x > "$TMPDIR/file"; mkdir -p "$TMPDIR/{place}" && '
        f'mount --bind {precious} "$TMPDIR/{place}"; touch {tmp_path}/ready; sleep 600'
    )
    running = start(("/bin/sh", "-c", script), tmpdir=str(tmpdir))
    assert wait_until((tmp_path / "ready").exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert is_whole(precious)
    point = str(tmpdir / place).rstrip("/")
    assert report["problems"] == [f"TMPDIR not removed: {point}: a mount point; unmount it and sweep"]
    assert report["certificate"] == "ECHILD"
    monkeypatch.setenv("BROWSERKEEPER_TMPDIR", str(tmp_path))
    monkeypatch.setattr("browserkeeper.cleanup.sweeper.SETTLING_TIME", -1.0)
    # A directory that something is mounted on does not even look like a session's.
    expected = [False] if place else []
    assert [f.removed for f in sweep(dry_run=False) if str(tmpdir) in f.files] == expected
    assert is_whole(precious)
    unmount_below(tmp_path)
    assert [f.removed for f in sweep(dry_run=False) if str(tmpdir) in f.files] == [True]
    assert not tmpdir.exists()


@mounts
@pytest.mark.root
@pytest.mark.namespaces
def test_a_tmpdir_is_named_that_is_hidden_by_a_mount_over_the_directory_above(
    tmp_path: Path, precious: Path
) -> None:
    """Its path leads to nothing then.  The control is a removal by the path, which finds all well."""
    above = tmp_path / "above"
    above.mkdir()
    tmpdir = above / "session"
    script = (
        f"cd /; echo x > $TMPDIR/f; mount --bind {precious} {above}; touch {tmp_path}/ready; sleep 600"
    )
    running = start(("/bin/sh", "-c", script), tmpdir=str(tmpdir))
    assert wait_until((tmp_path / "ready").exists)
    assert try_to_remove(str(tmpdir)) == (0, 0, "")
    report = running.end("closed", deadline_in())
    assert report is not None
    (problem,) = report["problems"]
    assert problem.startswith(f"TMPDIR not removed: {tmpdir}: was moved, or something is mounted over")
    assert is_whole(precious)
    unmount_below(tmp_path)
    assert list(tmpdir.iterdir()) == [tmpdir / "f"]


@pytest.mark.parametrize(
    ("how", "is_left"),
    [
        ("mv $TMPDIR $TMPDIR.away", True),
        ("mv $(dirname $TMPDIR) $(dirname $TMPDIR).away", True),
        ("rm -r $TMPDIR", False),
        ("rm -r $(dirname $TMPDIR)", False),
    ],
)
def test_a_tmpdir_that_the_command_moved_away_is_named(tmp_path: Path, how: str, is_left: bool) -> None:
    (tmp_path / "above").mkdir()
    tmpdir = tmp_path / "above" / "session"
    running = start(("/bin/sh", "-c", f"{how}; touch {tmp_path}/ready; sleep 600"), tmpdir=str(tmpdir))
    assert wait_until((tmp_path / "ready").exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    why = f"TMPDIR not removed: {tmpdir}: was moved"
    assert [problem.startswith(why) for problem in report["problems"]] == [True] * is_left
    assert bool(list(tmp_path.rglob("*.away"))) == is_left


@pytest.mark.root
@pytest.mark.namespaces
def test_a_mount_in_the_commands_own_mount_namespace_is_gone_with_it(
    tmp_path: Path, precious: Path
) -> None:
    """The guard does not see it, and removes the empty directory below."""
    tmpdir = tmp_path / "session"
    script = f'mkdir "$TMPDIR/m"; mount --bind {precious} "$TMPDIR/m"; touch {tmp_path}/ready; sleep 600'
    words = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script)
    running = start(words, tmpdir=str(tmpdir))
    assert wait_until((tmp_path / "ready").exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["problems"] == []
    assert not tmpdir.exists()
    assert is_whole(precious)
