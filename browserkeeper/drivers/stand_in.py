"""The script that an isolated ChromeDriver takes for its browser, and when there can be one.

The guard starts the real browser, outside the driver's network namespace (``guard/outside.py``).
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ..config import SessionConfig
from ..guard.isolation import VARIABLE
from ..guard.options import AUTO, REQUIRED
from .bound_program import place

NAME = "bk-browser"
"""The script's name, by which the process is known in ``ps``; the kernel shows 15 characters."""
SCRIPT = f"""#!/bin/sh
# Written by browserkeeper: stands for a browser that the guard has started, outside the network
# namespace of ChromeDriver, and lives as long as that browser (browserkeeper/guard/outside.py).
trap 'exit 0' USR1
trap 'exit 1' USR2
again=
trap 'again=1; exec 3<&- 4>&-' HUP
trap 'again=1; echo "$$ TERM" >&8' TERM
requests="/proc/$PPID/fd/${{{VARIABLE}% *}}" alive="/proc/$PPID/fd/${{{VARIABLE}#* }}"
[ -p "$requests" ] && [ -p "$alive" ] || {{ echo "bk-browser: no pipes at process $PPID" >&2; exit 1; }}
exec 8>>"$requests" 9<"$alive" || exit 1
echo "$$" >&8
while read -r _ <&9 || [ "$again" ]; do
    again=
done
exit 1
"""
VERSION = hashlib.sha256(SCRIPT.encode()).hexdigest()[:8]
"""Names the directory of the script: other versions of this package may have other ones."""
ELF = b"\x7fELF"
SHELL = "/bin/sh"
SHELLS = ("dash", "bash", "busybox")
"""The programs as SHELL with which the script was tried.  In mksh and yash ``read`` does not end at a
signal, so that the stand-in would outlive its browser."""
_unusable: dict[str, str] = {}
"""For paths of drivers, why their stand-ins have failed in this process."""


def isolation_of(config: SessionConfig, driver: str, directory: Path) -> tuple[str, str]:
    """How the driver of a Chromium is isolated, as in GuardPlan, and the path of the script, which is
    written; "" without one.  ``driver`` and ``directory``: as in :func:`obstacle`."""
    if why_not := obstacle(config, driver, directory):
        return why_not, ""
    try:
        script = write_stand_in(directory)
    except OSError as error:
        return f"the script that stands for the browser cannot be written: {error}", ""
    return REQUIRED if config.isolate_driver is True else AUTO, script


def obstacle(config: SessionConfig, driver: str, directory: Path) -> str:
    """Why this Chromium's driver is not isolated, whatever the system allows; "" if nothing is known.

    ``driver``: the path of the program.  ``directory``: where the script is to be.
    """
    if config.isolate_driver is False:
        return "isolate_driver=False"
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    if config.debugger_address:
        return "it is attached to a browser by a port"
    if config.debugging == "port":
        return "it connects to the browser's debugging port (debugging='port', leases_per_browser=)"
    if not os.access(SHELL, os.X_OK):
        return f"there is no {SHELL} for the script that stands for the browser"
    if (shell := os.path.basename(os.path.realpath(SHELL))) not in SHELLS:
        return f"{SHELL} is {shell}, which may not run the script that stands for the browser"
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return f"{directory} is noexec"
    if os.path.basename(os.path.realpath(driver)) == "snap":
        return "the driver is a snap, which cannot start in a namespace"
    return _unusable.get(driver, "") or _unlike_chromedriver(driver)


def _unlike_chromedriver(driver: str) -> str:
    """Why this driver's stand-in may not find the guard, or its browser may get other surroundings than
    the driver would give it; "" for a program that is not a script and that this user may read."""
    try:
        with open(driver, "rb") as file:
            head = file.read(len(ELF))
    except OSError as error:
        # The kernel closes /proc/PID/fd of a program that its user may not read (proc(5), dumpable).
        return f"the driver cannot be read: {error.strerror}"
    if head == ELF:
        return ""
    return f"the driver {driver} is a script, which may start the browser in surroundings of its own"


def give_up(driver: str, why: str) -> None:
    """Have :func:`obstacle` say this of the driver from now on: its stand-in has failed."""
    _unusable[driver] = why


def write_stand_in(directory: Path) -> str:
    """The path of the script, which is written unless it is there.  Raises OSError."""
    path = directory / f"stand-in-{VERSION}" / NAME

    def write(draft: Path) -> None:
        draft.write_text(SCRIPT)
        draft.chmod(0o700)

    if not os.access(path, os.X_OK) or path.read_text() != SCRIPT:
        place(path, write)
    return str(path)


__all__ = ["NAME", "SHELLS", "give_up", "isolation_of", "obstacle", "write_stand_in"]
