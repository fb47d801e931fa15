"""The queue: a file for each start that waits, which is locked as long as its process lives.

The name of a ticket is its place: ``0-`` for work and ``1-`` for a standby browser, then a number, then
random digits.  Beside it lies the bell that wakes its process, ``NAME.bell``, and while the process was
told that it may go and has not answered, ``NAME.called``; for some seconds after it has answered that
it cannot, ``NAME.declined``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import time
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Literal

from ..guard.bells import CALLED, SUFFIX, ring
from .decision import Candidate
from .files import Bell, LockedFile, WatchedBell, read_facts
from .slots import is_locked

Priority = Literal["work", "standby"]

_NAME = re.compile(r"[01]-[0-9]{15}-[0-9a-f]{16}")
DECLINED = ".declined"
SUFFIXES = (SUFFIX, CALLED, DECLINED)
DECLINED_FOR = 2.0
"""Seconds for which a start that was called and could not go does not hold up those behind it."""
LATE = 3.0
"""Seconds after which a start that may go, and does not, is passed over: its process is stopped."""


class Ticket:
    """The place in the queue that a start of this process has.

    All methods but :meth:`close` and those of the bell are called with the gate's lock held.
    """

    def __init__(self, queue: Path, facts: Mapping[str, Any]):
        """At the end of the queue, of its priority.  Raises OSError."""
        self._queue = queue
        self._facts = dict(facts)
        name = self._last_name()
        self.bell = Bell(f"{queue / name}{SUFFIX}")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            self._file = LockedFile(str(queue / name), flags, fcntl.LOCK_EX)
        except BaseException:
            self.bell.remove()
            raise
        self._file.write(self._facts)
        self._watched: WatchedBell | None = None
        self._ahead = ""

    @property
    def name(self) -> str:
        return os.path.basename(self._file.path)

    @property
    def priority(self) -> Priority:
        return "standby" if self._facts.get("priority") == "standby" else "work"

    def _last_name(self) -> str:
        names = ticket_names(self._queue)
        number = max((int(name.split("-")[1]) for name in names), default=0) + 1
        return f"{int(self.priority == 'standby')}-{number:015d}-{os.urandom(8).hex()}"

    def is_in_place(self) -> bool:
        return self._file.is_in_place()

    def promote(self) -> None:
        """Make it work, behind the work that waits already.  Raises OSError."""
        self._facts["priority"] = "work"
        self._clear(CALLED)
        self._clear(DECLINED)
        path = str(self._queue / self._last_name())
        self._file.rename(path)
        self.bell.rename(path + SUFFIX)
        self._file.write(self._facts)

    def answer(self) -> bool:
        """Take note of what was rung; True if this start was called.  Before the look at the queue."""
        self.bell.clear()
        return self._clear(CALLED)

    def decline(self) -> None:
        """After an answer: this start cannot go, as only its process knows.  So it holds up none behind
        it for a while.

        Another process may have more memory, since it is in another cgroup.  Or it does not know the
        own limits of this start, since the disk was full when the ticket was written.
        """
        self._clear(DECLINED)
        _mark(self._file.path + DECLINED)

    def _clear(self, mark: str) -> bool:
        try:
            os.unlink(self._file.path + mark)
        except OSError:
            return False
        return True

    def watch(self, name: str) -> None:
        """Watch the bell of the ticket ahead, "" for none: :attr:`watched`."""
        if self._ahead == name and self._watched is not None:
            return
        if self._watched is not None:
            self._watched.close()
        self._ahead, self._watched = name, None
        if name:
            with contextlib.suppress(OSError):
                self._watched = WatchedBell(f"{self._queue / name}{SUFFIX}")

    @property
    def watched(self) -> int:
        """The descriptor for which poll(2) reports POLLHUP when the start ahead is gone; -1 for none."""
        return self._watched.fileno() if self._watched is not None else -1

    def close(self) -> None:
        """Leave the queue.  Those that watch this ticket's bell notice it.  Idempotent."""
        is_held = self._file.is_held
        self._file.remove()
        if is_held:  # after the ticket: no mark is made for one that is not there (call)
            self._clear(CALLED)
            self._clear(DECLINED)
        self.bell.remove()
        if self._watched is not None:
            self._watched.close()

    def __del__(self) -> None:
        if "_file" in vars(self) and "_watched" in vars(self):
            self.close()


def ticket_names(queue: Path) -> list[str]:
    """In the order of the queue, those of dead processes too.  Raises OSError."""
    return sorted(name for name in os.listdir(queue) if _NAME.fullmatch(name))


def tickets_and_marks(queue: Path) -> tuple[list[str], set[str]]:
    """The names of the tickets, in the order of the queue, and of all marks.  Raises OSError.

    Deletes bells and marks that belong to no ticket; so only with the gate's lock held.  A process may
    be killed between its bell and its ticket, and while it removes its own files or those of a dead one.
    """
    names = os.listdir(queue)
    tickets = {name for name in names if _NAME.fullmatch(name)}
    marks = set()
    for name in names:
        ticket, dot, _ = name.partition(".")
        if dot and ticket in tickets:
            if name.endswith((CALLED, DECLINED)):
                marks.add(name)
        elif dot and _NAME.fullmatch(ticket):
            with contextlib.suppress(OSError):
                os.unlink(queue / name)
    return sorted(tickets), marks


def is_alive(queue: Path, name: str, *, remove: bool) -> bool:
    """Whether the ticket's process lives.  ``remove``: delete the files of one that does not; only with
    the gate's lock held."""
    return live_facts(queue, name, remove=remove, details=False) is not None


def live_facts(queue: Path, name: str, *, remove: bool, details: bool = True) -> dict[str, Any] | None:
    """The content of a ticket; None if its process is dead.  Raises OSError."""
    path = queue / name
    facts = is_locked(path, fcntl.LOCK_SH, remove=remove, details=details)
    if facts is None and remove:
        for suffix in SUFFIXES:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}{suffix}")
    return facts


def candidate(name: str, facts: Mapping[str, Any]) -> Candidate:
    """A ticket for the decision, without what its marks say."""
    most, memory = facts.get("max"), facts.get("min_memory")
    return Candidate(
        name,
        "grid" if facts.get("kind") == "grid" else "browser",
        most if isinstance(most, int) else None,
        memory if isinstance(memory, int) else 0,
    )


def with_marks(queue: Path, one: Candidate, marks: Container[str] | None = None) -> Candidate:
    """``marks``: those that there are; None where they are looked up."""
    return dataclasses.replace(
        one,
        is_late=_age_of_mark(queue, one.name + CALLED, marks) > LATE,
        has_declined=0 < _age_of_mark(queue, one.name + DECLINED, marks) < DECLINED_FOR,
    )


def call(queue: Path, name: str) -> None:
    """Tell a waiting process that it may go, if it was not told already."""
    mark = f"{queue / name}{CALLED}"
    if _mark(mark):
        if not os.path.lexists(queue / name):  # it leaves the queue at this moment
            with contextlib.suppress(OSError):
                os.unlink(mark)
        ring(f"{queue / name}{SUFFIX}")


def _mark(path: str) -> bool:
    """Make a mark; False where it is there already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        with contextlib.suppress(OSError):
            os.write(fd, f'{{"monotonic": {time.monotonic()!r}}}'.encode())
    finally:
        os.close(fd)
    return True


def _age_of_mark(queue: Path, name: str, marks: Container[str] | None) -> float:
    """Seconds since a mark was made; 0 where there is none."""
    path = str(queue / name)
    if name not in marks if marks is not None else not os.path.lexists(path):
        return 0.0
    if isinstance(began := read_facts(path).get("monotonic"), (int, float)):
        return max(1e-9, time.monotonic() - began)
    try:  # on a full disk
        return max(1e-9, time.time() - os.stat(path).st_mtime)
    except OSError:
        return 0.0


__all__ = [
    "LATE",
    "Priority",
    "Ticket",
    "call",
    "candidate",
    "is_alive",
    "live_facts",
    "ticket_names",
    "tickets_and_marks",
    "with_marks",
]
