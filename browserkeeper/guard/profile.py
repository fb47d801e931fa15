"""The profile directory that a session's user wants to keep: locked while the session's guards live.

Imported only where a session has one.
"""

from __future__ import annotations

import fcntl
import os
import time

from .files import CHROMIUM_FILES, CHROMIUM_LOCK, CHROMIUM_SOCKET, FIREFOX_LOCK, ignore_errors
from .procfs import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .members import Members

ATTEMPTS = 100
PAUSE = 0.01  # seconds between two attempts: the guards of a session that has just ended may still exit
CLOCKS = 2.0  # seconds that the clock of a file system may be behind


class KeptProfile:
    """A lock (flock(2)) on the directory itself, so that two spellings of its path are one lock, and no
    file of ours is in it.

    The kernel shows it in every container that shares the directory, and lets go of it when the last
    guard dies.  Of a file system that has no such locks nothing is known: there the browser's own lock
    decides.
    """

    def __init__(self, path: str, tmpdir: str):
        self._path, self._tmpdir = path, tmpdir
        self._fd = -1

    def open(self) -> None:
        """Called before the fork of the primary guard: the lock belongs to the open file, which both
        guards have then."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self._fd = os.open(self._path, flags)
        except OSError:
            pass  # the browser will say so

    def take(self) -> None:
        """Raises BlockingIOError where a guard of another session holds it for longer than a second."""
        for attempt in range(ATTEMPTS if self._fd >= 0 else 0):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if attempt == ATTEMPTS - 1:
                    self._fd = -1
                    raise
                time.sleep(PAUSE)
            except OSError:  # NFS wants a file that is open for writing; others have no locks
                return

    def remove_locks(self, members: Members, born: float) -> None:
        """Remove the locks that the session's browser has left in the directory; called when none of its
        processes is left.

        ``born``: when the session began, in seconds since the epoch.  A browser that ends by itself does
        the same.  Those of another browser are left, and so is Firefox's ``.parentlock``: it stays after
        every Firefox, and only the kernel's lock on it counts.
        """
        if self._fd < 0:
            return
        pids = members.pids()
        if self._is_chromium_lock_ours(pids, born):
            for name in CHROMIUM_FILES:
                ignore_errors(lambda name=name: os.unlink(name, dir_fd=self._fd))  # type: ignore[misc]
        address, _, pid = self._read(FIREFOX_LOCK).rpartition(":")
        if address and self._is_ours(FIREFOX_LOCK, pid.removeprefix("+"), pids, born):
            ignore_errors(lambda: os.unlink(FIREFOX_LOCK, dir_fd=self._fd))

    def _is_chromium_lock_ours(self, pids: set[int], born: float) -> bool:
        """By the browser's socket, which lies in the session's TMPDIR, or by the lock's host and pid."""
        if self._tmpdir and self._read(CHROMIUM_SOCKET).startswith(f"{self._tmpdir}/"):
            return True
        host, _, pid = self._read(CHROMIUM_LOCK).rpartition("-")
        return host == os.uname().nodename and self._is_ours(CHROMIUM_LOCK, pid, pids, born)

    def _is_ours(self, name: str, pid: str, pids: set[int], born: float) -> bool:
        """True if the link was made during the session, and names a process of it or one that has
        ended."""
        try:
            made = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime
        except OSError:
            return False
        known = pid.isdigit() and (int(pid) in pids or not exists(int(pid)))
        return known and made >= born - CLOCKS

    def _read(self, name: str) -> str:
        try:
            return os.readlink(name, dir_fd=self._fd)
        except OSError:
            return ""


__all__ = ["KeptProfile"]
