"""Downloads that an end cuts off: the session's partial files are removed and named, all others stay.

Most tests have a program in the place of the browser, which holds files open as a browser does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.cleanup.sweeper import sweep
from browserkeeper.guard.downloads import birth_of, finish_partial_files, open_partial_files
from browserkeeper.process.guard_process import GuardProcess
from browserkeeper.state.ledger import Ledger
from tests.support.evidence import guarded
from tests.support.guards import altered_guard, start
from tests.support.waiting import deadline_in, wait_until

WRITER = """
import os, sys, time
ready, *names = sys.argv[1:]
held = []
for name in names:
    mode, path = name.split(":", 1)
    held.append(open(path, mode + "b"))
    if mode != "r":
        held[-1].write(b"x" * 100)
        held[-1].flush()
open(ready, "w")
time.sleep(600)
"""
SUFFIX = ".crdownload"


def birth_is_known(directory: Path) -> bool:
    (directory / "probe").touch()
    fd = os.open(directory, os.O_RDONLY)
    try:
        return birth_of("probe", fd) is not None
    finally:
        os.close(fd)
        (directory / "probe").unlink()


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    directory = tmp_path / "downloads"
    directory.mkdir()
    if not birth_is_known(directory):
        pytest.skip("this file system does not say when a file was made")
    return directory


def writer(tmp_path: Path, *names: str) -> tuple[str, ...]:
    """A program that opens files; each name begins with the mode, as in ``w:/path``."""
    return (sys.executable, "-I", "-S", "-c", WRITER, str(tmp_path / "ready"), *names)


def plan(downloads: Path, suffix: str = SUFFIX) -> dict[str, Any]:
    return {"downloads": str(downloads), "partial_suffix": suffix}


def running_writer(tmp_path: Path, downloads: Path, *names: str, suffix: str = SUFFIX) -> GuardProcess:
    tmpdir = str(tmp_path / "bk-downloads")
    running = start(writer(tmp_path, *names), tmpdir=tmpdir, **plan(downloads, suffix))
    assert wait_until((tmp_path / "ready").exists)
    return running


def cut_off(report: dict[str, Any] | None) -> dict[str, str]:
    """Why each partial download of a guard's report was left, "" where it was removed."""
    assert report is not None
    for one in report["partial_downloads"]:
        assert one["removed"] == (not one["why"]) == (not os.path.exists(one["path"]))
    return {os.path.basename(one["path"]): one["why"] for one in report["partial_downloads"]}


# ------------------------------------------------------------------ every end


@pytest.mark.parametrize("end", ["closed", "timeout", "owner gone", "primary killed", "standby killed"])
@pytest.mark.leaves_zombies(2, "guards are killed")
def test_partial_files_are_removed_at_every_end(end: str, tmp_path: Path, downloads: Path) -> None:
    (downloads / "whole").write_text("whole")
    running = running_writer(tmp_path, downloads, f"w:{downloads}/a{SUFFIX}")
    if end == "timeout":
        running.set_deadline(0.01, "timeout")
    elif end == "owner gone":
        assert running._control is not None
        running._control.close()
    elif end.endswith("killed"):
        # What the primary guard has seen is the standby's only source: the writer dies with that one.
        assert wait_until(lambda: f"a{SUFFIX}" in seen_by(tmp_path))
        os.kill(running.primary_pid if end.startswith("primary") else running.pid, signal.SIGKILL)
    else:
        running.tell_to_end("closed")
    assert wait_until(lambda: running.event("ended"))  # wait_for() gives a primary alone some seconds
    ended = running.event("ended")
    assert ended is not None
    assert cut_off(ended["report"]) == {f"a{SUFFIX}": ""}
    assert ended["report"]["partial_downloads"][0]["bytes"] == 100
    assert os.listdir(downloads) == ["whole"]
    running.end("closed", deadline_in())


def seen_by(tmp_path: Path) -> str:
    file = tmp_path / "bk-downloads" / ".partial-downloads"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("still_open", [True, False])
@pytest.mark.leaves_zombies(4, "both guards are killed")
def test_a_sweep_removes_the_partial_files_of_a_dead_session(
    still_open: bool, state_dir: Path, tmp_path: Path, downloads: Path
) -> None:
    """Those that its guards had seen, and those that a process which outlived them still writes."""
    ledger, held = Ledger.open(), downloads / f"a{SUFFIX}"
    other = downloads / f"other{SUFFIX}"
    command = writer(tmp_path, f"w:{held}")
    if still_open:  # a process that the guards' death does not end
        command = ("/bin/sh", "-c", 'setsid -f "$@"; exec sleep 600', "sh", *command)
    found = guarded(ledger, command, tmpdirs=tmp_path, plan=plan(downloads))
    assert wait_until(held.exists)
    file = Path(found.session.tmpdir, ".partial-downloads")
    assert wait_until(lambda: held.name in file.read_text())
    found.kill_guards()
    other.touch()
    (finding,) = sweep(dry_run=False)
    assert finding.report is not None
    names = {Path(one.path).name: one.removed for one in finding.report.partial_downloads}
    assert names == {held.name: True, other.name: False}
    assert os.listdir(downloads) == [other.name]
    (ended,) = ledger.ended()
    assert ended.report.partial_downloads == finding.report.partial_downloads


# ------------------------------------------------------------------ whose they are


def test_files_that_are_not_plainly_the_sessions_stay(tmp_path: Path, downloads: Path) -> None:
    """Older ones, also when the session writes to them; those of others; those that are only read;
    links; whole files, the empty ones included."""
    older, resumed, link = (downloads / f"{name}{SUFFIX}" for name in ("older", "resumed", "link"))
    for path in (older, resumed, downloads / "whole", downloads / "x.part"):
        path.touch()
    os.utime(older, (1, 1))
    link.symlink_to(downloads / "whole")
    time.sleep(0.2)  # the session's start is later by more than the clock's step
    upload = downloads / f"upload{SUFFIX}"
    held = [f"a:{resumed}", f"w:{downloads}/ours{SUFFIX}", f"w:{downloads}/notes.txt"]
    upload.write_text("of the user, and sent to a page")
    os.utime(upload, (1, 1))
    running = running_writer(tmp_path, downloads, *held, f"r:{upload}")
    other = downloads / f"other{SUFFIX}"
    with other.open("w") as file:  # another session's download, under way
        file.write("y")
        file.flush()
        report = running.end("closed", deadline_in())
    assert cut_off(report) == {
        f"ours{SUFFIX}": "",
        resumed.name: "it was made before this session",
        other.name: "no process of this session was seen to write it",
    }
    names = ["link", "older", "other", "resumed", "upload"]
    expected = {f"{name}{SUFFIX}" for name in names} | {"notes.txt", "whole", "x.part"}
    assert set(os.listdir(downloads)) == expected
    assert report is not None
    assert not report["problems"]


def test_a_download_that_is_completed_before_the_kill_is_whole(tmp_path: Path, downloads: Path) -> None:
    """The guard has seen its partial file; the whole one has the same inode and another name."""
    partial = downloads / f"a{SUFFIX}"
    running = running_writer(tmp_path, downloads, f"w:{partial}")
    assert wait_until(lambda: partial.name in seen_by(tmp_path))
    partial.rename(downloads / "a")
    partial.write_text("of somebody else")
    report = running.end("closed", deadline_in())
    assert cut_off(report) == {partial.name: "no process of this session was seen to write it"}
    assert (downloads / "a").read_text() == "x" * 100
    assert partial.read_text() == "of somebody else"


def test_a_paused_download_is_known_from_an_earlier_look(tmp_path: Path, downloads: Path) -> None:
    """A browser closes the file of a download that is paused or has failed."""
    partial = downloads / f"a{SUFFIX}"
    script = 'exec 3>"$0"; echo x >&3; touch "$1"; while [ -e "$1" ]; do sleep 0.01; done; exec 3>&-'
    command = ("/bin/sh", "-c", f"{script}; touch $1.closed; exec sleep 600", partial, tmp_path / "open")
    tmpdir = str(tmp_path / "bk-downloads")
    running = start(tuple(map(str, command)), tmpdir=tmpdir, **plan(downloads))
    assert wait_until(lambda: partial.name in seen_by(tmp_path))
    assert wait_until((tmp_path / "open").exists)
    (tmp_path / "open").unlink()
    assert wait_until((tmp_path / "open.closed").exists)
    assert cut_off(running.end("closed", deadline_in())) == {partial.name: ""}
    assert not partial.exists()


REOPENER = """
import os, sys, time
ready, path = sys.argv[1:]
open(path, "wb").close()
while True:
    os.rename(path, path.replace("a.", "b.")), os.rename(path.replace("a.", "b."), path)
    open(ready, "w").close()
    time.sleep(0.1)
    with open(path, "ab", buffering=0) as file:
        file.write(b"x")
        time.sleep(0.05)
"""


def test_a_file_that_was_just_renamed_is_looked_at_until_it_is_open_again(
    tmp_path: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chromium closes the file to give it the name with the suffix."""
    # On a busy machine the file may be open at no look of a second.
    altered = altered_guard(tmp_path / "guard", ("RECENT = 1.0", "RECENT = 60.0"))
    monkeypatch.setattr("browserkeeper.process.guard_process.GUARD_DIRECTORY", altered)
    partial = downloads / f"a{SUFFIX}"
    command = (sys.executable, "-I", "-S", "-c", REOPENER, str(tmp_path / "ready"), str(partial))
    running = start(command, tmpdir=str(tmp_path / "bk-downloads"), **plan(downloads))
    assert wait_until((tmp_path / "ready").exists)
    assert cut_off(running.end("closed", deadline_in())) == {partial.name: ""}
    assert not partial.exists()


def test_partial_files_elsewhere_are_found_by_who_writes_them(tmp_path: Path, downloads: Path) -> None:
    """A script may have sent the downloads to another directory (Browser.setDownloadBehavior)."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    running = running_writer(tmp_path, downloads, f"w:{elsewhere}/a{SUFFIX}")
    assert cut_off(running.end("closed", deadline_in())) == {f"a{SUFFIX}": ""}
    assert not os.listdir(elsewhere)


def test_a_guard_that_is_no_browsers_removes_no_partial_file(tmp_path: Path, downloads: Path) -> None:
    """Under ``browserkeeper run`` a downloader keeps its ``.part`` to go on with it later."""
    running = start(writer(tmp_path, f"w:{downloads}/video.mp4.part"), tmpdir=str(tmp_path / "bk-run"))
    assert wait_until((tmp_path / "ready").exists)
    assert cut_off(running.end("closed", deadline_in())) == {}
    assert os.listdir(downloads) == ["video.mp4.part"]


def test_a_partial_file_that_cannot_be_removed_is_a_problem(tmp_path: Path, downloads: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may remove files of a directory that is not writable")
    running = running_writer(tmp_path, downloads, f"w:{downloads}/a{SUFFIX}")
    downloads.chmod(0o500)
    report = running.end("closed", deadline_in())
    downloads.chmod(0o700)
    assert report is not None
    assert [problem.split(":")[0] for problem in report["problems"]] == ["partial download not removed"]


# ------------------------------------------------------------------ Firefox's empty file


@pytest.mark.parametrize(
    ("part", "final"),
    [
        ("big.R9tEVm8T.bin.part", "big.bin"),
        ("big.HReAwEw_.tar.gz.part", "big.tar.gz"),
        ("big.3MjlQRei.part", "big"),
        ("big(1).GnxnQfW-.bin.part", "big(1).bin"),
        ("report.20240101.aB3dE6gH.pdf.part", "report.20240101.pdf"),
    ],
)
def test_the_empty_file_of_a_firefox_download_is_removed_with_its_partial_file(
    part: str, final: str, downloads: Path
) -> None:
    """The names are measured ones.  A file with content, or an older one, is no such file."""
    for content, is_older in (("", False), ("content", False), ("", True)):
        began = time.time()
        if is_older:
            (downloads / final).write_text(content)
            time.sleep(0.2)
        with (downloads / part).open("w") as file:
            if not is_older:
                (downloads / final).write_text(content)
            seen = open_partial_files([os.getpid()], ".part", str(downloads))
            assert file.name in seen.values()
        (found,), problems = finish_partial_files(str(downloads), ".part", seen, began)
        is_placeholder = not content and not is_older
        assert found["placeholder"] == (str(downloads / final) if is_placeholder else "")
        assert not problems
        assert os.listdir(downloads) == ([] if is_placeholder else [final])
        (downloads / final).unlink(missing_ok=True)
