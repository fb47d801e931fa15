"""What this host, or our cgroup, runs out of.  Reported before it is used up, since a browser that
cannot fork, allocate or write fails with messages that do not name the cause."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..errors import BrowserkeeperError
from ..process.limits import PIDS_FILES, cgroup_left, memory_left, tasks_left, user_processes_left
from ..state.ledger import Ledger
from ..state.tmpdirs import MEMORY_ROOT, choose_root
from ..status.doctor_limits import PROCESSES_NEEDED
from ..status.text import whole_megabytes
from .notices import Notice

MEMORY_LOW = 256 * 1024**2
"""Bytes: less than one browser with one ordinary page takes."""
SPACE_LOW, SHARE_LOW = 256 * 1024**2, 0.1
"""Bytes free, and their share of the whole: reported if less is free than both, since a container's
/dev/shm has 64 MB in all.  A new profile takes 3 to 30 MB."""
INODES_LOW = 1000
"""Files that can still be created; a new profile takes 100 to 300."""


def check() -> Iterator[Notice]:
    yield from processes()
    yield from memory()
    for place in places():
        yield from space(place)


def processes() -> Iterator[Notice]:
    """One notice for each limit that is nearly reached: the cgroup's, the user's, the kernel's."""
    limits = {
        "our cgroup (docker run --pids-limit, systemd's TasksMax=)": cgroup_left("pids", PIDS_FILES),
        "this user (ulimit -u)": user_processes_left(),
        "the kernel (sysctl kernel.pid_max, kernel.threads-max)": tasks_left(),
    }
    for whose, left in limits.items():
        if left is not None and left < PROCESSES_NEEDED:
            message = f"Only {left} more processes and threads are allowed; a browser has 100 to 250."
            remedy = (
                f"Raise the limit of {whose}, run fewer browsers, or find the programs that have them."
            )
            yield Notice("processes-low", whose, message, remedy)


def memory() -> Iterator[Notice]:
    left = memory_left()
    if left < MEMORY_LOW:
        message = f"Only {whole_megabytes(left)} of memory are left, on the machine or in our cgroup."
        remedy = "Run fewer browsers, or give more memory; at 0 the kernel kills processes (OOM killer)."
        yield Notice("memory-low", "memory", message, remedy)


def places() -> Iterable[str]:
    """The directories in which sessions write, one for each file system."""
    found = [MEMORY_ROOT, "/tmp"]
    for where in (choose_root, lambda: str(Ledger.open().directory)):
        try:
            found.append(where())
        except BrowserkeeperError:
            continue  # cannot be used at all: `doctor` and the other checks report that
    devices = {os.stat(place).st_dev: place for place in found if os.path.isdir(place)}
    return devices.values()


def space(place: str) -> Iterator[Notice]:
    facts = os.statvfs(place)
    free, size = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    remedy = "See what `browserkeeper sweep` finds, remove what is not needed, or make it larger."
    if free < SPACE_LOW and free < size * SHARE_LOW:
        message = f"{place} is full: {whole_megabytes(free)} of {whole_megabytes(size)} are free."
        yield Notice("space-low", place, message, remedy)
    elif facts.f_files and facts.f_favail < INODES_LOW:
        message = f"{place} is full: only {facts.f_favail} more files can be made there."
        yield Notice("space-low", place, message, remedy)
