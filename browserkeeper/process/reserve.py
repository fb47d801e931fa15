"""File descriptors that are kept back for the moment at which this process may open no more files.

A look at a process needs a descriptor for a moment, and so does a last request to a driver.  A program
that has used up its descriptors must not lose its healthy browsers for that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..guard.descriptors import above_stdio

T = TypeVar("T")

LIBGCC = "libgcc_s.so.1"
NUMBER = 8
"""Descriptors kept back.  The removal of a directory tree needs the most, five at a time."""
FIRST = 3
"""The lowest number of a descriptor that is not one of the standard streams."""


class Reserve:
    """Copies of one descriptor of a file that no one else can have.

    Appending to a list and taking from it is atomic, so that threads and signal handlers need no lock.
    """

    def __init__(self) -> None:
        self._kept: list[int] = []
        self.borrowers: list[None] = []
        """One element for each block that uses the reserve now."""
        self._file: tuple[int, int] | None = None
        """Device and inode: a daemon may have closed our numbers, and opened other files with them."""
        self._pid = 0

    def fill(self) -> None:
        """Open what is missing, as far as the limit allows.  Does nothing off Linux."""
        if self._pid != os.getpid():  # first use, or a fork, which may have closed all files
            self._pid, self._file = os.getpid(), None
            self._kept.clear()
            self.borrowers.clear()
            _load_what_ends_threads()
        if not hasattr(os, "memfd_create") or len(self._kept) >= NUMBER:
            return
        with contextlib.suppress(OSError):
            self.give_back()  # what is left: all are of one file
            fd = above_stdio(os.memfd_create("browserkeeper-reserve", os.MFD_CLOEXEC))
            facts = os.fstat(fd)
            self._file = facts.st_dev, facts.st_ino
            self._kept.append(fd)
            while len(self._kept) < NUMBER:
                self._kept.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST))

    def give_back(self) -> None:
        """Close them all, so that so many files can be opened."""
        while self._kept:
            with contextlib.suppress(IndexError, OSError):  # another thread was faster; it was closed
                fd = self._kept.pop()
                facts = os.fstat(fd)
                if (facts.st_dev, facts.st_ino) == self._file and self._pid == os.getpid():
                    os.close(fd)


def _load_what_ends_threads() -> None:
    """Load the library that glibc's pthread_exit(3) loads, once in a process.

    Where glibc cannot open it then, it aborts the process.  Until Python 3.13 each daemon thread that is
    left at the interpreter's end calls pthread_exit; until Python 3.10 every thread does.
    """
    with contextlib.suppress(ImportError, OSError):  # no ctypes; musl has and needs no such library
        from _ctypes import dlopen  # the whole of ctypes takes 10 ms

        dlopen(LIBGCC, 0)


_reserve = Reserve()
fill = _reserve.fill


@contextlib.contextmanager
def lent() -> Iterator[None]:
    """A block that may open NUMBER files although the limit is reached.

    Other threads may take them; then the block fails as it would have done without.
    """
    _reserve.borrowers.append(None)
    _reserve.give_back()
    try:
        yield
    finally:
        with contextlib.suppress(IndexError):  # another thread has used it for the first time meanwhile
            _reserve.borrowers.pop()
        if not _reserve.borrowers:
            _reserve.fill()


def with_reserve(action: Callable[[], T]) -> T:
    """Returns what the action returns.  Where it fails for want of a descriptor it is repeated with the
    reserve; then OSError may be raised nevertheless."""
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    with lent():
        return action()
