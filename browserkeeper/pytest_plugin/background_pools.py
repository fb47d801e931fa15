"""The pools whose browsers start and end in the background, independently of the running test.

Light to import: the leak check needs this in runs that open no browser.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pool import BrowserPool

BACKGROUND_POOLS: weakref.WeakSet[BrowserPool[Any]] = weakref.WeakSet()
"""The plugin's own, and those that fixtures of a wider scope than a test have returned."""


def guard_pids() -> Iterator[int]:
    """The guards of these pools' browsers; their descendants are no leaks of a test."""
    for pool in list(BACKGROUND_POOLS):
        for session in pool.sessions():
            if session.guard_pid is not None:
                yield session.guard_pid
