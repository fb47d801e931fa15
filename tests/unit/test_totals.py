"""The counters that all programs of a state directory share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper.admission.refusals import count_refusal
from browserkeeper.errors import LedgerError
from browserkeeper.state.totals import POOL_WAIT, POOL_WAIT_BOUNDS, SIZE, Totals, buckets_of
from browserkeeper.telemetry.tally import Histogram
from tests.support.waiting import SECONDS, wait_until

ADD = """
import sys
from pathlib import Path
from browserkeeper.state import totals as module
module.PATIENCE = 60.0  # who has the lock may not be scheduled for more than 0.1 s
totals = module.Totals(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    assert totals.add({"refused full": 1, "pool-wait chromium sum": 0.25})
"""
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
input()
"""


def adding(directory: Path, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ADD, str(directory), str(times)]
    return subprocess.Popen(command, text=True)


def test_steps_of_several_processes_add_up(tmp_path: Path) -> None:
    processes = [adding(tmp_path, 200) for _ in range(3)]
    assert [process.wait(SECONDS) for process in processes] == [0, 0, 0]
    assert Totals(tmp_path).read() == {"refused full": 600.0, "pool-wait chromium sum": 150.0}
    facts = (tmp_path / "totals.json").stat()
    assert (facts.st_size, facts.st_mode & 0o777) == (SIZE, 0o600)


def test_nothing_is_counted_where_there_is_no_file(tmp_path: Path) -> None:
    assert Totals(tmp_path).read() == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.root
def test_a_disk_that_was_full_before_costs_the_counters_and_nothing_else(tmp_path: Path) -> None:
    """The control: a file that is there already is changed in place on the same full disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=True)
    try:
        (disk / "there").mkdir()
        (disk / "new").mkdir()
        there, new = Totals(disk / "there"), Totals(disk / "new")
        assert there.add({"refused full": 1})
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(512)):
                pass
        assert not new.add({"refused full": 1})
        assert new.read() == {}
        assert there.add({"refused full": 1})
        assert there.read() == {"refused full": 2.0}
        (disk / "filler").unlink()
        assert new.add({"refused full": 1})
        assert new.read() == {"refused full": 1.0}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_process_that_is_killed_leaves_counters_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.state.totals.PATIENCE", SECONDS)  # as in the other process
    totals, before = Totals(tmp_path), 0.0

    def has_counted() -> bool:
        return totals.read().get("refused full", 0) > before

    for _ in range(5):
        process = adding(tmp_path, 10**9)
        assert wait_until(has_counted)
        process.kill()
        process.wait()
        found = totals.read()
        assert found["refused full"] * 0.25 == pytest.approx(found["pool-wait chromium sum"])
        before = found["refused full"]
        assert totals.add({"refused full": 1, "pool-wait chromium sum": 0.25})


def test_a_stopped_process_that_has_the_file_stops_no_other(tmp_path: Path) -> None:
    """The control: once it goes on and lets go, the same step counts."""
    totals = Totals(tmp_path)
    assert totals.add({"refused full": 1})
    command = [sys.executable, "-c", HOLD, str(totals.path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline()
    os.kill(holder.pid, signal.SIGSTOP)
    assert not totals.add({"refused full": 1})
    with pytest.raises(LedgerError, match="locked by another process"):
        totals.read()
    os.kill(holder.pid, signal.SIGCONT)
    holder.communicate("\n", SECONDS)
    assert totals.add({"refused full": 1})
    assert totals.read() == {"refused full": 2.0}


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * SIZE,
        b"rubbish",
        b"[1]",
        b'{"schema": 1, "totals": {"refused full": "many"}}',
        b'{"schema": 1, "totals": {"refused full": NaN}}',
        b'{"schema": 1, "totals": {"refused full": -1}}',
        b"[" * SIZE,
    ],
)
def test_rubbish_is_told_to_the_reader_and_replaced_by_the_next_step(
    content: bytes, tmp_path: Path
) -> None:
    totals = Totals(tmp_path)
    totals.path.write_bytes(content)
    totals.path.chmod(0o600)
    with pytest.raises(LedgerError, match=r"totals\.json"):
        totals.read()
    assert totals.add({"refused full": 1})
    assert totals.read() == {"refused full": 1.0}
    assert totals.path.stat().st_size == SIZE


def test_a_file_that_others_may_write_is_neither_read_nor_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    totals = Totals(tmp_path)
    totals.path.write_text("another user's")
    totals.path.chmod(0o666)
    assert not totals.add({"refused full": 1})
    assert not totals.add({"refused full": 1})
    with pytest.raises(LedgerError, match="another user"):
        totals.read()
    assert totals.path.read_text() == "another user's"
    assert caplog.text.count("not counted in the metrics") == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_left_alone(kind: str, tmp_path: Path) -> None:
    totals, other = Totals(tmp_path), tmp_path / "other"
    other.write_text("mine")
    if kind == "link":
        totals.path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(totals.path, 0o600)
    else:
        totals.path.mkdir()
    assert not totals.add({"refused full": 1})
    with pytest.raises(LedgerError):
        totals.read()
    assert other.read_text() == "mine"


def test_a_full_page_keeps_its_counters(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    assert totals.add({"refused full": 1})
    assert not totals.add({f"{number:0100}": 1.0 for number in range(50)})
    assert totals.add({"refused full": 1})
    assert totals.read() == {"refused full": 2.0}
    assert json.loads(totals.path.read_text())["totals"] == {"refused full": 2.0}


def test_a_fork_in_another_thread_keeps_no_lock(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    with totals._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
        pid = os.fork()
        if not pid:
            signal.pause()
    try:
        assert totals.add({"refused full": 1})
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_waits_of_all_browsers_fit_into_the_page_and_become_a_histogram(tmp_path: Path) -> None:
    totals = Totals(tmp_path)
    waits = [0.0, *(bound + 0.0001 for bound in POOL_WAIT_BOUNDS)]
    for browser in ("chrome", "chromium", "chromium-headless-shell", "edge", "firefox"):
        for _ in range(3):
            assert totals.add({name: 1e6 * step for name, step in buckets_of(browser, waits).items()})
    found = Histogram.of_totals(POOL_WAIT_BOUNDS, totals.read(), POOL_WAIT)
    assert len(found) == 5
    assert found["edge"].counts == [3e6] * (len(POOL_WAIT_BOUNDS) + 1)
    assert found["edge"].total == pytest.approx(3e6 * sum(waits))


def test_a_bound_of_another_version_counts_as_above_all() -> None:
    counters = {"pool-wait chromium 7.0": 2.0, "pool-wait chromium sum": 13.0, "refused full": 4.0}
    (found,) = Histogram.of_totals((1.0,), counters, POOL_WAIT).values()
    assert (found.counts, found.total) == ([0, 2], 13.0)


def test_refusals_and_waits_in_vain_are_counted_apart_and_by_reason(tmp_path: Path) -> None:
    for reason in ("full", "full", "draining"):
        count_refusal(tmp_path, reason, at_once=True)
    count_refusal(tmp_path, "full", at_once=False)
    counted = {"refused full": 2.0, "refused draining": 1.0, "timed-out full": 1.0}
    assert Totals(tmp_path).read() == counted


def test_a_refusal_that_cannot_be_counted_raises_nothing(tmp_path: Path) -> None:
    count_refusal(tmp_path / "no such directory", "full", at_once=True)
