"""The pool's own thread, an event loop: only this thread touches the scheduler."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence

from ..guard.descriptors import pipe_above_stdio
from .latch import Latch
from .logs import log_error
from .threads import start_thread, wait_for_end

Callback = Callable[[float], None]
"""Runs in the loop's thread and must not block.  Its argument is the time (``time.monotonic()``)."""

LONGEST_SLEEP = 5.0
"""Seconds.  Where the kernel has no pidfds, a browser's death is seen within this time."""


class EventLoop:
    """A thread that runs posted callbacks one after another, and watches file descriptors.

    Replaces asyncio: by its documentation, an ordinary signal handler must not interact with an
    asyncio loop, and an exception from a signal handler may interrupt any call of :meth:`post`.
    """

    def __init__(self, after_each_batch: Sequence[Callback], next_due: Callable[[float], float | None]):
        """``after_each_batch`` run after every batch of callbacks, and at the time that ``next_due``
        returns (None: no such time)."""
        self._after_each_batch, self._next_due = after_each_batch, next_due
        self._inbox: collections.deque[Callback] = collections.deque()
        self._watched: dict[int, Callback] = {}
        self._listening: dict[int, Callback] = {}
        self._wakeup: _Wakeup | None = _Wakeup()
        self._poller = select.poll()
        self._poller.register(self._wakeup.readable, select.POLLIN)
        self._stopping = self._is_started = False
        self.is_over = False
        """True when no callback runs any more that is posted from now on."""
        self._start_allowed = [self]
        self._thread = threading.Thread(
            target=_run_once, args=(self._start_allowed,), name="browserkeeper-pool", daemon=True
        )

    def start(self) -> None:
        """Start the thread, which runs what was posted before.  Raises LaunchError if the system gives
        no more threads."""
        try:
            start_thread(self._thread)
        except BaseException:
            # An exception of a signal handler in threading.Thread.start may leave the Thread object in
            # its module for ever: then it must not keep this loop and its pipe.
            self._start_allowed.clear()
            raise
        self._is_started = True

    def is_running(self) -> bool:
        """False before the thread's start and after its end."""
        return self._is_started and not self.is_over

    # -- from any thread

    def post(self, callback: Callback) -> bool:
        """Have the callback run soon.  Returns False if it may never run, since the loop is over.

        Never blocks; safe in destructors and signal handlers.
        """
        self._inbox.append(callback)
        self.wake()
        return not self.is_over  # the thread sets this before it looks into the inbox for the last time

    def wake(self) -> None:
        """Have ``after_each_batch`` run soon.  Never blocks; safe in destructors and signal handlers."""
        wakeup = self._wakeup  # our reference keeps the descriptor open, so that no other file has it
        if wakeup is not None:
            wakeup.send()

    def call(self, callback: Callback, timeout: float) -> bool:
        """Have the callback run, and wait until it has.

        Returns False if the loop does not run, or if it took longer than ``timeout`` seconds.
        """
        if not self.is_running():
            return False
        done = Latch()

        def run(now: float) -> None:
            try:
                callback(now)
            finally:
                done.set()

        # The callback itself may have ended the loop.
        return done.wait(timeout) if self.post(run) else done.is_set()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, for up to ``timeout`` seconds."""
        wait_for_end(self._thread, timeout)

    # -- from the loop's thread

    def stop(self) -> None:
        """End the thread after this batch and after all that has been posted until then."""
        self._stopping = True

    def watch(self, fd: int, callback: Callback) -> None:
        """Run the callback once, when ``fd`` becomes readable.  From now on the loop owns ``fd``."""
        self._watched[fd] = callback
        self._poller.register(fd, select.POLLIN)

    def listen(self, fd: int, callback: Callback) -> None:
        """Run the callback whenever ``fd`` is readable; the callback has to read it.  ``fd`` stays its
        caller's, who calls :meth:`ignore` before closing it."""
        self._listening[fd] = callback
        self._poller.register(fd, select.POLLIN)

    def ignore(self, fd: int) -> None:
        """End :meth:`listen`.  Does nothing if ``fd`` is not listened to."""
        if self._listening.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd`` and close it.  Does nothing if it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)
            os.close(fd)

    def run(self) -> None:
        """What the thread does."""
        self._is_started = True
        try:
            while not self._stopping:
                for fd in self._poll():
                    if fd in self._listening:
                        self._inbox.append(self._listening[fd])
                    else:
                        self._inbox.append(self._watched[fd])
                        self.unwatch(fd)
                self._run_batch()
        finally:
            self.is_over = True
            self._run_batch()
            for fd in list(self._watched):
                self.unwatch(fd)
            self._wakeup = None  # closes the pipe, when no other thread is about to write to it

    def _poll(self) -> list[int]:
        """Sleep until something happens or is due; returns the watched descriptors that are readable."""
        seconds = 0.0 if self._inbox else self._seconds_to_sleep()
        ready = [fd for fd, _ in self._poller.poll(seconds * 1000)]
        if self._wakeup is not None and self._wakeup.readable in ready:
            self._wakeup.receive()
        return [fd for fd in ready if fd in self._watched or fd in self._listening]

    def _seconds_to_sleep(self) -> float:
        now = time.monotonic()
        try:
            due = self._next_due(now)
        except Exception:  # noqa: BLE001 # the thread goes on, without this moment
            log_error("the pool's event loop: an error in %r", self._next_due)
            due = None
        return LONGEST_SLEEP if due is None else min(LONGEST_SLEEP, max(0.0, due - now))

    def _run_batch(self) -> None:
        while self._inbox:
            _run_callback(self._inbox.popleft())
        for callback in self._after_each_batch:
            _run_callback(callback)


def _run_once(loops: list[EventLoop]) -> None:
    """The thread: runs the loop in the list, if there is still one."""
    with contextlib.suppress(IndexError):
        loops.pop().run()


def _run_callback(callback: Callback) -> None:
    try:
        callback(time.monotonic())
    except BaseException:  # noqa: BLE001 # one callback's error must not leave all browsers unattended
        log_error("the pool's event loop: an error in %r", callback)


class _Wakeup:
    """A pipe that wakes the loop's thread.  Closed when the last reference to it is gone: a thread that
    is about to write keeps one, so its byte never goes to another file with the same number."""

    def __init__(self) -> None:
        self.readable, self._writable = pipe_above_stdio()
        for fd in (self.readable, self._writable):
            os.set_blocking(fd, False)

    def send(self) -> None:
        with contextlib.suppress(OSError):  # EAGAIN: a wake-up is pending already
            os.write(self._writable, b".")

    def receive(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self.readable, 65536)

    def __del__(self) -> None:
        for name in ("readable", "_writable"):
            with contextlib.suppress(AttributeError, OSError):
                os.close(getattr(self, name))
