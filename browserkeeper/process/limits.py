"""How many cores, processes and bytes of memory the machine and our cgroups allow this process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import LimitError
from .reserve import with_reserve

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


def resource_limit(name: str) -> tuple[int | None, int | None]:
    """The soft and the hard limit ``RLIMIT_name`` of this process.  None means that there is no limit,
    also where the system knows none of that name."""
    import resource

    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is None:
        return None, None
    soft, hard = (None if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(number))
    return soft, hard


def number_text(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"


def no_more_files(*, of_the_system: bool = False) -> str:
    """The text for EMFILE, or for ENFILE: the limit on open files of this process or of the system."""
    if of_the_system:
        return (
            "The whole system has as many files open as it may have (sysctl fs.file-max, fs.file-nr). "
            "Raise that limit, or end programs."
        )
    soft, hard = resource_limit("NOFILE")
    return (
        f"This process may have {number_text(soft)} files open at once (RLIMIT_NOFILE, hard limit "
        f"{number_text(hard)}), and has them all open. Raise it (ulimit -n 4096, systemd's "
        "LimitNOFILE=, docker run --ulimit nofile=4096), or close files."
    )


def own_address_space() -> int:
    """Bytes that count for RLIMIT_AS; 0 off Linux."""
    words = " ".join(_lines("/proc/self/statm")).split()
    return int(words[0]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def own_open_files() -> int | None:
    """How many files this process has open; None off Linux."""
    try:
        return len(with_reserve(lambda: os.listdir("/proc/self/fd"))) - 1  # one is the listing's own
    except FileNotFoundError:
        return None


def number_in(path: str) -> int | None:
    """The number at the beginning of a small file; None where there is none."""
    return _number(Path(path))


def cgroup_figures(controller: str, files: tuple[str, str]) -> list[tuple[Path, int, int]]:
    """(directory, limit, use) of our cgroup and those above it, where there is a limit."""
    found = []
    for directory in cgroup_directories(controller):
        most, now = _number(directory / files[0]), _number(directory / files[1])
        if most is not None and now is not None:
            found.append((directory, most, now))
    return found


def cgroup_events(controller: str, file: str, name: str) -> Iterator[int]:
    """The counter of this name (``memory.events``, ``pids.events``) of our cgroup and those above it."""
    for directory in cgroup_directories(controller):
        for line in _lines(str(directory / file)):
            words = line.split()
            if words[0] == name:
                yield int(words[1])


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
    pids = filter(str.isdigit, with_reserve(lambda: os.listdir("/proc")))
    return soft - sum(map(_threads, pids))


def _threads(pid: str) -> int:
    """0 for a process of another user, or one that has ended meanwhile."""
    try:
        ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        return len(with_reserve(lambda: os.listdir(f"/proc/{pid}/task"))) if ours else 0
    except OSError as error:
        _raise_if_unseen(error, f"/proc/{pid}")
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
    """No lines where there is no such file.  Raises LimitError where this process may open no more
    files, which says nothing about this one."""
    try:
        return with_reserve(Path(path).read_text).splitlines()
    except OSError as error:
        _raise_if_unseen(error, path)
        return []


def _raise_if_unseen(error: OSError, path: str) -> None:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        text = no_more_files(of_the_system=error.errno == errno.ENFILE)
        raise LimitError(f"{path} could not be looked at. {text}") from None


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
