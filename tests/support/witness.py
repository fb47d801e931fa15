"""The witness: what is left after a session, found without a line of browserkeeper.

It reads ``/proc`` itself, and stands where PID 1 stands: whoever calls :func:`become_init` gets
every orphan below it, and keeps the zombies that nobody else reaped, so that they can be counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

FILE_PLACES = ("/tmp", "/dev/shm")
CGROUP_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
NOT_OURS = ("pytest-of-", "pip-", "pyright", "tmp", ".X", "hsperf", "bash_", "setup", "venv", "bkstate-")
"""Names in /tmp that the suite itself or other programs make."""

KNOWN = ("bk-", "chromium", "Chromium", "chrome", "Chrome", "mozilla", "mozprofile", "scoped_dir")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A process: ``start`` in clock ticks since boot tells it from the next of its number."""

    pid: int
    parent: int
    state: str
    name: str
    start: int


def become_init() -> None:
    """Be the nearest subreaper: orphans below come here and nowhere else (prctl(2), 36)."""
    assert ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0


def look(pid: int) -> Seen | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return Seen(pid, int(fields[1]), fields[0], name, int(fields[19]))


def below(root: int) -> list[Seen]:
    """Everything below a process, by one scan of the whole table."""
    table = [s for entry in os.listdir("/proc") if entry.isdigit() and (s := look(int(entry)))]
    found: list[Seen] = []
    line = {root}
    while True:
        more = [s for s in table if s.parent in line and s.pid not in line]
        if not more:
            return found
        found += more
        line |= {s.pid for s in more}


def alive(processes: list[Seen]) -> list[Seen]:
    return [process for process in processes if process.state not in "ZX"]


def zombies(processes: list[Seen]) -> list[Seen]:
    return [process for process in processes if process.state == "Z"]


def is_same(process: Seen) -> bool:
    """Does exactly this process still live?"""
    now = look(process.pid)
    return now is not None and now.start == process.start and now.state not in "ZX"


def pss(processes: list[Seen]) -> int:
    """Bytes of memory, shared pages divided among their users (proc(5)); 0 for what has gone."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def own(what: str) -> int:
    """How many entries ``/proc/self/fd`` or ``/proc/self/task`` has."""
    return len(os.listdir(f"/proc/self/{what}"))


def contents(directory: Path) -> tuple[int, int]:
    """Files below a directory, and bytes that they take on the disk (``st_blocks``, stat(2))."""
    number = size = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
                number += 1
    return number, size


def files() -> set[str]:
    """What lies in the places where browsers and their keepers put things.

    Any new name counts; where other people work on the same machine, ``ORACLE_SHARED=1`` makes it
    only those that browsers are known to use.
    """
    shared = os.environ.get("ORACLE_SHARED")
    found = set()
    for place in FILE_PLACES:
        for name in os.listdir(place):
            if not name.startswith(NOT_OURS) and (not shared or any(w in name for w in KNOWN)):
                found.add(f"{place}/{name}")
    return found


def cgroups() -> set[str]:
    found = set()
    for place in CGROUP_PLACES:
        if os.path.isdir(place):
            found |= {f"{place}/{name}" for name in os.listdir(place) if "browserkeeper" in name}
    return found


def new_below(root: int, known: set[int]) -> list[Seen]:
    """What is below ``root`` now, without the known processes and what hangs below those."""
    familiar = set(known) - {root}
    found = []
    for process in below(root):  # parents come first
        if process.pid in familiar or process.parent in familiar:
            familiar.add(process.pid)
        else:
            found.append(process)
    return found


def wait_until_gone(root: int, known: set[int], seconds: float) -> list[Seen]:
    """Wait for all new processes below ``root`` to exit; what is alive at the deadline."""
    until = time.monotonic() + seconds
    while True:
        left = alive(new_below(root, known))
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.01)


def reap_orphans(known: set[int]) -> list[int]:
    """Collect the zombies that came to us; the processes of ``known`` are their starters' to reap."""
    taken = []
    for process in zombies(below(os.getpid())):
        if process.parent == os.getpid() and process.pid not in known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
                taken.append(process.pid)
    return taken


def end_by_pid(processes: list[Seen]) -> None:
    """Clean up after a negative control: exactly these processes, and only if they are the same."""
    for process in processes:
        if is_same(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def clean_up(known: set[int], seconds: float = 10) -> None:
    """After a control: end and reap every stranger below us, by pid, until there is none."""
    until = time.monotonic() + seconds
    while (left := new_below(os.getpid(), known)) and time.monotonic() < until:
        end_by_pid(left)
        reap_orphans(known)
        time.sleep(0.01)


@contextlib.contextmanager
def leaf(name: str) -> Iterator[Path | None]:
    """A cgroup v2 leaf to start things in, or None where none can be made."""
    directory = next(
        (Path(place, name) for place in CGROUP_PLACES if os.path.exists(f"{place}/cgroup.procs")), None
    )
    try:
        if directory:
            directory.mkdir()
    except OSError:
        directory = None
    try:
        yield directory
    finally:
        if directory:
            for inner in sorted(directory.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    inner.rmdir()
            with contextlib.suppress(OSError):
                directory.rmdir()


def members(directory: Path | None) -> set[int]:
    """Every pid in a leaf and the leaves below it (zombies are not listed there)."""
    if directory is None:
        return set()
    found: set[int] = set()
    for file in directory.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found |= set(map(int, file.read_text().split()))
    return found
