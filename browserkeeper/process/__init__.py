"""Processes: identity, descendants, limits, containment, and how to end them; nothing of browsers.

``linux.py`` and ``portable.py`` have the same functions, each for its platforms.  Other modules use
``from browserkeeper.process import system``, which is the right one of the two.

    identity.py            who a process is
    linux.py, portable.py  facts about processes and signals to them, one platform a file
    limits.py              what this process may use
    limit_errors.py        which limit stopped a call or a browser, for errors
    reserve.py             descriptors kept back for a process that has none left
    containment.py         which containment a session gets
    child.py               a child process that signal handlers may use
    uninterrupted.py       steps that no signal handler comes between
    guard_process.py       the owner's side of a guard
    interpreter.py         which program runs a guard
    monkey_patches.py      libraries that replace blocking functions of Python
    portable_guard.py      the guard where there is no subreaper
    bounded.py             reads of /proc that may hang
    clients.py             who is connected to a process
    two_scans.py           killing and certificate of the guards that are no subreaper
    leftover_processes.py  what is left of a session whose guards were killed
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Protocol

from ..errors import ContainmentError
from ..guard.procfs import foreign_proc
from .identity import Host, ProcessFacts, ProcessIdentity

if sys.platform == "linux":
    from . import linux as system
else:
    from . import portable as system


class Platform(Protocol):
    """The functions of ``linux`` and ``portable``; the docstrings are there."""

    def facts(self, pid: int, /) -> ProcessFacts | None: ...
    def tree(self, root: int, /) -> list[ProcessFacts]: ...
    def children(self, pid: int, /) -> list[ProcessFacts]: ...
    def pids(self) -> list[int]: ...
    def everyone(self) -> Iterator[ProcessFacts]: ...
    def program(self, pid: int, /) -> str: ...
    def command_line(self, pid: int, /) -> bytes: ...
    def bears_marker(self, pid: int, marker: str, /) -> bool: ...
    def has_readable_environment(self, pid: int, /) -> bool: ...
    def marker_value(self, pid: int, name: str, /) -> str | None: ...
    def users(self, pid: int, /) -> set[int]: ...
    def memory(self, pid: int, /) -> int: ...
    def resident(self, pid: int, /) -> int: ...
    def listening_port(self, pid: int, /) -> int: ...
    def listens_on(self, pid: int, port: int, /) -> bool: ...
    def processor_time(self, pid: int, /) -> float: ...
    def exit_fd(self, target: ProcessIdentity, /) -> int: ...
    def send_signal(self, target: ProcessIdentity, number: signal.Signals, /) -> bool: ...
    def host(self) -> Host: ...
    def host_id(self) -> str: ...
    def is_namespace_in_use(self, namespace: str, init_start: float, /) -> bool: ...
    def is_in_our_namespace(self, pid: int, /) -> bool: ...
    def resources(self, pid: int, /) -> str: ...
    def now(self) -> float: ...
    def booted(self) -> float: ...


def identity_of(pid: int, platform: Platform = system) -> ProcessIdentity:
    """The identity of a process; with start=0, which matches no process, if it has exited."""
    found = platform.facts(pid)
    return found.identity if found else ProcessIdentity(pid, 0.0)


def own_line() -> tuple[ProcessIdentity, ...]:
    """This process and its ancestors, up to PID 1, or to the first that ``/proc`` hides (start=0)."""
    line: dict[int, ProcessIdentity] = {}
    pid = os.getpid()
    while pid > 0 and pid not in line:
        found = system.facts(pid)
        line[pid] = found.identity if found else ProcessIdentity(pid, 0.0)
        pid = found.parent if found else 0
    return tuple(line.values())


def is_alive(identity: ProcessIdentity, platform: Platform = system) -> bool:
    """True if the process exists and is no zombie."""
    found = platform.facts(identity.pid)
    return found is not None and identity.is_same_as(found.identity) and not found.is_zombie


def require_own_proc() -> None:
    """Raises ContainmentError where the numbers in ``/proc`` are not the pids of this process's pid
    namespace.  Every tool that signals or judges processes calls this first: it would take one process
    for another."""
    system.facts(os.getpid())  # raises LimitError where this process can open no file to look
    if why := foreign_proc():
        raise ContainmentError(f"{why}. No process was started, signalled or judged.")


def own_name() -> str:
    """The name of the program that this process runs, for people."""
    return os.path.basename(sys.argv[0] or "python") or "python"


__all__ = ["Platform", "identity_of", "is_alive", "own_line", "own_name", "require_own_proc", "system"]
