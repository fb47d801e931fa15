"""The files about one session: the record while it lives, the history entry after it ended.

A guard writes both (``guard/``); an owner or a sweep writes the history entry where both guards
are dead.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..options.labels import matches, safe_label
from ..process.identity import Host, ProcessIdentity
from ..report import SCHEMA, ExitReport, parse_memory_samples
from .documents import CorruptRecordError, identity_from, read_document
from .locks import LOCKS

_TYPES: dict[str, Any] = {
    "str": str,
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "int | None": (int, type(None)),
}
"""The types that a field of a Session may have in a file, by its annotation."""
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)
"""Raised where a document lacks a field or has one of the wrong type."""


def new_id() -> str:
    """A new session id, twelve hexadecimal digits: it names the session's files and its TMPDIR, and
    marks its processes."""
    return os.urandom(6).hex()


def is_id(text: str) -> bool:
    """True if :func:`new_id` may have made this text."""
    return re.fullmatch(r"[0-9a-f]{12}", text) is not None


@dataclasses.dataclass(frozen=True)
class Session:
    """The facts about a session that its owner knows before the guard starts.

    ``created`` and ``deadline`` are in seconds since the epoch.  ``grid`` is the Grid's address, without
    credentials, "" for a local session.  ``host``, ``init_start`` and ``uid`` are the parts of
    ``system.host()``.  ``lock`` is the path of the lock file, "" where there is none.  ``ancestors`` are
    the owner and the processes above it, one of which may get the session's orphans.  ``label`` is the
    user's name for the session, or "".  Records of older versions lack the last five.
    """

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
    lock: str = ""
    init_start: float | None = None
    uid: int | None = None
    ancestors: tuple[ProcessIdentity, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """The id, and the label in quotes if it has one."""
        return f'{self.id} "{self.label}"' if self.label else self.id

    @property
    def place(self) -> Host:
        """The host where the session's pids mean something."""
        return Host.parse(self.host, self.init_start, self.uid)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Session:
        """Raises KeyError, TypeError or ValueError where a field is missing or of a wrong type."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in facts.items() if name in names}
        known["owner"] = identity_from(**known["owner"])
        known["command"] = tuple(known.get("command", ()))
        known["ancestors"] = tuple(identity_from(**each) for each in known.get("ancestors", ()))
        session = cls(**known)
        for field in dataclasses.fields(cls):
            value = getattr(session, field.name)
            if not isinstance(value, _TYPES.get(str(field.type), object)):
                raise TypeError(f"{field.name} is {value!r}")
        return dataclasses.replace(session, label=safe_label(session.label))


@dataclasses.dataclass(frozen=True)
class Record:
    """The file of a live session: the session's facts, its guards, the processes that the guards saw
    last, the memory samples of those processes, as in :attr:`ExitReport.memory`, and the cgroups of the
    guards, "" where they could not be read."""

    path: Path
    session: Session
    guards: tuple[ProcessIdentity, ...]
    processes: tuple[tuple[ProcessIdentity, str], ...]
    memory: tuple[tuple[float, int], ...] = ()
    cgroups: str = ""

    @property
    def lock(self) -> Path | None:
        """The session's lock file; None where it has none.

        By the place of the record: the path in the record may be that of another container's mount.
        """
        directory = self.path.parent.parent
        return directory / LOCKS / self.session.id if self.session.lock else None


@dataclasses.dataclass(frozen=True)
class EndedSession:
    """One entry of the history."""

    session: Session
    report: ExitReport

    @property
    def label(self) -> str:
        """That of the lease in which it ended, or else the session's own; "" without one."""
        return self.report.label or self.session.label

    def is_named(self, pattern: str) -> bool:
        """Does the session's own label or that of the lease in which it ended fit the pattern?"""
        return any(matches(label, pattern) for label in (self.session.label, self.report.label))

    def to_json(self) -> str:
        """The same document that a guard writes at the end of a session."""
        report = self.report
        exit_facts = {
            **report.to_dict(),
            "files": report.files_removed,
            "bytes": report.bytes_freed,
            "account": report.remote.to_status_file() if report.remote else None,
        }
        session = dataclasses.asdict(self.session)
        return json.dumps({"schema": SCHEMA, "session": session, "exit": exit_facts})


def read_record(path: Path) -> Record:
    """Raises FileNotFoundError, and LedgerError for a file that is not a valid record."""
    facts = read_document(path)
    try:
        session = Session.from_dict(facts["session"])
        if session.id != path.stem or not is_id(session.id):
            raise CorruptRecordError(f"{path}: its name does not match its content")
        guards = tuple(identity_from(**guard) for guard in facts["guards"])
        processes = tuple((identity_from(pid, start), name) for pid, start, name in facts["processes"])
        memory = parse_memory_samples(facts.get("memory", ()))
        cgroups = str(facts.get("cgroups", ""))
    except _MALFORMED as error:
        raise CorruptRecordError(f"{path}: not a record of a session ({error!r})") from error
    return Record(path, session, guards, processes, memory, cgroups)


def read_ended(path: Path) -> EndedSession:
    """Raises FileNotFoundError, and LedgerError for a file that is not a valid history entry."""
    facts = read_document(path)
    try:
        session = Session.from_dict(facts["session"])
        names = {"session": session.id, "browser": session.browser, "label": session.label}
        report = ExitReport.from_guard(facts["exit"], **names)
    except _MALFORMED as error:
        raise LedgerError(f"{path}: not the report of a session ({error!r})") from error
    if session.kind == "run" or session.containment == "adopted":
        # No WebDriver command of such a session passes through browserkeeper.
        report = dataclasses.replace(report, commands_known=True)
    return EndedSession(session, dataclasses.replace(report, label=safe_label(report.label)))
