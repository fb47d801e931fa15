"""The state directory: one small file per live session, and a bounded history of ended ones.

``live/ID.json`` is written by the guard before it starts anything, and replaced by
``history/ID.json`` after the certificate; ``pools/`` belongs to pool_state.py.  This module finds
the directory, reads and judges records, and bounds the history.  A record is believed only when
this user alone can have written it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..guard.files import write_atomically
from ..process.identity import ProcessIdentity
from ..report import SCHEMA, ExitReport, looks_at_memory
from .permissions import is_ours_alone, stranger_on_the_way


class CorruptRecordError(LedgerError):
    """A file of ours alone that holds no record."""


PARTS = ("live", "history", "pools")
HISTORY_LIMIT = 500
"""How many ended sessions are kept; a report is 2-4 KB."""

_ID = re.compile(r"[0-9a-f]{12}")
_TYPES: dict[str, Any] = {"str": str, "float": (int, float), "float | None": (int, float, type(None))}
"""What a field of a Session, by its annotation, may be in a file."""


def new_id() -> str:
    """Twelve hexadecimal digits: the session's name in the ledger, in TMPDIR and as the marker."""
    return os.urandom(6).hex()


@dataclasses.dataclass(frozen=True)
class Session:
    """What the owner writes down about a session before it exists.  Times in epoch seconds."""

    id: str
    kind: str
    browser: str
    owner: ProcessIdentity
    owner_name: str
    host: str
    containment: str
    created: float
    deadline: float | None = None
    tmpdir: str = ""
    cgroup: str = ""
    command: tuple[str, ...] = ()
    grid: str = ""
    """The Grid's address, without credentials, of a session that is on one."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Session:
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in facts.items() if name in names}
        known["owner"] = identity_from(**known["owner"])
        known["command"] = tuple(known.get("command", ()))
        session = cls(**known)
        for field in dataclasses.fields(cls):  # a file may say anything, and its readers would stumble
            value = getattr(session, field.name)
            if not isinstance(value, _TYPES.get(str(field.type), object)):
                raise TypeError(f"{field.name} is {value!r}")
        return session


@dataclasses.dataclass(frozen=True)
class Record:
    """A live session's file: the owner's facts, its guards, the processes that they last saw, and the
    memory of those over time, as in :attr:`ExitReport.memory`."""

    path: Path
    session: Session
    guards: tuple[ProcessIdentity, ...]
    processes: tuple[tuple[ProcessIdentity, str], ...]
    memory: tuple[tuple[float, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A file in the ledger that cannot be believed, and why.

    ``corrupt``: nobody can make sense of it.  The others are somebody else's, or another
    version's, and theirs to remove.
    """

    path: Path
    why: str
    corrupt: bool


@dataclasses.dataclass(frozen=True)
class Ended:
    """One line of the history."""

    session: Session
    report: ExitReport


class Ledger:
    """The state directory of this user."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.live = directory / "live"
        self.history = directory / "history"
        self.pools = directory / "pools"

    @classmethod
    def open(cls, directory: str | os.PathLike[str] | None = None) -> Ledger:
        """Find the state directory and make it, 0700.

        In order: the argument, ``BROWSERKEEPER_STATE_DIR``, the platform's own place, and where
        that cannot be written (a container's user without a home), one in the temporary
        directory.  Raises LedgerError with the remedy.
        """
        named = directory or os.environ.get("BROWSERKEEPER_STATE_DIR")
        if named:
            return cls(_private_directory(Path(named).expanduser().absolute()))
        try:
            return cls(_private_directory(_platform_directory()))
        except LedgerError:
            return cls(_private_directory(_fallback_directory()))

    def record_path(self, session: str) -> Path:
        return self.live / f"{session}.json"

    def history_path(self, session: str) -> Path:
        return self.history / f"{session}.json"

    def records(self) -> Iterator[Record | BadRecord]:
        """Every live record, oldest first, good and bad."""
        for path in _oldest_first(self.live):
            if path.suffix != ".json":
                continue  # the draft of one that is being written
            try:
                yield read_record(path)
            except FileNotFoundError:
                continue  # retired while we looked
            except LedgerError as error:
                yield BadRecord(path, str(error), corrupt=isinstance(error, CorruptRecordError))

    def drafts(self) -> list[Path]:
        """Half-written records, whose writer may be dead."""
        return [path for path in _oldest_first(self.live) if path.suffix == ".tmp"]

    def ended(self, limit: int = HISTORY_LIMIT) -> Iterator[Ended]:
        """The history, newest first; unreadable files are passed over."""
        for path in reversed(_oldest_first(self.history)[-limit:]):
            try:
                yield read_ended(path)
            except (LedgerError, OSError):
                continue

    def ended_ids(self) -> list[str]:
        """Of the sessions in the history, oldest first; costs no reading of files."""
        return [path.stem for path in _oldest_first(self.history) if path.suffix == ".json"]

    def retire(self, record: Record, report: ExitReport) -> None:
        """Move a session to the history, as its guard would have done."""
        guard_words = {
            **report.to_dict(),
            "files": report.files_removed,
            "bytes": report.bytes_freed,
            "account": report.remote.to_account() if report.remote else None,
        }
        document = {
            "schema": SCHEMA,
            "session": dataclasses.asdict(record.session),
            "exit": guard_words,
        }
        path = self.history_path(record.session.id)
        write_atomically(str(path), json.dumps(document))
        record.path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Keep the newest ``HISTORY_LIMIT`` ended sessions."""
        for path in _oldest_first(self.history)[:-HISTORY_LIMIT]:
            path.unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Raises LedgerError where it is corrupt, truncated, of another schema or not ours alone."""
    facts = read_document(path)
    try:
        session = Session.from_dict(facts["session"])
        if session.id != path.stem or not _ID.fullmatch(session.id):
            raise CorruptRecordError(f"{path}: its name does not match its content")
        guards = tuple(identity_from(**guard) for guard in facts["guards"])
        processes = tuple((identity_from(pid, start), name) for pid, start, name in facts["processes"])
        memory = looks_at_memory(facts.get("memory", ()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{path}: not a record of a session ({error!r})") from error
    return Record(path, session, guards, processes, memory)


def read_ended(path: Path) -> Ended:
    """Raises LedgerError like :func:`read_record`."""
    facts = read_document(path)
    try:
        session = Session.from_dict(facts["session"])
        report = ExitReport.from_guard(facts["exit"], session=session.id, browser=session.browser)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"{path}: not the report of a session ({error!r})") from error
    return Ended(session, report)


def identity_from(pid: Any, start: Any) -> ProcessIdentity:
    """Raises TypeError; 0 and negative numbers are whole groups of processes to kill(2)."""
    if not isinstance(pid, int) or pid <= 0 or not isinstance(start, (int, float)):
        raise TypeError(f"no process: {pid!r}, {start!r}")
    return ProcessIdentity(pid, start)


def read_document(path: Path) -> dict[str, Any]:
    """Opened without following links and judged by the open file, so that nobody can swap it.

    Raises LedgerError, and FileNotFoundError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or not is_ours_alone(facts):
            raise LedgerError(
                f"{path}: no plain file, or another user could have written it (owner {facts.st_uid}, "
                f"mode {facts.st_mode:o}); it is not believed"
            )
        with open(fd, "rb", closefd=False) as file:
            raw = file.read(4_000_000)
    finally:
        os.close(fd)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"{path}: corrupt or truncated ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise LedgerError(f"{path}: not of schema {SCHEMA}; written by another browserkeeper?")
    return document


def _oldest_first(directory: Path) -> list[Path]:
    """By modification time; files that vanish meanwhile are left out."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
            except OSError:
                continue
    return [Path(path) for _, path in sorted(found)]


def _platform_directory() -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("browserkeeper", appauthor=False))


def _fallback_directory() -> Path:
    try:
        return Path(tempfile.gettempdir(), f"browserkeeper-{os.getuid()}")
    except FileNotFoundError as error:
        raise LedgerError(
            "There is no temporary directory that can be written, and no other place for the state "
            "directory. Set BROWSERKEEPER_STATE_DIR; in a container with a read-only root, say "
            "docker run --tmpfs /tmp."
        ) from error


def _private_directory(path: Path) -> Path:
    """Make what is missing, 0700; judge what is there, and never change its mode."""
    remedy = "Set BROWSERKEEPER_STATE_DIR to a directory that only this user can write."
    if stranger := stranger_on_the_way(path.parent):
        raise LedgerError(
            f"State directory {path}: {stranger} belongs to somebody else, who could put another "
            f"directory in its place. {remedy}"
        )
    try:
        for part in (path, *(path / name for name in PARTS)):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = part.lstat()
            if not stat.S_ISDIR(facts.st_mode) or not is_ours_alone(facts):
                raise LedgerError(
                    f"State directory {part} is a link, belongs to somebody else, or can be written "
                    f"by others. {remedy}"
                )
        if not os.access(path / "live", os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        if isinstance(error, LedgerError):
            raise
        raise LedgerError(
            f"State directory {path} cannot be used: {error.strerror}. {remedy}"
        ) from error
    return path
