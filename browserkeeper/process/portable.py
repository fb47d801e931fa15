"""The platform functions anywhere else, on psutil.  Each one may be O(host)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil

from .identity import ProcessFacts, ProcessIdentity

_STATES = {
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_DISK_SLEEP: "D",
}


def facts(pid: int) -> ProcessFacts | None:
    """What is known of a process, or None.  ``start`` is in seconds since the epoch."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = _STATES.get(process.status(), "S")
            identity = ProcessIdentity(pid, process.create_time())
            return ProcessFacts(identity, process.ppid(), os.getsid(pid), process.name(), state)
    except (psutil.Error, OSError):
        return None


def tree(root: int) -> list[ProcessFacts]:
    """Everything below a process, without the process itself."""
    try:
        below = psutil.Process(root).children(recursive=True)
    except psutil.Error:
        return []
    return [found for process in below if (found := facts(process.pid))]


def children(pid: int) -> list[ProcessFacts]:
    """The direct children of a process."""
    try:
        direct = psutil.Process(pid).children()
    except psutil.Error:
        return []
    return [found for process in direct if (found := facts(process.pid))]


def pids() -> list[int]:
    """The numbers of every process that can be seen."""
    return psutil.pids()


def program(pid: int) -> str:
    """The file name of the program that runs, "" where that cannot be read."""
    try:
        return os.path.basename(psutil.Process(pid).exe())
    except (psutil.Error, OSError):
        return ""


def command_line(pid: int) -> bytes:
    """Its words, each with a NUL at its end."""
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
    """Is ``NAME=value`` in the environment that the process was started with?"""
    name, _, value = marker.partition("=")
    return marker_value(pid, name) == value


def marker_value(pid: int, name: str) -> str | None:
    """The value of an environment variable at the process's start, or None."""
    try:
        return psutil.Process(pid).environ().get(name)
    except (psutil.Error, OSError):
        return None


def users(pid: int) -> set[int]:
    """Its user ids: real, effective, saved; empty where it is gone."""
    try:
        return set(psutil.Process(pid).uids())
    except psutil.Error:
        return set()


def memory(pid: int) -> int:
    """Resident bytes; pages shared within a tree are counted once for each of its processes."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


resident = memory


def listening_port(pid: int) -> int:
    """The first TCP port of an IPv4 address that a process listens on; 0 for none."""
    try:
        process = psutil.Process(pid)
        # psutil 6 renamed it.
        connections = getattr(process, "net_connections", None) or process.connections
        sockets = connections("tcp4")
    except (psutil.Error, OSError):
        return 0
    return next((s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN), 0)


def own_memory(pid: int) -> int:
    """Resident bytes, on Linux without those of files and of shared memory."""
    try:
        found = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(found.rss - getattr(found, "shared", 0))


def processor_time(pid: int) -> float:
    """Seconds that its threads have run so far, in user and kernel mode; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def send_signal(target: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process, or nobody; psutil compares start times just before."""
    try:
        process = psutil.Process(target.pid)
        if not target.is_same_as(ProcessIdentity(target.pid, process.create_time())):
            return False
        process.send_signal(number)
        return True
    except psutil.Error:
        return False


def exit_fd(target: ProcessIdentity) -> int:
    """None here: whoever wants to know looks from time to time."""
    return -1


def host_id() -> str:
    """This machine and this boot of it."""
    return f"{os.uname().nodename}/{int(psutil.boot_time())}/"


def now() -> float:
    """The present on the clock that process start times are given in: seconds since the epoch."""
    return time.time()
