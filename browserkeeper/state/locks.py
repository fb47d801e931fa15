"""Asks whether the guards of a session live, by the lock that they hold (``guard/lock.py``).

The kernel lets go of the lock when the last guard dies, and shows it in every pid namespace.  So the
answer needs no pid and no ``/proc``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from .permissions import is_ours_alone

LOCKS = "locks"
"""The part of the state directory that holds the locks; each has the session's id as its name."""
PAUSE = 0.005
SHORT = 0.02
"""Seconds: another process that asks holds the lock for microseconds."""


class Answer(NamedTuple):
    """``held``: a guard lives, or another sweep is at work.  ``free``: both guards are dead.
    ``unknown``: it cannot be asked, and ``why``; then the session is not ours to judge."""

    state: Literal["held", "free", "unknown"]
    why: str = ""


def fits(path: Path, session: str) -> bool:
    """True if this is where a guard makes the lock of this session.

    Paths come from the environment of processes, which may be stale or another session's.
    """
    return path.is_absolute() and path.name == session and path.parent.name == LOCKS


def ask(path: Path, patience: float = SHORT) -> Answer:
    """Whether the lock is held; asks again for ``patience`` seconds while it is."""
    with holding(path, patience) as answer:
        return answer


@contextlib.contextmanager
def holding(path: Path, patience: float = SHORT) -> Iterator[Answer]:
    """Ask for the lock, and keep it during the block where the answer is ``free``.

    So no other sweep works on the session at the same time.  ``path`` is a lock file, the TMPDIR of
    a session, or its record.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # On NFS an exclusive lock needs a file that is open for writing; a directory never is.
        fd = os.open(path, flags | (os.O_RDONLY if path.is_dir() else os.O_RDWR))
    except OSError as error:
        yield Answer("unknown", f"its lock {path} cannot be asked: {error.strerror}")
        return
    try:
        yield _ask(fd, path, patience)
    finally:
        # A process that another thread has forked meanwhile holds the same open file, and with it the
        # lock (flock(2)): without this the session would seem to be alive.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _ask(fd: int, path: Path, patience: float) -> Answer:
    facts = os.fstat(fd)
    if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)) or not is_ours_alone(facts):
        return Answer("unknown", f"its lock {path} belongs to another user, or is no lock")
    until = time.monotonic() + patience
    while True:
        is_last_try = time.monotonic() > until
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if is_last_try:
                return Answer("held")
            time.sleep(PAUSE)
        except OSError as error:
            return Answer("unknown", f"its lock {path} cannot be asked: {error.strerror}")
    try:
        if os.path.samestat(facts, os.stat(path, follow_symlinks=False)):
            return Answer("free")
    except OSError:
        pass
    return Answer("unknown", f"its lock {path} was removed: the session has just ended")


def last_look(path: Path) -> float | None:
    """When the guards last looked at all processes (``SessionLock.stamp``), on the clock of the start
    times; None where the lock does not say."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return float(os.read(fd, 64))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


__all__ = ["LOCKS", "Answer", "ask", "fits", "holding", "last_look"]
