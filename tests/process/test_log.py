"""The command's log: no unbounded read, a bound on the memory that it takes, no silent truncation."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.process import guard_process
from browserkeeper.session.log_search import BLOCK, LogSearch
from tests.support.guards import altered_guard, start
from tests.support.waiting import deadline_in, wait_until

MIB = 1 << 20
LAST = "echo the last line"


def report_of(command: tuple[str, ...], ready: Path, **files: str) -> dict[str, Any]:
    """The report of a session that is ended once its command has made the file ``ready``."""
    ready.unlink(missing_ok=True)
    running = start(command, **files)
    assert wait_until(ready.exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "ECHILD"
    return report


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    return tmp_path / "ready"


def script(text: str, ready: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f"{text}; touch {ready}; exec sleep 600")


def peak_of_a_guard(
    tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str]
) -> tuple[float, dict[str, Any]]:
    """The peak memory of a primary guard whose command leaves a log of 150 MiB, in MiB; the report."""
    status = tmp_path / "status"
    copy = f"open({str(status)!r}, 'w').write(open('/proc/self/status').read())"
    end = "    guard.terminal.restore()\n"
    directory = altered_guard(tmp_path / "altered", (end, f"{end}    {copy}\n"), *changes)
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    log = tmp_path / "log"
    command = script(f"truncate -s 150M {log}; {LAST}", ready)
    report = report_of(command, ready, log=str(log), keep_log=str(tmp_path / "kept"))
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert peak is not None
    return int(peak[1]) / 1024, report


def test_a_guard_reads_no_more_than_a_block_of_a_log(
    tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is mostly a hole, as one of a program that does not append: only its data is kept."""
    peak, report = peak_of_a_guard(tmp_path, ready, monkeypatch)
    assert peak < 60
    assert report["log_tail"].endswith("the last line\n")
    assert (tmp_path / "kept").stat().st_size < MIB
    assert (tmp_path / "kept").read_bytes().endswith(b"the last line\n")
    assert not report["notes"]


def test_control_a_guard_that_reads_the_whole_log_takes_memory_for_it(
    tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = "    log_tail = guard.log.tail()\n"
    whole = "    log_tail = str(open(options.log, 'rb').read()[-9:])\n"
    peak, _ = peak_of_a_guard(tmp_path, ready, monkeypatch, (tail, whole))
    assert peak > 150


def test_a_log_that_grows_too_large_is_emptied_and_goes_on_and_the_report_says_so(
    tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = altered_guard(tmp_path / "altered", ("LIMIT = 64 << 20", "LIMIT = 1 << 20"))
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    log, kept, go = tmp_path / "log", tmp_path / "kept", tmp_path / "go"
    fill = "dd if=/dev/zero bs=5000000 count=1 status=none"  # one write: never seen in part
    running = start(
        script(
            f"{fill}; until [ -e {go} ]; do sleep 0.05; done; echo the last line",
            ready,
        ),
        log=str(log),
        keep_log=str(kept),
    )
    assert wait_until(lambda: log.exists() and 0 < log.stat().st_size < 1000)
    go.touch()
    assert wait_until(ready.exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    (note,) = report["notes"]
    dropped = re.fullmatch(
        r"the command's log grew beyond 1 MiB (\d) times: (\d+) bytes of it were dropped", note
    )
    assert dropped is not None
    # The rest of what was written is still there, and a line that says what is missing.
    assert MIB < int(dropped[2]) <= 5_000_000
    text = kept.read_text()
    assert text.startswith("[browserkeeper: ")
    assert text.endswith("the last line\n")
    assert report["log_tail"].endswith("the last line\n")


def test_a_log_below_the_limit_is_kept_whole(tmp_path: Path, ready: Path) -> None:
    """Also one that takes many blocks; what the file held before stays."""
    kept = tmp_path / "kept"
    kept.write_text("before\n")
    command = script("seq 300000", ready)
    report = report_of(command, ready, log=str(tmp_path / "log"), keep_log=str(kept))
    assert kept.read_text() == "before\n" + "".join(f"{i}\n" for i in range(1, 300_001))
    assert not report["notes"]


def test_the_report_says_how_much_of_the_log_was_kept(tmp_path: Path, ready: Path) -> None:
    """The write is cut off in the middle of a block, by the limit on the size of files."""
    log, kept = tmp_path / "log", tmp_path / "kept"
    log.write_bytes(b"x" * 300_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        running = start(
            ("/bin/sh", "-c", f"touch {ready}; exec sleep 600"), log=str(log), keep_log=str(kept)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert wait_until(ready.exists)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert kept.stat().st_size == 100_000
    (note,) = report["notes"]
    assert note.startswith("only the first 100000 bytes of the log were kept: [Errno 27]")


def test_the_report_says_why_the_log_was_not_kept(tmp_path: Path, ready: Path) -> None:
    """A full disk; a named pipe that no process reads, or that is not read any more."""
    command = script("seq 30000", ready)
    report = report_of(command, ready, log=str(tmp_path / "log"), keep_log="/dev/full")
    assert report["notes"] == ["the log was not kept: [Errno 28] No space left on device"]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    report = report_of(command, ready, log=str(tmp_path / "log2"), keep_log=str(fifo))
    assert report["notes"][0].startswith("the log was not kept: [Errno 6]")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    report = report_of(command, ready, log=str(tmp_path / "log3"), keep_log=str(fifo))
    os.close(reader)
    assert report["notes"][0].startswith("only the first 65536 bytes of the log were kept: [Errno 11]")


@pytest.mark.parametrize("trick", ["mkfifo {log}", "ln -s /dev/zero {log}", "mkdir {log}", "true"])
def test_a_log_that_a_program_has_replaced_is_not_read(trick: str, tmp_path: Path, ready: Path) -> None:
    """``true``: the log is removed, and not replaced."""
    log = tmp_path / "log"
    command = script(f"rm {log}; {trick.format(log=log)}", ready)
    report = report_of(command, ready, log=str(log), keep_log=str(tmp_path / "kept"))
    assert report["log_tail"] == ""
    assert report["notes"][0].startswith("the log was not kept: ")
    assert not report["problems"]


# ------------------------------------------------------------------ the search for the driver's port


@pytest.mark.parametrize("before", [0, 10, BLOCK - 12, BLOCK - 3, BLOCK, 5 * BLOCK - 7])
def test_a_match_is_found_wherever_it_is(before: int, tmp_path: Path) -> None:
    """Also one that lies in two blocks, and one that is written in two pieces."""
    log = tmp_path / "log"
    search = LogSearch(str(log), rb"on port (\d+)\.")
    assert search.search() is None
    log.write_bytes(b"x" * before + b"on port 43")
    assert search.search() is None
    with log.open("ab") as file:
        file.write(b"21.\n" + b"y" * 3 * BLOCK)
    match = search.search()
    assert match is not None
    assert match[1] == b"4321"
    log.unlink()
    assert search.search() is match


def test_the_search_goes_on_in_a_log_that_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "log"
    search = LogSearch(str(log), rb"on port (\d+)\.")
    log.write_bytes(b"x" * 1000)
    assert search.search() is None
    log.write_bytes(b"on port 4321.")
    assert search.search() is not None
