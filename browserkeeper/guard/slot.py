"""The session's slot: its place in the host's limit, which the guards hold until the session's end.

Who makes and counts slots is in ``admission/``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from .bells import ring_first
from .files import discard
from .lock import ATTEMPTS, PAUSE
from .options import Failure


class Slot:
    """The file that stands for the slot; with the path "" every method does nothing.

    The owner has made it, and holds its lock until the browser has started.  Each guard locks it by
    itself, and before it looks whether the owner lives: so there is no moment at which the browser, or
    the start of one, has no slot.
    """

    def __init__(self, path: str):
        self._path = path
        self._fd = -1
        self.is_alone = False
        """True if the owner has left the slot to the guards: its start has succeeded."""

    def take(self) -> None:
        """Lock the slot.  Raises Failure where the file is gone: then the browser must not start."""
        if not self._path:
            return
        try:
            self._fd = _open_and_share(self._path)
        except OSError as error:
            raise Failure("slot", error) from error

    def take_too(self) -> None:
        """In the primary guard: as the standby guard, which holds the slot already."""
        try:
            self.take()
        except Failure:  # the directory was removed meanwhile; see restore()
            pass

    def restore(self) -> None:
        """Make the file again where somebody has removed it, with the whole directory perhaps."""
        if not self._path or self._fd < 0 or os.path.lexists(self._path):
            return
        directory = os.path.dirname(self._path)
        try:
            for path in (os.path.dirname(directory), directory):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    pass
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.pwrite(fd, os.pread(self._fd, 8192, 0), 0)
        except OSError:
            pass
        self._fd, old = fd, self._fd
        os.close(old)

    def free(self, *, is_handed_over: bool) -> None:
        """Remove the file, and wake the first program that waits.

        Call it at the end of a session, when no process of it is left.  ``is_handed_over``: the owner
        has said that its start is done, or is dead.  Otherwise the slot is removed only if no other
        process holds it: a standby guard has not heard what the owner said to the primary guard.
        """
        if not self._path or not (is_handed_over or self._is_held_by_no_other()):
            return
        discard(self._path)
        ring_first(os.path.join(os.path.dirname(os.path.dirname(self._path)), "queue"))
        self._path = ""

    def _is_held_by_no_other(self) -> bool:
        if self._fd < 0:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # of another one; or there was no lock
            return False
        return True


def _open_and_share(path: str) -> int:
    """A descriptor of the file, locked.  Another process that counts the slots holds the lock for
    microseconds.  Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for _ in range(ATTEMPTS):
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(PAUSE)
                continue
            # The owner had died, and a program that counts has removed the file.
            if not os.path.samestat(os.fstat(fd), os.stat(path)):
                raise FileNotFoundError(errno.ENOENT, "the slot was removed", path)
            return fd
        raise BlockingIOError(errno.EAGAIN, "another process holds the slot's lock", path)
    except OSError:
        os.close(fd)
        raise


__all__ = ["Slot"]
