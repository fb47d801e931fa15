"""Steps between which Python runs no signal handler.

Python runs a signal handler between two bytecodes of the main thread.  A handler that ends a session may
so interrupt the very code that reads from the guard or closes a pipe.  Several calls of C functions that
are made by one call of a C function are not interrupted.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import operator
import os
from collections.abc import Callable

_call = operator.methodcaller("__call__")


def uninterrupted(*steps: Callable[[], object]) -> None:
    """Call them one after another, with no point in between at which Python runs a signal handler.

    All have to be functions in C.  An exception leaves the steps after it undone; the first step may
    raise one of a signal handler, the others must raise none that matters.
    """
    collections.deque(map(_call, steps), maxlen=0)


class Descriptor(io.FileIO):
    """A file descriptor of our own that a signal handler may close as well; unlike FileIO it does not
    warn where it is garbage-collected open."""

    def __init__(self, fd: int, mode: str = "r"):
        self._numbers = [fd]  # empty once it is closed
        super().__init__(fd, mode, closefd=False)

    def close(self) -> None:
        """Close it; the second call does nothing.  No method uses the number afterwards."""
        close_number: Callable[[], object] = functools.partial(
            collections.deque, map(os.close, map(list.pop, (self._numbers,))), 0
        )
        with contextlib.suppress(IndexError):  # it is closed already
            uninterrupted(functools.partial(io.FileIO.close, self), close_number)
