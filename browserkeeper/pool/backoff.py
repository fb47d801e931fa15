"""Random pauses between attempts, which grow with each failure (exponential backoff, full jitter).

tenacity's strategies work inside of its own loop around a call (``session/control.py`` uses them).  Here
there is no such loop: a circuit breaker counts failures, and asks for the time of the next attempt.
"""

from __future__ import annotations

import random

MOST_DOUBLINGS = 64
"""Bounds the exponent: after so many doublings any pause has reached its longest."""


def random_pause(failures: int, first: float, longest: float) -> float:
    """Returns the seconds to wait after so many failures in a row.

    The pause is random, between 0 and ``first`` * 2 ** (failures - 1), and at most ``longest``.  Full
    jitter: what failed at the same time is not tried again at the same time.
    """
    grown = first * 2.0 ** min(failures - 1, MOST_DOUBLINGS)
    return random.uniform(0, min(longest, grown))  # noqa: S311 # a pause, not a secret
