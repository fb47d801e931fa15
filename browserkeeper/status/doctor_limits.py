"""The doctor's checks of the limits of the system, each with figures: what is set, what is left of it,
and for how many browsers that is enough.

``process/limit_errors.py`` has the texts for a limit that was reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..process import limit_errors
from ..process.limits import (
    MEMORY_FILES,
    PIDS_FILES,
    cgroup_left,
    memory_left,
    number_in,
    own_open_files,
    resource_limit,
    tasks_left,
    user_processes_left,
)
from .check import Check
from .text import whole_megabytes

FILES_NEEDED = 1024
"""Open files: a browser process uses up to 300, and this program a few for each session."""
FILE_NR = "/proc/sys/fs/file-nr"
"""The number of open files, of which so many are unused, and the limit (proc(5))."""
NO_LIMIT = 1 << 62
"""``file-max`` where none was set is 2**63 - 1 (kernel since 5.2, by systemd)."""
FILES_PER_SESSION = 12
"""Descriptors of the program that has a session open: pipes, pidfd, connections (4 to 12 measured)."""
PROCESSES_NEEDED = 512
"""Processes and threads: one browser has 100 to 250 threads."""
PROCESSES_PER_BROWSER = 250
MEMORY_WANTED = 1024**3
"""Bytes: one browser with one heavy page."""
MEMORY_PER_BROWSER = 350 * 1024**2
"""Bytes of a browser with one light page: 190 to 340 MB measured."""
INOTIFY_PER_BROWSER = 2
"""Instances of inotify(7) that one Chromium has; a Firefox has one."""


def _browsers(left: int, for_each: int) -> str:
    return f"enough for about {max(0, left) // for_each:,} browsers"


def open_files() -> Check:
    """The soft limit counts for this program, and for the browsers that it starts."""
    soft, hard = resource_limit("NOFILE")
    if soft is None:
        return Check("open files", "ok", "no limit")
    used = own_open_files() or 0
    text = f"limit {soft:,}, {soft - used:,} left in this process"
    if soft >= FILES_NEEDED:
        return Check("open files", "ok", f"{text}: {_browsers(soft - used, FILES_PER_SESSION)}")
    remedy = f"Raise it: ulimit -n {FILES_NEEDED} (docker run --ulimit nofile={FILES_NEEDED})."
    most = "no hard limit" if hard is None else f"hard limit {hard:,}"
    return Check("open files", "warn", f"{text}, {most}; a browser needs up to {FILES_NEEDED}", remedy)


def open_files_of_the_system() -> Check:
    """``file-nr`` has the open files of all programs, and the limit; it does not bind root."""
    words = Path(FILE_NR).read_text().split()
    left = int(words[2]) - int(words[0])
    if left >= NO_LIMIT:
        return Check("system's open files", "ok", "no limit")
    if left >= FILES_NEEDED * 4:
        return Check("system's open files", "ok", f"{left:,} more are allowed")
    remedy = "Raise sysctl fs.file-max, or end programs."
    return Check("system's open files", "warn", f"only {left:,} more are allowed", remedy)


def processes() -> Check:
    """Of this user's limit, the cgroup's and the system's the one that allows the fewest."""
    allowed = {
        "pids.max of a cgroup": cgroup_left("pids", PIDS_FILES),
        "RLIMIT_NPROC of this user": user_processes_left(),
        "kernel.threads-max and pid_max": tasks_left(),
    }
    limits = {name: left for name, left in allowed.items() if left is not None}
    if not limits:
        return Check("processes", "ok", "no limit")
    name = min(limits, key=lambda name: limits[name])
    left = limits[name]
    if left >= PROCESSES_NEEDED:
        what = f"{left:,} more are allowed ({name}), threads included: "
        return Check("processes", "ok", what + _browsers(left, PROCESSES_PER_BROWSER))
    remedy = "Raise the limit: docker run --pids-limit, systemd's TasksMax=, or ulimit -u."
    what = f"only {left:,} more are allowed ({name}), threads included; a browser has up to "
    return Check("processes", "warn", what + str(PROCESSES_PER_BROWSER), remedy)


def memory() -> Check:
    left = memory_left()
    limited = cgroup_left("memory", *MEMORY_FILES) is not None
    what = f"{whole_megabytes(left)} available{' (in our cgroup)' if limited else ''}: "
    what += _browsers(left, MEMORY_PER_BROWSER)
    if left >= MEMORY_WANTED:
        return Check("memory", "ok", what)
    remedy = f"Give {whole_megabytes(MEMORY_WANTED)} for each session, and run fewer at once."
    return Check("memory", "warn", what, remedy)


def inherited() -> Check:
    """RLIMIT_AS, DATA, FSIZE, CPU and STACK, which browsers inherit from the program."""
    low = limit_errors.low_limits()
    if not low:
        return Check("inherited limits", "ok", "none is too low for a browser")
    what = "; ".join(what for what, _ in low)
    remedy = " ".join(f"{remedy[0].upper()}{remedy[1:]}." for _, remedy in low)
    return Check("inherited limits", "warn", what, remedy)


def inotify() -> Check:
    """Browsers watch files by inotify(7).  Without an instance they go on, and miss changes."""
    most = number_in("/proc/sys/fs/inotify/max_user_instances")
    if most is None:
        return Check("inotify", "ok", "no limit is known")
    left = most - _inotify_instances()
    what = f"{left:,} of {most:,} instances are free: {_browsers(left, INOTIFY_PER_BROWSER)}"
    if left >= INOTIFY_PER_BROWSER:
        return Check("inotify", "ok", what)
    return Check("inotify", "warn", what, "Raise sysctl fs.inotify.max_user_instances.")


def _inotify_instances() -> int:
    """Of this user's processes, as far as their descriptors can be read.  O(host)."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
                found += links.count("anon_inode:inotify")
        except OSError:  # it has ended, or closed one meanwhile
            continue
    return found


CHECKS: tuple[Callable[[], Check], ...] = (open_files, memory)
LINUX_CHECKS: tuple[Callable[[], Check], ...] = (
    open_files_of_the_system,
    processes,
    inherited,
    inotify,
)

__all__ = ["CHECKS", "LINUX_CHECKS", "PROCESSES_NEEDED"]
