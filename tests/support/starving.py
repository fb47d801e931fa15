"""A process that has used up its file descriptors, for the scripts of tests."""

from __future__ import annotations

import contextlib
import errno
import os
import resource


def use_up_descriptors(limit: int) -> list[int]:
    """Lower this process's limit of open files to ``limit``, and open files until it is reached.

    Returns the descriptors: close some of them to make room.  Prints the control: how an ``open`` fails
    now.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    try:
        os.close(os.open("/proc/self/stat", os.O_RDONLY))
    except OSError as error:
        print("plain open:", errno.errorcode[error.errno or 0])
    return taken
