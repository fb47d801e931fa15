"""Readers of ``/proc`` (proc(5)): one process, its children, everything below it.

The guard is built on these functions, and every layer above it may import them too.  Like all of
``guard/``, this module imports C modules of the standard library only.
"""

from __future__ import annotations

import errno
import os
import sys

# The C half of ``signal``: the Python half builds enums, and costs 10 ms of a 20 ms start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
else:
    import _signal as signal

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


PF_EXITING = 0x4  # in the flags of /proc/PID/stat: do_exit() sets it before it closes files
CAP_SYS_PTRACE = 19
FOREIGN_PROC = "/proc shows another pid namespace; mount one of this namespace (unshare --mount-proc)"


class Stat:
    """The fields of ``/proc/PID/stat`` that we use; ``start`` is in seconds since boot.

    ``session`` is the pid of the session's leader (setsid(2)), ``state`` the letter of ps(1).  A process
    whose main thread has ended while others go on has the letter of one of these: it runs on, or it was
    killed, and its files and sockets are open until its last thread has ended.
    """

    __slots__ = ("name", "parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, name: str, state: str, parent: int, session: int, start: float):
        self.pid, self.name, self.state = pid, name, state
        self.parent, self.session, self.start = parent, session, start


def read_bytes(path: str) -> bytes | None:
    """The whole of a small file, or None where it cannot be read: gone, no permission, no descriptor."""
    try:
        return read_file(path)
    except OSError:
        return None


def read_file(path: str) -> bytes:
    """The whole of a small file.  Raises OSError; ESRCH where the process ended while it was read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def read_stat(pid: int) -> Stat | None:
    """The process's facts, or None where it does not exist."""
    return parse_stat(pid, read_bytes(f"/proc/{pid}/stat"))


def parse_stat(pid: int, raw: bytes | None) -> Stat | None:
    """The facts in ``/proc/PID/stat``; None for nothing.

    The name may hold spaces and brackets, so the fields start after the last ``)``.
    """
    if not raw:
        return None
    head, _, tail = raw.rpartition(b")")
    fields = tail.split()
    name = head.partition(b"(")[2].decode("ascii", "replace")
    state = fields[0].decode()
    if state == "Z" and int(fields[17]) > 1:  # the kernel shows the state of the main thread (proc(5))
        state = _living_thread(pid)[1]
    return Stat(pid, name, state, int(fields[1]), int(fields[3]), int(fields[19]) / TICKS)


def living_thread(pid: int) -> str:
    """The directory in ``/proc`` of a thread that goes on, where the main thread has ended; else "".

    ``/proc/PID`` shows neither files nor memory nor environment of a main thread that has ended.
    """
    fields = _fields(f"/proc/{pid}/stat")
    return _living_thread(pid)[0] if fields and fields[0] == b"Z" and int(fields[17]) > 1 else ""


def _living_thread(pid: int) -> tuple[str, str]:
    """(Its directory in ``/proc``, its letter of ps(1)) for a thread beside the main one that has not
    ended; ("", "Z") where all are seen to have ended, ("", "R") where they cannot be looked at."""
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            path = f"/proc/{pid}/task/{name}"
            if name != str(pid) and (letter := _letter(path)) not in ("", "Z", "X"):
                return path, letter
    except (FileNotFoundError, ProcessLookupError):  # the process is gone
        return "", "Z"
    except OSError:
        return "", "R"
    return "", "Z"


def _letter(path: str) -> str:
    """That of a thread; "" where it has ended.  Raises OSError where it cannot be read."""
    try:
        return read_file(f"{path}/stat").rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fields(path: str) -> list[bytes]:
    """Those of a ``stat`` file after the name; empty where it cannot be read."""
    return (read_bytes(path) or b"").rpartition(b")")[2].split()


def own_memory(pid: int) -> int:
    """Resident bytes without those of files and of shared memory (statm); 0 where it is gone.

    The kernel keeps these counters anyway.  PSS, which is fairer, walks every page table, and takes
    a lock for it that a process which hangs in a page fault may hold: that would block the guard.
    """
    fields = (read_bytes(f"/proc/{pid}/statm") or b"0 0 0").split()
    return max(0, int(fields[1]) - int(fields[2])) * PAGE_SIZE


def exists(pid: int) -> bool:
    """Whether a process has this pid now, a zombie included.  Asks the kernel and not ``/proc``, which
    may hide the process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # EPERM: another user's
        pass
    return True


def mount_of(fd: int) -> bytes:
    """The id of the mount that an open file is in (proc(5), ``mnt_id``, since Linux 3.15).

    A bind mount of the same file system has the same device and another id.  The id is the open
    file's, so nothing can be mounted between this answer and the use of the descriptor.  The file's own
    file system is not asked.  b"" on systems without such ids (gVisor, macOS), where the device has to
    do.  Raises OSError where ``/proc`` cannot be read.
    """
    if sys.platform != "linux":
        return b""
    facts = read_bytes(f"/proc/self/fdinfo/{fd}")
    if not facts:
        why = "mount points cannot be told, since /proc/self/fdinfo cannot be read"
        raise OSError(errno.ENOSYS, why)
    return next((line for line in facts.splitlines() if line.startswith(b"mnt_id:")), b"")


def mount_points() -> list[bytes]:
    """The paths of all mount points of this mount namespace, as mountinfo in proc(5) escapes them."""
    lines = (read_bytes("/proc/self/mountinfo") or b"").splitlines()
    return [line.split(b" ")[4] for line in lines]


def foreign_proc() -> str:
    """Why the numbers in ``/proc`` are not the pids of this process's pid namespace; "" where they are.

    ``/proc`` shows the pid namespace of its mount.  In ``unshare --pid --fork`` without a new ``/proc``
    that is another one than ours: there a number read in ``/proc`` is the pid of another process here.
    NSpid (Linux 4.1) has our pids in the namespace of the mount and in all between it and ours, so it
    is a single number where both are the same.
    """
    if sys.platform != "linux":
        return ""
    try:
        numbers = [os.readlink("/proc/self")]
    except FileNotFoundError:  # this process is not in the pid namespace of the mount, or there is none
        mounted = os.path.isdir("/proc") and any(map(str.isdigit, os.listdir("/proc")))
        return FOREIGN_PROC if mounted else "/proc is not mounted (mount -t proc proc /proc)"
    except OSError as error:
        return f"/proc cannot be read ({error.strerror})"
    status = read_bytes("/proc/self/status")
    if status is None:
        return "/proc cannot be read (/proc/self/status)"
    line = next((line for line in status.splitlines() if line.startswith(b"NSpid:")), b"")
    numbers = line.decode("ascii", "replace").split()[1:] or numbers
    if numbers != [str(os.getpid())]:
        return FOREIGN_PROC
    return ""


def hidden_processes() -> str:
    """Why ``/proc`` hides some of this user's own processes from this process; "" where it hides none.

    With the mount option ``hidepid`` (proc(5)) a process can be seen only by those that may trace it.
    That excludes a process that is not dumpable (prctl(2), PR_SET_DUMPABLE), as a browser's sandboxed
    ones are, even for the same user.  CAP_SYS_PTRACE may trace all; and but for ``ptraceable``, the
    members of the group of the option ``gid``, by default root's, see all.
    """
    if sys.platform != "linux":
        return ""
    mounts = read_bytes("/proc/self/mountinfo")
    if mounts is None:
        return "/proc/self/mountinfo cannot be read, so it is not known whether /proc hides processes"
    options = _proc_options(mounts)
    mode = options.get("hidepid", "off")
    if mode in ("0", "off"):
        return ""
    status = read_bytes("/proc/self/status") or b""
    line = next((line for line in status.splitlines() if line.startswith(b"CapEff:")), b"CapEff: 0")
    if int(line.split()[1], 16) >> CAP_SYS_PTRACE & 1:
        return ""
    if mode not in ("4", "ptraceable") and int(options.get("gid", 0)) in (os.getegid(), *os.getgroups()):
        return ""
    return f"/proc is mounted with hidepid={mode}, which hides processes that are not dumpable"


def _proc_options(mounts: bytes) -> dict[str, str]:
    """The options of the file system on ``/proc``; ``mounts``: of ``/proc/self/mountinfo`` (proc(5))."""
    found = b""
    for line in mounts.splitlines():
        if line.split()[4:5] == [b"/proc"]:
            found = line  # of several, the last one covers the others
    words = found.rpartition(b" - ")[2].split()[2:]
    pairs = (word.partition("=") for word in b",".join(words).decode("ascii", "replace").split(","))
    return {name: value for name, _, value in pairs}


def unreadable(pid: int) -> Stat:
    """The facts of a process that exists but is hidden.  No process has started at 0."""
    return Stat(pid, "?", "?", 0, 0, 0.0)


def is_exiting(pid: int) -> bool | None:
    """True if every thread of the process is on its way out, or ended; None where that cannot be read.

    A program whose first thread alone has ended (pthread_exit(3)) lives on.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # it is gone, /proc hides it, or this system has no /proc
        return None
    was_read = False
    for thread in threads:
        fields = _fields(f"/proc/{pid}/task/{thread}/stat")
        if fields and not int(fields[6]) & PF_EXITING:
            return False
        was_read = was_read or bool(fields)
    return was_read or None


def children_of(pid: int) -> list[int]:
    """The direct children of a process: ``/proc/PID/task/*/children`` (CONFIG_PROC_CHILDREN)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += map(int, (read_bytes(f"/proc/{pid}/task/{thread}/children") or b"").split())
    return found


def children_by_scan() -> dict[int, list[int]]:
    """Every process's children by one pass over ``/proc``, for kernels without CONFIG_PROC_CHILDREN."""
    families: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := read_stat(int(entry))):
            families.setdefault(stat.parent, []).append(stat.pid)
    return families


def descendants(
    root: int, direct_children: Callable[[int], list[int]] = children_of
) -> Iterator[tuple[int, int]]:
    """(pid, parent pid) of everything below a process, parents first.

    Reads as many files as the tree has processes.  On kernels without CONFIG_PROC_CHILDREN it reads
    one for each process of the machine.
    """
    direct = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    families = {} if direct else children_by_scan()
    queue = [root]
    while queue:
        parent = queue.pop(0)
        for pid in direct_children(parent) if direct else families.get(parent, ()):
            yield pid, parent
            queue.append(pid)


def signal_descendant(pid: int, parent: int, number: int) -> bool:
    """Signal a descendant that is not our own child; False where that is not safely possible.

    The pidfd is taken first and the parent is read after it: had the number been recycled in
    between, the parent would be another, or the pidfd would name a process that is dead.
    """
    try:
        fd = os.pidfd_open(pid)
    except (
        OSError,  # the process is gone, or the kernel is older than 5.3
        AttributeError,  # Python was built on such a kernel
    ):  # There the process is signalled later: as its parents die it becomes our own child.
        return False
    try:
        stat = read_stat(pid)
        if stat is None or stat.parent not in (parent, os.getpid()):
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
