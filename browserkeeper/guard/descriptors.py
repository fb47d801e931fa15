"""File descriptors that stay clear of the standard streams.

A daemon often has descriptors 0 to 2 closed.  The next pipe would get their numbers, and what the
program, or a library in it, prints would go into that pipe.  Every layer may import this module.  Like
all of ``guard/``, it imports C modules of the standard library only.
"""

from __future__ import annotations

import fcntl
import os


def above_stdio(fd: int) -> int:
    """The number of the same open file above 2, not inheritable; closes ``fd`` where that differs."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def pipe_above_stdio() -> tuple[int, int]:
    """A pipe as of ``os.pipe()``, with both numbers above 2.

    Another thread may have printed into it while it had a lower number: that is discarded.
    """
    read_fd, write_fd = os.pipe()
    if read_fd > 2 and write_fd > 2:
        return read_fd, write_fd
    try:
        read_fd = above_stdio(read_fd)
        write_fd = above_stdio(write_fd)
    except OSError:  # the limit of open files
        for fd in {read_fd, write_fd}:
            try:
                os.close(fd)
            except OSError:
                pass
        raise
    os.set_blocking(read_fd, False)
    try:
        os.read(read_fd, 65536)
    except BlockingIOError:
        pass
    os.set_blocking(read_fd, True)
    return read_fd, write_fd


def occupy_stdio() -> None:
    """Open /dev/null in the place of each standard stream that is closed, not inheritable.

    So neither a file nor a connection of a library gets that number.  Programs that are executed find
    the stream closed, as before.
    """
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            if fd > 2:  # another thread has just opened a file in that place
                os.close(fd)
