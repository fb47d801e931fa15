"""The pool's own thread, an event loop: only this thread touches the scheduler."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable

from .latch import Latch

logger = logging.getLogger("browserkeeper")

Callback = Callable[[float], None]
"""Runs in the loop's thread and must not block.  Its argument is the time (``time.monotonic()``)."""

LONGEST_SLEEP = 5.0
"""Seconds.  Where the kernel has no pidfds, a browser's death is seen within this time."""


class EventLoop:
    """A thread that runs posted callbacks one after another, and watches file descriptors.

    Replaces asyncio: by its documentation, an ordinary signal handler must not interact with an
    asyncio loop, and an exception from a signal handler may interrupt any call of :meth:`post`.
    """

    def __init__(self, after_each_batch: Callback, next_due: Callable[[float], float | None]):
        """``after_each_batch`` runs after every batch of callbacks, and at the time that ``next_due``
        returns (None: no such time)."""
        self._after_each_batch, self._next_due = after_each_batch, next_due
        self._inbox: collections.deque[Callback] = collections.deque()
        self._watched: dict[int, Callback] = {}
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._poller = select.poll()
        self._poller.register(self._wake_read, select.POLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="browserkeeper-pool", daemon=True)
        self._thread.start()

    # -- from any thread

    def post(self, callback: Callback) -> None:
        """Have the callback run soon.  Never blocks; safe in destructors and signal handlers."""
        self._inbox.append(callback)
        self.wake()

    def wake(self) -> None:
        """Have ``after_each_batch`` run soon.  Never blocks; safe in destructors and signal handlers."""
        with contextlib.suppress(OSError):  # EAGAIN: a wake-up is pending already; EBADF: it has stopped
            os.write(self._wake_write, b".")

    def call(self, callback: Callback, timeout: float) -> bool:
        """Have the callback run, and wait until it has.

        Returns False if the loop has stopped, or if it took longer than ``timeout`` seconds.
        """
        done = Latch()

        def run(now: float) -> None:
            try:
                callback(now)
            finally:
                done.set()

        if not self._thread.is_alive():
            return False
        self.post(run)
        return done.wait(timeout)

    def stop(self) -> None:
        """Run all that was posted before, then end the thread and wait for that.  Idempotent."""
        self.call(self._request_stop, 10)
        self._thread.join(10)

    # -- from the loop's thread

    def watch(self, fd: int, callback: Callback) -> None:
        """Run the callback once, when ``fd`` becomes readable.  From now on the loop owns ``fd``."""
        self._watched[fd] = callback
        self._poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd`` and close it.  Does nothing if it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)
            os.close(fd)

    def _run(self) -> None:
        while not self._stopping:
            for fd in self._poll():
                self._inbox.append(self._watched[fd])
                self.unwatch(fd)
            while self._inbox:
                self._run_callback(self._inbox.popleft())
            self._run_callback(self._after_each_batch)
        for fd in list(self._watched):
            self.unwatch(fd)

    def _poll(self) -> list[int]:
        """Sleep until something happens or is due; returns the watched descriptors that are readable."""
        now = time.monotonic()
        due = self._next_due(now)
        seconds = LONGEST_SLEEP if due is None else min(LONGEST_SLEEP, max(0.0, due - now))
        if self._inbox:
            seconds = 0
        ready = [fd for fd, _ in self._poller.poll(seconds * 1000)]
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 65536)
        return [fd for fd in ready if fd in self._watched]

    def _run_callback(self, callback: Callback) -> None:
        try:
            callback(time.monotonic())
        except Exception:  # one callback's error must not leave all browsers unattended
            logger.exception("the pool's event loop: an error in %r", callback)

    def _request_stop(self, now: float) -> None:
        self._stopping = True

    def __del__(self) -> None:
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)
