"""How the processes of browsers, drivers and guards hang together: ancestors, roots, guards, threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..guard.procfs import read_bytes
from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import DOCUMENT, MARKER


def is_below(process: ProcessFacts, pids: set[int]) -> bool:
    """Is one of ``pids`` an ancestor of the process?"""
    return any(ancestor.pid in pids for ancestor in ancestors(process))


def roots(processes: Iterable[ProcessFacts]) -> list[ProcessFacts]:
    """Those of the processes that are not descendants of another of them."""
    by_pid = {process.pid: process for process in processes}
    return [process for process in by_pid.values() if not is_below(process, set(by_pid))]


def guard_of(process: ProcessFacts, line: Iterable[ProcessFacts]) -> ProcessIdentity | None:
    """The outermost guard of the process's own session among ``line``, its ancestors from the nearest to
    the farthest; None if it has none there.

    Its own session: the guard has the same session id in its environment.  A guard further up, of a
    session that pytest itself runs in for example, has another id, or is not in ``line``.
    """
    session = system.marker_value(process.pid, MARKER)
    guards = [
        ancestor.identity
        for ancestor in line
        if session is not None
        and system.marker_value(ancestor.pid, MARKER) == session
        and is_guard(ancestor)
    ]
    return guards[-1] if guards else None


def is_guard(process: ProcessFacts) -> bool:
    """Is it a guard, or the process that ``browserkeeper run`` puts in front of one?  Only these have
    the ledger's document in their environment."""
    return system.marker_value(process.pid, DOCUMENT) is not None


def forking_thread(pid: int) -> int | None:
    """The native id of the thread of this process that started a child (the kernel keeps the children
    of each thread apart, proc(5)).  None if that is not known.

    When a thread exits, its children are listed as the main thread's.
    """
    task = f"/proc/{os.getpid()}/task"
    try:
        threads = os.listdir(task)
    except OSError:
        return None
    for thread in threads:
        if pid in map(int, (read_bytes(f"{task}/{thread}/children") or b"").split()):
            return int(thread)
    return None


def ancestors(process: ProcessFacts) -> Iterator[ProcessFacts]:
    """Its parent, the parent of that, and so on up to PID 1."""
    parent = process.parent
    while parent > 0 and (found := system.facts(parent)) is not None:
        yield found
        parent = found.parent
