"""Reads of ``/proc`` that may hang.

``environ`` and ``cmdline`` of ``/proc/PID`` are read out of that process's memory.  The kernel waits for
a lock of the process and for pages of it, and both may take for ever: where the process hangs in a page
fault whose file is on a dead network file system, for one.  ``smaps_rollup`` waits for the lock, too.
What else this package reads of a process, the kernel has at hand.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import queue

from ..errors import LimitError
from ..guard.procfs import read_file
from .limit_errors import NO_LOOK, cannot_look, limit_of
from .reserve import with_reserve

READ_TIMEOUT = 2.0
"""Seconds for a read of another process's memory, which takes microseconds."""
IDLE = 1.0
"""Seconds until a thread without work ends."""


Answer = bytes | OSError
"""What a read has returned or raised."""


class _Reader:
    """A thread that reads files.

    ``_thread`` starts it: ``threading.Thread.start`` takes locks that are not reentrant, and a signal
    handler that ends a session may have interrupted their holder.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()  # a fork of this process does not have the thread
        self._jobs: queue.SimpleQueue[tuple[str, queue.SimpleQueue[Answer]] | None]
        self._jobs = queue.SimpleQueue()
        _running.add(self)
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            _running.discard(self)
            raise

    def _run(self) -> None:
        try:
            self._work()
        finally:
            _running.discard(self)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # taken for a read at this moment
                    continue
                return
            if job is None:
                return
            path, answer = job
            answer.put(_read(path))

    def read(self, seconds: float, path: str) -> Answer:
        """Raises queue.Empty where there is no answer in time."""
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._jobs.put((path, answer))
        return answer.get(timeout=seconds)

    def give_up(self) -> None:
        """The thread ends after the read that it is in, if that ever returns."""
        self._jobs.put(None)

    def hangs(self) -> bool:
        return self in _running and self.pid == os.getpid()


# Taking from and adding to a list, dict or set is atomic, so these need no lock, which a signal handler
# that interrupts its holder could not get.
_idle: list[_Reader] = []
_hanging: dict[str, _Reader] = {}
_running: set[_Reader] = set()


def read_within(seconds: float, path: str) -> bytes | None:
    """The whole of a file; None where it cannot be read, or not in so many seconds.

    After that time the read is left to its thread.  The same path is not read again while it hangs,
    since each round of a watch would leave one more thread.  Safe to use from several threads.  Raises
    LimitError where this process may open no more files, or start no thread.
    """
    if (before := _hanging.get(path)) is not None:
        if before.hangs():
            return None
        _hanging.pop(path, None)
    reader = _reader_for(path)
    try:
        found = reader.read(seconds, path)
    except queue.Empty:
        _hanging[path] = reader
        reader.give_up()
        return None
    except BaseException:  # Ctrl-C: the answer may still come
        reader.give_up()
        raise
    _idle.append(reader)
    if not isinstance(found, OSError):
        return found
    if found.errno in NO_LOOK:
        raise cannot_look(found, path) from found
    return None


def _reader_for(path: str) -> _Reader:
    """An idle reader, or a new one.  Raises LimitError where no thread can be started."""
    with contextlib.suppress(IndexError):
        reader = _idle.pop()
        if reader.pid == os.getpid():
            return reader
    try:
        return _Reader()
    except RuntimeError as error:
        if not (text := limit_of(error)):
            raise
        raise LimitError(f"{path} could not be looked at. {text}") from None


def _read(path: str) -> Answer:
    try:
        return with_reserve(lambda: read_file(path))
    except OSError as error:
        return error


__all__ = ["READ_TIMEOUT", "read_within"]
