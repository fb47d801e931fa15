"""Random pauses between attempts, which grow with each failure (exponential backoff, full jitter)."""

from __future__ import annotations

from tenacity import RetryCallState, wait_random_exponential


def random_pause(failures: int, first: float, longest: float) -> float:
    """Returns the seconds to wait after so many failures in a row.

    The pause is random, between 0 and ``first`` * 2 ** (failures - 1), and at most ``longest``.  Full
    jitter: what failed at the same time is not tried again at the same time.
    """
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type] # only its counter is used
    state.attempt_number = failures
    return wait_random_exponential(multiplier=first, max=longest)(state)
