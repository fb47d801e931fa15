"""``BrowserPool``: what users call.  It waits for its core where a caller wants to wait."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ..config import BrowserArguments, SessionConfig, check_count, check_seconds
from ..errors import (
    ConfigError,
    ForkedSessionError,
    LeakError,
    PoolClosed,
    PoolTimeout,
    PoolUnavailable,
)
from ..report import ExitReport
from ..session import BrowserSession
from . import config as defaults
from .browser import Browser, PooledBrowser
from .config import Isolation, PoolConfig
from .core import ANSWER_PATIENCE, Core
from .lease import Gate, Lease, LeaseInfo, Request
from .mapping import Outcome, Work, run_map

if TYPE_CHECKING:
    from selenium import webdriver
    from typing_extensions import Self, Unpack

    from ..session.session import ChromeName

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("browserkeeper")


class PoolArguments(BrowserArguments, total=False):
    """The keyword arguments of ``BrowserPool``, for type checkers; it says what each one does."""

    max_size: int | None
    min_idle: int
    isolation: Isolation
    checkout_timeout: float
    max_waiting: int
    max_uses: int | None
    max_lifetime: float
    idle_timeout: float
    max_memory: int | None
    max_lease: float | None
    leak_warn: float | None
    launch_concurrency: int | None


class BrowserPool(Generic[D_co]):
    """Browsers kept warm and handed out fresh: ``with BrowserPool() as pool:``.

    Safe to use from several threads; not in a fork of the process that opened it.

    Args:
        name: as for :func:`browserkeeper.browser`.
        max_size: browsers at the most, and leases at a time; by default two for each core, fewer
            where there are less than 768 MiB for each.  One more may exist for the moments in which
            it replaces another.
        min_idle: how many are kept ready, as far as ``max_size`` allows.
        isolation: what separates two leases of a browser.  ``context``: a new user context
            (Chromium); ``fresh``: a new process; ``none``: nothing, it is as the last one left it;
            ``auto``: ``context`` on Chromium of this machine, ``fresh`` elsewhere.
        checkout_timeout: seconds to wait for a browser.
        max_waiting: how many may wait at once.
        max_uses: leases of one browser; None: any number.
        max_lifetime: seconds after which a browser is replaced, up to a tenth less.
        idle_timeout: seconds after which a browser that nobody uses is closed, down to ``min_idle``.
        max_memory: bytes (PSS of the whole tree) above which a browser is replaced.
        max_lease: seconds that one lease may take; its browser is ended when they pass.
        leak_warn: seconds after which a lease is logged, with the stack that took it; None: never.
        launch_concurrency: launches at a time; by default one for every two cores.
        browser: all other arguments are those of :func:`browserkeeper.browser`, but for ``timeout``
            and ``profile``.

    Raises:
        ConfigError: an argument makes no sense.
    """

    @overload
    def __init__(
        self: BrowserPool[webdriver.Chrome],
        name: ChromeName = "chrome",
        **given: Unpack[PoolArguments],
    ) -> None: ...
    @overload
    def __init__(
        self: BrowserPool[webdriver.Firefox],
        name: Literal["firefox"],
        **given: Unpack[PoolArguments],
    ) -> None: ...
    @overload
    def __init__(
        self: BrowserPool[webdriver.Edge], name: Literal["edge"], **given: Unpack[PoolArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: BrowserPool[webdriver.Remote], name: str, **given: Unpack[PoolArguments]
    ) -> None: ...
    def __init__(
        self,
        name: str = "chrome",
        *,
        max_size: int | None = None,
        min_idle: int = defaults.MIN_IDLE,
        isolation: Isolation = "auto",
        checkout_timeout: float = defaults.CHECKOUT_TIMEOUT,
        max_waiting: int = defaults.MAX_WAITING,
        max_uses: int | None = defaults.MAX_USES,
        max_lifetime: float = defaults.MAX_LIFETIME,
        idle_timeout: float = defaults.IDLE_TIMEOUT,
        max_memory: int | None = defaults.MAX_MEMORY,
        max_lease: float | None = None,
        leak_warn: float | None = defaults.LEAK_WARN,
        launch_concurrency: int | None = None,
        **browser: Any,
    ):
        pool = {k: v for k, v in locals().items() if k not in ("self", "name", "browser", "__class__")}
        unknown = sorted(set(browser) - set(BrowserArguments.__annotations__))
        if unknown:
            raise ConfigError(f"BrowserPool() has no argument {', '.join(unknown)}.")
        # The pool tries again itself, with a pause that grows; and waiters are told.
        browser.setdefault("attempts", 1)
        self.config = PoolConfig.build(SessionConfig.build(name=name, **browser), **pool)
        self._make_browser: Callable[[PoolConfig], Browser] = PooledBrowser
        self._core: Core | None = None
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    # -- opening and closing

    def open(self) -> Self:
        """Start to make browsers, in the background.  Raises PoolClosed after :meth:`close`."""
        if self._closed:
            raise PoolClosed("This pool was closed; make a new one.")
        if self._core is None:
            core = self._core = Core(self.config, self._make_browser)
            core.supervisor.post(core.scheduler.settle)
            self._finalizer = weakref.finalize(self, Core.abandon, core)
        return self

    def wait(self, timeout: float | None = None) -> None:
        """Until ``min_idle`` browsers are ready.

        Raises PoolTimeout after ``timeout`` seconds, PoolUnavailable as soon as browsers prove
        impossible to start.
        """
        core = self._live()
        scheduler = core.scheduler
        limit = self.config.checkout_timeout if timeout is None else timeout

        def settled() -> bool:
            return scheduler.available >= core.config.min_idle or scheduler.breaker.is_open

        if not core.wait_until(settled, time.monotonic() + limit):
            raise PoolTimeout(
                f"{self!r} has not {core.config.min_idle} browsers ready after {limit:g} s."
            )
        if scheduler.breaker.is_open:
            cause = scheduler.breaker.error
            raise PoolUnavailable(f"No browser can be started. The last launch: {cause}", cause)

    def drain(self, timeout: float | None = None) -> list[LeaseInfo]:
        """Give no more leases, wait for those that are out, and close every browser.

        Leases that are out after ``timeout`` seconds (None: wait for ever) are cut off, and
        returned.
        """
        core = self._live()
        if timeout is not None:
            check_seconds("timeout", timeout)
        core.ask(core.scheduler.drain)
        deadline = time.monotonic() + (timeout if timeout is not None else threading.TIMEOUT_MAX)
        if core.wait_until(core.is_empty, deadline):
            return []
        cut_off = core.leases()
        self.close()
        return cut_off

    def close(self) -> tuple[ExitReport, ...]:
        """End every browser, also those that are leased, and verify it; the last 100 reports.

        The second call returns the same.  Raises LeakError where anything is left.
        """
        core, self._closed = self._core, True
        if core is None:
            return ()
        self._refuse_fork(core)
        if not core.scheduler.closed:
            core.supervisor.post(core.scheduler.close)
        limit = 2 * self.config.browser.close_timeout + ANSWER_PATIENCE
        emptied = core.wait_until(core.is_empty, time.monotonic() + limit)
        core.supervisor.stop()
        if self._finalizer is not None:
            self._finalizer.detach()
        bad = [report for report in core.reports if not report.clean]
        if bad or not emptied:
            raise LeakError(
                f"{len(bad)} browsers left something, {len(core.scheduler.members())} did not end "
                f"within {limit:g} s.\n" + "\n".join(map(str, bad)),
                bad[0] if bad else None,
            )
        return tuple(core.reports)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._core is not None and os.getpid() != self._core.owner:
            return  # a fork that leaves the block: the pool is its parent's
        try:
            self.close()
        except LeakError:
            if error is None:
                raise
            logger.exception("pool: left something, while another error was on its way")

    # -- leases

    def lease(self, timeout: float | None = None) -> Lease[D_co]:
        """A browser of your own, fresh, until ``release()`` or the end of the ``with`` block.

        Waits for ``timeout`` seconds at the most (``checkout_timeout`` by default), in the order
        of the calls.  Raises PoolTimeout, TooManyWaiting, PoolUnavailable, PoolClosed, or
        ForkedSessionError.
        """
        core = self._live()
        limit = self.config.checkout_timeout if timeout is None else timeout
        check_seconds("timeout", limit)
        request = Request()
        gate = Gate(request)
        dropped = weakref.finalize(gate, _take_back, core, request)
        try:
            core.supervisor.post(lambda now: core.scheduler.asked(request, now))
            member = request.wait(limit)
        except BaseException:  # a refusal; or Ctrl-C, a time limit
            dropped.detach()
            core.supervisor.post(lambda now: core.on_withdrawn(request, now))
            raise
        if member is None:
            dropped.detach()
            core.supervisor.post(lambda now: core.on_withdrawn(request, now))
            raise PoolTimeout(self._why_nothing(core, limit))
        gate.uses = member.uses

        def release() -> None:
            gate.shut()
            core.supervisor.wake()
            dropped.detach()

        return Lease(gate, release)

    @contextlib.contextmanager
    def driver(self, timeout: float | None = None) -> Iterator[D_co]:
        """The same, when the driver is all that is wanted: ``with pool.driver() as driver:``."""
        with self.lease(timeout) as lease:
            yield lease.driver

    def map(
        self,
        function: Callable[[Any, T], R],
        items: Iterable[T],
        *,
        retries: int = 0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        workers: int | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """``function(driver, item)`` for each item, each call in a lease of its own, in threads.

        Outcomes come as they are ready, not in order; each has its ``item`` and its ``value`` or
        ``error``.  Items are taken from their iterable only as threads come free, and no thread
        runs far ahead of you.  A call that raised ``retry_on`` is repeated up to ``retries``
        times, in another lease, after a pause.  An iterator that is dropped half-way ends what
        runs at that moment; an error of the iterable itself is raised after all outcomes before
        it.
        """
        self._live()
        check_count("retries", retries, least=0)
        workers = self.config.max_size if workers is None else workers
        check_count("workers", workers, least=1)
        return run_map(self, Work(function, iter(items), retries + 1, retry_on, workers))

    # -- operations

    def recycle(self) -> None:
        """Replace every browser: idle ones as their replacements come, those in use afterwards."""
        core = self._live()
        core.ask(core.scheduler.recycle)

    def resize(self, max_size: int, min_idle: int | None = None) -> None:
        """Other limits from now on.  Browsers in use above them are closed when they come back."""
        core = self._live()
        least = min(core.config.min_idle, max_size) if min_idle is None else min_idle
        changed = dataclasses.replace(core.config, max_size=max_size, min_idle=least)
        self.config = core.config = changed
        core.ask(lambda now: core.scheduler.resize(changed.limits, now))

    def stats(self) -> Mapping[str, float]:
        """Counters and gauges, named as psycopg_pool names its own; times in seconds.

        Gauges: ``pool_min``, ``pool_max``, ``pool_size``, ``pool_available``, ``pool_leased``,
        ``pool_starting``, ``pool_renewing``, ``requests_waiting``.

        Counters: ``requests_num``, ``requests_queued``, ``requests_errors``,
        ``requests_wait_seconds``, ``usage_seconds``, ``returns_bad``, ``browsers_num``,
        ``browsers_seconds``, ``browsers_errors``, ``browsers_lost``, ``renewals_seconds``,
        ``leaks``, and ``retired_REASON``.
        """
        core = self._live()
        return core.ask(core.stats)

    def leases(self) -> list[LeaseInfo]:
        """Who holds what, since when, and where it was taken."""
        return self._live().leases()

    def sessions(self) -> list[BrowserSession[D_co]]:
        """The sessions of all browsers that it has now, leased or not; none when it is not open."""
        members = self._core.scheduler.members() if self._core is not None else []
        return [member.body.session for member in members if member.body is not None]

    def __repr__(self) -> str:
        core = self._core
        head = f"<BrowserPool {self.config.browser.name}"
        if core is None or core.scheduler.closed:
            return f"{head} {'closed' if core is not None or self._closed else 'not open'}>"
        scheduler = core.scheduler
        counts = {state: len(scheduler.members(state)) for state in ("leased", "idle", "starting")}
        other = len(scheduler.members()) - sum(counts.values())
        facts = [f"{number} {state}" for state, number in counts.items()] + [f"{other} in between"]
        draining = ", draining" if scheduler.draining else ""
        waiting = f"{scheduler.waiting} waiting{draining}"
        return f"{head} {', '.join(facts)}, of {core.config.max_size}; {waiting}>"

    # -- inside

    def _live(self) -> Core:
        if self._core is None or self._closed:
            state = "closed" if self._closed else "not open yet"
            raise PoolClosed(f"The pool is {state}; use it inside `with BrowserPool(...) as pool:`.")
        self._refuse_fork(self._core)
        return self._core

    def _refuse_fork(self, core: Core) -> None:
        if os.getpid() != core.owner:
            raise ForkedSessionError(
                f"This pool belongs to process {core.owner} and cannot be used in its fork "
                f"{os.getpid()}. Open a pool in the child itself."
            )

    def _why_nothing(self, core: Core, limit: float) -> str:
        lines = [f"No browser came free within {limit:g} s: {self!r}."]
        if core.scheduler.breaker.error:
            lines.append(f"The last launch failed: {core.scheduler.breaker.error}")
        held = sorted(core.leases(), key=lambda info: -info.seconds)[:3]
        lines += [f"  held: {info}" for info in held]
        return "\n".join([*lines, "Give leases back sooner, raise max_size, or wait longer."])


def _take_back(core: Core, request: Request) -> None:
    """The gate is garbage: nobody can give this browser back any more."""
    if os.getpid() != core.owner or core.scheduler.closed:
        return
    core.supervisor.wake()
    warnings.warn(
        "A lease was dropped without release(); its browser is taken back. Use `with pool.lease()`. "
        f"It was taken here:\n{request.stack}",
        ResourceWarning,
        stacklevel=2,
    )


__all__ = ["BrowserPool", "PoolArguments"]
