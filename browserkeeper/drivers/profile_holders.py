"""Which browser has a profile directory open, by its locks and its processes.

A lock that was left by a browser that was killed is told from one in use.  "Could not be looked at"
counts as in use: two browsers in one profile destroy it.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import glob
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..guard.files import CHROMIUM_LOCK, CHROMIUM_SOCKET, FIREFOX_LOCK
from ..guard.procfs import exists, foreign_proc, living_thread, read_bytes
from ..process import system
from ..process.leftover_processes import MARKER

YOUNG = 3.0
"""Seconds after which a Chromium has locked the databases of its profile: it takes 0.2 (measured)."""
PAUSE = 0.05
"""Seconds between two looks at a lock that is younger."""
RECYCLED = 2.0
"""Seconds by which a process may seem younger than the lock it has made, by the clocks' rounding."""
_BROWSER = re.compile(r"chrom|headless_shell|edge|brave|opera|vivaldi|electron", re.IGNORECASE)
"""Names of programs that are, or may be, a Chromium."""
_SHARED_BY_MACHINES = re.compile(
    r"nfs|cifs|smb|9p|virtiofs|fuse(?!blk|ctl)|ceph|gluster|lustre|gpfs|afs|ocfs|gfs|vboxsf|prl_fs|vmhgfs|beegfs"
)
"""Types of file systems whose other users may be on other machines, where no lock need be seen."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What fcntl(2) says on a file system without locks."""
_FLOCK = "hhqqi4x" if sys.platform == "linux" else "qqihh"
"""``struct flock`` (fcntl(2)): type, whence, start, length, pid on Linux; else the type comes fourth."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """``holder`` names the browser that has the profile, or may have it; "" for none.  ``stale`` is the
    target of a Chromium's lock that no living browser has, "" for none."""

    holder: str = ""
    stale: str = ""


Finder = Callable[[Path], Finding]


def chromium(profile: Path) -> Finding:
    """The Chromium that has this profile.  Blocks for up to YOUNG seconds where a lock of another host
    was made just now.

    ``SingletonLock`` is a link to ``HOST-PID`` (process_singleton_posix.cc).  Chromium believes one of
    another host name, such as that of the container which had the profile before, for ever; of this
    host it asks whether the process is a Chromium, and kills one that does not answer.
    """
    target = _read_link(profile / CHROMIUM_LOCK)
    host, _, number = target.rpartition("-")
    if not host or not number.isdigit():
        return Finding()
    pid, is_here = int(number), host == os.uname().nodename
    while True:
        owner = owner_of_databases(profile)
        if owner is not None:
            return Finding(_name(owner, "the browser with pid {}", "a browser in another container"))
        if _answers(profile):
            return Finding(f"the browser with pid {pid} on {host}")
        if is_here:
            holder = _holder_by_pid(pid, profile)
            return Finding(holder) if holder else Finding(stale=target)
        if obstacle := obstacle_to_look(profile):
            return Finding(
                f"a browser on {host} (pid {pid}), as its {CHROMIUM_LOCK} says; {obstacle}, so this "
                f"cannot be checked here. If that browser has ended, delete {profile / CHROMIUM_LOCK}"
            )
        if _age(profile / CHROMIUM_LOCK) > YOUNG:
            return Finding(stale=target)
        time.sleep(PAUSE)


def firefox(profile: Path) -> Finding:
    """The Firefox that has this profile: it holds a POSIX lock on ``.parentlock`` (nsProfileLock.cpp).

    The lock is asked for, and not taken: a Firefox that starts at this moment would fail.
    """
    try:
        owner = owner_of_lock(profile / ".parentlock")
    except FileNotFoundError:
        return Finding()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            return Finding(
                f"a Firefox, perhaps: {profile / '.parentlock'} cannot be asked ({error.strerror})"
            )
        # A file system without such locks: the link is all there is, to ``ADDRESS:+PID``.
        pid = _read_link(profile / FIREFOX_LOCK).rpartition(":")[2].removeprefix("+")
        if not pid.isdigit() or not exists(int(pid)):
            return Finding()
        return Finding(f"the process with pid {pid} ({profile / '.parentlock'}: {error.strerror})")
    if owner is None:
        return Finding()
    return Finding(_name(owner, "the Firefox with pid {}", "a Firefox in another container"))


def session_with(profile: Path) -> str:
    """The session of browserkeeper whose guards have locked this directory (``guard/profile.py``)."""
    facts = os.stat(profile)
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    for line in (read_bytes("/proc/locks") or b"").decode("ascii", "replace").splitlines():
        words = line.split()
        if "FLOCK" in words and place in words:
            pid = int(words[words.index(place) - 1])
            if pid > 0 and (session := system.marker_value(pid, MARKER)):
                return f"session {session} of browserkeeper, whose guard has pid {pid}"
            if pid > 0:
                return f"the process with pid {pid}"
    return "another session of browserkeeper, in another container"


def owner_of_lock(path: Path) -> int | None:
    """The pid of the process that has a POSIX lock on a file, by F_GETLK (fcntl(2)); 0 where that
    process is in another pid namespace, None where there is no lock.  Raises OSError.

    Takes no lock.  The kernel answers for all containers, and NFS for all machines that use its locks.
    """
    is_linux = sys.platform == "linux"
    wanted = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if is_linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, *wanted)))
    finally:
        os.close(fd)
    kind, pid = (found[0], found[4]) if is_linux else (found[3], found[2])
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def owner_of_databases(profile: Path) -> int | None:
    """The pid of the process that has locked one of the profile's LevelDB databases, as
    :func:`owner_of_lock`."""
    for path in _database_locks(profile):
        try:
            owner = owner_of_lock(path)
        except OSError:
            continue
        if owner is not None:
            return owner
    return None


def has_locks(profile: Path) -> bool:
    """True if the profile has a file whose lock says whether a browser has the profile."""
    return (profile / ".parentlock").exists() or next(_database_locks(profile), None) is not None


def _database_locks(profile: Path) -> Iterator[Path]:
    """Two levels below the profile, and a few that are deeper and that every Chromium has."""
    root = glob.escape(str(profile))
    for pattern in ("*/*/LOCK", "*/Local Storage/leveldb/LOCK", "*/Sync Data/LevelDB/LOCK"):
        yield from map(Path, glob.iglob(f"{root}/{pattern}"))


def _answers(profile: Path) -> bool:
    """True if a Chromium accepts connections at the profile's socket.  Sends nothing."""
    path = _read_link(profile / CHROMIUM_SOCKET)
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True


def _holder_by_pid(pid: int, profile: Path) -> str:
    """The process of that pid, if it is a browser that has, or may have, the profile; else ""."""
    if not exists(pid):
        return ""
    found = system.facts(pid)
    if found is None or foreign_proc():
        return f"the process with pid {pid}, which /proc does not show"
    age = _age(profile / CHROMIUM_LOCK)
    if found.is_zombie or found.identity.start > system.now() - age + RECYCLED:
        return ""  # it was started after the lock was made: the pid has been used again
    name = system.program(pid) or found.name
    opened = _open_files(pid)
    if opened is None:
        is_other = not _BROWSER.search(name)
        return "" if is_other else f"the process with pid {pid} ({name}), which cannot be looked into"
    root = os.path.realpath(profile) + "/"
    starts_now = age < YOUNG and _BROWSER.search(name)
    return f"the browser with pid {pid}" if starts_now or any(p.startswith(root) for p in opened) else ""


def _open_files(pid: int) -> list[str] | None:
    """What the process's descriptors refer to; None where they cannot be read."""
    directory = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(directory)
        if not numbers and (thread := living_thread(pid)):
            directory = f"{thread}/fd"
            numbers = os.listdir(directory)
    except OSError:
        return None
    return [_read_link(Path(directory, number)) for number in numbers]


def obstacle_to_look(profile: Path) -> str:
    """Why a browser in another container or on another machine would not be seen here; "" where it
    would, by the locks of its databases."""
    kind = _file_system(profile)
    if not kind:
        return "the type of the profile's file system is not known"
    if _SHARED_BY_MACHINES.search(kind):
        return f"the profile's file system ({kind}) may be shared with other machines"
    for path in _database_locks(profile):
        try:
            owner_of_lock(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path} cannot be asked for its lock ({error.strerror})"
    return ""


def _file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, by mountinfo (proc(5)); "" where not known."""
    device, best, kind = os.stat(path).st_dev, "", ""
    real = os.path.realpath(path)
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (read_bytes("/proc/self/mountinfo") or b"").decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) < 7 or "-" not in words:
            continue
        point, this = words[4].encode().decode("unicode_escape"), words[words.index("-") + 1]
        is_above = real == point or real.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best):
            best, kind = point, this
        elif not best and words[2] == wanted:
            kind = this
    return kind


def _age(path: Path) -> float:
    """Seconds since a link was made; infinite where there is none."""
    try:
        return max(0.0, time.time() - os.lstat(path).st_mtime)
    except OSError:
        return float("inf")


def _read_link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _name(pid: int, known: str, unknown: str) -> str:
    return known.format(pid) if pid else unknown
