"""The lock of a session: both guards hold it, and the kernel lets go of it when they die.

Who asks for it, and how, is in ``state/locks.py``.
"""

from __future__ import annotations

import fcntl
import os
import time

from .files import discard, ignore_errors

PAUSE = 0.005  # seconds between two attempts
ATTEMPTS = 600  # 3 s: a process that tests the lock holds it for microseconds, unless it is stopped
FEW = 200  # 1 s, for calls during which the guard watches nothing


class SessionLock:
    """The session's lock file; with the path "" every method does nothing.

    The lock is shared (LOCK_SH), so that both guards can hold it, and flock(2)'s, so that it is seen
    across pid namespaces.  An exec closes the descriptor, so no program that the guard starts holds the
    lock.  Each guard opens the file by itself: on NFS the kernel turns flock into a lock of one process
    (flock(2)), which a fork does not share.
    """

    def __init__(self, path: str):
        self._path = path
        self._fd = -1

    def take(self) -> None:
        """Make the file where it is missing, and lock it.  Each guard calls this once.

        Where there is no such lock (a file system without flock) the file is removed: a lock that is
        not held would say that the session is dead, and a missing one says nothing.
        """
        if not self._path:
            return
        try:
            for _ in range(FEW):
                if self._attempt():
                    return
        except OSError:
            pass
        discard(self._path)

    def _attempt(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            _share(fd, ATTEMPTS)
            if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                # An inherited descriptor stays open: on NFS its close would take the lock with it.
                self._fd = fd
                return True
        except FileNotFoundError:  # a sweep removed it between open and lock
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return False

    def stamp(self, now: float) -> None:
        """Note the time of the last look at all processes whose result is in the record.

        ``now`` is on the clock of the processes' start times.  A sweep tells by it which processes the
        guards must have seen.  It is rounded down, as the kernel does with start times: one that was
        born after ``now`` must not seem older than the look.
        """
        if self._fd >= 0:
            stamp = f"{int(now * 100) / 100:20.2f}\n".encode()
            ignore_errors(lambda: os.pwrite(self._fd, stamp, 0) and None)

    def remove(self) -> None:
        """Remove the file, when the session's record has been retired."""
        if self._fd >= 0:
            discard(self._path)


def lock_directory(path: str) -> int:
    """Hold a lock on a session's TMPDIR for as long as this process lives.  Returns a descriptor of the
    directory.

    A sweep that knows neither the session's record nor its state directory asks for this one.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ignore_errors(lambda: _share(fd, FEW))
    return fd


def _share(fd: int, attempts: int) -> None:
    """Lock it; tries so often while another process asks for the lock.  Raises OSError."""
    for attempt in range(attempts):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == attempts - 1:
                raise
            time.sleep(PAUSE)


__all__ = ["SessionLock", "lock_directory"]
