"""Which processes are drivers or browsers, whoever started them: by their names and command lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import DOCUMENT

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
    return any(ancestor.pid in pids for ancestor in _ancestors(process))


def roots(processes: Iterable[ProcessFacts]) -> list[ProcessFacts]:
    """Those of the processes that are not descendants of another of them."""
    by_pid = {process.pid: process for process in processes}
    return [process for process in by_pid.values() if not is_below(process, set(by_pid))]


def guard_above(process: ProcessFacts) -> ProcessIdentity | None:
    """The outermost guard among the ancestors of the process, or None."""
    guards = [ancestor.identity for ancestor in _ancestors(process) if _is_guard(ancestor)]
    return guards[-1] if guards else None


def _is_guard(process: ProcessFacts) -> bool:
    return system.marker_value(process.pid, DOCUMENT) is not None


def _ancestors(process: ProcessFacts) -> Iterator[ProcessFacts]:
    parent = process.parent
    while parent > 0 and (found := system.facts(parent)) is not None:
        yield found
        parent = found.parent
