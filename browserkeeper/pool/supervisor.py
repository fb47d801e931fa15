"""The pool's own thread: it alone touches the scheduler, and it never waits for a browser."""

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

Act = Callable[[float], None]
"""Something to do in the supervisor's thread; gets the time (``time.monotonic()``)."""

LONGEST_SLEEP = 5.0
"""Seconds; also the most that a browser's death can go unseen where there are no pidfds."""


class Supervisor:
    """Runs what is posted to it, one thing at a time, and watches file descriptors between."""

    def __init__(self, after_each: Act, next_due: Callable[[float], float | None]):
        """``after_each`` runs after every batch of acts, and at the time ``next_due`` names."""
        self._after_each, self._next_due = after_each, next_due
        self._inbox: collections.deque[Act] = collections.deque()
        self._watched: dict[int, Act] = {}
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._poller = select.poll()
        self._poller.register(self._wake_read, select.POLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="browserkeeper-pool", daemon=True)
        self._thread.start()

    def post(self, act: Act) -> None:
        """Have it done soon.  Returns at once; fit for destructors and signal handlers."""
        self._inbox.append(act)
        self.wake()

    def wake(self) -> None:
        """Have ``after_each`` run soon; returns at once, fit for destructors like ``post``."""
        with contextlib.suppress(OSError):  # EAGAIN: it is being woken already; EBADF: it has stopped
            os.write(self._wake_write, b".")

    def ask(self, act: Act, timeout: float) -> bool:
        """Have it done and wait for that; False where it took longer than ``timeout`` seconds."""
        done = Latch()

        def run(now: float) -> None:
            try:
                act(now)
            finally:
                done.set()

        if not self._thread.is_alive():
            return False
        self.post(run)
        return done.wait(timeout)

    def watch(self, fd: int, act: Act) -> None:
        """Do this once when ``fd`` becomes readable; from then on the descriptor is ours to close.
        In the supervisor's thread only."""
        self._watched[fd] = act
        self._poller.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Watch it no longer, and close it.  In the supervisor's thread only."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)
            os.close(fd)

    def stop(self) -> None:
        """End the thread, when all that was posted before is done; the second call does nothing."""
        self.ask(self._stop, 10)
        self._thread.join(10)

    def _stop(self, now: float) -> None:
        self._stopping = True

    def _run(self) -> None:
        while not self._stopping:
            for fd in self._wait():
                self._inbox.append(self._watched[fd])
                self.forget(fd)
            while self._inbox:
                self._do(self._inbox.popleft())
            self._do(self._after_each)
        for fd in list(self._watched):
            self.forget(fd)

    def _wait(self) -> list[int]:
        now = time.monotonic()
        due = self._next_due(now)
        patience = LONGEST_SLEEP if due is None else min(LONGEST_SLEEP, max(0.0, due - now))
        if self._inbox:
            patience = 0
        ready = [fd for fd, _ in self._poller.poll(patience * 1000)]
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 65536)
        return [fd for fd in ready if fd in self._watched]

    def _do(self, act: Act) -> None:
        try:
            act(time.monotonic())
        except Exception:  # one bad act must not end all browsers' supervision
            logger.exception("the pool's supervisor failed at %r", act)

    def __del__(self) -> None:
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)
