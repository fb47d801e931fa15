"""The pools whose browsers come and go in the background, so that no single test starts them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pool import BrowserPool

SPARED: weakref.WeakSet[BrowserPool[Any]] = weakref.WeakSet()
"""The plugin's own, and those that fixtures of a wider scope than a test have returned."""


def guard_pids() -> Iterator[int]:
    """Below these processes is nothing but spared pools' browsers."""
    for pool in list(SPARED):
        for session in pool.sessions():
            if session.guard_pid is not None:
                yield session.guard_pid
