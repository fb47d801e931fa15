"""Reading one JSON file of the state directory, with the checks that make its content trustworthy.

A file is read only where no other user can have written it: a record names processes to kill and
directories to remove.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..process.identity import ProcessIdentity
from ..process.reserve import with_reserve
from ..report import SCHEMA
from .permissions import is_ours_alone

SIZE_LIMIT = 4_000_000
"""Bytes that are read of a file; records have a few thousand."""


class CorruptRecordError(LedgerError):
    """A file that only this user can have written, and that holds no valid record."""


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A file in the state directory that is not a valid record, and why.

    ``corrupt``: only this user can have written it, and its content makes no sense, so it may be
    removed.  False for a file of another user or of another version of browserkeeper.
    """

    path: Path
    why: str
    corrupt: bool

    @classmethod
    def from_error(cls, path: Path, error: LedgerError) -> BadRecord:
        return cls(path, str(error), corrupt=isinstance(error, CorruptRecordError))


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a file of our schema.

    The checks are made on the open file, and links are not followed, so that the file cannot be
    exchanged after the checks.  Raises FileNotFoundError, CorruptRecordError for a file that is not
    JSON, and LedgerError for one that another user or another version may have written.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = with_reserve(lambda: os.open(path, flags))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or not is_ours_alone(facts):
            raise LedgerError(
                f"{path}: not a regular file, or another user could have written it (owner "
                f"{facts.st_uid}, mode {facts.st_mode:o}); it is ignored"
            )
        with open(fd, "rb", closefd=False) as file:
            raw = file.read(SIZE_LIMIT)
    finally:
        os.close(fd)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"{path}: corrupt or truncated ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise LedgerError(f"{path}: not of schema {SCHEMA}; written by another browserkeeper?")
    return document


def identity_from(pid: Any, start: Any) -> ProcessIdentity:
    """A process identity from a file.  Raises TypeError for what is none: to kill(2), a pid of 0 or
    below stands for a whole group of processes."""
    if not isinstance(pid, int) or pid <= 0 or not isinstance(start, (int, float)):
        raise TypeError(f"not a process identity: {pid!r}, {start!r}")
    return ProcessIdentity(pid, start)
