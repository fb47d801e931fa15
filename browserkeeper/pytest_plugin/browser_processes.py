"""Which processes are drivers or browsers, whoever started them: by their names and command lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from ..guard.procfs import read_bytes
from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import DOCUMENT, MARKER

BROWSERS = frozenset(
    {
        *("chrome", "chromium", "chromium-browser", "google-chrome", "headless_shell"),
        *("chrome-headless-shell", "chromium-headless-shell", "msedge", "brave", "opera"),
        *("vivaldi-bin", "firefox", "firefox-esr", "firefox-bin", "MiniBrowser"),
    }
)
_CUT_NAMES = frozenset(name[:15] for name in BROWSERS)
"""The same as the kernel stores them: 15 characters (TASK_COMM_LEN, prctl(2))."""
DRIVERS = ("chromedriver", "geckodriver", "msedgedriver", "operadriver", "WebKitWebDriver", "uc_driver")
"""The ends of drivers' names: undetected-chromedriver puts a prefix before them."""
HELPER = re.compile(rb"[\0 ](--type=|-contentproc[\0 ])")
"""In the command lines of a browser's helper processes.  Those of Chrome have spaces instead of NULs."""


def kind_of(process: ProcessFacts) -> str:
    """``driver``, ``browser`` (its main process, not a helper) or ""."""
    names = {process.name, system.program(process.pid)}
    if any(name.endswith(DRIVERS) for name in names):
        return "driver"
    if not names.isdisjoint(BROWSERS) or process.name in _CUT_NAMES:
        return "" if HELPER.search(system.command_line(process.pid)) else "browser"
    return ""


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
