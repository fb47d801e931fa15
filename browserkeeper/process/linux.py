"""The platform functions (``Platform``) on Linux, by ``/proc``.

Each costs O(the processes asked about), unless its docstring says O(host).  Each raises LimitError where
this process may open no more files, or gets no memory: then nothing is known, and in particular not that
a process is gone.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator

from ..errors import LimitError
from ..guard.descriptors import above_stdio
from ..guard.procfs import (
    PAGE_SIZE,
    TICKS,
    Stat,
    descendants,
    foreign_proc,
    living_thread,
    parse_stat,
    read_file,
)
from .bounded import READ_TIMEOUT, read_within
from .identity import (
    ALWAYS,
    INITIAL_NAMESPACE,
    NAMED_BY_BOOT,
    UNKNOWN,
    Host,
    ProcessFacts,
    ProcessIdentity,
    is_same_start,
)
from .limit_errors import NO_LOOK, cannot_look
from .reserve import lent, with_reserve

PSS_TIMEOUT = 10.0
"""Seconds for the PSS of a process, which takes 1 to 100 ms: the kernel walks its page tables."""


def _read(path: str) -> bytes | None:
    """The whole of a small file; None where it cannot be read: it is gone, or that is not permitted."""
    try:
        return with_reserve(lambda: read_file(path))
    except OSError as error:
        if error.errno in NO_LOOK:
            raise cannot_look(error, path) from None
        return None


def _names(directory: str) -> list[str]:
    """The names in a directory; none where it cannot be read."""
    try:
        return with_reserve(lambda: os.listdir(directory))
    except OSError as error:
        if error.errno in NO_LOOK:
            raise cannot_look(error, directory) from None
        return []


def _stat(pid: int) -> Stat | None:
    return parse_stat(pid, _read(f"/proc/{pid}/stat"))


def facts(pid: int) -> ProcessFacts | None:
    """The facts of a process, None where it does not exist.  ``start``: seconds since boot (proc(5))."""
    stat = _stat(pid)
    if stat is None:
        return None
    identity = ProcessIdentity(pid, stat.start)
    return ProcessFacts(identity, stat.parent, stat.session, stat.name, stat.state)


def tree(root: int) -> list[ProcessFacts]:
    """All descendants of a process, parents first, without the process itself."""
    return [found for pid, _ in descendants(root, _children_of) if (found := facts(pid))]


def children(pid: int) -> list[ProcessFacts]:
    """The direct children of a process."""
    if _no_children_file():
        return [process for process in everyone() if process.parent == pid]
    return [found for child in _children_of(pid) if (found := facts(child))]


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for thread in _names(f"/proc/{pid}/task"):
        found += map(int, (_read(f"/proc/{pid}/task/{thread}/children") or b"").split())
    return found


@functools.cache
def _no_children_file() -> bool:
    """True on a kernel without CONFIG_PROC_CHILDREN."""
    return not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def pids() -> list[int]:
    """The pids of all processes that can be seen.  O(host), but cheap: no file is read."""
    return [int(entry) for entry in _names("/proc") if entry.isdigit()]


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
    """The words of the command line, each with a NUL at its end; b"" where it cannot be read.

    A process can overwrite its command line, with other separators too.
    """
    return read_within(READ_TIMEOUT, f"/proc/{pid}/cmdline") or b""


def bears_marker(pid: int, marker: str) -> bool:
    """True if ``NAME=value`` is in the environment that the process was started with.

    False proves nothing: Chrome's zygote children overwrite their environment.
    """
    raw = _environment(pid)
    return raw is not None and marker.encode() in raw.split(b"\0")


def has_readable_environment(pid: int) -> bool:
    """False where the environment of a process cannot be read, so that no marker in it is seen."""
    return _environment(pid) is not None


def _environment(pid: int) -> bytes | None:
    """None where it cannot be read: of another user, not dumpable, gone, or the read hangs."""
    raw = read_within(READ_TIMEOUT, f"/proc/{pid}/environ")
    if not raw and (thread := living_thread(pid)):
        return read_within(READ_TIMEOUT, f"{thread}/environ")
    return raw


def marker_value(pid: int, name: str) -> str | None:
    """The value of an environment variable at the process's start; None where there is none."""
    prefix = name.encode() + b"="
    for item in (_environment(pid) or b"").split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("utf-8", "replace")
    return None


def users(pid: int) -> set[int]:
    """The user ids of a process: real, effective, saved, file system; empty where it is gone.

    The owner of ``/proc/PID`` is no substitute: it can be root's although the process is not
    (prctl(2), PR_SET_DUMPABLE).
    """
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return set(map(int, line.split()[1:]))
    return set()


def memory(pid: int) -> int:
    """Bytes of memory; a shared page counts in equal parts for its processes (PSS, proc(5)).

    So the sum over a tree is what the tree uses.
    """
    rollup = read_within(PSS_TIMEOUT, f"/proc/{pid}/smaps_rollup") or b""
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def resident(pid: int) -> int:
    """Resident bytes, shared pages counted in full: never less than :func:`memory`, and much cheaper."""
    fields = (_read(f"/proc/{pid}/statm") or b"0 0").split()
    return int(fields[1]) * PAGE_SIZE


def listening_port(pid: int) -> int:
    """The first TCP port of an IPv4 address that a process listens on; 0 for none."""
    return next(_listening_ports(pid, "tcp"), 0)


def listens_on(pid: int, port: int) -> bool:
    """True if the process listens on this TCP port, in the network namespace of this process."""
    return _network_of(pid) == _network_of("self") != "" and any(
        port in _listening_ports(pid, table) for table in ("tcp", "tcp6")
    )


def _listening_ports(pid: int, table: str) -> Iterator[int]:
    """Sockets are known by their inodes, and 0A is LISTEN (proc(5), /proc/net/tcp)."""
    held = _open_files(pid)
    for line in (_read(f"/proc/{pid}/net/{table}") or b"").decode().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
            yield int(fields[1].rpartition(":")[2], 16)


def _network_of(pid: int | str) -> str:
    """The network namespace of a process; "" where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for fd in _names(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    except FileNotFoundError:
        pass  # the process exited, or closed a file meanwhile; what was found before counts
    return found


def processor_time(pid: int) -> float:
    """Seconds that the threads of a process have run, in user and kernel mode; 0 where it is gone."""
    fields = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def send_signal(target: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal this process and never another one of its pid; False where it is gone.

    The pidfd is opened first and the start time is read after it, so that a recycled pid is noticed.
    Before Linux 5.3 there is no pidfd, and the pid could be recycled in the microseconds between.
    False as well where ``/proc`` shows another pid namespace: there its numbers mean other processes.
    """
    with lent():
        return _send_signal(target, number)


def _send_signal(target: ProcessIdentity, number: signal.Signals) -> bool:
    if _is_foreign_proc():
        return False
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
    except LimitError:
        raise
    except OSError:  # gone; or EPERM, another user's
        return False
    finally:
        if fd >= 0:
            os.close(fd)


@functools.cache
def _is_foreign_proc() -> bool:
    """Asked once, and again in a fork, which may be in a pid namespace of its own."""
    _read("/proc/self/status")  # raises LimitError where nothing could be seen
    return bool(foreign_proc())


os.register_at_fork(after_in_child=_is_foreign_proc.cache_clear)


def exit_fd(target: ProcessIdentity) -> int:
    """A file descriptor that becomes readable when the process exits; the caller closes it.

    -1 where the process has exited already, before Linux 5.3 (pidfd_open(2)), and where this process may
    open no more files.
    """
    try:
        fd = above_stdio(os.pidfd_open(target.pid))
    except (OSError, AttributeError):
        return -1
    try:
        found = facts(target.pid)
        if found is not None and target.is_same_as(found.identity):
            return fd
    except LimitError:
        pass
    os.close(fd)
    return -1


def host() -> Host:
    """This machine, boot and pid namespace, and the user, as far as they can be read.

    Where an image has no machine id, the boot id takes its place: it is unique to one boot of one
    kernel.  A record of an earlier boot is then of an unknown machine.

    ``/proc`` must be that of our own namespace; else (``unshare --pid`` without a new ``/proc``) its
    pids are not those that kill(2) takes, and nothing is known.

    In a time namespace with an offset all start times are other numbers (time_namespaces(7)), so there
    the offset belongs to the boot.
    """
    boot = (_read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()
    if boot and (offset := _clock_offset()):
        boot += f"+{offset:g}"
    machine = (_read("/etc/machine-id") or b"").decode("ascii", "replace").strip()
    if not _is_machine_id(machine):
        machine = NAMED_BY_BOOT + boot if boot else ""
    namespace = _namespace_of("self") if _is_proc_ours() else ""
    if namespace == INITIAL_NAMESPACE:
        init_start = ALWAYS  # readable also where hidepid hides PID 1
    else:
        init = _stat(1) if namespace else None
        init_start = init.start if init else UNKNOWN
    return Host(machine, boot, namespace, init_start, os.geteuid())


def _is_machine_id(text: str) -> bool:
    """False for a file that is empty, or ``uninitialized`` (machine-id(5))."""
    return len(text) == 32 and all(character in "0123456789abcdef" for character in text)


def _is_proc_ours() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _namespace_of(pid: int | str) -> str:
    """The pid namespace of a process, as ``pid:[INODE]``; "" where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def host_id() -> str:
    """Machine, boot and pid namespace of :func:`host` in one string."""
    return host().id


def is_namespace_in_use(namespace: str, init_start: float) -> bool:
    """Whether a process that can be seen is in this pid namespace, whose PID 1 has this start time.

    The inode number may be another namespace's by now, which the start time of its PID 1 tells.  Where
    that PID 1 cannot be seen, or ``init_start`` is UNKNOWN, any process counts.  Zombies do not: PID 1
    becomes one after all others have ended (pid_namespaces(7)).  O(host).
    """
    inside = [stat for pid in pids() if _namespace_of(pid) == namespace and (stat := _stat(pid))]
    inside = [stat for stat in inside if stat.state != "Z"]
    if init_start == UNKNOWN:
        return bool(inside)
    starts = [stat.start for stat in inside if _innermost_pid(stat.pid) == 1]
    return any(is_same_start(start, init_start) for start in starts) or (bool(inside) and not starts)


def _innermost_pid(pid: int) -> int:
    """The process's pid in its own namespace; 0 where that cannot be read."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return 0


def is_in_our_namespace(pid: int) -> bool:
    """True if the process is in the pid namespace of this one; False where that cannot be read."""
    namespace = _namespace_of(pid)
    return namespace != "" and namespace == _namespace_of("self")


def resources(pid: int) -> str:
    """The cgroups of a process, which its children inherit; "" where they cannot be read.

    A service manager gives each unit that it starts a cgroup of its own.
    """
    return (_read(f"/proc/{pid}/cgroup") or b"").decode("utf-8", "replace")


def now() -> float:
    """The time now, on the clock of processes' start times: seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def booted() -> float:
    """When the machine was started, in seconds since the epoch, by the clock of now."""
    return time.time() - now() + _clock_offset()


def _clock_offset() -> float:
    """Seconds that the time namespace of this process adds to :func:`now` and to start times."""
    for line in (_read("/proc/self/timens_offsets") or b"").splitlines():
        words = line.split()
        if words[0] == b"boottime":
            return int(words[1]) + int(words[2]) / 1e9
    return 0.0


__all__ = [
    "bears_marker",
    "booted",
    "children",
    "command_line",
    "everyone",
    "exit_fd",
    "facts",
    "has_readable_environment",
    "host",
    "host_id",
    "is_in_our_namespace",
    "is_namespace_in_use",
    "listening_port",
    "listens_on",
    "marker_value",
    "memory",
    "now",
    "pids",
    "processor_time",
    "program",
    "resident",
    "resources",
    "send_signal",
    "tree",
    "users",
]
