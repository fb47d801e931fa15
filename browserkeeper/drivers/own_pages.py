"""browserkeeper's own tabs in a user context, whose events the user's BiDi handlers must not get.

A handler could answer a request of such a tab first, and thereby let it go to the network.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

OPEN_TIMEOUT = 60.0
"""Seconds that an event waits at most while a tab is being opened, which takes 10 to 100 ms."""
KEPT = 100
"""How many ids are kept: some events of a tab come after its end."""


class OwnPages:
    """The ids (BiDi's ``context``) of the tabs of one browser.  Methods may be called in any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._opening = 0
        self._ids: dict[str, None] = {}

    @contextlib.contextmanager
    def opening(self) -> Iterator[Callable[[str], None]]:
        """For a block that opens a tab.  Gives a function, which the block calls with the tab's id."""
        with self._changed:
            self._opening += 1
        try:
            yield self._add
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()

    def _add(self, page: str) -> None:
        with self._changed:
            self._ids[page] = None
            while len(self._ids) > KEPT:
                del self._ids[next(iter(self._ids))]

    def __contains__(self, page: object) -> bool:
        return page in self._ids

    @property
    def is_unused(self) -> bool:
        """True before the first tab is opened."""
        return not self._opening and not self._ids

    def is_about(self, params: Mapping[str, Any]) -> bool:
        """True if an event with these parameters is about one of the tabs.

        Events of a new tab come before the answer that has its id.  So this waits while a tab is being
        opened: never call it in the thread that reads that answer.
        """
        if self._opening:
            with self._changed:
                self._changed.wait_for(lambda: not self._opening, OPEN_TIMEOUT)
        source = params.get("source")
        parts = [params, source] if isinstance(source, Mapping) else [params]
        return any(part.get("context") in self._ids for part in parts)


__all__ = ["OwnPages"]
