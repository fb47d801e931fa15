"""How many cores, processes and bytes of memory the machine and our cgroups allow this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SELF = "/proc/self"
"""Where the kernel says in which cgroups this process is, and where these are mounted."""
MEMORY_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Limit and use of memory in bytes, in version 2 and in version 1."""
PIDS_FILES = ("pids.max", "pids.current")
"""Limit and number of processes and threads, in both versions (kernel/cgroup/pids.c)."""


def cores() -> int:
    """Cores that this process may use, by affinity and by its cgroups' quotas; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(int, _quotas())]))


def _quotas() -> Iterator[float]:
    """For each cgroup, the cores that ``cpu.max`` (v2) or ``cpu.cfs_quota_us`` (v1) allow."""
    for directory in cgroup_directories("cpu"):
        words = _lines(str(directory / "cpu.max"))
        quota, period = words[0].split() if words else ("max", "0")
        if not words:
            quota = " ".join(_lines(str(directory / "cpu.cfs_quota_us")))
            period = " ".join(_lines(str(directory / "cpu.cfs_period_us")))
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def memory_left() -> int:
    """Bytes of memory that are still free on the machine or in our cgroups, whichever is less."""
    import psutil

    left = int(psutil.virtual_memory().available)
    in_cgroup = cgroup_left("memory", *MEMORY_FILES)
    return left if in_cgroup is None else min(left, in_cgroup)


def cgroup_left(controller: str, *files: tuple[str, str]) -> int | None:
    """Limit minus use, the least of our cgroup and those above it, at least 0; None without a limit.

    ``files``: the names of limit and use, a pair for each version of cgroups.  On version 2 the files of
    all controllers are in one directory.  Of the memory in use, page cache counts as free: the kernel
    drops it when memory is needed.
    """
    lefts = []
    for directory in cgroup_directories(controller):
        for limit, used in files:
            most, now = _number(directory / limit), _number(directory / used)
            if most is not None and now is not None:  # no number: "max", or the root cgroup
                lefts.append(most - now + (_cache(directory) if controller == "memory" else 0))
    return max(0, min(lefts)) if lefts else None


def tasks_left() -> int | None:
    """How many more processes and threads the kernel allows on the machine (proc(5)); None off Linux."""
    limits = [_number(Path("/proc/sys/kernel", name)) for name in ("pid_max", "threads-max")]
    words = " ".join(_lines("/proc/loadavg")).split()
    if None in limits or len(words) < 4:
        return None
    return min(limit for limit in limits if limit) - int(words[3].partition("/")[2])


def user_processes_left() -> int | None:
    """How many more processes and threads RLIMIT_NPROC allows this user; None without a limit, and off
    Linux.  The kernel counts the threads of all the user's processes, and exempts root (setrlimit(2)).
    """
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0 or not os.path.isdir("/proc/self/task"):
        return None
    return soft - sum(map(_threads, filter(str.isdigit, os.listdir("/proc"))))


def _threads(pid: str) -> int:
    """0 for a process of another user, or one that has ended meanwhile."""
    try:
        ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        return len(os.listdir(f"/proc/{pid}/task")) if ours else 0
    except OSError:
        return 0


def cgroup_directories(controller: str) -> Iterator[Path]:
    """Directories of our cgroup (v1 and v2) for a controller and of those above it, innermost first."""
    for line in _lines(f"{SELF}/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in cgroup_mounts(controller if controllers else ""):
            inner = Path(mount, path.lstrip("/"))
            while inner.is_relative_to(mount):
                yield inner
                inner = inner.parent


def cgroup_mounts(controller: str) -> list[str]:
    """The mount points of a controller of version 1; with "" those of version 2."""
    fields = [line.split() for line in _lines(f"{SELF}/mounts")]
    if not controller:
        return [field[1] for field in fields if field[2] == "cgroup2"]
    return [f[1] for f in fields if f[2] == "cgroup" and controller in f[3].split(",")]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    words = _lines(str(path))
    return int(words[0]) if words and words[0].isdigit() else None


def _cache(directory: Path) -> int:
    """Bytes of page cache, of the cgroups below as well: they are in the number that is in use.

    In version 1 ``inactive_file`` is that of this cgroup alone, and ``total_inactive_file`` that of all;
    version 2 has only the former, and counts all in it.
    """
    found = dict(line.split(" ", 1) for line in _lines(str(directory / "memory.stat")) if " " in line)
    return int(found.get("total_inactive_file") or found.get("inactive_file") or 0)
