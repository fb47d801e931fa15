"""What others see of a guard in the list of processes: its name and its command line.

People end stray browsers by name, with the tools of procps: these search the name of each process
(``/proc/PID/comm``), or with ``-f`` its command line (``/proc/PID/cmdline``).  The command line that
starts a guard holds the paths of the driver, of the TMPDIR and of the virtual environment, which may be
below ``/home/u/chrome-bot``.  A guard that died with its browser could not clean up after it.
"""

from __future__ import annotations

import os

from .files import ignore_errors
from .procfs import read_bytes

NAME = "bk-guard"
_ARG_START, _ARG_END = 45, 46  # fields of /proc/PID/stat after the name, counted from 0 (proc(5))


def set_title(session: str) -> None:
    """Make ``bk-guard`` this process's name, and ``bk-guard SESSION`` its command line.

    A process that it forks inherits both until it executes a program.  Where ``/proc`` does not allow it
    (gVisor, systems other than Linux) they stay as they are.
    """
    ignore_errors(lambda: _write("/proc/self/comm", NAME.encode(), 0))
    stat = read_bytes("/proc/self/stat")
    fields = stat.rpartition(b")")[2].split() if stat else []
    if len(fields) <= _ARG_END:
        return
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    title = f"{NAME} {session}".rstrip().encode("ascii", "replace")
    if start and end - start > len(title) + 1:
        # The kernel shows only the text up to the first NUL if the last byte is none: that is how it
        # recognises a program that has written over its arguments (setproctitle(3), fs/proc/base.c).
        text = title + b"\0" * (end - start - len(title) - 1) + b"."
        ignore_errors(lambda: _write("/proc/self/mem", text, start))


def _write(path: str, data: bytes, offset: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)  # ``comm`` cannot be sought in
        os.write(fd, data)
    finally:
        os.close(fd)


__all__ = ["NAME", "set_title"]
