"""Which limit of the system stopped a call, or a browser: its name, its value, and what raises it.

A call of the system that fails leaves an ``errno``, which seldom says which limit was meant: EAGAIN of a
fork can be one of four.  The texts here name those that are reached, with their figures.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Container, Iterator
from typing import TypeVar

from ..errors import LimitError
from . import limits
from .reserve import lent

T = TypeVar("T")

NO_THREAD = ("can't start new thread", "can't create new thread at interpreter shutdown")
"""CPython's messages where pthread_create(3) fails."""
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOOK = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
"""Errors that say nothing about the file or process that was to be looked at."""
THREADS_NEEDED = 300
"""Processes and threads of one browser with its driver; 100 to 250 were measured."""
DESCRIPTORS_NEEDED = 16
"""Of this process during a start: pipes, pidfd, connections, and the files of modules."""
BROWSER_FILES = 512
"""Open files of one browser process; with 100 neither browser started, up to 300 were measured."""
BROWSER_DATA = 8 << 30
BROWSER_FILE_SIZE = 1 << 30
BROWSER_CPU = 600
"""Seconds of processor time of one process, in a session of an hour."""
BROWSER_STACK = 512 << 10
BROWSER_MEMORY = 300 << 20
BROWSER_SPACE = 64 << 20
LEAST_SPACE = 256 << 10
"""Bytes without which no browser starts.  A Chromium with 600 kB ran (measured)."""
FEW = 4
"""So many processes, or less, are none: other programs come and go."""


# ------------------------------------------------------------------ what failed in this process


def limit_of(error: BaseException | None) -> str:
    """The limit that an error, or one of its causes, speaks of; "" where it speaks of none."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, LimitError):
            return str(one)
        if text := _limit_of_one(one):
            return text
        reason = getattr(one, "reason", None)  # urllib3's MaxRetryError
        pending += [one.__cause__, one.__context__]
        pending += [reason] if isinstance(reason, BaseException) else []
    return ""


def _limit_of_one(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return no_more_memory()
    if isinstance(error, RuntimeError) and error.args and error.args[0] in NO_THREAD:
        return no_more_tasks()
    if isinstance(error, OSError) and error.errno is not None:
        return limit_of_errno(error.errno, str(error.filename or ""))
    return ""


def limit_of_errno(number: int, path: str = "", *, forking: bool = False) -> str:
    """The limit behind an ``errno``; "" where it is none.  EAGAIN means a limit only of fork(2)."""
    if number == errno.EMFILE:
        return limits.no_more_files()
    if number == errno.ENFILE:
        return limits.no_more_files(of_the_system=True)
    if number == errno.EAGAIN and forking:
        return no_more_tasks()
    if number == errno.ENOMEM:
        return no_more_memory()
    if number == errno.EFBIG:
        return _no_larger_files()
    if number == errno.E2BIG:
        return _no_longer_command_line()
    if number in FULL:
        return _no_more_space(number, path)
    return ""


def no_more_tasks() -> str:
    """Of the limits on processes and threads those that are reached; all that are set where none is."""
    found = _figures(_task_limits)
    texts = [text for left, text in found if left <= FEW] or [text for _, text in found]
    which = " ".join(texts) or "See ulimit -u, systemd's TasksMax= and docker run --pids-limit."
    return f"No more processes or threads can be started. {which}"


def _task_limits() -> Iterator[tuple[int, str]]:
    """(How many more processes or threads a limit allows, its text) for each limit that is set."""
    most, _ = limits.resource_limit("NPROC")
    left = limits.user_processes_left()
    if left is not None and most is not None:
        text = f"User {os.geteuid()} may have {most:,} (RLIMIT_NPROC), and has {most - left:,}: "
        yield left, text + "raise it with ulimit -u or systemd's LimitNPROC=."
    for directory, most, now in limits.cgroup_figures("pids", limits.PIDS_FILES):
        text = f"The cgroup {directory} may have {most:,} (pids.max), and has {now:,}: "
        yield most - now, text + "raise it with systemd's TasksMax= or docker run --pids-limit."
    most, _ = limits.resource_limit("AS")
    if most is not None:
        stack = limits.resource_limit("STACK")[0] or 8 << 20
        text = (
            f"This process may have {_size(most)} of address space (RLIMIT_AS), and each thread "
            f"reserves {_size(stack)} (RLIMIT_STACK): raise it with ulimit -v or systemd's LimitAS=."
        )
        yield max(0, most - limits.own_address_space()) // stack, text
    if (left := limits.tasks_left()) is not None and left <= FEW:
        text = "The whole system has as many as it may have: "
        yield left, text + "raise sysctl kernel.threads-max and kernel.pid_max."


def no_more_memory() -> str:
    """Of the limits on memory those that are set."""
    return " ".join(["No more memory can be had.", *_figures(_memory_limits)])


def _memory_limits() -> Iterator[str]:
    for name, option in (("AS", "ulimit -v, systemd's LimitAS="), ("DATA", "ulimit -d")):
        most, _ = limits.resource_limit(name)
        if most is not None:
            yield f"RLIMIT_{name} is {_size(most)}: raise it with {option}."
    left = _size(limits.memory_left())
    yield f"{left} are available on the machine or in its cgroups (memory.max)."


def _no_larger_files() -> str:
    soft, _ = limits.resource_limit("FSIZE")
    return (
        f"A file may have {_size(soft)} at the most (RLIMIT_FSIZE). Raise it (ulimit -f unlimited, "
        "systemd's LimitFSIZE=infinity)."
    )


def _no_longer_command_line() -> str:
    soft, _ = limits.resource_limit("STACK")
    return (
        "The arguments and the environment are too long for an exec: they may have a quarter of "
        f"RLIMIT_STACK, which is {_size(soft)}, and a single one 128 kB. Raise it (ulimit -s 8192), or "
        "shorten env=."
    )


def _no_more_space(number: int, path: str) -> str:
    where = f" of {path}" if path else ""
    if number == errno.EDQUOT:
        return f"The disk quota of this user on the file system{where} is used up: free space there."
    return f"The file system{where} is full{_space_left(path)}: free space there, or choose another one."


def _space_left(path: str) -> str:
    while path and not os.path.isdir(path):
        path = os.path.dirname(path)
    try:
        facts = os.statvfs(path)
    except OSError:
        return ""
    return f" ({_size(facts.f_bavail * facts.f_frsize)} and {facts.f_favail:,} inodes free)"


def cannot_look(error: OSError, what: str) -> LimitError:
    """The error for a look at ``what`` that failed for want of a resource."""
    return LimitError(f"{what} could not be looked at. {limit_of(error) or error}")


def require_descriptors() -> None:
    """Raises LimitError where this process cannot open as many files as a start needs.

    A start that begins without fails at some random place, in a library or in a program that it asks for
    its version.
    """
    opened: list[int] = []
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        while len(opened) < DESCRIPTORS_NEEDED:
            opened.append(os.dup(opened[0]))
    except OSError as error:
        if text := limit_of(error):
            raise LimitError(
                f"A start needs {DESCRIPTORS_NEEDED} files, and {len(opened)} can be opened. {text}"
            ) from None
    finally:
        for fd in opened:
            os.close(fd)


def require_space(directory: str) -> None:
    """Raises LimitError where a directory has no room for a browser's profile.

    A browser that cannot write its profile says nothing, and its driver's port is in a log that is
    empty: its start would take for ever.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return  # the guard will say what is wrong with it
    if free < LEAST_SPACE:
        text = _no_more_space(errno.ENOSPC, directory)
        raise LimitError(f"{text} A session needs {_size(LEAST_SPACE)} for its TMPDIR there.")


# ------------------------------------------------------------------ what a browser inherits


@dataclasses.dataclass(frozen=True)
class Refusals:
    """How often the kernel has refused a process, and killed one for memory, in our cgroups so far."""

    processes: int
    out_of_memory: int

    @classmethod
    def so_far(cls) -> Refusals:
        """Both are 0 where there is no such counter."""
        return cls(*(_figures(_refusals) or (0, 0)))

    def since_then(self) -> list[str]:
        """Texts about what was refused since; none where nothing was."""
        now = Refusals.so_far()
        found = []
        if now.out_of_memory > self.out_of_memory:
            found.append(f"the kernel killed a process for memory (memory.max{_least('memory')})")
        if now.processes > self.processes:
            found.append(f"the cgroup refused a process or thread (pids.max{_least('pids')}: TasksMax=)")
        return found


def _refusals() -> Iterator[int]:
    yield sum(limits.cgroup_events("pids", "pids.events", "max"))
    # Of version 2 and of version 1 of cgroups; the latter counts only the cgroup's own processes.
    files = ("memory.events", "memory.oom_control")
    yield sum(sum(limits.cgroup_events("memory", file, "oom_kill")) for file in files)


def _least(controller: str) -> str:
    names = [limits.PIDS_FILES] if controller == "pids" else limits.MEMORY_FILES
    figures = [found for files in names for found in limits.cgroup_figures(controller, files)]
    if not figures:
        return ""
    directory, most, _ = min(figures, key=lambda found: found[1])
    return f" of {directory} is {limits.number_text(most) if controller == 'pids' else _size(most)}"


def probable_causes(before: Refusals | None = None, directory: str = "") -> str:
    """Limits that a browser below this process inherits and that are too low for it, as one sentence for
    the error of a browser that has ended by itself; "" where none is known.

    ``before``: taken before the browser's start.  ``directory``: where its TMPDIR is.  What the kernel
    has counted is named alone; else all limits are named that are far from what a browser needs.
    """
    found = (before.since_then() if before else []) or _figures(lambda: _too_low(directory))
    return f" Probable cause: {'; '.join(found)}." if found else ""


def causes_of_death(before: Refusals, lifetime: float) -> str:
    """Why a browser may have died in mid-session, as one sentence for the error; "" where no limit is
    known that can be the reason.

    ``before``: taken before the browser's start, ``lifetime`` seconds ago.  The driver has reaped the
    browser, so that the signal is not known.  The kernel counts the processes that it kills for memory.
    It does not count its signals for RLIMIT_CPU and RLIMIT_FSIZE, so these are named where they are low;
    the former only if the processors can have worked so long.
    """
    if counted := before.since_then():
        return f" Probable cause: {'; '.join(counted)}."
    most, _ = limits.resource_limit("CPU")
    may_be_used_up = most is not None and most <= lifetime * (os.cpu_count() or 1)
    signalling = low_limits(("CPU", "FSIZE") if may_be_used_up else ("FSIZE",))
    texts = [f"{what}; {remedy}" for what, remedy in signalling]
    return f" Perhaps the reason: {'; '.join(texts)}." if texts else ""


def low_limits(names: Container[str] | None = None) -> list[tuple[str, str]]:
    """(What it allows, what raises it) for each limit of a process that is too low for a browser.

    ``names``, such as ``CPU``: of these limits only.
    """
    wanted = (
        ("NOFILE", BROWSER_FILES, "files open in one process", "ulimit -n 4096"),
        ("AS", None, "of address space, of which browsers reserve far more", "ulimit -v unlimited"),
        ("DATA", BROWSER_DATA, "of data in one process", "ulimit -d unlimited"),
        ("FSIZE", BROWSER_FILE_SIZE, "in one file", "ulimit -f unlimited"),
        (
            "CPU",
            BROWSER_CPU,
            "seconds of processor time for a process, which is killed then",
            "ulimit -t",
        ),
        ("STACK", BROWSER_STACK, "of stack", "ulimit -s 8192"),
    )
    found = []
    for name, least, what, remedy in wanted:
        soft, _ = limits.resource_limit(name)
        asked_for = names is None or name in names
        if asked_for and soft is not None and (least is None or soft < least):
            value = f"{soft:,}" if name in ("NOFILE", "CPU") else _size(soft)
            raising = f"raise it ({remedy}, systemd's Limit{name}=)"
            found.append((f"RLIMIT_{name} allows {value} {what}", raising))
    return found


def _too_low(directory: str) -> Iterator[str]:
    yield from (f"{what}; {remedy}" for what, remedy in low_limits())
    for left, text in _task_limits():
        if left < THREADS_NEEDED and "RLIMIT_AS" not in text:
            yield f"a browser has up to {THREADS_NEEDED} processes and threads. {text.rstrip('.')}"
    if (left := limits.memory_left()) < BROWSER_MEMORY:
        yield f"{_size(left)} of memory are left on the machine or in its cgroups (memory.max)"
    if directory:
        free = shutil.disk_usage(directory).free
        if free < BROWSER_SPACE:
            yield f"{_size(free)} are left in {directory}; free space there, or set BROWSERKEEPER_TMPDIR"


def _size(value: int | None) -> str:
    if value is None:
        return "no limit"
    return f"{value / 1e6:,.0f} MB" if value >= 1e6 else f"{value:,} bytes"


def _figures(gather: Callable[[], Iterator[T]]) -> list[T]:
    """All figures for a message; none where they cannot be read, and the message is less exact."""
    try:
        with lent():
            return list(gather())
    except (OSError, ValueError, RuntimeError, ImportError):
        return []
