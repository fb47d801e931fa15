"""The bells of programs that wait for a slot of the host: a FIFO each, which wakes the program.

Every layer may import this module.  Like all of ``guard/``, it imports C modules of the standard library
only.
"""

from __future__ import annotations

import os

SUFFIX = ".bell"
CALLED = ".called"  # beside the bell of a program that was told that it may go, until it answers


def ring(path: str) -> bool:
    """Ring one bell; False where the program that waits behind it is gone.

    The open fails with ENXIO then: no process has the FIFO open for reading (fifo(7)).
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        os.write(fd, b"\0")
    except BlockingIOError:  # full: it was rung often
        pass
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def ring_first(queue: str) -> None:
    """Wake the first program that waits: the names of the bells are in the order of the queue.

    One that was told that it may go, and has not answered, may be stopped: the next one is woken, too.
    """
    try:
        names = set(os.listdir(queue))
    except OSError:
        return
    for name in sorted(names):
        is_rung = name.endswith(SUFFIX) and ring(os.path.join(queue, name))
        if is_rung and name[: -len(SUFFIX)] + CALLED not in names:
            return


__all__ = ["CALLED", "SUFFIX", "ring", "ring_first"]
