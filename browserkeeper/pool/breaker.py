"""When to launch again after launches have failed: backoff with jitter, and a circuit breaker."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, wait_random_exponential

from ..errors import BrowserkeeperError

OPENS_AFTER = 3
"""Failures in a row after which waiters are told at once instead of waiting on."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds: the pause after the n-th failure is random below the first one times 2^(n-1)."""


def random_pause(failures: int) -> float:
    """Full jitter, so that pools that failed together do not come back together."""
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type] # it is only counted here
    state.attempt_number = failures
    return wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)(state)


class Breaker:
    """Closed while launches succeed; open after several failures, or one that no retry can mend.

    While there are failures one launch at a time is tried, each after its pause: the first that
    succeeds closes the breaker.
    """

    def __init__(self, pause: Callable[[int], float] = random_pause):
        self._pause = pause
        self.failures = 0
        self.until = 0.0
        """No launch before this moment, on the caller's clock."""
        self.error: BrowserkeeperError | None = None

    def failed(self, error: BrowserkeeperError, now: float) -> None:
        hopeless = not getattr(error, "retryable", False)
        self.failures = max(self.failures + 1, OPENS_AFTER if hopeless else 0)
        self.error = error
        self.until = now + self._pause(self.failures)

    def succeeded(self) -> None:
        self.failures, self.until, self.error = 0, 0.0, None

    @property
    def is_open(self) -> bool:
        return self.failures >= OPENS_AFTER

    def concurrency(self, usual: int, now: float) -> int:
        """How many launches may be under way."""
        if not self.failures:
            return usual
        return 1 if now >= self.until else 0
