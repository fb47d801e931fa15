"""Which processes are drivers or browsers, whoever started them: by their names and command lines."""

from __future__ import annotations

import re

from ..process import system
from ..process.identity import ProcessFacts

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
