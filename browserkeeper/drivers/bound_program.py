"""A script that starts the browser so that the kernel kills the browser when its driver ends.

It is used for Firefox, and for a Chromium with a debugging port in place of the pipe.  The kernel kills
the browser even if driver and guards are SIGKILLed at once (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
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
    """Why such a script in ``directory`` would not work; "" if it would.  ``name``: the browser's, for
    the text."""
    if shutil.which("setpriv") is None:
        return f"no setpriv (util-linux): {name} outlives owner and guards killed at once"
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return f"{directory} is noexec: {name} outlives owner and guards killed at once"
    return ""


def write_wrapper(path: Path, name: str, driver: str, variable: str) -> None:
    """Write the script to ``path``, unless the same script is there.  ``variable``: the environment
    variable that holds the path of the browser."""
    text = WRAPPER.format(name=name, driver=driver, variable=variable)

    def write(draft: Path) -> None:
        draft.write_text(text)
        draft.chmod(0o700)

    if not path.exists() or path.read_text() != text:
        place(path, write)


def place(path: Path, make: Callable[[Path], None]) -> None:
    """Have ``make`` write a temporary file, and rename the file to ``path``.  Its directory is made.

    So a session that starts at the same time never reads an incomplete file.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        make(draft)
        if draft.is_symlink() or draft.exists():
            draft.rename(path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):  # that of write(2) on a full disk names no file
            error.filename = error.filename or str(path)
            with contextlib.suppress(OSError):  # it has other files
                path.parent.rmdir()
        raise


__all__ = ["obstacle", "place", "write_wrapper"]
