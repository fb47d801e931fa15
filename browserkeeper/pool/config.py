"""The arguments of ``BrowserPool``, checked before anything starts, and their defaults."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..config import SessionConfig, check_choice, check_count, check_seconds
from ..drivers.context_limits import Loss, losses
from ..drivers.proxies import check_lease_proxy
from ..errors import ConfigError
from ..options.check import check_options, switch_of
from ..options.identity import Identity
from ..options.identity_conflicts import WORKS_ON_A_GRID, check_identity
from ..options.storage_state import StorageState
from ..process.limits import cores, memory_left
from .hooks import HOOK_TIMEOUT, Hook, Hooks
from .scheduler import Limits

Isolation = Literal["auto", "context", "fresh", "none"]
ISOLATIONS = ("auto", "context", "fresh", "none")

LEASE_WORDS_OF_FRESH: tuple[str, ...] = ("storage_state",)
"""Words of an identity that a lease may have with ``isolation="fresh"``."""

MEMORY_PER_BROWSER = 768 * 2**20
"""Bytes, for the default of ``max_size``.  A Chromium with one ordinary page was measured at 300 to
450 MB (``make bench``), and other pages need more."""
BROWSERS_PER_CORE = 2
"""A page load keeps a core busy for about half of its time, and waits for the network otherwise."""

MIN_IDLE = 1
CHECKOUT_TIMEOUT = 30.0
"""Seconds; the default of psycopg_pool, HikariCP and SQLAlchemy."""
MAX_WAITING = 1000
"""A longer queue would only hide that something is wrong."""
MAX_USES = 100
"""As Crawlee's ``retireBrowserAfterPageCount``: memory leaks in a browser grow with each page."""
MAX_LIFETIME = 30 * 60.0
"""Seconds; HikariCP's default."""
IDLE_TIMEOUT = 10 * 60.0
"""Seconds; the default of psycopg_pool and HikariCP."""
SERVER_IDLE_TIMEOUT = 1.0
"""Seconds for which a pool keeps a session of a server without a request for it: other clients may wait
for that session."""
MAX_MEMORY = 2 * 2**30
"""Bytes of PSS of the whole process tree."""
LEAK_WARN = 5 * 60.0
"""Seconds.  HikariCP has it off by default, but a browser costs a thousand times a connection."""


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """The arguments, in seconds and bytes; None means no limit.

    Raises ConfigError when it is made with arguments that are not valid.
    """

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
    configure: Hook | None = None
    check: Hook | None = None
    reset: Hook | None = None
    hook_timeout: float = HOOK_TIMEOUT
    leases_per_browser: int = 1

    def __post_init__(self) -> None:
        check_count("max_size", self.max_size, least=1)
        check_count("min_idle", self.min_idle, least=0)
        check_count("leases_per_browser", self.leases_per_browser, least=1)
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
        if self.min_idle > self.most_leases:
            most = f"max_size={self.max_size}"
            if self.leases_per_browser > 1:
                most += f" × leases_per_browser={self.leases_per_browser}"
            raise ConfigError(f"min_idle={self.min_idle} is more than {most}.")
        _ = self.hooks
        self._check_isolation()
        self._check_browser()
        if self.leases_per_browser > 1:
            self._check_shared()

    @property
    def most_leases(self) -> int:
        """How many leases there may be at a time."""
        return self.max_size * self.leases_per_browser

    @property
    def hooks(self) -> Hooks:
        """The hooks.  Raises ConfigError for a hook that cannot be called, or whose body would not
        run."""
        return Hooks(self.configure, self.check, self.reset, self.hook_timeout)

    @classmethod
    def build(cls, browser: SessionConfig, **given: Any) -> PoolConfig:
        """Fills in the defaults that depend on the machine.  Raises ConfigError."""
        if browser.server is not None:
            return cls(_for_a_server(browser, given), **given)
        if given.get("min_idle") is None:
            given["min_idle"] = MIN_IDLE
        if given.get("max_size") is None:
            per_browser = given.get("leases_per_browser", 1)
            check_count("leases_per_browser", per_browser, least=1)
            given["max_size"] = default_size(per_browser)
            given["min_idle"] = min(given["min_idle"], given["max_size"] * per_browser)
        if given.get("launch_concurrency") is None:
            given["launch_concurrency"] = default_concurrency()
        return cls(browser, **given)

    def _check_isolation(self) -> None:
        check_choice("isolation", self.isolation, ISOLATIONS)
        if self.isolation == "context" and self.browser.place == "grid":
            raise ConfigError(
                "isolation='context' needs a browser on this machine: on a Grid each lease has a "
                "session of its own. Use isolation='auto' or 'fresh'."
            )
        lost = [str(loss) for loss in self.lost_in_a_context if loss.is_measured]
        if self.isolation == "context" and lost:
            raise ConfigError(
                f"isolation='context' cannot hold {'; '.join(lost)}. Use isolation='fresh', or 'auto', "
                "which takes it by itself."
            )

    def _check_browser(self) -> None:
        if self.browser.timeout is not None:
            raise ConfigError(
                "timeout= would end a pool's browsers during a lease. Use max_lease= to limit a "
                "lease, max_lifetime= to limit a browser."
            )
        if not self.browser.disposable:
            raise ConfigError(
                "A profile of your own cannot be shared by a pool's browsers, and would not be "
                "isolated between leases. Leave profile= out, or use browser(profile=...)."
            )
        check_options(self.browser, pool=True)

    def _check_shared(self) -> None:
        """Raises ConfigError for what a browser with several leases cannot have."""
        browser, given = self.browser, f"leases_per_browser={self.leases_per_browser}"
        if browser.engine != "chromium":
            raise ConfigError(
                f"{given} needs a Chromium: geckodriver has one session at a time. Use "
                "leases_per_browser=1."
            )
        if browser.remote is not None:
            raise ConfigError(
                f"{given} cannot be used with remote=: a Grid gives each lease a browser of its own. "
                "Leave one of the two out."
            )
        if self.isolation not in ("auto", "context"):
            raise ConfigError(
                f"{given} needs a user context for each lease, and isolation={self.isolation!r} gives "
                "none. Use isolation='context' or 'auto', or leases_per_browser=1."
            )
        if lost := "; ".join(map(str, self.lost_in_a_context)):
            raise ConfigError(
                f"{given} needs a user context for each lease, which would not, or may not, hold "
                f"{lost}. Leave that out, or use leases_per_browser=1."
            )
        for option, why in options_of_one_lease(browser):
            raise ConfigError(
                f"{given} cannot be used with {option}: {why}. Leave it out, or use "
                "leases_per_browser=1."
            )

    def check_lease_identity(self, identity: Identity) -> None:
        """Raises ConfigError for words that a lease of this pool cannot have.

        Without contexts, a browser's words are set at its launch, which is before the lease.
        """
        for name in identity.words:
            if self.resolved_isolation == "context" or self.browser.place == "server":
                break
            if self.browser.place == "grid":
                raise ConfigError(
                    f"{name}= cannot be given to a lease of a pool on a Grid, whose browsers start "
                    "before their leases: give it to BrowserPool(), or to browser(remote=). "
                    f"{WORKS_ON_A_GRID}."
                )
            if self.resolved_isolation == "none":
                raise ConfigError(
                    f"{name}= cannot be given to a lease with isolation='none': later leases would "
                    "have it too. Use isolation='context', or give it to BrowserPool()."
                )
            if name not in LEASE_WORDS_OF_FRESH:
                raise ConfigError(
                    f"{name}= cannot be given to a lease with isolation='fresh', whose browser has "
                    "started before. Use isolation='context', or give it to BrowserPool()."
                )
            self._check_fresh_state(identity.storage_state)
        check_identity(self.browser, identity)
        if identity.proxy is not None and self.resolved_isolation == "context":
            check_lease_proxy(self.browser)

    def _check_fresh_state(self, state: StorageState) -> None:
        """Raises ConfigError if a lease's storage state cannot be loaded into a new browser of the
        pool."""
        browser = self.browser
        capabilities = getattr(browser.options, "capabilities", {})
        of_pool = browser.identity.storage_state
        given = of_pool is not None
        if of_pool is not None and (of_pool.cookies or of_pool.origins) and of_pool != state:
            raise ConfigError(
                "storage_state= cannot be given to a lease with isolation='fresh' of a pool that has "
                "one: its browser has started with that of the pool, and would have both. Use "
                "isolation='context', or give each lease its own and the pool storage_state={}."
            )
        if browser.engine == "firefox" or capabilities.get("webSocketUrl") or given:
            return
        if any(one.local_storage or one.databases != "[]" for one in state.origins):
            raise ConfigError(
                "storage_state= with localStorage or IndexedDB needs BiDi, which this pool's browsers "
                "are started without: give storage_state={} to BrowserPool() as well, or use "
                "isolation='context'."
            )

    @property
    def resolved_isolation(self) -> Literal["context", "fresh", "none"]:
        """The isolation, with ``auto`` replaced by what it means for this browser.

        Each lease of a server is a session of its own there, so ``fresh``, whatever the server does.
        """
        if self.browser.place == "server":
            return "fresh"
        if self.isolation != "auto":
            return self.isolation
        return "context" if self._has_contexts and not self.lost_in_a_context else "fresh"

    @property
    def _has_contexts(self) -> bool:
        return self.browser.is_here

    @functools.cached_property
    def lost_in_a_context(self) -> tuple[Loss, ...]:
        """The user's options that a lease with ``isolation="context"`` would not, or may not, have."""
        return tuple(losses(self.browser)) if self._has_contexts else ()

    @property
    def isolation_note(self) -> str:
        """What the user should know of the isolation that was chosen, for the log; "" if nothing."""
        lost = "; ".join(map(str, self.lost_in_a_context))
        if self.isolation == "auto" and lost:
            return (
                "isolation='auto' takes 'fresh', a new browser for each lease, since a context would "
                f"not hold {lost}. isolation='fresh' does the same without this warning"
            )
        if self.isolation == "context" and lost:
            return f"isolation='context' may not hold {lost}. If it does not, use isolation='fresh'"
        return ""

    @property
    def limits(self) -> Limits:
        """The limits for the scheduler.  With a fresh process for each lease each browser has one use.
        The uses of a browser with several places are not counted by the scheduler, but by the
        controller, for all places together."""
        max_uses = 1 if self.resolved_isolation == "fresh" else self.max_uses
        if self.leases_per_browser > 1:
            max_uses = None
        return Limits(
            max_size=self.most_leases,
            min_idle=self.min_idle,
            max_waiting=self.max_waiting,
            max_uses=max_uses,
            max_lifetime=self.max_lifetime,
            idle_timeout=self.idle_timeout,
            launch_concurrency=self.launch_concurrency,
            checks=self.check is not None,
            resets=self.reset is not None,
        )


OF_WARM_BROWSERS: Mapping[str, Any] = {
    "min_idle": None,
    "max_uses": MAX_USES,
    "max_lifetime": MAX_LIFETIME,
    "idle_timeout": IDLE_TIMEOUT,
    "max_memory": MAX_MEMORY,
    "leases_per_browser": 1,
}
"""Arguments about the browsers that a pool keeps, with their defaults.  A pool of a server keeps
none."""
UNLIMITED = ("max_uses", "max_memory")
"""The names of those arguments that may be None."""
KEEPS_NONE = ("min_idle", 0)


def _for_a_server(browser: SessionConfig, given: dict[str, Any]) -> SessionConfig:
    """Fill in the arguments of a pool whose leases are leases of a server; returns the configuration of
    its sessions.  Raises ConfigError for an argument that such a pool does not have."""
    assert browser.server is not None
    for name, default in OF_WARM_BROWSERS.items():
        value = given.get(name, default)
        holds = value == default or (value is None and name in UNLIMITED) or (name, value) == KEEPS_NONE
        if not holds or isinstance(value, bool):
            raise ConfigError(
                f"{name}={value!r} cannot be used with {browser.server.source}: the pool keeps no "
                "browsers, and each lease is one of the server's. Give it to `browserkeeper serve`, or "
                "leave it out."
            )
    isolation = given.get("isolation", "auto")
    if isolation == "none":
        raise ConfigError(
            f"isolation='none' cannot be used with {browser.server.source}: the server separates all "
            "leases. Leave it out."
        )
    given.update(min_idle=0, max_uses=1, max_memory=None, idle_timeout=SERVER_IDLE_TIMEOUT)
    if given.get("max_size") is None:
        given["max_size"] = max(1, BROWSERS_PER_CORE * cores())
    if given.get("launch_concurrency") is None:
        given["launch_concurrency"] = given["max_size"]
    if isolation in ("context", "fresh"):
        return dataclasses.replace(browser, lease_isolation=isolation)
    return browser


def default_size(leases_per_browser: int = 1) -> int:
    """The default number of browsers: as many as both the cores and the free memory allow; at least 1.

    The cores allow a number of leases.  So browsers with several leases are fewer: that number divided
    by ``leases_per_browser``, rounded up.
    """
    leases = BROWSERS_PER_CORE * cores()
    browsers = -(-leases // leases_per_browser)
    return max(1, min(browsers, memory_left() // MEMORY_PER_BROWSER))


OPEN_PASTING = ("middleclickpasteallowed", "javascriptcanaccessclipboard", "dompasteallowed")
"""Settings of Chromium's ``--blink-settings``, in lower case, with which a page can read the
clipboard."""


def options_of_one_lease(browser: SessionConfig) -> Iterator[tuple[str, str]]:
    """The options that a browser with several leases cannot have, and why.

    ChromeDriver takes some only for the WebDriver session that has started the browser.  With others a
    lease could reach other leases.
    """
    options = browser.options
    experimental = getattr(options, "experimental_options", {})
    capabilities = getattr(options, "capabilities", {})
    given = [switch_of(str(a)) for a in (*getattr(options, "arguments", ()), *browser.arguments)]
    arguments = {name for name, _ in given}
    if "mobileEmulation" in experimental:
        yield "mobileEmulation", "ChromeDriver does not take it for a session in a browser that runs"
    if capabilities.get("webSocketUrl"):
        yield "BiDi (options.enable_bidi, webSocketUrl)", "a browser has one BiDi session"
    if "remote-debugging-pipe" in arguments:
        yield "the argument --remote-debugging-pipe", "the sessions share a debugging port"
    if "single-process" in arguments:
        yield (
            "the argument --single-process",
            "a page that crashes or hangs would be the end of all leases",
        )
    logging = experimental.get("perfLoggingPrefs")
    if isinstance(logging, Mapping) and logging.get("traceCategories"):
        yield "perfLoggingPrefs with traceCategories", "a trace is one of the whole browser"
    yield from _pasting_by_pages(given) if browser.headless else ()


def _pasting_by_pages(arguments: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Settings of Chromium's pages by which one lease reads what another one has copied."""
    parts = [part for name, value in arguments if name == "blink-settings" for part in value.split(",")]
    for setting, _, wanted in (part.partition("=") for part in parts):
        if setting.strip().casefold() in OPEN_PASTING and wanted.strip().casefold() != "false":
            yield (
                f"--blink-settings={setting.strip()}",
                "all leases have one clipboard, and one could read what another has copied",
            )


def default_concurrency() -> int:
    """Returns half the number of cores, at least 1: a launch keeps one and a half cores busy."""
    return max(1, cores() // 2)


__all__ = ["Isolation", "PoolConfig", "default_concurrency", "default_size"]
