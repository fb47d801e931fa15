"""The platform functions (``Platform``) on other systems, by psutil.  Each may cost O(host)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil

from ..guard.procfs import read_bytes
from .bounded import READ_TIMEOUT, read_within
from .identity import ALWAYS, NO_NAMESPACES, Host, ProcessFacts, ProcessIdentity

_STATES = {
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_DISK_SLEEP: "D",
}


def facts(pid: int) -> ProcessFacts | None:
    """The facts of a process, None where it does not exist.  ``start``: seconds since the epoch."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = _STATES.get(process.status(), "S")
            identity = ProcessIdentity(pid, process.create_time())
            return ProcessFacts(identity, process.ppid(), os.getsid(pid), process.name(), state)
    except (psutil.Error, OSError):
        return None


def tree(root: int) -> list[ProcessFacts]:
    """All descendants of a process, without the process itself."""
    try:
        below = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    except (psutil.Error, OSError):  # it reads all processes, some of which ``hidepid`` hides
        return _below(root)
    return [found for process in below if (found := facts(process.pid))]


def _below(root: int) -> list[ProcessFacts]:
    """The descendants of a process among those that can be read."""
    families: dict[int, list[ProcessFacts]] = {}
    for process in everyone():
        families.setdefault(process.parent, []).append(process)
    found, queue = [], [root]
    while queue:
        children_of_it = families.pop(queue.pop(), [])
        found += children_of_it
        queue += [child.pid for child in children_of_it]
    return found


def children(pid: int) -> list[ProcessFacts]:
    """The direct children of a process."""
    try:
        direct = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
    except (psutil.Error, OSError):
        return [process for process in everyone() if process.parent == pid]
    return [found for process in direct if (found := facts(process.pid))]


def pids() -> list[int]:
    """The pids of all processes that can be seen."""
    return psutil.pids()


def program(pid: int) -> str:
    """The file name of the program that runs, "" where that cannot be read."""
    try:
        return os.path.basename(psutil.Process(pid).exe())
    except (psutil.Error, OSError):
        return ""


def command_line(pid: int) -> bytes:
    """The words of the command line, each with a NUL at its end; b"" where it cannot be read."""
    try:
        return b"".join(os.fsencode(word) + b"\0" for word in psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return b""


def everyone() -> Iterator[ProcessFacts]:
    """Every process that can be seen."""
    for pid in psutil.pids():
        if found := facts(pid):
            yield found


def bears_marker(pid: int, marker: str) -> bool:
    """True if ``NAME=value`` is in the environment that the process was started with."""
    name, _, value = marker.partition("=")
    return marker_value(pid, name) == value


def has_readable_environment(pid: int) -> bool:
    """False where the environment of a process cannot be read, so that no marker in it is seen."""
    return _environment(pid) is not None


def _environment(pid: int) -> dict[str, str] | None:
    """None where it cannot be read; on Linux also where the read hangs."""
    try:
        if psutil.LINUX:
            raw = read_within(READ_TIMEOUT, f"/proc/{pid}/environ")
            if raw is None:
                return None
            pairs = (item.partition("=") for item in raw.decode("utf-8", "replace").split("\0"))
            return {name: value for name, _, value in pairs}
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return None


def marker_value(pid: int, name: str) -> str | None:
    """The value of an environment variable at the process's start; None where there is none."""
    return (_environment(pid) or {}).get(name)


def users(pid: int) -> set[int]:
    """The user ids of a process: real, effective, saved; empty where it is gone."""
    try:
        return set(psutil.Process(pid).uids())
    except psutil.Error:
        return set()


def memory(pid: int) -> int:
    """Resident bytes (RSS): a page that processes share counts in full for each of them."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


resident = memory


def listening_port(pid: int) -> int:
    """The first TCP port of an IPv4 address that a process listens on; 0 for none."""
    return next(_listening_ports(pid, "tcp4"), 0)


def listens_on(pid: int, port: int) -> bool:
    """True if the process listens on this TCP port."""
    return port in _listening_ports(pid, "tcp")


def _listening_ports(pid: int, kind: str) -> Iterator[int]:
    try:
        process = psutil.Process(pid)
        # psutil 6 renamed it.
        connections = getattr(process, "net_connections", None) or process.connections
        sockets = connections(kind)
    except (psutil.Error, OSError):
        return
    yield from (s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN)


def own_memory(pid: int) -> int:
    """Resident bytes, on Linux without those of files and of shared memory."""
    try:
        found = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(found.rss - getattr(found, "shared", 0))


def processor_time(pid: int) -> float:
    """Seconds that the threads of a process have run so far; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def send_signal(target: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal this process and never another one of its pid; False where it is gone.

    psutil compares start times just before it signals.
    """
    try:
        process = psutil.Process(target.pid)
        if not target.is_same_as(ProcessIdentity(target.pid, process.create_time())):
            return False
        process.send_signal(number)
        return True
    except psutil.Error:
        return False


def exit_fd(target: ProcessIdentity) -> int:
    """Returns -1: this platform has no descriptor of a process.  Callers poll :func:`facts` instead."""
    return -1


def host() -> Host:
    """This machine, boot and user.  These systems have no pid namespaces."""
    machine, boot = os.uname().nodename, str(int(psutil.boot_time()))
    return Host(machine, boot, NO_NAMESPACES, ALWAYS, os.geteuid())


def host_id() -> str:
    """Machine, boot and pid namespace of :func:`host` in one string."""
    return host().id


def is_namespace_in_use(namespace: str, init_start: float) -> bool:
    """False: there are no namespaces."""
    return False


def is_in_our_namespace(pid: int) -> bool:
    """True, on Linux too: psutil names no namespaces."""
    return True


def resources(pid: int) -> str:
    """The cgroups of a process on Linux; "" on other systems, which have none."""
    return (read_bytes(f"/proc/{pid}/cgroup") or b"").decode("utf-8", "replace")


def now() -> float:
    """The time now, on the clock of processes' start times: seconds since the epoch."""
    return time.time()


def booted() -> float:
    """When the machine was started, in seconds since the epoch."""
    return float(psutil.boot_time())
