"""The server's pools: one for each distinct launch.  They share the ``--max`` browsers of the server.

Each pool has a share of the browsers as its ``max_size``; the sum of the shares is never above
``--max``.  A pool that needs one more browser takes it from a pool that has more than its sessions need;
among these, from the one whose last change of users is longest ago.  That pool then closes an idle
browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..config import GECKODRIVER
from ..errors import BrowserkeeperError, ConfigError
from ..pool import BrowserPool
from ..session.asynchronous import in_thread
from .capabilities import Launch
from .errors import WireError
from .settings import ServerSettings

logger = logging.getLogger("browserkeeper")

KEEP_UNUSED = 600.0
"""Seconds; as ``idle_timeout`` of ``BrowserPool``, after which its browsers are closed in any case."""

MakePool = Callable[..., BrowserPool[Any]]


@dataclasses.dataclass(eq=False)
class SharedPool:
    """The pool of one launch.

    ``leases``: how many leases each of its browsers may have at a time.  ``unopened``: the pool before
    it is opened for the first time.  ``users``: how many sessions and requests use the pool.  ``share``:
    how many browsers it may have; a pool with a share of 0 is closed.  ``used_at``: when it last got or
    lost a user (monotonic clock).
    """

    launch: Launch
    leases: int
    unopened: BrowserPool[Any] | None
    pool: BrowserPool[Any] | None = None
    users: int = 0
    share: int = 0
    used_at: float = 0.0
    opened: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set while the pool is open."""

    @property
    def has_bidi(self) -> bool:
        """True if sessions of this pool can have BiDi: each has its browser alone, with a context to
        which its BiDi commands are confined."""
        pool = self.pool or self.unopened
        return self.leases == 1 and pool is not None and pool.isolation == "context"

    @property
    def needed(self) -> int:
        """How many browsers its users need."""
        return -(-self.users // self.leases)


class Pools:
    """The pools, by launch.  For the event loop's thread only."""

    def __init__(self, settings: ServerSettings, make_pool: MakePool = BrowserPool):
        self._settings, self._make_pool = settings, make_pool
        self._pools: dict[str, SharedPool] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.leaks = 0
        """Pools whose browsers did not end as they should."""

    def open_first(self) -> None:
        """Open the pool for sessions without options, which keeps ``min_idle`` browsers ready."""
        first = self._add(Launch())
        self._resize(first, self._settings.max_browsers)

    @contextlib.contextmanager
    def use(self, launch: Launch, *, bidi: bool = False) -> Iterator[Use]:
        """For a block that opens a session: a place at the pool of a launch.

        The place is given back if the block raises an exception; else the caller gives it back by
        :meth:`Use.end`.  ``bidi``: the session needs a browser of its own, with BiDi.

        Raises ConfigError for a launch that is refused, and WireError where a further pool is needed
        and all ``--max-pools`` are in use.
        """
        use = Use(self, self._pool_for(launch, bidi))
        try:
            self.balance()
            yield use
        except BaseException:
            use.end()
            raise

    def weight(self, launch: Launch, *, bidi: bool = False) -> int:
        """How many of the possible sessions a session of this launch counts for: 1, or all those of one
        browser if the session does not share its browser.  Raises the same errors as :meth:`use`."""
        return self._settings.leases_per_browser // self._pool_for(launch, bidi).leases

    def _pool_for(self, launch: Launch, bidi: bool) -> SharedPool:
        found = self._pools.get(launch.key)
        if bidi and not (found is not None and found.has_bidi):
            launch = dataclasses.replace(launch, bidi=True)
            found = self._pools.get(launch.key)
        if found is None:
            self._make_room()
            found = self._add(launch)
        return found

    def _add(self, launch: Launch) -> SharedPool:
        """Make the pool of a launch, unopened.  Raises ConfigError for a launch that is refused."""
        if launch.engine == "firefox" and self._settings.isolate_driver is True:
            raise ConfigError(
                "this server has no Firefox: it isolates all drivers (--isolate-driver true), and "
                f"{GECKODRIVER}. Ask for chrome or chromium."
            )
        leases = 1 if launch.bidi or launch.engine == "firefox" else self._settings.leases_per_browser
        try:
            unopened = self._build(launch, leases)
        except ConfigError:
            if leases == 1:
                raise
            leases = 1  # perhaps its options are possible in a browser with one lease at a time
            unopened = self._build(launch, leases)
        shared = SharedPool(launch, leases, unopened)
        shared.used_at = time.monotonic()
        self._pools[launch.key] = shared
        return shared

    def _build(self, launch: Launch, leases: int) -> BrowserPool[Any]:
        settings = self._settings
        arguments: dict[str, Any] = {
            "max_size": 1,
            "min_idle": 0,
            "isolation": launch.isolation or settings.isolation,
            "max_waiting": settings.max_waiting,
            "checkout_timeout": settings.queue_timeout,
            "max_lease": settings.max_lease,
            "leak_warn": None,
            "headless": settings.headless,
            "start_timeout": settings.start_timeout,
            "isolate_driver": settings.isolate_driver,
            "options": launch.selenium_options(),
            "label": "server",
            "server": False,  # BROWSERKEEPER_SERVER in the environment may name this very server
        }
        if leases > 1:
            arguments["leases_per_browser"] = leases
        return self._make_pool(launch.name, **arguments)

    def _make_room(self) -> None:
        """If there are ``--max-pools`` pools, drop the one that was unused for longest.  Raises
        WireError if all of them are in use."""
        if len(self._pools) < self._settings.max_pools:
            return
        unused = [one for one in self._pools.values() if not one.users]
        if not unused:
            raise WireError(
                "session not created",
                f"Sessions with {len(self._pools)} different sets of browser options run already, and "
                "there may be no more at a time. Use the same options, wait, or raise --max-pools.",
            )
        oldest = min(unused, key=lambda one: (one.launch == Launch(), one.used_at))
        self._resize(oldest, 0)
        del self._pools[oldest.launch.key]

    def balance(self) -> None:
        """Give each pool the browsers that its users need, as far as browsers are free.  Pools whose
        last change of users is longest ago come first.  Errors are logged."""
        for one in sorted(self._pools.values(), key=lambda one: one.used_at):
            try:
                while one.share < one.needed and self._find_one_more(one):
                    self._resize(one, one.share + 1)
            except BrowserkeeperError:  # requests for other pools must not fail because of this one
                logger.exception("server: a pool cannot be opened, or resized")

    def close_unused(self) -> None:
        """Close the pools that had no user for KEEP_UNUSED seconds, and give their browsers to the pool
        for sessions without options.  To be called from time to time."""
        until = time.monotonic() - KEEP_UNUSED
        for one in list(self._pools.values()):
            if not one.users and one.used_at < until and one.launch != Launch():
                self._resize(one, 0)
                del self._pools[one.launch.key]
        first = self._pools.get(Launch().key)
        left = self._settings.max_browsers - sum(one.share for one in self._pools.values())
        if first is not None and left > 0:
            self._resize(first, first.share + left)

    def _find_one_more(self, taker: SharedPool) -> bool:
        """Make one browser free for ``taker``: one within ``--max``, or one that another pool does not
        need.  Returns False if there is none."""
        if sum(one.share for one in self._pools.values()) < self._settings.max_browsers:
            return True
        spare = [one for one in self._pools.values() if one is not taker and one.share > one.needed]
        if not spare:
            return False
        giver = min(spare, key=lambda one: one.used_at)
        self._resize(giver, giver.share - 1)
        return True

    def _resize(self, shared: SharedPool, share: int) -> None:
        """Give a pool this share of the browsers; 0 closes it.  Raises PoolUnavailable if the pool
        cannot be opened; its share is then unchanged."""
        if not share:
            shared.share = 0
            self._close(shared)
            return
        if shared.pool is None:
            pool = shared.unopened or self._build(shared.launch, shared.leases)
            shared.unopened = None
            shared.pool = pool.open()
            shared.opened.set()
        ready = self._settings.min_idle if shared.launch == Launch() else 0
        shared.pool.resize(share, min(ready, share * shared.leases))
        shared.share = share

    def _close(self, shared: SharedPool) -> None:
        """End the browsers of a pool, in the background."""
        pool, shared.pool = shared.pool, None
        shared.opened.clear()
        if pool is not None:
            task = asyncio.ensure_future(self._end(pool))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, pool: BrowserPool[Any]) -> None:
        try:
            await in_thread(pool.close)
        except BrowserkeeperError:
            self.leaks += 1
            logger.exception("server: a pool's browsers did not end as they should")

    @property
    def open_pools(self) -> list[BrowserPool[Any]]:
        """All pools that may have browsers."""
        return [one.pool for one in self._pools.values() if one.pool is not None]

    def describe(self) -> Iterable[Mapping[str, Any]]:
        """A mapping for each pool: the browser's name, the pool's share of the browsers, its users."""
        return [
            {"browserName": one.launch.name, "browsers": one.share, "sessions": one.users}
            for one in self._pools.values()
        ]

    def stats(self) -> Mapping[str, float]:
        """The sums of ``BrowserPool.stats`` over all pools.  Blocks for milliseconds."""
        total: dict[str, float] = {}
        for pool in self.open_pools:
            for name, value in pool.stats().items():
                total[name] = total.get(name, 0) + value
        return total

    async def close(self) -> None:
        """End every browser, and verify its end.  Waits for that.  A leak is logged and counted."""
        for shared in list(self._pools.values()):
            self._resize(shared, 0)
        self._pools.clear()
        while self._closing:
            await asyncio.wait(self._closing)


class Use:
    """The place of one session, or of one request for a session, at a pool."""

    def __init__(self, pools: Pools, shared: SharedPool):
        self._pools, self._shared = pools, shared
        self._is_over = False
        shared.users += 1
        shared.used_at = time.monotonic()

    async def pool(self, timeout: float) -> BrowserPool[Any]:
        """Wait until the pool may have a browser, and return the pool.  Raises WireError after
        ``timeout`` seconds."""
        try:
            while self._shared.pool is None:
                await asyncio.wait_for(self._shared.opened.wait(), timeout)
        except asyncio.TimeoutError:
            raise WireError(
                "session not created",
                f"No browser came free within {timeout:g} s: sessions with other browser options have "
                "all that there may be at a time. Wait longer, or raise --max.",
            ) from None
        return self._shared.pool

    def end(self) -> None:
        """Give the place back.  Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._shared.users -= 1
            self._shared.used_at = time.monotonic()
            self._pools.balance()


__all__ = ["Pools", "SharedPool", "Use"]
