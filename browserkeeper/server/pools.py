"""The server's pools: one for each distinct launch, a bounded number of them."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import BrowserkeeperError
from ..pool import BrowserPool
from ..session.asynchronous import in_thread
from .capabilities import Launch
from .errors import WireError
from .settings import ServerSettings

logger = logging.getLogger("browserkeeper")

MakePool = Callable[..., BrowserPool[Any]]


@dataclasses.dataclass(eq=False)
class SharedPool:
    """One pool, and how many sessions and requests use it."""

    launch: Launch
    pool: BrowserPool[Any]
    users: int = 0
    used_at: float = 0.0


class Pools:
    """The pools, by launch.  For the event loop's thread only."""

    def __init__(self, settings: ServerSettings, make_pool: MakePool = BrowserPool):
        self._settings, self._make_pool = settings, make_pool
        self._pools: dict[str, SharedPool] = {}

    def open_first(self) -> None:
        """Open the pool for sessions without options, which keeps ``min_idle`` browsers ready."""
        self._add(Launch(), self._settings.min_idle)

    def take(self, launch: Launch) -> SharedPool:
        """The pool for a launch, opened where there is none; to be given back with :meth:`give_back`.

        Raises ConfigError for a launch that is refused, PoolUnavailable, and WireError where all other
        pools are in use.
        """
        found = self._pools.get(launch.key)
        if found is None:
            self._make_room()
            found = self._add(launch, 0)
        found.users += 1
        return found

    def give_back(self, shared: SharedPool) -> None:
        """One session, or one request, less."""
        shared.users -= 1
        shared.used_at = time.monotonic()

    def _add(self, launch: Launch, min_idle: int) -> SharedPool:
        settings = self._settings
        arguments: dict[str, Any] = {
            "max_size": settings.max_browsers,
            "min_idle": min_idle,
            "isolation": launch.isolation or settings.isolation,
            "max_waiting": settings.max_waiting,
            "checkout_timeout": settings.queue_timeout,
            "max_lease": settings.max_lease,
            "leak_warn": None,
            "headless": settings.headless,
            "options": launch.selenium_options(),
            "label": "server",
        }
        if settings.leases_per_browser > 1 and launch.engine == "chromium":
            arguments["leases_per_browser"] = settings.leases_per_browser
        shared = SharedPool(launch, self._make_pool(launch.name, **arguments))
        shared.pool.open()
        self._pools[launch.key] = shared
        shared.used_at = time.monotonic()
        return shared

    def _make_room(self) -> None:
        """Close the pool that was unused for longest where there are as many as there may be."""
        if len(self._pools) < self._settings.max_pools:
            return
        unused = [one for one in self._pools.values() if not one.users and one.launch != Launch()]
        if not unused:
            raise WireError(
                "session not created",
                f"Sessions with {len(self._pools)} different sets of browser options run already, and "
                "there may be no more at a time. Use the same options, wait, or raise --max-pools.",
            )
        oldest = min(unused, key=lambda one: one.used_at)
        del self._pools[oldest.launch.key]
        oldest.pool.cut_off()

    @property
    def all(self) -> Iterable[SharedPool]:
        """All open pools."""
        return list(self._pools.values())

    def stats(self) -> Mapping[str, float]:
        """The sums of ``BrowserPool.stats`` over all pools.  Blocks for milliseconds."""
        total: dict[str, float] = {}
        for shared in self.all:
            for name, value in shared.pool.stats().items():
                total[name] = total.get(name, 0) + value
        return total

    async def close(self) -> None:
        """End every browser, and verify it.  A leak is logged."""
        for shared in self.all:
            try:
                await in_thread(shared.pool.close)
            except BrowserkeeperError:
                logger.exception("server: a pool's browsers did not end as they should")
        self._pools.clear()


__all__ = ["Pools", "SharedPool"]
