"""The platform functions on Linux, on ``/proc``.  O(the tree) unless the docstring says O(host)."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator

from ..guard.procfs import PAGE_SIZE, TICKS, children_of, descendants, read_bytes, read_stat
from .identity import ProcessFacts, ProcessIdentity


def facts(pid: int) -> ProcessFacts | None:
    """What is known of a process, or None.  ``start`` is in seconds since boot (proc(5))."""
    stat = read_stat(pid)
    if stat is None:
        return None
    identity = ProcessIdentity(pid, stat.start)
    return ProcessFacts(identity, stat.parent, stat.session, stat.name, stat.state)


def tree(root: int) -> list[ProcessFacts]:
    """Everything below a process, parents first, without the process itself."""
    return [found for pid, _ in descendants(root) if (found := facts(pid))]


def children(pid: int) -> list[ProcessFacts]:
    """The direct children of a process."""
    if _no_children_file():
        return [process for process in everyone() if process.parent == pid]
    return [found for child in children_of(pid) if (found := facts(child))]


@functools.cache
def _no_children_file() -> bool:
    """A kernel without CONFIG_PROC_CHILDREN."""
    return not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def pids() -> list[int]:
    """The numbers of every process that can be seen, and nothing more of them.  O(host), but cheap."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def everyone() -> Iterator[ProcessFacts]:
    """Every process that can be seen.  O(host)."""
    for pid in pids():
        if found := facts(pid):
            yield found


def program(pid: int) -> str:
    """The file name of the program that runs, "" where that cannot be read."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def command_line(pid: int) -> bytes:
    """As in ``/proc/PID/cmdline``: words that end in NUL, unless the process has overwritten them."""
    return read_bytes(f"/proc/{pid}/cmdline") or b""


def bears_marker(pid: int, marker: str) -> bool:
    """Is ``NAME=value`` in the environment that the process was started with?

    Chrome's zygote children overwrite theirs, so a False proves nothing.
    """
    raw = read_bytes(f"/proc/{pid}/environ")
    return raw is not None and marker.encode() in raw.split(b"\0")


def marker_value(pid: int, name: str) -> str | None:
    """The value of an environment variable at the process's start, or None."""
    prefix = name.encode() + b"="
    for item in (read_bytes(f"/proc/{pid}/environ") or b"").split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("utf-8", "replace")
    return None


def users(pid: int) -> set[int]:
    """Its user ids: real, effective, saved, file system; empty where it is gone.  The owner of
    ``/proc/PID`` says less: a process can make that root's (prctl(2), PR_SET_DUMPABLE)."""
    for line in (read_bytes(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return set(map(int, line.split()[1:]))
    return set()


def memory(pid: int) -> int:
    """PSS in bytes: shared pages divided among their users, so that a tree adds up (proc(5))."""
    rollup = read_bytes(f"/proc/{pid}/smaps_rollup") or b""
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def resident(pid: int) -> int:
    """Resident bytes, shared pages included: never less than :func:`memory`, and much cheaper."""
    fields = (read_bytes(f"/proc/{pid}/statm") or b"0 0").split()
    return int(fields[1]) * PAGE_SIZE


def listening_port(pid: int) -> int:
    """The first TCP port of an IPv4 address that a process listens on; 0 for none.

    Sockets are known by their inodes, and 0A is LISTEN (proc(5), /proc/net/tcp).
    """
    held = _open_files(pid)
    for line in (read_bytes(f"/proc/{pid}/net/tcp") or b"").decode().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
            return int(fields[1].rpartition(":")[2], 16)
    return 0


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    except OSError:
        pass  # it has exited, or closed one meanwhile; what was found before counts
    return found


def processor_time(pid: int) -> float:
    """Seconds that its threads have run so far, in user and kernel mode (proc(5): utime, stime);
    0 where it is gone."""
    fields = (read_bytes(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def send_signal(target: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process, or nobody; False where it is gone.

    The pidfd is opened first and the start time is read after it, so that a recycled pid is
    seen.  Before Linux 5.3 there is no pidfd and a window of microseconds remains.
    """
    try:
        fd = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):
        fd = -1
    try:
        current = facts(target.pid)
        if current is None or not target.is_same_as(current.identity):
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(target.pid, number)
        return True
    except OSError:  # gone; or EPERM, another user's
        return False
    finally:
        if fd >= 0:
            os.close(fd)


def exit_fd(target: ProcessIdentity) -> int:
    """A file descriptor that becomes readable when exactly this process has exited, the caller's
    to close; -1 where it has already, and before Linux 5.3 (pidfd_open(2))."""
    try:
        fd = os.pidfd_open(target.pid)
    except (OSError, AttributeError):
        return -1
    found = facts(target.pid)
    if found is not None and target.is_same_as(found.identity):
        return fd
    os.close(fd)
    return -1


def host_id() -> str:
    """This machine, this boot of its kernel, this pid namespace: where a pid has one meaning."""
    machine = (read_bytes("/etc/machine-id") or b"").decode().strip()
    boot = (read_bytes("/proc/sys/kernel/random/boot_id") or b"").decode().strip()
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "?"
    return f"{machine}/{boot}/{namespace}"


def now() -> float:
    """The present on the clock that process start times are given in: seconds since boot."""
    return float((read_bytes("/proc/uptime") or b"0").split()[0])


__all__ = [
    "bears_marker",
    "children",
    "command_line",
    "everyone",
    "exit_fd",
    "facts",
    "host_id",
    "listening_port",
    "marker_value",
    "memory",
    "now",
    "pids",
    "processor_time",
    "program",
    "resident",
    "send_signal",
    "tree",
    "users",
]
