"""The state directory as a whole: a small file for each live session, and a history of ended ones.

``live/ID.json`` is written by the session's guard before it starts the browser.  After the session's end
``history/ID.json`` replaces it.  ``live/ID.end`` is an operator's request to the guard to end the
session.  ``locks/ID`` is locked while a guard of the session lives.  ``pools/`` holds the states that
pools publish (``pool_state.py``).  ``gate/`` has a slot for each browser and a ticket for each start
that waits for one (``admission/``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import LedgerError
from ..guard.files import write_atomically
from ..report import ExitReport
from .directory import find_state_directory
from .documents import BadRecord, read_document
from .locks import LOCKS
from .permissions import is_ours_alone
from .records import EndedSession, Record, read_ended, read_record

GATE = ("gate", "gate/slots", "gate/turns", "gate/queue", "gate/yield")
"""The parts of the state directory that belong to the host's limit."""
HISTORY_LIMIT = 500
"""Number of ended sessions that are kept; the file of one has 2 to 4 KB."""
PARTS = ("live", "history", "pools", LOCKS, "unseen", *GATE)


class Ledger:
    """The state directory of this user."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.live = directory / "live"
        self.history = directory / "history"
        self.pools = directory / "pools"
        self.locks = directory / LOCKS
        self.unseen = directory / "unseen"
        self.gate = directory / "gate"
        self.slots = self.gate / "slots"
        self.turns = self.gate / "turns"
        self.queue = self.gate / "queue"
        self.yields = self.gate / "yield"

    @classmethod
    def open(cls, directory: str | os.PathLike[str] | None = None) -> Ledger:
        """Find the state directory as :func:`find_state_directory` does, and make it where it is
        missing.  Raises LedgerError with the remedy."""
        return cls(find_state_directory(directory, PARTS))

    def is_ours_alone(self) -> bool:
        """True if it exists, and no other user can write records or locks."""
        try:
            parts = (self.directory, self.live, self.locks)
            return all(is_ours_alone(part.lstat()) for part in parts)
        except OSError:
            return False

    def record_path(self, session: str) -> Path:
        return self.live / f"{session}.json"

    def lock_path(self, session: str) -> Path:
        return self.locks / session

    def history_path(self, session: str) -> Path:
        return self.history / f"{session}.json"

    def end_request_path(self, session: str) -> Path:
        """Where an operator's request to end a live session is; its guard removes it with the record."""
        return self.live / f"{session}.end"

    def records(self) -> Iterator[Record | BadRecord]:
        """The records of all live sessions, oldest first, and the files that are not valid ones."""
        return _records_in(self.live)

    def unseen_records(self) -> Iterator[Record | BadRecord]:
        """The records that :meth:`retire` has kept, oldest first."""
        return _records_in(self.unseen)

    def drafts(self) -> list[Path]:
        """Half-written files among the records, oldest first.  The writer of an old one is dead."""
        return [path for path in _oldest_first(self.live) if path.suffix == ".tmp"]

    def stale_end_requests(self) -> list[Path]:
        """Requests to end sessions that have no record any more."""
        requests = (path for path in _oldest_first(self.live) if path.suffix == ".end")
        return [path for path in requests if not path.with_suffix(".json").exists()]

    def lock_files(self) -> list[Path]:
        """The locks of all sessions, oldest first."""
        return _oldest_first(self.locks)

    def ended(self, limit: int = HISTORY_LIMIT) -> Iterator[EndedSession]:
        """The history, newest first; skips files that cannot be read."""
        for path in reversed(_oldest_first(self.history)[-limit:]):
            try:
                yield read_ended(path)
            except (LedgerError, OSError):
                continue

    def ended_ids(self) -> list[str]:
        """The ids of the sessions in the history, oldest first.  Reads no file."""
        return [path.stem for path in _oldest_first(self.history) if path.suffix == ".json"]

    def retire(self, record: Record, report: ExitReport, *, keep: bool = False) -> None:
        """Move a session from the live ones to the history, as its guard does.  Raises OSError.

        ``keep``: its processes could not be seen.  So the record is kept in ``unseen/``, and its lock
        too, for a sweep that can see them.
        """
        path = self.history_path(record.session.id)
        write_atomically(str(path), EndedSession(record.session, report).to_json())
        if keep:
            record.path.replace(self.unseen / record.path.name)
        else:
            record.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.end_request_path(record.session.id).unlink(missing_ok=True)

    def amend(self, session: str, report: ExitReport) -> None:
        """Add the last commands, which guards do not know, to a session's entry in the history.

        Readers see the old entry or the new one.  Does nothing where there is no entry.  Raises OSError.
        """
        path = self.history_path(session)
        try:
            when = path.lstat().st_mtime_ns
            document = read_document(path)
        except FileNotFoundError:  # no history could be written, or it was pruned
            return
        if not isinstance(document.get("exit"), dict):
            return
        commands = [dataclasses.asdict(command) for command in report.commands]
        document["exit"] |= {"commands": commands, "commands_known": report.commands_known}
        write_atomically(str(path), f"{json.dumps(document)}\n")
        with contextlib.suppress(FileNotFoundError):  # the history is in the order of these times
            os.utime(path, ns=(when, when))

    def prune(self) -> None:
        """Keep the newest ``HISTORY_LIMIT`` ended sessions."""
        for path in _oldest_first(self.history)[:-HISTORY_LIMIT]:
            path.unlink(missing_ok=True)


def _records_in(directory: Path) -> Iterator[Record | BadRecord]:
    for path in _oldest_first(directory):
        if path.suffix != ".json":
            continue  # a draft
        try:
            yield read_record(path)
        except FileNotFoundError:
            continue  # the session ended meanwhile
        except LedgerError as error:
            yield BadRecord.from_error(path, error)


def _oldest_first(directory: Path) -> list[Path]:
    """The files of a directory by modification time; leaves out files that vanish meanwhile."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
            except OSError:
                continue
    return [Path(path) for _, path in sorted(found)]
