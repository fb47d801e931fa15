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
from .lock import ATTEMPTS, FEW, PAUSE
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
        inherited = self._fd
        try:
            self.take()
        except Failure:  # the directory was removed meanwhile; see restore()
            return
        if inherited >= 0:  # a copy of it would hold the standby guard's lock beyond that one's death
            os.close(inherited)

    def restore(self) -> None:
        """Make the file again where somebody has removed it, with the whole directory perhaps; or lock
        the one that the other guard has made again."""
        if not self._path or self._fd < 0 or _is_at(self._fd, self._path):
            return
        directory = os.path.dirname(self._path)
        try:
            for path in (os.path.dirname(directory), directory):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    pass
            fd = _open_and_share(self._path, os.O_CREAT, FEW)
        except OSError:  # until the next look
            return
        self._fd, old = fd, self._fd
        try:
            os.pwrite(fd, os.pread(old, 8192, 0), 0)
        except OSError:
            pass
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
        """False as well where the file was removed, as by the other guard."""
        if self._fd < 0 or not _is_at(self._fd, self._path):
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # of another one; or there was no lock
            return False
        return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _open_and_share(path: str, flags: int = 0, attempts: int = ATTEMPTS) -> int:
    """A descriptor of the file, locked.  Another process that counts the slots holds the lock for
    microseconds, unless it is stopped meanwhile.  ``flags``: more of them for the open.  Raises
    OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        for _ in range(attempts):
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(PAUSE)
                continue
            # The owner had died, and a program that counts has removed the file.
            if not _is_at(fd, path):
                raise FileNotFoundError(errno.ENOENT, "the slot was removed", path)
            return fd
        raise BlockingIOError(errno.EAGAIN, "another process holds the slot's lock", path)
    except OSError:
        os.close(fd)
        raise


__all__ = ["Slot"]
