"""Whether this host should get more work: what /readyz answers while no browser can start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..errors import BrowserkeeperError
from ..status.pressure import Pressure, pressure

PATIENCE = 300.0
"""Seconds.  A host may be full for a while by ordinary work."""
AT_ONCE = ("limits", "draining")
"""A person has to act, or wants no more work here: no time makes that better."""


class Readiness:
    """Remembers for how long no browser could start.

    ``patience``: seconds of this until the host is not ready.  A drain, and limits that are not valid,
    count at once.  ``clock`` must not be changed by a step of the machine's clock.  For several threads:
    the rounds of the watch look, and so does each request.
    """

    def __init__(
        self,
        patience: float = PATIENCE,
        read: Callable[[], Pressure] = pressure,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._patience, self._read, self._clock = patience, read, clock
        self._lock = threading.Lock()
        self._blocked_since: float | None = None

    def look(self) -> Pressure:
        """Read the gate.  Raises BrowserkeeperError or OSError where it cannot be read; for how long no
        browser could start is kept then."""
        before = self._clock()
        found = self._read()
        with self._lock:
            if not _is_blocked(found):
                self._blocked_since = None
            elif self._blocked_since is None:
                self._blocked_since = before
        return found

    def why_not_ready(self) -> str:
        """What keeps browsers from starting, in plain words; "" while this host may get more work."""
        try:
            found = self.look()
        except (BrowserkeeperError, OSError) as error:
            return f"the gate of this host cannot be read: {error}"
        with self._lock:
            since = self._blocked_since
        if not _is_blocked(found) or since is None:
            return ""
        blocked_for = self._clock() - since
        if set(AT_ONCE) & set(found.blocks):
            return found.reason
        if blocked_for >= self._patience:
            return f"No browser could start for {blocked_for:.0f} s. {found.reason}"
        return ""


def _is_blocked(found: Pressure) -> bool:
    """False also while a pool has an idle browser, which it gives up for a start that waits."""
    return bool(found.blocks) and (found.browsers.idle == 0 or bool(set(AT_ONCE) & set(found.blocks)))


__all__ = ["PATIENCE", "Readiness"]
