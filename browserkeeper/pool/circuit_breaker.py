"""When to launch again after launches or checks have failed: backoff with jitter, a circuit breaker."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import BrowserDied, BrowserkeeperError, SessionTimeout
from .backoff import random_pause

OPENS_AFTER = 3
"""Failures in a row after which waiting requests are refused instead of waiting on."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds, for :func:`random_pause`."""


def launch_pause(failures: int) -> float:
    """Returns the seconds to wait after so many failed launches in a row."""
    return random_pause(failures, FIRST_PAUSE, LONGEST_PAUSE)


class CircuitBreaker:
    """Closed while launches succeed.  Opens after ``OPENS_AFTER`` failures in a row, or at once
    after an error that no retry can mend (such as a missing browser).  A retry can mend the death of a
    browser before its first lease.

    After a failure one launch at a time is tried, each after a pause (the "half-open" state of
    other circuit breakers).  The first launch that succeeds closes the breaker.
    """

    def __init__(self, pause: Callable[[int], float] = launch_pause):
        self._pause = pause
        self.failures = 0
        """In a row."""
        self.retry_at = 0.0
        """No launch before this moment, on the caller's clock."""
        self.last_error: BrowserkeeperError | None = None
        self._was_final = False

    def record_failure(self, error: BrowserkeeperError, now: float) -> None:
        self.failures += 1
        self.last_error = error
        has_died = isinstance(error, (BrowserDied, SessionTimeout))
        self._was_final = self._was_final or not getattr(error, "retryable", has_died)
        self.retry_at = now + self._pause(max(self.failures, OPENS_AFTER if self._was_final else 0))

    def record_success(self) -> None:
        self.failures, self.retry_at, self.last_error = 0, 0.0, None
        self._was_final = False

    @property
    def is_open(self) -> bool:
        return self._was_final or self.failures >= OPENS_AFTER

    def describe(self) -> str:
        """How many launches or checks have failed, for an error message."""
        return "1 failure" if self.failures == 1 else f"{self.failures} failures in a row"

    def launch_limit(self, normal: int, now: float) -> int:
        """Returns how many launches may run at once; ``normal`` is the limit without failures."""
        if not self.failures:
            return normal
        return 1 if now >= self.retry_at else 0
