"""The pool's notice for other processes, see ``pool_state``: put up, kept fresh, taken down."""

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

EVERY = 1.0
"""Seconds between two notices at least: a pool may change a thousand times in that."""

Facts = tuple[Mapping[str, str], Mapping[str, float]]
"""Sessions with their states, and statistics."""

_numbers = itertools.count(1)


class StatePublisher:
    """One pool's.  In the supervisor's thread only.  A pool without it works as well, so what
    fails is said once."""

    def __init__(self, browser: str):
        self._browser, self._number = browser, next(_numbers)
        self._ledger: Ledger | None = None
        self._shown: tuple[PoolState, Facts] | None = None
        self._not_before = 0.0
        self._stale = False
        self._down = False

    def refresh(self, look: Callable[[float], Facts], now: float) -> None:
        """Put up what ``look`` finds, if it differs and the last notice is old enough."""
        self._stale = True
        if self._down or now < self._not_before:
            return
        self._stale, self._not_before = False, now + EVERY
        facts = look(now)
        if self._shown is None or facts != self._shown[1]:
            self._put_up(facts)

    def next_due(self) -> float | None:
        """When a change that came too soon after the last notice is to be shown."""
        return self._not_before if self._stale and not self._down else None

    def take_down(self) -> None:
        """For good."""
        self._down = True
        shown, self._shown = self._shown, None
        if shown is not None and self._ledger is not None:
            try:
                withdraw(self._ledger, shown[0])
            except OSError as error:
                logger.warning("pool: its notice in %s stays: %s", self._ledger.pools, error)

    def _put_up(self, facts: Facts) -> None:
        try:
            self._ledger = self._ledger or Ledger.open()
            state = self._state(facts)
            publish(self._ledger, state)
            self._shown = state, facts
        except (LedgerError, OSError) as error:
            self.take_down()
            logger.warning("pool: `browserkeeper ps` and /metrics will not see it: %s", error)

    def _state(self, facts: Facts) -> PoolState:
        return PoolState(
            number=self._number,
            browser=self._browser,
            owner=identity_of(os.getpid()),
            owner_name=own_name(),
            host=system.host_id(),
            written=time.time(),
            sessions=facts[0],
            stats=facts[1],
        )
