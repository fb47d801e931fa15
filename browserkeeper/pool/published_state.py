"""Publishes a pool's state in a file for other processes (``state/pool_state.py`` has the format)."""

from __future__ import annotations

import collections
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping

from ..process import identity_of, own_name, system
from ..state.ledger import Ledger
from ..state.pool_state import FileLock, PoolState, publish, withdraw
from ..state.totals import POOL_HOOK_ERRORS, POOL_TIMED_OUT, Totals, buckets_of
from .logs import log

INTERVAL = 1.0
"""Seconds between two writes at least; a pool may change a thousand times in that time."""
SIGN_OF_LIFE = 60.0
"""Seconds between two writes at most.  By ``written`` others see that the pool's process still runs."""

Content = tuple[Mapping[str, str], Mapping[str, str], Mapping[str, float]]
"""The state of each session by its id, the labels of leases by the same, and the statistics."""

_numbers = itertools.count(1)


class StatePublisher:
    """Writes the state of one pool, and removes the file in the end.  For one thread.

    How long requests waited is added to the counters that outlive the pool (``state/totals.py``).

    A pool works as well without the file.  So an error is logged once and ends the publishing.
    """

    def __init__(self, browser: str, label: str = ""):
        self._browser, self._label, self._number = browser, label, next(_numbers)
        self._ledger: Ledger | None = None
        self._published: tuple[PoolState, Content] | None = None
        self._lock: FileLock | None = None
        self._nonce = os.urandom(6).hex()
        self._waits: list[float] = []
        self._timeouts = 0
        self._hook_errors: collections.Counter[str] = collections.Counter()
        self._uncounted: collections.defaultdict[str, float] = collections.defaultdict(float)
        """Steps of the counters that are still to be added to the file, by counter."""
        self._not_before = 0.0
        self._next_sign = 0.0
        self._is_outdated = False
        self._withdrawn = False

    def add_wait(self, seconds: float) -> None:
        """Count a request that got a browser after so many seconds; written with the next state."""
        if not self._withdrawn:
            self._waits.append(seconds)

    def add_timeout(self) -> None:
        """Count a request that got no browser in time."""
        self._timeouts += not self._withdrawn

    def add_hook_error(self, hook: str) -> None:
        """Count an error of the hook of this name."""
        self._hook_errors[hook] += not self._withdrawn

    def refresh(self, content: Callable[[float], Content], now: float) -> None:
        """Publish the content if it has changed, and if the last write was long enough ago."""
        self._is_outdated = True
        if self._withdrawn or now < self._not_before:
            return
        self._is_outdated, self._not_before = False, now + INTERVAL
        current = content(now)
        changed = self._published is None or current != self._published[1]
        if changed or now >= self._next_sign:
            self._next_sign = now + SIGN_OF_LIFE
            self._publish(current)

    def next_due(self) -> float | None:
        """When :meth:`refresh` must be called again: for a change that came too soon after a write, or
        for the next sign of life.  None: never."""
        if self._withdrawn:
            return None
        return self._not_before if self._is_outdated else self._next_sign

    def withdraw(self) -> None:
        """Remove the file, and publish no more."""
        self._withdrawn = True
        self._count_waits()
        published, self._published = self._published, None
        if published is not None and self._ledger is not None:
            try:
                withdraw(self._ledger, published[0])
            except OSError as error:
                text = "pool: its file in %s cannot be removed: %s"
                log(logging.WARNING, text, self._ledger.pools, error)
        self._lock = None

    def _publish(self, content: Content) -> None:
        sessions, labels, stats = content
        try:
            self._ledger, host = self._ledger or Ledger.open(), system.host()
            state = PoolState(
                number=self._number,
                browser=self._browser,
                owner=identity_of(os.getpid()),
                owner_name=own_name(),
                host=host.id,
                init_start=host.init_start,
                uid=host.uid,
                nonce=self._nonce,
                written=time.time(),
                sessions=sessions,
                stats=stats,
                label=self._label,
                labels=labels,
            )
            self._lock = publish(self._ledger, state)
            self._published = state, content
            self._count_waits()
        except Exception as error:  # noqa: BLE001 # the pool works without
            self.withdraw()
            text = "pool: `browserkeeper ps` and /metrics will not see it: %s"
            log(logging.WARNING, text, error or type(error).__name__)

    def _count_waits(self) -> None:
        steps = buckets_of(self._browser, self._waits)
        if self._timeouts:
            steps[f"{POOL_TIMED_OUT} {self._browser}"] = self._timeouts
        for hook, number in self._hook_errors.items():
            steps[f"{POOL_HOOK_ERRORS} {self._browser} {hook}"] = number
        self._waits, self._timeouts = [], 0
        self._hook_errors.clear()
        for name, step in steps.items():
            self._uncounted[name] += step
        # What cannot be counted now is tried again with what comes next.
        if self._uncounted and self._ledger and Totals(self._ledger.directory).add(self._uncounted):
            self._uncounted.clear()
