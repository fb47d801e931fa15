"""How tests wait: for a condition, never for a fixed time.

Only a test that fails pays for a long limit, so the default is a minute: a limit decides whether a
condition ever comes true, not how fast it must on a busy machine.  Give a shorter one only where the
test shows that something does *not* happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 60.0
"""The default limit."""


def until_it_fails(driver: Any, url: str = "") -> None:
    """Load ``url``, or read the title, again and again until that raises: a death takes effect when the
    kernel and the guards have had their turn, which a busy machine delays."""
    while True:
        _ = driver.get(url) if url else driver.title


def wait_until(condition: Callable[[], object], seconds: float = SECONDS, pause: float = 0.005) -> bool:
    """Poll ``condition`` every ``pause`` seconds; whether it came true within ``seconds``."""
    end = deadline_in(seconds)
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def deadline_in(seconds: float = SECONDS) -> float:
    """The moment in so many seconds, on the clock of ``time.monotonic()``."""
    return time.monotonic() + seconds
