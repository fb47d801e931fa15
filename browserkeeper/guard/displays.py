"""The files that an X server leaves in ``/tmp``: its lock and its socket.

For the display N they are ``.XN-lock``, with the pid of the X server, and ``.X11-unix/XN``.  An X server
that is killed leaves both.  The next one with that number reads the pid, and takes over the lock of a
process that is gone.  But programs that look for a free number, such as ``xvfb-run -a``, skip it for
ever.

Every layer may import this module.  Like all of ``guard/``, it imports C modules of the standard library
only.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from .files import DIRECTORY, ignore_errors, remove_unused
from .procfs import exists, read_bytes, read_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

LOCKS, SOCKETS = "/tmp", "/tmp/.X11-unix"
KEYMAPS = ("/var/lib/xkb", "/tmp")
"""Where an X server has its keymap made, as ``server-N.xkm``, which it removes when it has read it."""
FIRST, LAST = 100, 59535
"""Numbers of our displays: above those that desktops and ``xvfb-run`` begin with, up to the last one for
which there is a port (6000 + N)."""
CLOCKS = 2.0  # seconds that the clock of a file system may be behind
NOTE = "display"
"""Name of a file in a session's TMPDIR: the number of its display, and the pid in the display's lock."""
ATTEMPTS, PAUSE = 250, 0.02  # for the lock of a lock: an X server that runs has it for microseconds


def take_number() -> int:
    """Make the lock of a free display, with the pid of this process.  Raises OSError.

    A number whose lock or socket exists is left alone, as is one at which a program listens: several
    network namespaces may share ``/tmp``, and several ``/tmp`` one network namespace.
    """
    listened = read_bytes("/proc/net/unix") or b""
    place = os.open(LOCKS, DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for number in range(FIRST, LAST + 1):
            is_taken = os.path.lexists(f"{SOCKETS}/X{number}")
            if not is_taken and f"/.X11-unix/X{number}\n".encode() not in listened:
                try:
                    _make_lock(f".X{number}-lock", place)
                except FileExistsError:
                    continue
                return number
    finally:
        os.close(place)
    raise OSError(errno.EADDRINUSE, "no number of a display is free")


def _make_lock(name: str, place: int) -> None:
    """Make a file with the pid of this process, as X servers write it.  Raises OSError.

    It gets its name when it is complete, where the file system can do that: an X server that reads less
    than a pid removes the file.
    """
    text = f"{os.getpid():10d}\n".encode()
    try:
        fd = os.open(LOCKS, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o444)
    except (OSError, AttributeError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o444, dir_fd=place)
        try:
            _fill(fd, text)
        except OSError:
            os.unlink(name, dir_fd=place)
            raise
        finally:
            os.close(fd)
        return
    try:
        _fill(fd, text)
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=place)
    finally:
        os.close(fd)


def _fill(fd: int, text: bytes) -> None:
    os.fchmod(fd, 0o444)
    os.write(fd, text)


def note_display(tmpdir: str, number: int) -> None:
    """Write down, in the session's TMPDIR, that this process has taken that number.  Raises OSError."""
    fd = os.open(f"{tmpdir}/{NOTE}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.write(fd, f"{number} {os.getpid()}\n".encode())
    os.close(fd)


def noted_display(tmpdir: str) -> tuple[int, int] | None:
    """The number and the pid that :func:`note_display` has written; None without such a file."""
    words = (read_bytes(f"{tmpdir}/{NOTE}") or b"").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    return int(words[0]), int(words[1])


def remove_display_files(
    pids: Container[int], since: float, only: int | None = None
) -> tuple[int, list[str]]:
    """Remove the locks of X servers that have ended, and their sockets: (number of files, problems).

    ``pids``: of a session's processes, of which none is left.  A lock is removed only if it is a regular
    file of this user's, was made after ``since`` (epoch seconds), and has one of these pids, which no
    living process has now, and if no program listens at its socket.  Another program that has taken the
    number since has written its own pid.  ``only``: the number of the session's display, where it is
    known.  Without it a program in another pid namespace that shares ``/tmp`` may have an equal pid, and
    the socket at which it listens is what tells it apart.
    """
    number, problems = 0, []
    for display, pid in list(locks_of_user(since - CLOCKS)):
        if pid in pids and only in (None, display) and _has_ended(pid):
            try:
                number += _remove_display(display, pid, since - CLOCKS)
            except OSError as error:
                problems.append(f"files of the X server :{display} were left: {error.strerror}")
    return number, problems


def _has_ended(pid: int) -> bool:
    """True as well for a zombie, which PID 1 of a container may never reap."""
    if not exists(pid):
        return True
    stat = read_stat(pid)
    return stat is not None and stat.state in "ZX"


def locks_of_user(since: float) -> list[tuple[int, int]]:
    """The number and the pid of each lock of this user's that was made since then."""
    found = []
    try:
        place = os.open(LOCKS, DIRECTORY & ~os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        for name in os.listdir(place):
            number = name[2:-5]
            if name.startswith(".X") and name.endswith("-lock") and number.isdecimal():
                pid = _pid_in(name, place, since)
                if pid:
                    found.append((int(number), pid))
    finally:
        os.close(place)
    return found


def _pid_in(name: str, place: int, since: float) -> int:
    """The pid in such a lock; 0 for another file."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=place)
    except OSError:
        return 0
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mtime < since:
            return 0
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else 0
    except OSError:
        return 0
    finally:
        os.close(fd)


def _remove_display(number: int, pid: int, since: float) -> int:
    """Remove one lock and its socket; how many files.  Raises OSError.

    X servers make ``.tXN-lock`` before they change ``.XN-lock``, and wait where it is there
    (os/utils.c, LockServer).  So does this function: no X server can take the number in between.
    """
    name, guarded = f".X{number}-lock", f".tX{number}-lock"
    place = os.open(LOCKS, DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for attempt in range(ATTEMPTS):
            try:
                _make_lock(guarded, place)
                break
            except FileExistsError:
                if attempt == ATTEMPTS - 1:
                    raise
                owner = _pid_in(guarded, place, 0.0)
                if owner and _has_ended(owner):  # it was killed before it could remove its file
                    ignore_errors(lambda: os.unlink(guarded, dir_fd=place))
                else:
                    time.sleep(PAUSE)
        try:
            if _pid_in(name, place, since) != pid or not _has_ended(pid):
                return 0
            removed = _remove_socket(f"X{number}", since)
            if removed is None:
                return 0
            removed += _remove_keymap(number, since)
            os.unlink(name, dir_fd=place)
            return removed + 1
        finally:
            os.unlink(guarded, dir_fd=place)
    finally:
        os.close(place)


def _remove_socket(name: str, since: float) -> int | None:
    """Remove a socket of this user's; how many.  None if a program listens at it.  Raises OSError."""
    import _socket

    try:
        place = os.open(SOCKETS, DIRECTORY)
    except OSError:
        return 0
    try:
        facts = os.stat(name, dir_fd=place, follow_symlinks=False)
        ours = stat.S_ISSOCK(facts.st_mode) and facts.st_uid == os.geteuid()
        if not ours or facts.st_mtime < since:
            return 0
        client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            client.setblocking(False)
            client.connect(f"/proc/self/fd/{place}/{name}")
            return None
        except ConnectionRefusedError:  # no program has bound it, or it does not listen any more
            os.unlink(name, dir_fd=place)
            return 1
        except BlockingIOError:  # one listens that is busy
            return None
        finally:
            client.close()
    except FileNotFoundError:
        return 0
    finally:
        os.close(place)


def _remove_keymap(number: int, since: float) -> int:
    """Remove the keymap that an X server which was killed at its start has not read; how many."""
    removed = 0
    for directory in KEYMAPS:
        try:
            place = os.open(directory, DIRECTORY & ~os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            removed += remove_unused(f"server-{number}.xkm", place, since)
        except OSError:
            pass
        finally:
            os.close(place)
    return removed


__all__ = ["note_display", "noted_display", "remove_display_files", "take_number"]
