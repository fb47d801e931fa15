"""What the workers' answers to ``browserkeeper.ps`` and ``browserkeeper.sweep`` tell everybody who can
read the broker: no command line, and nothing of an invalid file.  The controls: without the broker the
same is there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from browserkeeper.celery import remote_control
from browserkeeper.celery.commands import ps_lines
from browserkeeper.state.ledger import Ledger
from browserkeeper.status.snapshot import snapshot
from tests.support.cli import CLI, ROOT
from tests.support.ledger import add_live, new_session, write_record
from tests.support.waiting import SECONDS, wait_until

SECRET = "geheim"


def test_the_command_of_a_run_is_not_sent(state_dir: Path) -> None:
    words = ["sh", "-c", "exec sleep 600", f"https://me:{SECRET}@proxy", f"--token={SECRET}"]
    run = subprocess.Popen([*CLI, "run", "--", *words], cwd=ROOT)
    try:
        assert wait_until(
            lambda: [p.name for s in snapshot().sessions for p in s.processes] == ["sleep"]
        )
        answer = remote_control.ps(None)
        assert SECRET in json.dumps(snapshot().to_dict()), "the control"
    finally:
        run.terminate()
        run.wait(SECONDS)
    assert SECRET not in json.dumps(answer)
    (session,) = answer["sessions"]
    assert (session["kind"], session["browser"], session["state"]) == ("run", "sh", "live")
    assert session["memory"] > 0
    assert session["age"] >= 0
    assert [process["name"] for process in session["processes"]] == ["sleep"]


def test_what_an_invalid_record_has_is_not_sent(state_dir: Path) -> None:
    session = dataclasses.asdict(new_session())
    content = {"schema": 1, "session": {**session, "created": SECRET}, "guards": [], "processes": []}
    record = write_record(state_dir, json.dumps(content))
    assert SECRET in snapshot().bad_records[0].why, "the control"
    answers = [
        remote_control.ps(None),
        remote_control.sweep_host(None),
        remote_control.sweep_host(None, yes=True),
    ]
    assert SECRET not in json.dumps(answers)
    assert [bad["path"] for bad in answers[0]["bad_records"]] == [str(record)]
    assert [finding["what"] for finding in answers[1]["findings"]] == ["not a valid record"]
    assert not record.exists()


def test_the_answer_has_the_named_fields_only(state_dir: Path) -> None:
    """So that a field which a later version adds to records is not sent unseen."""
    ledger = Ledger.open(state_dir)
    session_of_run = dataclasses.replace(new_session(), command=(SECRET,), grid=SECRET)
    add_live(ledger, session_of_run)
    (session,) = remote_control.ps(None)["sessions"]
    ledger.record_path(session_of_run.id).unlink()
    assert SECRET not in json.dumps(session)
    assert set(session) == {
        *("id", "kind", "browser", "label", "containment", "created", "deadline", "tmpdir", "state"),
        *("owner", "guards", "age", "deadline_left", "memory", "processes", "zombies"),
    }
    assert session["owner"]["pid"] == os.getpid()


def test_the_hosts_limits_are_sent_as_numbers(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote_control.ps(None)["host"] is None
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "3")
    answer = remote_control.ps(None)
    assert answer["host"] == {
        "browsers": 0,
        "max_browsers": 3,
        "grid_sessions": 0,
        "max_grid_sessions": None,
        "waiting": 0,
        "draining": False,
        "problem": False,
    }
    assert "host: 0 of 3 browsers, 0 starts wait" in list(ps_lines(answer))
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", SECRET)
    assert SECRET in json.dumps(snapshot().to_dict()), "the control"
    answer = remote_control.ps(None)
    assert SECRET not in json.dumps(answer)
    assert (answer["ok"], answer["host"]["problem"]) == (False, True)
    assert any("have a problem" in line for line in ps_lines(answer))
