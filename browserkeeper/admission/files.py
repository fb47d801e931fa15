"""The files of the gate that this process holds: each is locked, and no fork of the process keeps it.

A lock of flock(2) belongs to the open file, which a fork shares.  So a fork closes its copies at once,
and this process unlocks explicitly.  A program that is executed inherits none of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import weakref
from _thread import RLock
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..process.reserve import with_reserve
from ..process.uninterrupted import Descriptor

T = TypeVar("T")

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What flock(2) fails with on a file system that has no such locks."""
CONTENT_LIMIT = 8192
"""Bytes that are read of a slot or a ticket."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05
"""Seconds between two attempts to take the gate's lock, which is held for less than a millisecond."""
BREAK_AFTER = 3.0
"""Seconds after which the lock is taken from a process that has had it all the time."""
LOOKED_AT = 1.0
"""Seconds for which a file that was just made is tried to be locked: who looks whether it is locked has
its lock for microseconds, or for longer where that process is stopped."""

_opening = RLock()
"""Held while a file is opened and noted below: no fork comes in between."""
_held: weakref.WeakSet[Any] = weakref.WeakSet()


def _close_in_child() -> None:
    _opening.release()
    for one in list(_held):
        one.disown()


os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_close_in_child
)


class NoLocksError(OSError):
    """The file system of the state directory has no locks."""


def lock(fd: int, how: int) -> bool:
    """Lock an open file at once; False where another one holds it.  Raises NoLocksError."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise NoLocksError(error.errno, f"it has no locks ({error.strerror})") from None
        raise
    return True


class LockedFile:
    """A file that this process has open and locked, for as long as this object lives."""

    def __init__(self, path: str, flags: int, how: int):
        """Open the file and lock it: at once, or within a second where it is made here (O_EXCL).

        Raises BlockingIOError where another one holds it, and OSError.
        """
        self.path = path
        self._fd = -1
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        with _opening:
            _held.add(self)
            self._fd = with_reserve(lambda: os.open(path, flags, 0o600))
        try:
            until = time.monotonic() + LOOKED_AT if flags & os.O_EXCL else 0.0
            while True:
                is_last_try = time.monotonic() >= until
                if lock(self._fd, how):
                    break
                if is_last_try:
                    raise BlockingIOError(errno.EAGAIN, "another process holds its lock", path)
                time.sleep(SHORTEST_PAUSE)
        except BaseException:
            self.close()
            raise

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def is_in_place(self) -> bool:
        """True if the path still leads to this file."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path, follow_symlinks=False))
        except OSError:
            return False

    def write(self, facts: Mapping[str, Any]) -> None:
        """Replace the content, as far as the disk has room: it only informs people."""
        data = json.dumps(facts).encode("ascii", "backslashreplace")
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))

    def rename(self, path: str) -> None:
        os.rename(self.path, path)
        self.path = path

    def unlock(self) -> None:
        """Let other processes have it, forks of this one that hold a copy included."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def remove(self) -> None:
        """Delete the file, and close it.  Does nothing where this process does not hold it."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close()

    def try_to_lock(self, how: int) -> bool:
        return self._fd >= 0 and lock(self._fd, how)

    def close(self) -> None:
        self.unlock()
        self.disown()

    def disown(self) -> None:
        """Close it, in a fork: the lock stays with the process that has taken it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self.close()


class Bell:
    """A waiter's bell: other programs ring it, and :meth:`fileno` becomes readable.

    A FIFO that this process keeps open; where the file system has none, a pipe, which only this process
    rings.  Its end shows to those that watch it (``watch_bell``).
    """

    def __init__(self, path: str):
        """Raises OSError where neither can be made."""
        self.path = path
        self._files: list[Descriptor] = []
        with _opening:
            _held.add(self)
            try:
                os.mkfifo(path, 0o600)
                self._open(path)
                self.is_public = True
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EEXIST):
                    raise
                read_fd, write_fd = os.pipe()
                self.is_public = False
                self._files = [Descriptor(read_fd), Descriptor(write_fd, "w")]
                for fd in (read_fd, write_fd):
                    os.set_blocking(fd, False)

    def _open(self, path: str) -> None:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        self._files = [Descriptor(with_reserve(lambda: os.open(path, flags)), "r+")]

    def fileno(self) -> int:
        """-1 when it is closed."""
        return self._files[0].fileno() if self._files else -1

    def ring(self) -> None:
        """From this process: in any thread, and in a signal handler."""
        for file in self._files[-1:]:
            with contextlib.suppress(OSError, ValueError):  # it is full; it is closed
                file.write(b"\0")

    def clear(self) -> None:
        """Take all that was rung."""
        for file in self._files[:1]:
            with contextlib.suppress(OSError, ValueError):
                file.read(65536)

    def rename(self, path: str) -> None:
        if self.is_public:
            os.rename(self.path, path)
        self.path = path

    def remove(self) -> None:
        """Delete it, and close it."""
        if self._files and self.is_public:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.disown()

    def disown(self) -> None:
        """Close it, in a fork."""
        files, self._files = self._files, []
        for file in files:
            file.close()

    def __del__(self) -> None:
        self.disown()


class WatchedBell:
    """Another waiter's bell: poll(2) reports POLLHUP for it when that waiter has gone."""

    def __init__(self, path: str):
        """Raises OSError."""
        self._file: Descriptor | None = None
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        with _opening:
            _held.add(self)
            self._file = Descriptor(with_reserve(lambda: os.open(path, flags)))

    def fileno(self) -> int:
        return self._file.fileno() if self._file is not None else -1

    def disown(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    close = disown


class Mutex:
    """The gate's lock: whoever looks and decides has it, for about a millisecond.

    A process that was stopped with it, by SIGSTOP or in a container that is paused, would hold up all
    starts of the host.  So another one is put in its place after BREAK_AFTER.  The stopped process may
    go on at any time, in the middle of its decision; but by then the file that it would make its slot
    (``slots.Turn``) is removed, so that it has to decide anew.
    """

    def __init__(self, path: Path, turns: Path):
        """``turns``: the directory of the files that are to become slots."""
        self._path, self._turns = str(path), turns

    @contextlib.contextmanager
    def held(self, until: float, check: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Hold it during the block.  Tries until ``until`` (``time.monotonic()``), calling ``check``,
        which may raise.  Raises BlockingIOError then, and OSError."""
        file = self._take(until, check)
        try:
            file.write(_new_turn())
            yield
        finally:
            file.close()

    def _take(self, until: float, check: Callable[[], object]) -> LockedFile:
        pause, since = SHORTEST_PAUSE, 0.0
        seen: dict[str, Any] = {}
        while True:
            is_last_try = time.monotonic() >= until
            try:
                file = LockedFile(self._path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
            except BlockingIOError:
                pass
            else:
                if file.is_in_place():
                    return file
                file.close()  # it was broken, or removed with the directory
            check()
            now = time.monotonic()
            turn = read_facts(self._path) if pause == LONGEST_PAUSE else {}
            if turn != seen or not turn:
                seen, since = turn, now
            elif now - since > BREAK_AFTER and (broken := self._break(turn)) is not None:
                return broken
            if is_last_try:
                raise BlockingIOError(errno.EAGAIN, "another process holds the gate's lock", self._path)
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _break(self, turn: Mapping[str, Any]) -> LockedFile | None:
        """Put a new lock in the place of the one that has been held since this turn, and have it.

        None where another process does that.  Two may do it at the same moment: both decide anew then,
        since each removes the other's file in ``turns``.  Slots are counted after this, so one that the
        stopped process has just made counts; it can make none afterwards.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        file = LockedFile(str(self._turns / os.urandom(8).hex()), flags, fcntl.LOCK_EX)
        try:
            file.write(_new_turn())  # first: this process may be stopped here as well
            if read_facts(self._path) == turn:
                file.rename(self._path)
                for name in os.listdir(self._turns):
                    with contextlib.suppress(FileNotFoundError):  # a start that has given up
                        os.unlink(self._turns / name)
                return file
        except FileNotFoundError:  # removed by another one
            pass
        except BaseException:
            file.remove()
            raise
        file.remove()
        return None

    def holder(self) -> int:
        """The pid of the process that had it last, in that process's pid namespace; 0 for unknown."""
        return int(read_facts(self._path).get("pid") or 0)


def _new_turn() -> dict[str, Any]:
    """What the gate's lock says of who has it; never the same twice."""
    return {"pid": os.getpid(), "turn": time.monotonic_ns()}


def read_facts(path: str) -> dict[str, Any]:
    """The content of a slot or a ticket; {} where it cannot be read."""
    try:
        fd = with_reserve(
            lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        )
    except OSError:
        return {}
    try:
        return facts_in(fd)
    finally:
        os.close(fd)


def facts_in(fd: int) -> dict[str, Any]:
    """The content of an open slot or ticket; {} where it makes no sense, as on a full disk."""
    try:
        found = json.loads(os.pread(fd, CONTENT_LIMIT, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = [
    "Bell",
    "LockedFile",
    "Mutex",
    "NoLocksError",
    "WatchedBell",
    "facts_in",
    "lock",
    "read_facts",
]
