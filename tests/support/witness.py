"""The witness: finds what is left after a session, without using any code of browserkeeper.

Processes: a test process calls :func:`become_init`, so it gets every orphan of what it started, and
keeps the zombies until they are counted.  Only its descendants are looked at, never the whole machine.

Files and cgroups: see :class:`Baseline`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_PLACES = ("/tmp", "/dev/shm")
CGROUP_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
NOT_OURS = ("pytest-of-", "pip-", "pyright", "tmp", ".X", "hsperf", "bash_", "setup", "venv", "bkstate-")
"""Names in /tmp that the suite itself or other programs make."""
NOBODY = 65534
"""The plain user of the tests that need another one."""
SESSION_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])")
SHARED = "PYTEST_XDIST_WORKER" in os.environ
"""Workers of pytest-xdist are in one world."""
OWN = frozenset() if SHARED else frozenset(os.environ.get("BROWSERKEEPER_WORLD", "").split())
"""What this process has for itself: "pid" (with /tmp and /dev/shm), "cgroup" (scripts/world.py)."""


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
    # A "zombie" with more than one thread lives: only its main thread has ended.
    state = fields[0] if int(fields[17]) <= 1 else fields[0].replace("Z", "R")
    return Seen(pid, int(fields[1]), state, name, int(fields[19]))


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


def is_stopped(pid: int) -> bool:
    """False for some time after a SIGSTOP: kill(2) does not wait for it."""
    now = look(pid)
    return now is not None and now.state == "T"


def pss(processes: list[Seen]) -> int:
    """Bytes of memory, shared pages divided among their users (proc(5)); 0 for what has gone."""
    return _memory(processes, ("Pss:",))


def pss_without_files(processes: list[Seen]) -> int:
    """:func:`pss` without the pages of files: a program's own pages are shared with others that run it,
    so that their part grows when those end."""
    return _memory(processes, ("Pss_Anon:", "Pss_Shmem:"))


def _memory(processes: list[Seen], fields: tuple[str, ...]) -> int:
    """Bytes, the sum of these fields of ``smaps_rollup``."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(fields):
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


def session_ids(state_directories: Iterable[Path]) -> set[str]:
    """Ids of the sessions of which these state directories have a file, read from its name alone."""
    ids: set[str] = set()
    for directory in state_directories:
        for path in directory.rglob("*"):
            ids |= set(SESSION_ID.findall(path.name))
    return ids


def _own_cgroup() -> str:
    """The cgroup v2 that this process is in, as a path below the mount; "" where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line[3:].strip("/")
    return ""


def _files() -> set[str]:
    return {
        f"{place}/{name}"
        for place in FILE_PLACES
        if os.path.isdir(place)
        for name in os.listdir(place)
        if not name.startswith(NOT_OURS)
    }


def _cgroups() -> set[str]:
    places = {f"{place}/{inner}".rstrip("/") for place in CGROUP_PLACES for inner in ("", _own_cgroup())}
    return {
        f"{place}/{name}"
        for place in places
        if os.path.isdir(place)
        for name in os.listdir(place)
        if "browserkeeper" in name
    }


def of_a_bystander(path: str) -> bool:
    """Does a file in /tmp belong to another user, or does a living process use it that does not descend
    from this one?  Nothing that a test started is alive when this is asked."""
    with contextlib.suppress(OSError):
        if os.lstat(path).st_uid not in (os.geteuid(), NOBODY):
            return True
    ours = {os.getpid(), *(seen.pid for seen in below(os.getpid()))}
    others = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return any(_uses(pid, path) for pid in others if pid not in ours)


def _uses(pid: int, path: str) -> bool:
    """Is it open, a working directory, mapped, or named on the command line or in the environment?"""
    with contextlib.suppress(OSError):
        for name in ("cmdline", "environ"):
            if os.fsencode(path) in Path(f"/proc/{pid}/{name}").read_bytes():
                return True
        if path in Path(f"/proc/{pid}/maps").read_text(errors="replace"):
            return True
        links = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))]
        for link in links:
            with contextlib.suppress(OSError):
                if f"{os.readlink(link)}/".startswith(f"{path}/"):
                    return True
    return False


class Baseline:
    """What lay in the shared places when it was made, so that what came since can be told from it.

    A file or cgroup counts as left by the test

    - anywhere, if its name has the id of a session of one of the test's state directories;
    - in a world of the run's own (scripts/world.py), under whatever name, unless it is a bystander's.

    On a shared machine without a world nothing else counts: it may be any other program's.
    """

    def __init__(self, *state_directories: Path, alone: bool | None = None):
        self.state_directories = list(state_directories)
        self.own_files = "pid" in OWN if alone is None else alone
        self.own_cgroups = "cgroup" in OWN if alone is None else alone
        self._files, self._cgroups = _files(), _cgroups()

    def new_files(self) -> set[str]:
        return {p for p in _files() - self._files if self._is_of_a_session(p) or self._is_strange(p)}

    def new_cgroups(self) -> set[str]:
        return {p for p in _cgroups() - self._cgroups if self._is_of_a_session(p) or self.own_cgroups}

    def _is_of_a_session(self, path: str) -> bool:
        return any(word in os.path.basename(path) for word in session_ids(self.state_directories))

    def _is_strange(self, path: str) -> bool:
        return self.own_files and not of_a_bystander(path)


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
    """After a control: end and reap all new processes below this one, by pid, until there is none."""
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
