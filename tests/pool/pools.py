"""Pools for tests with real browsers: their time limits decide no verdict, even on a busy machine."""

from __future__ import annotations

from typing import Any

from browserkeeper import BrowserPool

LIMIT = 300.0
"""Seconds to start a browser and to wait for one.  Firefox takes 4 s to start on a quiet machine."""


def patient_pool(name: str = "chrome", **arguments: Any) -> BrowserPool[Any]:
    return BrowserPool(name, **{"checkout_timeout": LIMIT, "start_timeout": LIMIT, **arguments})
