"""The platform functions on Linux, on ``/proc``.  O(the tree) unless the docstring says O(host)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from ..guard import descendants, read_bytes, read_stat
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


def everyone() -> Iterator[ProcessFacts]:
    """Every process that can be seen.  O(host)."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := facts(int(entry))):
            yield found


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


def memory(pid: int) -> int:
    """PSS in bytes: shared pages divided among their users, so that a tree adds up (proc(5))."""
    rollup = read_bytes(f"/proc/{pid}/smaps_rollup") or b""
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


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
    "everyone",
    "facts",
    "host_id",
    "marker_value",
    "memory",
    "now",
    "send_signal",
    "tree",
]
