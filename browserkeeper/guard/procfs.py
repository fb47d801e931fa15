"""Readers of ``/proc`` (proc(5)): one process, its children, everything below it.

The guard is built on these functions, and every layer above it may import them too.  Like all of
``guard/``, this module imports C modules of the standard library only.
"""

from __future__ import annotations

import os

# The C half of ``signal``: the Python half builds enums, and costs 10 ms of a 20 ms start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
else:
    import _signal as signal

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Stat:
    """The fields of ``/proc/PID/stat`` that we use; ``start`` is in seconds since boot.

    ``session`` is the pid of the session's leader (setsid(2)), ``state`` the letter of ps(1).
    """

    __slots__ = ("name", "parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, name: str, state: str, parent: int, session: int, start: float):
        self.pid, self.name, self.state = pid, name, state
        self.parent, self.session, self.start = parent, session, start


def read_bytes(path: str) -> bytes | None:
    """The whole of a small file, or None where it cannot be read (gone, no permission)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # ESRCH: the process ended while its file was read
        return None
    finally:
        os.close(fd)


def read_stat(pid: int) -> Stat | None:
    """The process's facts, or None where it does not exist.

    The name may hold spaces and brackets, so the fields start after the last ``)``.
    """
    raw = read_bytes(f"/proc/{pid}/stat")
    if not raw:
        return None
    head, _, tail = raw.rpartition(b")")
    fields = tail.split()
    name = head.partition(b"(")[2].decode("ascii", "replace")
    return Stat(pid, name, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]) / TICKS)


def own_memory(pid: int) -> int:
    """Resident bytes without those of files and of shared memory (statm); 0 where it is gone.

    The kernel keeps these counters anyway.  PSS, which is fairer, walks every page table, and takes
    a lock for it that a process which hangs in a page fault may hold: that would block the guard.
    """
    fields = (read_bytes(f"/proc/{pid}/statm") or b"0 0 0").split()
    return max(0, int(fields[1]) - int(fields[2])) * PAGE_SIZE


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


def descendants(root: int) -> Iterator[tuple[int, int]]:
    """(pid, parent pid) of everything below a process, parents first.

    Reads as many files as the tree has processes.  On kernels without CONFIG_PROC_CHILDREN it reads
    one for each process of the machine.
    """
    direct = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    families = {} if direct else children_by_scan()
    queue = [root]
    while queue:
        parent = queue.pop(0)
        for pid in children_of(parent) if direct else families.get(parent, ()):
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
