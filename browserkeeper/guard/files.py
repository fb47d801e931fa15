"""Small files, private directories, browsers' stray shared memory.

The guard is built on these functions, and every layer above it may import them too.  Like all of
``guard/``, this module imports C modules of the standard library only.
"""

from __future__ import annotations

import fcntl
import os

from .procfs import mount_of, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLACE = DIRECTORY | getattr(os, "O_PATH", 0)  # needs no permission and asks no file system
SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_PREFIXES = (
    ".org.chromium.",
    ".com.google.Chrome.",
    ".com.microsoft.Edge.",
    "org.mozilla.",
)
CHROMIUM_LOCK, CHROMIUM_SOCKET = "SingletonLock", "SingletonSocket"
CHROMIUM_FILES = ("SingletonCookie", CHROMIUM_SOCKET, CHROMIUM_LOCK)
"""Links in a profile that a Chromium has open (process_singleton_posix.cc)."""
FIREFOX_LOCK = "lock"
"""The same of a Firefox (nsProfileLock.cpp)."""


def write_atomically(path: str, text: str) -> None:
    """Replace a file: readers see the old content or the new one; mode 0600.

    Without fsync: after a crash of the machine no session is left that the file could describe.
    The draft is always a new file: one that exists already may be a link to a file of the user's,
    a pipe that blocks, or a file that another user keeps open.
    """
    draft = f"{path}.{os.getpid()}.tmp"
    discard(draft)  # left by an earlier process with our pid that was killed while it wrote
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            data = text.encode("ascii", "backslashreplace")
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError:
        discard(draft)
        raise


def read_status_file(path: str) -> dict[str, str]:
    """The status file that a command may write: lines of ``name text``; {} where there is none.

    The relay of a Selenium Grid writes how its remote session ended, which no local process shows.
    """
    lines = (read_bytes(path) or b"").decode("utf-8", "replace").splitlines()
    return {name: text for name, _, text in (line.partition(" ") for line in lines)}


def discard(path: str) -> None:
    """Delete a file, if it exists and can be deleted."""
    ignore_errors(lambda: os.unlink(path))


def ignore_errors(action: Callable[[], object]) -> None:
    """Call it and ignore an OSError (importing contextlib for ``suppress`` would take 3 ms)."""
    try:
        action()
    except OSError:
        pass


MADE_BY_GUARD = 0o1000
"""The sticky bit, which changes nothing on a directory that only its owner can write."""


def make_session_directory(path: str) -> None:
    """Make a private directory, with the sign by which a sweep knows that a guard has made it."""
    os.mkdir(path, 0o700)
    os.chmod(path, 0o700 | MADE_BY_GUARD)  # POSIX leaves to mkdir(2) what it makes of this bit


def is_session_directory(path: str) -> bool:
    """True for a private directory that bears the sign of :func:`make_session_directory`.

    Name, owner and mode 0700 alone are no sign: other programs make private directories too.
    """
    try:
        return is_private_directory(path) and bool(os.lstat(path).st_mode & MADE_BY_GUARD)
    except OSError:
        return False


def is_private_directory(path: str) -> bool:
    """True for a directory that belongs to this user and that only this user can enter.

    False for a link and for a mount point: what is mounted there is another directory.  Asks nothing of
    a file system that is mounted there, which could block.
    """
    parent, name = os.path.split(path.rstrip("/"))
    opened: list[int] = []
    try:
        above = os.open(parent or ".", PLACE & ~os.O_NOFOLLOW)
        opened.append(above)
        place = os.open(name, PLACE, dir_fd=above)
        opened.append(place)
        if mount_of(place) != mount_of(above):
            return False
        facts = os.fstat(place)
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


def remove_stray_shared_memory(since: float) -> tuple[int, list[str]]:
    """Delete browsers' files in ``/dev/shm`` that no process uses: (their number, notes).

    Browsers unlink such a file microseconds after they make it, but not when they are killed in
    between.  A file is deleted only when its name is a browser's, it is a regular file of this user's
    that was modified after ``since`` (epoch seconds), and the kernel says that no process has it open
    or mapped.  Anything else with such a name is left alone: a directory is the profile of another
    program's browser, whose TMPDIR is there.  A note says what could not be deleted.
    """
    number, notes = 0, []
    try:
        place = os.open(SHARED_MEMORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # there is none
        return 0, []
    try:
        for name in os.listdir(place):
            if name.startswith(SHARED_MEMORY_PREFIXES):
                try:
                    number += remove_unused(name, place, since)
                except OSError as error:
                    notes.append(f"{SHARED_MEMORY}/{ascii(name)[1:-1]} was left: {error.strerror}")
    finally:
        os.close(place)
    return number, notes


def remove_unused(name: str, place: int, since: float) -> bool:
    """Delete one such file; False where that is not to be done.  Raises OSError.

    A write lease is granted only if nobody else has the file open or mapped (fcntl(2), F_SETLEASE).
    So no other process has to be looked at, and this answer also covers those that cannot be seen.
    Until the file is closed again, the lease blocks whoever opens it, for microseconds; the holder is
    told by SIGURG then, which is ignored by default, and not by SIGIO, which ends a process.
    """
    try:
        facts = os.stat(name, dir_fd=place, follow_symlinks=False)
        is_regular = facts.st_mode & 0o170000 == 0o100000
        if not is_regular or facts.st_uid != os.geteuid() or facts.st_mtime < since - 1:
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=place)
    except FileNotFoundError:
        return False
    try:
        opened = os.fstat(fd)
        if (opened.st_dev, opened.st_ino) != (facts.st_dev, facts.st_ino):
            return False  # exchanged in between
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.unlink(name, dir_fd=place)
        return True
    except FileNotFoundError:
        return False
    except BlockingIOError:  # EAGAIN: it is in use
        return False
    finally:
        os.close(fd)
