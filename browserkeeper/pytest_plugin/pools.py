"""The pools whose browsers come and go in the background, so that no single test starts them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pool import BrowserPool
    from ..session import BrowserSession

SPARED: weakref.WeakSet[BrowserPool[Any]] = weakref.WeakSet()
"""The plugin's own, and those that fixtures of a wider scope than a test have returned."""


def sessions_of(pool: BrowserPool[Any]) -> list[BrowserSession[Any]]:
    """Every browser that a pool has now, leased or not."""
    core = getattr(pool, "_core", None)  # the pool has no public word for it
    if core is None:
        return []
    bodies = [member.body for member in core.roster.members()]
    return [body.session for body in bodies if body is not None]


def guard_pids() -> Iterator[int]:
    """Below these processes is nothing but spared pools' browsers."""
    for pool in list(SPARED):
        for session in sessions_of(pool):
            if session.guard_pid is not None:
                yield session.guard_pid
