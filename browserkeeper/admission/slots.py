"""The slots: a file for each browser that runs or starts, which is locked as long as it does."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..guard.bells import ring_first
from ..process import own_name
from ..process.reserve import with_reserve
from .files import LockedFile, facts_in, lock
from .limits import Kind

_NAME = re.compile(r"(browser|grid|adopted)-[0-9a-f]{16}")
TEXT_LIMIT = 200
FEW_TURNS = 32


class Slot:
    """A place of the host that this process has taken.

    The guards of the session lock the file at ``path`` too, each by itself, and keep it until the
    session's end.  So this process lets go of it when the browser has started: :meth:`hand_over`.  With
    the path "" it is none: nothing limits the host, and its files cannot be used.
    """

    def __init__(self, file: LockedFile | None, facts: Mapping[str, Any], waited: float = 0.0):
        self._file, self._facts = file, dict(facts)
        self.path = file.path if file is not None else ""
        self.waited = waited
        """Seconds that the start has waited for it."""

    def bind(self, session: str) -> None:
        """Note the id of the session that has it, for people."""
        self._facts["session"] = session
        if self._file is not None and self._file.is_held:
            self._file.write(self._facts)

    def hand_over(self) -> None:
        """Leave it to the session's guards.  Call it when the guard was told that the start is done: it
        removes the file from then on."""
        if self._file is not None:
            self._file.close()

    def release(self) -> None:
        """Give it back, if no guard holds it any more; else it ends with the last guard.  Idempotent."""
        file = self._file
        if file is None or not file.is_held:
            return
        file.unlock()
        with contextlib.suppress(OSError):
            if file.try_to_lock(fcntl.LOCK_EX):
                file.remove()
                ring_first(os.path.join(os.path.dirname(self.path), "..", "queue"))
        file.close()


@dataclasses.dataclass(frozen=True)
class HeldSlot:
    """A slot that is held by a living process; ``facts`` are its content, {} where they are unknown."""

    name: str
    kind: Kind
    facts: Mapping[str, Any]

    @property
    def age(self) -> float:
        return age_of(self.facts)


class DecideAgainError(Exception):
    """The decision of this start is void: its turn was taken away (``files.Mutex``)."""


class Turn:
    """The file that is to become a start's slot.

    It is made before the gate's lock is taken, and renamed when the start may go.  Who takes the lock
    away from a stopped process removes it.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._file: LockedFile | None = None

    def prepare(self) -> None:
        """Make the file where it is missing.  Raises OSError."""
        if self._file is None or not self._file.is_in_place():
            self.close()
            path = str(self._directory / os.urandom(8).hex())
            self._file = LockedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, fcntl.LOCK_SH)

    def become_slot(self, slots: Path, kind: Kind, facts: Mapping[str, Any]) -> LockedFile:
        """Call it with the gate's lock held; then :meth:`hand_out`.  Raises DecideAgainError, and
        OSError."""
        file = self._file
        assert file is not None
        file.write(facts)  # first: who looks at the slots without the gate's lock finds no empty one
        try:
            file.rename(str(slots / f"{kind}-{os.urandom(8).hex()}"))
        except FileNotFoundError:
            raise DecideAgainError from None
        return file

    def hand_out(self) -> None:
        """The slot belongs to the caller of the start from now on."""
        self._file = None

    def close(self) -> None:
        """Remove the file; also if it is a slot that an exception has kept from being handed out."""
        file, self._file = self._file, None
        if file is not None:
            file.remove()


def remove_dead_turns(directory: Path, waiting: int) -> None:
    """Delete those of processes that have died, where there are many more than starts that wait.

    Each start that waits has one.  Raises OSError.
    """
    names = os.listdir(directory)
    for name in names if len(names) > 2 * waiting + FEW_TURNS else ():
        is_locked(directory / name, fcntl.LOCK_EX, remove=True, details=False)


def take(directory: Path, kind: Kind, facts: Mapping[str, Any]) -> LockedFile:
    """Make a slot for a browser that runs already, and lock it.  Raises OSError."""
    path = str(directory / f"{kind}-{os.urandom(8).hex()}")
    file = LockedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, fcntl.LOCK_SH)
    file.write(facts)
    return file


def held(directory: Path, *, remove: bool, details: bool = False) -> Iterator[HeldSlot]:
    """The slots whose lock is held.

    ``remove``: delete the others; only with the gate's lock held.  ``details``: read the contents.  A
    slot that cannot be asked counts as held.  Files with other names are none.  Raises OSError.
    """
    for name in sorted(os.listdir(directory)):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        kind: Kind = match[1]  # type: ignore[assignment]
        found = is_locked(directory / name, fcntl.LOCK_EX, remove=remove, details=details)
        if found is not None:
            yield HeldSlot(name, kind, found)


def is_locked(path: Path, how: int, *, remove: bool, details: bool) -> dict[str, Any] | None:
    """Whether another one holds the lock on a slot or a ticket: its content, or {} without
    ``details``.  None if no process does, or if it is no regular file.  Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = with_reserve(lambda: os.open(path, flags))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        # A link, a directory or a socket is not ours.  "I could not look" is not "it is free".
        return {} if _is_regular(path) else None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        if not lock(fd, how):
            return facts_in(fd) if details else {}
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(path)
        # A fork that another thread makes now would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        return None
    finally:
        os.close(fd)


def _is_regular(path: Path) -> bool:
    """True also where that cannot be seen: such a file counts as held."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def describe_self(label: str) -> dict[str, Any]:
    """What a slot or a ticket says of this process."""
    return {
        "pid": os.getpid(),
        "program": own_name()[:TEXT_LIMIT],
        "label": label,
        "since": time.time(),
        "monotonic": time.monotonic(),
        "namespace": _namespace(),
    }


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def age_of(facts: Mapping[str, Any]) -> float:
    """Seconds since the file was made, on the machine's own clock; 0 where that is not known."""
    began = facts.get("monotonic")
    return max(0.0, time.monotonic() - began) if isinstance(began, (int, float)) else 0.0


def text_of(facts: Mapping[str, Any], name: str) -> str:
    """A text of a file, fit for a line of a terminal."""
    value = facts.get(name)
    text = value[:TEXT_LIMIT] if isinstance(value, str) else ""
    return text if text.isprintable() else ascii(text)[1:-1]


def pid_of(facts: Mapping[str, Any]) -> int:
    pid = facts.get("pid")
    return pid if isinstance(pid, int) and pid > 0 else 0


def process_of(facts: Mapping[str, Any]) -> tuple[str, int]:
    """The process that has written a file: its pid namespace and its pid, ("", 0) where unknown."""
    return text_of(facts, "namespace"), pid_of(facts)


__all__ = [
    "DecideAgainError",
    "HeldSlot",
    "Slot",
    "Turn",
    "describe_self",
    "held",
    "is_locked",
    "process_of",
    "remove_dead_turns",
    "take",
]
