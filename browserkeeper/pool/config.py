"""What a pool was asked to be: the arguments of ``BrowserPool``, checked before anything starts."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ..config import SessionConfig, check_choice, check_count, check_seconds
from ..errors import ConfigError
from ..process.limits import cores, memory_left
from .scheduler import Limits

Isolation = Literal["auto", "context", "fresh", "none"]
ISOLATIONS = ("auto", "context", "fresh", "none")

MEMORY_PER_BROWSER = 768 * 2**20
"""Bytes that a size by default reckons with: a Chromium with one ordinary page has 300 to 450 MB
here (``make bench``), and pages differ."""
BROWSERS_PER_CORE = 2
"""A page load keeps a core busy about half of its time; the rest is waiting for the network."""

MIN_IDLE = 1
CHECKOUT_TIMEOUT = 30.0
"""Seconds; psycopg_pool's, HikariCP's and SQLAlchemy's default alike."""
MAX_WAITING = 1000
"""Above it something is wrong, and a queue only hides it."""
MAX_USES = 100
"""Crawlee's ``retireBrowserAfterPageCount``: what leaks in a browser leaks by the page."""
MAX_LIFETIME = 30 * 60.0
"""Seconds; HikariCP's."""
IDLE_TIMEOUT = 10 * 60.0
"""Seconds; psycopg_pool's and HikariCP's."""
MAX_MEMORY = 2 * 2**30
"""Bytes of PSS, the whole tree."""
LEAK_WARN = 5 * 60.0
"""Seconds; HikariCP has it off, but a browser costs a thousand times a connection."""


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """Checked by construction; raises ConfigError.  Seconds and bytes; None means no limit."""

    browser: SessionConfig
    max_size: int
    min_idle: int = MIN_IDLE
    isolation: Isolation = "auto"
    checkout_timeout: float = CHECKOUT_TIMEOUT
    max_waiting: int = MAX_WAITING
    max_uses: int | None = MAX_USES
    max_lifetime: float = MAX_LIFETIME
    idle_timeout: float = IDLE_TIMEOUT
    max_memory: int | None = MAX_MEMORY
    max_lease: float | None = None
    leak_warn: float | None = LEAK_WARN
    launch_concurrency: int = 1

    def __post_init__(self) -> None:
        check_count("max_size", self.max_size, least=1)
        check_count("min_idle", self.min_idle, least=0)
        check_count("max_waiting", self.max_waiting, least=0)
        check_count("launch_concurrency", self.launch_concurrency, least=1)
        if self.max_uses is not None:
            check_count("max_uses", self.max_uses, least=1)
        if self.max_memory is not None:
            check_count("max_memory", self.max_memory, least=1)
        for name in ("checkout_timeout", "max_lifetime", "idle_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("max_lease", "leak_warn"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))
        if self.min_idle > self.max_size:
            raise ConfigError(f"min_idle={self.min_idle} is more than max_size={self.max_size}.")
        self._check_isolation()
        self._check_browser()

    @classmethod
    def build(cls, browser: SessionConfig, **given: Any) -> PoolConfig:
        """From the user's arguments; what depends on the machine is looked up."""
        if given.get("max_size") is None:
            given["max_size"] = default_size()
            given["min_idle"] = min(given["min_idle"], given["max_size"])
        if given.get("launch_concurrency") is None:
            given["launch_concurrency"] = default_concurrency()
        return cls(browser, **given)

    def _check_isolation(self) -> None:
        check_choice("isolation", self.isolation, ISOLATIONS)
        if self.isolation == "context" and self.browser.remote is not None:
            raise ConfigError(
                "isolation='context' needs a browser of this machine: on a Grid each lease has a "
                "session of its own. Use isolation='auto' or 'fresh'."
            )
        if self.isolation == "context" and self.browser.engine != "chromium":
            raise ConfigError(
                "isolation='context' works on Chromium only: in a new context of Firefox, "
                "driver.get_cookies() and its kin act on the default one. Use 'auto' or 'fresh'."
            )

    def _check_browser(self) -> None:
        if self.browser.timeout is not None:
            raise ConfigError(
                "timeout= would end a pool's browsers under their users. Use max_lease= for one "
                "lease, max_lifetime= for a browser."
            )
        if not self.browser.disposable:
            raise ConfigError(
                "A profile of your own cannot be shared by a pool's browsers, nor kept apart "
                "between leases. Leave profile= out, or use browser(profile=...)."
            )

    @property
    def resolved_isolation(self) -> Literal["context", "fresh", "none"]:
        """What ``auto`` means for this browser."""
        if self.isolation != "auto":
            return self.isolation
        here = self.browser.remote is None
        return "context" if here and self.browser.engine == "chromium" else "fresh"

    @property
    def limits(self) -> Limits:
        return Limits(
            max_size=self.max_size,
            min_idle=self.min_idle,
            max_waiting=self.max_waiting,
            max_uses=1 if self.resolved_isolation == "fresh" else self.max_uses,
            max_lifetime=self.max_lifetime,
            idle_timeout=self.idle_timeout,
            launch_concurrency=self.launch_concurrency,
        )


def default_size() -> int:
    """By cores and by memory, whichever gives less; at least 1."""
    return max(1, min(BROWSERS_PER_CORE * cores(), memory_left() // MEMORY_PER_BROWSER))


def default_concurrency() -> int:
    """Half the cores: a launch keeps one and a half of them busy."""
    return max(1, cores() // 2)


__all__ = ["Isolation", "PoolConfig", "default_concurrency", "default_size"]
