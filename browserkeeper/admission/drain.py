"""The drain: an operator lets no session start on this host, and those that run finish.

It is one file, ``gate/drain.json`` in the state directory.  It holds until ``end()`` removes it or,
unless it was asked to survive that, until the machine is started anew: the file has the boot id.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..guard.files import write_atomically
from ..process import system
from ..process.reserve import lent
from ..report import SCHEMA, Operator
from ..state.directory import find_state_directory
from ..state.documents import read_document
from ..state.ledger import Ledger

GATE = "gate"
FILE = "drain.json"


@dataclasses.dataclass(frozen=True)
class Drain:
    """A drain that is in force.

    ``operator`` has who has drained the host, since when and why; it is None where the file is not
    valid, and ``problem`` says what is wrong then.  Such a file counts as a drain: it may be one, and a
    browser too many is worse than one that waits.  ``survives_reboot``: it holds until it is ended.
    """

    path: Path
    operator: Operator | None
    survives_reboot: bool = False
    problem: str = ""

    @property
    def since(self) -> float:
        """Seconds since the epoch; 0 where the file is not valid."""
        return self.operator.at if self.operator else 0.0

    @property
    def reason(self) -> str:
        """The operator's own text, or ""."""
        return self.operator.reason if self.operator else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "operator": self.operator.to_dict() if self.operator else None,
            "survives_reboot": self.survives_reboot,
            "problem": self.problem,
        }

    def __str__(self) -> str:
        """One sentence for errors and log lines, without a full stop."""
        if self.operator is None:
            return (
                f"the host counts as drained, since its drain file is not valid ({self.problem}); "
                "`browserkeeper resume` removes it"
            )
        return f"the host is drained by {self.operator}"


def present(ledger: Ledger) -> Drain | None:
    """The drain that is in force; None where none is.  Raises nothing.

    A file that cannot be read is a drain, as one that is no valid one.  So is one whose boot id, or this
    machine's, is not known.
    """
    path = path_of(ledger)
    try:
        path.lstat()  # takes no descriptor, of which this process may have none left
        document = _read(path)
        facts = document["drain"]
        boot, survives = facts["boot"], facts["survives_reboot"] is True
        if not isinstance(boot, str):
            raise TypeError(f"boot is {boot!r}")
        operator = Operator.from_dict(facts["operator"])
    except FileNotFoundError:
        return None
    except (LedgerError, OSError) as error:
        return Drain(path, None, problem=str(error))
    except (KeyError, TypeError) as error:
        return Drain(path, None, problem=f"{path}: not a drain ({error!r})")
    here = "" if survives else _boot()
    is_over = bool(boot and here) and boot != here
    return None if is_over else Drain(path, operator, survives)


def start(ledger: Ledger, operator: Operator, *, survives_reboot: bool = False) -> Drain | None:
    """Drain the host.  Returns the drain that was in force before, None where none was.

    Of a valid one that was in force the time stays, as do its reason unless this operator gives one, and
    that it survives a reboot.  Raises LedgerError where the file cannot be written.
    """
    path = path_of(ledger)
    before = present(ledger)
    if before is not None and before.operator is not None:
        why = operator.reason or before.reason
        operator = dataclasses.replace(operator, at=before.since, reason=why)
        survives_reboot = survives_reboot or before.survives_reboot
    facts = {
        "operator": operator.to_dict(),
        "survives_reboot": survives_reboot,
        "boot": _boot(),
    }
    try:
        find_state_directory(ledger.directory, (GATE,))
        write_atomically(str(path), json.dumps({"schema": SCHEMA, "drain": facts}) + "\n")
        if survives_reboot:
            _flush(path)
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be written: {error.strerror}. The host is "
            f"{'drained as before' if before else 'not drained'}."
        ) from error
    return before


def end(ledger: Ledger) -> Drain | None:
    """Let sessions start again.  Returns the drain that was in force, None where none was.

    Raises LedgerError where the file cannot be removed.
    """
    path = path_of(ledger)
    before = present(ledger)
    try:
        path.unlink(missing_ok=True)  # also one of an earlier boot
    except NotADirectoryError:
        raise LedgerError(f"{path.parent} is no directory; remove it.") from None
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be removed: {error.strerror}. While it is there no session starts."
        ) from error
    return before


def path_of(ledger: Ledger) -> Path:
    """Where the file of a drain is."""
    return ledger.directory / GATE / FILE


def _read(path: Path) -> dict[str, Any]:
    """As ``read_document``, also in a process that may open no more files."""
    try:
        return read_document(path)
    except LedgerError as error:
        if not isinstance(error.__cause__, OSError):
            raise
    with lent():
        return read_document(path)


def _boot() -> str:
    """The boot id, "" where it cannot be read; the same in all time namespaces of the machine."""
    return system.host().boot.partition("+")[0]


def _flush(path: Path) -> None:
    """Have the file and its name on the disk, so that a crash of the machine does not lose them."""
    for place in (path, path.parent):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


__all__ = ["Drain", "end", "path_of", "present", "start"]
