"""``Cancellation``: tells a launch that runs in another thread to stop, wherever it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

PAUSE = 0.05
"""Seconds between two looks whether the launch was cancelled."""


class Stoppable(Protocol):
    """A guard, or an object that takes the place of one."""

    def tell_to_end(self, reason: str) -> None:
        """Ask for the end; returns at once."""


class Cancellation:
    """Whether a launch was cancelled, and the guard that the launch waits for.

    :meth:`request` may be called in any thread and in a signal handler; the other methods are for the
    thread of the launch.
    """

    def __init__(self, error: Callable[[], Exception], reason: str = "closed"):
        """``error`` returns the exception to raise in a launch that was cancelled; ``reason`` is what
        its guard is told."""
        self.requested = False
        self._error, self._reason = error, reason
        self.on_request: Callable[[], None] = _do_nothing
        """Called by :meth:`request`: what ends a wait for something else than a guard."""
        self._guard: Stoppable | None = None

    def request(self) -> None:
        """Cancel the launch.  Returns at once; the guard that the launch waits for is told to end."""
        self.requested = True
        self.on_request()
        if self._guard is not None:
            self._guard.tell_to_end(self._reason)

    def watch(self, guard: Stoppable) -> None:
        """The launch waits for this guard from now on: for a driver, or for a program's answer."""
        self._guard = guard
        if self.requested:
            guard.tell_to_end(self._reason)

    def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds, or until the launch is cancelled."""
        until = time.monotonic() + seconds
        while not self.requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, PAUSE))

    def check(self) -> None:
        """Raises the error of a cancelled launch, if this one was cancelled."""
        if self.requested:
            raise self._error()


def _do_nothing() -> None:
    """An ``on_request`` for a launch that waits for guards only."""
