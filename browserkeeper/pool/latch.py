"""A flag between threads that is safe against exceptions out of signal handlers."""

from __future__ import annotations

import threading


class Latch:
    """An event that is set once, and whose ``set()`` can never block.

    ``threading.Event``, ``Condition`` and ``queue.Queue`` take their lock in Python code: a signal
    handler that raises there (a soft time limit, Ctrl-C) leaves it taken for ever, and whoever sets
    the event hangs.  A bare lock has no such moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake everybody who waits, now or later.  By one thread; the second call does nothing."""
        if self._lock.locked():
            self._lock.release()

    def is_set(self) -> bool:
        return not self._lock.locked()

    def wait(self, timeout: float = threading.TIMEOUT_MAX) -> bool:
        """True when it is set, False after ``timeout`` seconds."""
        if not self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            return False
        self._lock.release()
        return True
