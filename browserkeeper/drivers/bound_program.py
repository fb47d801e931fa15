"""A script in place of the browser's program, so that the browser is killed when its driver ends.

Firefox always needs it, and Chromium where it has a debugging port in place of the pipe: the kernel
kills the browser even where driver and guards are SIGKILLed at once (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

WRAPPER = """#!/bin/sh
# Written by browserkeeper: {name} is killed when the {driver} that started it ends, even where
# {driver} and the guard are SIGKILLed (prctl(2), PR_SET_PDEATHSIG).
exec setpriv --pdeathsig KILL -- "${variable}" "$@"
"""


def obstacle(directory: Path, name: str) -> str:
    """Why no such script can be used, which would be in ``directory``; "" if it can."""
    if shutil.which("setpriv") is None:
        return f"no setpriv (util-linux): {name} outlives owner and guards killed at once"
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return f"{directory} is noexec: {name} outlives owner and guards killed at once"
    return ""


def write_wrapper(path: Path, name: str, driver: str, variable: str) -> None:
    """Write the script to ``path``, unless it is there.  ``variable``: the environment variable that has
    the path of the browser."""
    text = WRAPPER.format(name=name, driver=driver, variable=variable)

    def write(draft: Path) -> None:
        draft.write_text(text)
        draft.chmod(0o700)

    if not path.exists() or path.read_text() != text:
        place(path, write)


def place(path: Path, make: Callable[[Path], None]) -> None:
    """Have ``make`` write a temporary file, and rename that to ``path``.

    Another session may start at the same time, and must never find half a file.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    make(draft)
    if draft.is_symlink() or draft.exists():
        draft.rename(path)


__all__ = ["obstacle", "place", "write_wrapper"]
