"""Records and history that a test writes by hand, in place of a guard."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from browserkeeper.process import system
from browserkeeper.report import ExitReport
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Record, Session, new_id


def new_session(browser: str = "chromium", kind: str = "session") -> Session:
    """A session owned by this process, not yet in the ledger."""
    me = system.facts(os.getpid())
    assert me is not None
    host = system.host()
    return Session(
        new_id(),
        kind,
        browser,
        me.identity,
        "test",
        host.id,
        "subreaper",
        time.time(),
        init_start=host.init_start,
        uid=host.uid,
    )


def add_live(ledger: Ledger, session: Session) -> None:
    """Write the record of a live session that has no guard."""
    text = session.to_json()
    path = ledger.record_path(session.id)
    path.write_text(f'{{"schema": 1, "session": {text}, "guards": [], "processes": []}}')
    path.chmod(0o600)


def add_ended(ledger: Ledger, session: Session, reason: str = "closed", **more: object) -> None:
    """Write a session's end into the history; ``more`` are fields of its ExitReport."""
    report = ExitReport(session.id, session.browser, reason, "subreaper", "ECHILD")
    report = dataclasses.replace(report, ended_at=time.time(), **more)  # type: ignore[arg-type]
    ledger.retire(Record(ledger.record_path(session.id), session, (), ()), report)


def write_record(state_dir: Path, content: str, session: str = "0123456789ab") -> Path:
    """A file among the live records with any content, valid or not; returns its path."""
    directory = state_dir / "live"
    directory.mkdir(mode=0o700, exist_ok=True)
    record = directory / f"{session}.json"
    record.write_text(content)
    record.chmod(0o600)
    return record


def dead_record(session: str, tmpdir: Path) -> dict[str, Any]:
    """The content of a record whose owner and guard are dead; two hours old."""
    host = system.host()
    no_process = {"pid": 2**22 - 1, "start": 1.0}
    return {
        "schema": 1,
        "session": {
            "id": session,
            "kind": "session",
            "browser": "chrome",
            "owner": no_process,
            "owner_name": "gone.py",
            "host": host.id,
            "init_start": host.init_start,
            "uid": host.uid,
            "lock": "there is one",
            "containment": "subreaper",
            "created": time.time() - 7200,
            "tmpdir": str(tmpdir),
        },
        "guards": [no_process],
        "processes": [],
    }


def add_free_lock(state_dir: Path, session: str) -> Path:
    """The lock of a session whose guards are dead; returns its path."""
    directory = state_dir / "locks"
    directory.mkdir(mode=0o700, exist_ok=True)
    lock = directory / session
    lock.write_text(f"{system.now():20.2f}\n")
    lock.chmod(0o600)
    return lock
