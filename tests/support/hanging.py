"""A page that hangs after its driver has answered."""

from __future__ import annotations

import time
from typing import Any

DELAY = 4.0
"""Seconds until the page hangs.  ChromeDriver asks the page again after each script, so this has to be
longer than a busy machine needs for a command."""


def hang_soon(driver: Any, window: str = "window") -> None:
    """Have the page of this window, a JavaScript expression, run a loop without end.

    Returns when the loop runs or is about to: nothing can ask such a page.
    """
    driver.execute_script(f"{window}.setTimeout(() => {{ for (;;); }}, {DELAY * 1000:.0f})")
    time.sleep(DELAY + 0.1)
