"""``browserkeeper ps`` and ``browserkeeper sweep``: live sessions, and what dead owners left."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import cli, cli_json, invoke, start_run
from tests.support.guards import program
from tests.support.ledger import add_free_lock, dead_record, write_record
from tests.support.waiting import SECONDS, wait_until

ANCIENT = 1e9
"""Seconds: older than any session of this machine."""


def test_ps_without_sessions() -> None:
    assert cli("ps").stdout == "No live sessions.\n"
    assert cli_json("ps") == {"schema": 1, "ok": True, "sessions": [], "pools": [], "bad_records": []}


def test_ps_shows_a_run_and_its_tree(started: list[subprocess.Popen[str]], pids_of: PidFile) -> None:
    running = start_run(started, pids_of, 3, *program("tree", pids_of, 2, 1))
    (session,) = cli_json("ps")["sessions"]
    assert session["kind"] == "run"
    assert session["state"] == "live"
    assert session["owner"]["pid"] == running.front.pid
    assert session["browser"] == os.path.basename(sys.executable)
    assert session["command"][-3:] == [str(pids_of), "2", "1"]
    assert session["deadline_left"] is None
    assert 0 < session["age"] < SECONDS
    assert {p["pid"] for p in session["processes"]} == {seen.pid for seen in running.members}
    assert 0 < sum(p["memory"] for p in session["processes"]) == session["memory"] < 100e6
    pids = {seen.pid for seen in running.members}
    lines = cli("ps", "--tree").stdout.splitlines()
    indents = {int(line.split()[0]): len(line) - len(line.lstrip()) for line in lines[3:]}
    assert session["id"] in lines[1]
    assert indents == {seen.pid: 4 if seen.parent in pids else 2 for seen in running.members}


def test_ps_marks_zombies(started: list[subprocess.Popen[str]], pids_of: PidFile) -> None:
    running = start_run(started, pids_of, 3, *program("zombie_maker", pids_of, 2))
    (session,) = cli_json("ps", status=1)["sessions"]
    assert set(session["zombies"]) == {seen.pid for seen in running.members[1:]}
    text = cli("ps", "--tree").stdout
    assert text.count("ZOMBIE") == 2
    assert f"zombie: pid {session['zombies'][0]} of session {session['id']}" in text


@pytest.mark.parametrize("content", ["", "{", '{"schema": 99}', '{"schema": 1, "session": {}}'])
def test_ps_lists_invalid_records(state_dir: Path, content: str) -> None:
    record = write_record(state_dir, content)
    newer = "99" in content
    assert ("foreign record: " if newer else "bad record: ") in invoke("ps").output
    document = cli_json("ps", status=1)
    assert document["ok"] is False
    (bad,) = document["bad_records"]
    assert bad["path"] == str(record)
    assert bad["why"]
    assert bad["foreign"] == newer
    record.unlink()


def test_a_record_cannot_send_escape_sequences_to_the_terminal(state_dir: Path) -> None:
    record = write_record(state_dir, "{", "\x1b[31mred")
    assert "\x1b" not in cli("ps").stdout
    record.unlink()


@pytest.mark.chrome
def test_ps_shows_a_browser() -> None:
    from browserkeeper import browser

    session = browser("chromium", timeout=600)
    with session:
        (seen,) = cli_json("ps")["sessions"]
        assert (seen["id"], seen["kind"], seen["browser"]) == (session.id, "session", "chromium")
        assert seen["owner"]["pid"] == os.getpid()
        assert 0 < seen["deadline_left"] <= 600

        def witness_agrees() -> bool:
            """A browser starts and ends helpers meanwhile: the two look at different moments."""
            (now,) = cli_json("ps")["sessions"]
            ours = {p.pid for p in witness.below(os.getpid()) if p.name != "bk-guard"}
            return {process["pid"] for process in now["processes"]} <= ours

        assert wait_until(witness_agrees)
        assert session.pid in {process["pid"] for process in seen["processes"]}
        assert seen["memory"] > 50e6
        tree = cli("ps", "--tree").stdout
        assert "\n  " in tree
        assert f" {session.pid} chromium " in tree


# -------------------------------------------------------------------- what the dead left, and sweep


@dataclasses.dataclass
class Orphaned:
    """A session whose owner and guard are dead; a process and a TMPDIR of it are left."""

    session: str
    process: subprocess.Popen[bytes]
    tmpdir: Path
    record: Path


@pytest.fixture
def orphaned(state_dir: Path, tmp_path: Path) -> Iterator[Orphaned]:
    """Written by hand and two hours old: ``--older-than 3600`` keeps the sweep from all younger
    sessions."""
    session = os.urandom(6).hex()
    process = subprocess.Popen(["/bin/sleep", "600"])
    seen = witness.look(process.pid)
    assert seen
    tmpdir = tmp_path / f"bk-{session}"
    tmpdir.mkdir(mode=0o700)
    (tmpdir / "profile").write_bytes(b"x" * 100_000)
    content = dead_record(session, tmpdir)
    content["session"]["label"] = "nightly"
    content["processes"] = [[seen.pid, seen.start / os.sysconf("SC_CLK_TCK"), seen.name]]
    add_free_lock(state_dir, session)
    record = write_record(state_dir, json.dumps(content), session)
    yield Orphaned(session, process, tmpdir, record)
    process.kill()
    process.wait()
    record.unlink(missing_ok=True)


def test_ps_marks_an_orphaned_session(orphaned: Orphaned) -> None:
    (session,) = cli_json("ps", status=1)["sessions"]
    assert session["state"] == "orphaned"
    assert [process["pid"] for process in session["processes"]] == [orphaned.process.pid]
    assert f'orphaned: chrome session {orphaned.session} "nightly", 1 process' in cli("ps").stdout


def test_sweep_without_yes_removes_nothing(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--older-than", 3600, status=1)
    assert document["dry_run"] is True
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert [process["pid"] for process in finding["processes"]] == [orphaned.process.pid]
    assert set(finding["files"]) == {str(orphaned.tmpdir), str(orphaned.record)}
    assert finding["bytes"] >= 100_000
    assert not finding["removed"]
    text = cli("sweep", "--older-than", 3600).stdout
    assert "would be removed; nothing was touched" in text
    assert 'chrome "nightly" of gone.py (pid ' in text
    assert orphaned.process.poll() is None
    assert orphaned.record.exists()
    assert (orphaned.tmpdir / "profile").exists()


def test_sweep_yes_removes_a_dead_session_and_writes_the_history(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--yes", "--older-than", 3600)
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert finding["removed"]
    assert finding["report"]["clean"]
    assert document["totals"]["bytes"] >= 100_000
    assert document["totals"]["processes"] >= 1
    assert orphaned.process.wait(SECONDS) == -signal.SIGKILL
    assert not orphaned.tmpdir.exists()
    assert not orphaned.record.exists()
    report = cli_json("history", "--session", orphaned.session)["report"]
    assert (report["reason"], report["label"]) == ("swept", "nightly")


def test_sweep_reports_a_directory_that_it_may_not_remove(orphaned: Orphaned) -> None:
    orphaned.tmpdir.chmod(0o755)  # guards make private directories only
    document = cli_json("sweep", "--yes", "--older-than", 3600, status=4)
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert not finding["removed"]
    assert "left alone" in finding["problem"]
    assert orphaned.tmpdir.exists()


def test_sweep_leaves_sessions_younger_than_its_age_limit(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--yes", "--older-than", ANCIENT)
    assert document["findings"] == []
    assert orphaned.process.poll() is None
    done = cli("sweep", "--older-than", ANCIENT)
    assert (done.returncode, done.stdout) == (0, "Nothing is left of any dead owner.\n")


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_sweep_refuses_an_invalid_age(seconds: str) -> None:
    done = invoke("sweep", "--older-than", seconds)
    assert done.exit_code == 2
    assert "--older-than" in done.output
