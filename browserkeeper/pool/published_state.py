"""Publishes a pool's state in a file for other processes (``state/pool_state.py`` has the format)."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping

from ..errors import LedgerError
from ..process import identity_of, own_name, system
from ..state.ledger import Ledger
from ..state.pool_state import PoolState, publish, withdraw

logger = logging.getLogger("browserkeeper")

INTERVAL = 1.0
"""Seconds between two writes at least; a pool may change a thousand times in that time."""

Content = tuple[Mapping[str, str], Mapping[str, float]]
"""The state of each session by its id, and the statistics."""

_numbers = itertools.count(1)


class StatePublisher:
    """Writes the state of one pool, and removes the file in the end.  For one thread.

    A pool works as well without the file.  So an error is logged once and ends the publishing.
    """

    def __init__(self, browser: str):
        self._browser, self._number = browser, next(_numbers)
        self._ledger: Ledger | None = None
        self._published: tuple[PoolState, Content] | None = None
        self._not_before = 0.0
        self._is_outdated = False
        self._withdrawn = False

    def refresh(self, content: Callable[[float], Content], now: float) -> None:
        """Publish the content if it has changed, and if the last write was long enough ago."""
        self._is_outdated = True
        if self._withdrawn or now < self._not_before:
            return
        self._is_outdated, self._not_before = False, now + INTERVAL
        current = content(now)
        if self._published is None or current != self._published[1]:
            self._publish(current)

    def next_due(self) -> float | None:
        """When :meth:`refresh` must be called again, because a change came too soon after a write."""
        return self._not_before if self._is_outdated and not self._withdrawn else None

    def withdraw(self) -> None:
        """Remove the file, and publish no more."""
        self._withdrawn = True
        published, self._published = self._published, None
        if published is not None and self._ledger is not None:
            try:
                withdraw(self._ledger, published[0])
            except OSError as error:
                logger.warning("pool: its file in %s cannot be removed: %s", self._ledger.pools, error)

    def _publish(self, content: Content) -> None:
        sessions, stats = content
        try:
            self._ledger = self._ledger or Ledger.open()
            state = PoolState(
                number=self._number,
                browser=self._browser,
                owner=identity_of(os.getpid()),
                owner_name=own_name(),
                host=system.host_id(),
                written=time.time(),
                sessions=sessions,
                stats=stats,
            )
            publish(self._ledger, state)
            self._published = state, content
        except (LedgerError, OSError) as error:
            self.withdraw()
            logger.warning("pool: `browserkeeper ps` and /metrics will not see it: %s", error)
