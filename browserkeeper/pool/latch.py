"""A flag between threads that can be set safely although signal handlers may raise exceptions."""

from __future__ import annotations

import threading


class Latch:
    """An event that is set once.  ``set()`` never blocks, even after a waiter was interrupted.

    Replaces ``threading.Event``, ``Condition`` and ``queue.Queue``.  They take their lock in Python
    code: if a signal handler raises an exception there (a soft time limit, Ctrl-C), the lock stays
    taken for ever, and the thread that sets the event hangs.

    Here the lock itself is the flag; it is locked until the latch is set.  One weakness remains: a
    waiter that is interrupted at the end of :meth:`wait` may leave the lock taken.  Later calls of
    any method are right all the same, but another thread that is already waiting is not woken.
    Python runs signal handlers in the main thread only, so let the main thread wait alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._was_set = False

    def set(self) -> None:
        """Wake all waiting threads.  The second call does nothing.  For one thread only."""
        if not self.is_set():
            self._lock.release()
            self._was_set = True

    def is_set(self) -> bool:
        return self._was_set or not self._lock.locked()

    def wait(self, timeout: float = threading.TIMEOUT_MAX) -> bool:
        """Block until the latch is set.  Returns False if it is not set after ``timeout`` seconds."""
        if self.is_set():
            return True
        if not self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            return False
        self._lock.release()  # lets the next waiter through
        return True
