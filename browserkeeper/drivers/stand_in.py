"""The script that an isolated ChromeDriver takes for its browser, and when there can be one.

The guard starts the real browser, outside the driver's network namespace (``guard/outside.py``).
"""

from __future__ import annotations

import os
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
trap 'again=1; echo "$$ TERM" >&8' TERM
requests=${{{VARIABLE}% *}} alive=${{{VARIABLE}#* }} holder=$PPID
while [ "$holder" -gt 1 ] && ! [ -p "/proc/$holder/fd/$requests" ]; do
    # ChromeDriver was started by a program that has closed the pipes for it.
    parent=0
    while read -r key value; do
        if [ "$key" = PPid: ]; then parent=$value; fi
    done <"/proc/$holder/status"
    holder=$parent
done
exec 8>"/proc/$holder/fd/$requests" 9<"/proc/$holder/fd/$alive" || exit 1
echo "$$" >&8
again=1
while [ "$again" ]; do
    again=
    read -r _ <&9
done
exit 1
"""

SHELL = "/bin/sh"
SHELLS = ("dash", "bash", "busybox")
"""The programs as SHELL with which the script was tried.  In mksh and yash ``read`` does not end at a
signal, so that the stand-in would outlive its browser."""


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
    return ""


def write_stand_in(directory: Path) -> str:
    """The path of the script, which is written unless it is there."""
    path = directory / NAME

    def write(draft: Path) -> None:
        draft.write_text(SCRIPT)
        draft.chmod(0o700)

    if not path.exists() or path.read_text() != SCRIPT:
        place(path, write)
    return str(path)


__all__ = ["NAME", "isolation_of", "write_stand_in"]
