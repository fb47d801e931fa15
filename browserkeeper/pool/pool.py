"""``BrowserPool``, the public class.  It blocks where its caller wants to wait for the pool."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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
    LaunchError,
    LeakError,
    PoolClosed,
    PoolTimeout,
    PoolUnavailable,
    refuse_to_pickle,
)
from ..options.check import refuse_unknown
from ..options.identity import IDENTITY_WORDS, Identity
from ..options.labels import check_label
from ..process.limit_errors import limit_of
from ..process.monkey_patches import require_usable
from ..report import ExitReport
from ..session import BrowserSession
from ..session.asynchronous import in_thread
from ..session.call_stack import CallStack
from ..session.not_a_driver import no_attribute
from .asynchronous import AsyncLease
from .browser import Browser, PooledBrowser
from .config import (
    CHECKOUT_TIMEOUT,
    IDLE_TIMEOUT,
    LEAK_WARN,
    MAX_LIFETIME,
    MAX_MEMORY,
    MAX_USES,
    MAX_WAITING,
    Isolation,
    PoolConfig,
)
from .controller import ANSWER_TIMEOUT, Controller
from .hooks import HOOK_TIMEOUT, Hook
from .lease import Lease, LeaseHandler, LeaseInfo, Request
from .mapping import Outcomes, Work
from .pacing import Pace, check_pace

if TYPE_CHECKING:
    from selenium import webdriver
    from typing_extensions import Self, Unpack

    from ..options.identity import IdentityArguments
    from ..session.factory import ChromeName

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("browserkeeper")


class PoolArguments(BrowserArguments, total=False):
    """The keyword arguments of ``BrowserPool``, for type checkers.  ``BrowserPool`` documents them."""

    max_size: int | None
    min_idle: int | None
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
    configure: Hook | None
    check: Hook | None
    reset: Hook | None
    hook_timeout: float
    leases_per_browser: int


class BrowserPool(Generic[D_co]):
    """Keeps browsers running and leases them, each lease isolated: ``with BrowserPool() as pool:``.

    May be used from several threads, but not in a fork of the process that opened it.

    Args:
        name: as for :func:`browserkeeper.browser`.
        max_size: the largest number of browsers, and of leases at a time.  The default is two for
            each core, fewer if there are less than 768 MiB of memory for each.  One more browser may
            exist for the moments in which it replaces another.
        min_idle: how many browsers are kept ready for the next leases, within ``max_size``.  The default
            is 1, and 0 with ``server``: then each lease is one of the server's, which keeps the browsers
            (``docs/server.md``).
        isolation: how two leases of a browser are separated.  ``context``: by a new user context
            (Chromium); ``fresh``: by a new process; ``none``: not at all, the browser stays as the
            last lease left it; ``auto``: ``context`` for a Chromium on this machine, unless the options
            have something that a context does not take over (extensions, permissions, ...); else
            ``fresh``.  :attr:`isolation` says which, and a warning in the log why.
        checkout_timeout: seconds to wait for a browser.
        max_waiting: how many requests may wait at once.
        max_uses: leases after which a browser is replaced; None: no limit.
        max_lifetime: seconds after which a browser is replaced, shortened at random by up to a tenth.
        idle_timeout: seconds after which an idle browser is closed, if more than ``min_idle`` are idle.
        max_memory: bytes (PSS of the whole process tree) above which a browser is replaced.
        max_lease: seconds that a lease may last; then its browser is ended.
        leak_warn: seconds after which a lease is logged, with the stack that took it; None: never.
        launch_concurrency: how many browsers may start at a time; the default is half the cores.
        configure: a function, called with the driver of each new browser before its first lease.  With
            ``context``, its settings of the whole browser and the timeouts hold for all leases; the
            context in which it ran is closed.
        check: a function, called with the driver before each lease.  If it raises, or returns False, the
            browser is replaced, and the request gets another one.
        reset: a function, called with the driver after each lease, while its windows and cookies still
            exist.  Not called if the browser died, hangs, or was retired by its lease.
        hook_timeout: seconds for one call of these three functions.  Each call is made in a thread of
            its own.  If it raises or takes longer, the browser is replaced (``docs/pool.md``).
        leases_per_browser: how many leases a Chromium has at a time, each in a user context with a
            WebDriver session of its own.  Several need much less memory than several browsers.  Then
            ``max_size`` still counts browsers, and ``min_idle`` counts leases (``docs/pool.md``).
        browser: all arguments of :func:`browserkeeper.browser` except ``timeout``, ``profile`` and
            ``wait``.  The ``label`` is each browser's.
            ``label`` names the pool and its browsers; :meth:`lease` takes one for each lease.

    Raises:
        ConfigError: an argument is not valid.
    """

    __reduce_ex__ = refuse_to_pickle

    _controller: Controller | None = None
    """What is behind this pool; an instance has it while it is open, and after its close."""

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
        min_idle: int | None = None,
        isolation: Isolation = "auto",
        checkout_timeout: float = CHECKOUT_TIMEOUT,
        max_waiting: int = MAX_WAITING,
        max_uses: int | None = MAX_USES,
        max_lifetime: float = MAX_LIFETIME,
        idle_timeout: float = IDLE_TIMEOUT,
        max_memory: int | None = MAX_MEMORY,
        max_lease: float | None = None,
        leak_warn: float | None = LEAK_WARN,
        launch_concurrency: int | None = None,
        configure: Hook | None = None,
        check: Hook | None = None,
        reset: Hook | None = None,
        hook_timeout: float = HOOK_TIMEOUT,
        leases_per_browser: int = 1,
        **browser: Any,
    ):
        pool = {k: v for k, v in locals().items() if k not in ("self", "name", "browser", "__class__")}
        refuse_unknown(set(browser) - set(BrowserArguments.__annotations__), "BrowserPool()")
        if "wait" in browser:
            raise ConfigError(
                f"wait={browser['wait']!r} cannot be used with a pool: its launches wait for a slot of "
                "the host as long as a request needs them. Use checkout_timeout= or lease(timeout=)."
            )
        if browser.get("isolate_driver") is True and leases_per_browser != 1:
            raise ConfigError(
                f"leases_per_browser={leases_per_browser!r} cannot be used with isolate_driver=True: "
                "the driver must reach the debugging port that leases share a browser by."
            )
        if browser.get("debugging") == "pipe" and leases_per_browser != 1:
            raise ConfigError(
                f"leases_per_browser={leases_per_browser!r} cannot be used with debugging='pipe': the "
                "sessions share a debugging port. Leave it out, or use leases_per_browser=1."
            )
        browser["wait"] = None
        # The pool itself tries again, with growing pauses, and tells waiting requests of failures.
        browser.setdefault("attempts", 1)
        self.config = PoolConfig.build(SessionConfig.build(name=name, **browser), **pool)
        if note := self.config.isolation_note:
            logger.warning("pool: %s.", note)
        self._make_browser: Callable[[PoolConfig], Browser] = PooledBrowser
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    # -- opening and closing

    def open(self) -> Self:
        """Start to launch browsers, in the background.

        Raises PoolClosed after :meth:`close`, ConfigError where eventlet or gevent has replaced what a
        pool needs, and PoolUnavailable if the system gives no more threads; then the pool may be opened
        again.
        """
        if self._closed:
            raise PoolClosed("This pool was closed; make a new one.")
        require_usable(pool=True)
        if self._controller is None:
            controller = self._make_controller()
            try:
                # Atomic, and no lock: an exception of a signal handler could leave it taken.
                if vars(self).setdefault("_controller", controller) is controller:
                    self._start(controller)
            except BaseException as error:  # an exception of a signal handler stays what it is
                self._take_back(controller)
                if isinstance(error, LaunchError):
                    raise PoolUnavailable(f"The pool cannot be opened. {error}", error) from None
                raise
        return self

    def _make_controller(self) -> Controller:
        """Raises PoolUnavailable, which names the limit, where this process may open no more files."""
        try:
            return Controller(self.config, self._make_browser)
        except OSError as error:
            if not (limit := limit_of(error)):
                raise
            raise PoolUnavailable(f"The pool cannot be opened. {limit}", error) from None

    def _start(self, controller: Controller) -> None:
        self._finalizer = weakref.finalize(
            self, _end_dropped_pool, controller, self.config.browser.name, CallStack()
        )
        controller.start()
        if self._closed:
            raise PoolClosed("This pool was closed while it was opened.")

    def _take_back(self, controller: Controller) -> None:
        """After an opening that failed: end what it has started; the pool can be opened later."""
        controller.close()
        if self._controller is controller and not self._closed:
            if self._finalizer is not None:
                self._finalizer.detach()
            vars(self).pop("_controller")

    def wait(self, timeout: float | None = None) -> None:
        """Block until ``min_idle`` browsers are ready.

        Raises PoolTimeout after ``timeout`` seconds (default: ``checkout_timeout``), and
        PoolUnavailable as soon as launches fail again and again.
        """
        controller = self._live_controller()
        scheduler = controller.scheduler
        limit = self.config.checkout_timeout if timeout is None else timeout

        def is_decided() -> bool:
            return scheduler.available >= controller.config.min_idle or scheduler.breaker.is_open

        decided = controller.wait_until(is_decided, time.monotonic() + limit)
        if scheduler.closed:
            raise PoolClosed("The pool was closed while its browsers started.")
        if not decided:
            wanted = controller.config.min_idle
            raise self._timeout(controller, f"{wanted} browsers are not ready after {_rounded(limit)}")
        if scheduler.breaker.is_open:
            cause = scheduler.breaker.last_error
            raise PoolUnavailable(f"No browser can be started. The last launch: {cause}", cause)

    def drain(self, timeout: float | None = None) -> list[LeaseInfo]:
        """Give no more leases, wait for the present ones to end, and close every browser.

        Leases that have not ended after ``timeout`` seconds (None: wait without limit) are cut off,
        and returned.
        """
        controller = self._live_controller()
        if timeout is not None:
            check_seconds("timeout", timeout)
        controller.call(controller.scheduler.drain)
        deadline = time.monotonic() + (timeout if timeout is not None else threading.TIMEOUT_MAX)
        if controller.wait_until(controller.is_empty, deadline):
            return []
        cut_off = controller.leases()
        self.close()
        return cut_off

    def close(self) -> tuple[ExitReport, ...]:
        """End every browser, leased ones too, and verify it.  Returns the last 100 exit reports.

        The second call returns the same.  Raises LeakError if anything is left of a browser.  If an
        exception of a signal handler interrupts it, the browsers are ended in the background.
        """
        try:
            self._closed = True
            controller = self._controller
            if controller is None:
                return ()
            self._refuse_fork(controller)
            self._let_go()
            limit = 2 * self.config.browser.close_timeout + ANSWER_TIMEOUT
            left = self._wait_for_ends(controller, limit)
        except BaseException:
            self._let_go()
            raise
        bad = [report for report in controller.reports if not report.clean]
        if bad or left:
            raise LeakError(
                f"{len(bad)} browsers left something, {left} did not end within {limit:g} s.\n"
                + "\n".join(map(str, bad)),
                bad[0] if bad else None,
            )
        return tuple(controller.reports)

    @staticmethod
    def _wait_for_ends(controller: Controller, limit: float) -> int:
        """Wait for the ends of all browsers; returns how many have not ended after ``limit`` seconds.

        In a signal handler that interrupted :meth:`open`, the event loop's thread may start during this
        call, or after it.  Browsers that it starts after this call are not waited for; they end in the
        background.
        """
        deadline, loop = time.monotonic() + limit, controller.loop
        while True:
            had_begun = loop.is_running() or loop.is_over
            if controller.wait_until(controller.is_over, deadline):
                loop.join(10)
                return 0
            if had_begun:
                return len(controller.scheduler.members())
            if not (loop.is_running() or loop.is_over):
                return 0

    async def aclose(self) -> tuple[ExitReport, ...]:
        """:meth:`close` for asyncio: does not block the event loop.

        If the task is cancelled, the CancelledError is raised at once; the browsers are still ended.
        """
        return await in_thread(self.close)

    def cut_off(self) -> None:
        """Have every browser ended in the background, leased ones too; returns at once.

        For signal handlers: takes no lock that the interrupted thread may hold, and waits for nothing.
        Commands in flight raise SessionClosed, requests that wait PoolClosed.  :meth:`close` waits for
        the ends and verifies them.  Does nothing in a fork.
        """
        self._let_go()

    def _let_go(self) -> None:
        """Have the browsers ended in the background; returns at once.  Idempotent."""
        self._closed = True
        if self._controller is not None:
            self._controller.abandon()
        if self._finalizer is not None:
            self._finalizer.detach()

    def __enter__(self) -> Self:
        try:
            return self.open()
        except BaseException:  # the block is not entered, and so __exit__ is not called
            self._let_go()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._controller is not None and os.getpid() != self._controller.owner:
                return  # a fork leaves the block: the pool belongs to its parent process
            self.close()
        except LeakError:
            if error is None:
                raise
            logger.exception("pool: a browser left something; not raised, since another error was")
        except BaseException:  # of a signal handler, wherever it came
            self._let_go()
            raise

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, GeneratorExit):  # the event loop was closed: the task may not wait
            self._let_go()
            return
        await in_thread(lambda: self.__exit__(kind, error, trace))

    # -- leases

    def lease(
        self,
        timeout: float | None = None,
        *,
        label: str | None = None,
        identity: Identity | Mapping[str, Any] | None = None,
        **words: Unpack[IdentityArguments],
    ) -> Lease[D_co]:
        """Lease a browser, until ``release()`` or the end of the ``with`` block.

        Blocks for up to ``timeout`` seconds (default: ``checkout_timeout``); callers are served in
        the order of their calls.  ``label`` is a name for the lease: ``ps``, ``top`` and
        :meth:`leases` show it while the lease lasts, in place of the pool's own.

        ``identity`` and the words of an :class:`~browserkeeper.Identity` are for this lease only, and
        replace the words of the pool (``docs/identity.md``).  They need ``isolation="context"``, except
        ``storage_state``, which works with ``"fresh"`` as well.

        Raises PoolTimeout, TooManyWaiting, PoolUnavailable, PoolClosed, ForkedSessionError, or
        ConfigError.  Raises IdentityError if the browser refuses a word, and BrowserDied if it ends
        meanwhile; the browser is then replaced.
        """
        limit = self.config.checkout_timeout if timeout is None else timeout
        check_seconds("timeout", limit)
        return self._lease_for(self._request(label, identity, words), limit)

    def _request(
        self,
        label: str | None,
        identity: Identity | Mapping[str, Any] | None,
        words: Mapping[str, Any],
    ) -> Request:
        """Raises ConfigError for a label or a word that is not valid, or that a lease cannot have."""
        refuse_unknown(set(words) - set(IDENTITY_WORDS), "lease()")
        wanted = Identity.build(identity, **words)
        self._present_config.check_lease_identity(wanted)
        return Request("" if label is None else check_label("label", label), wanted)

    def alease(
        self,
        timeout: float | None = None,
        *,
        label: str | None = None,
        identity: Identity | Mapping[str, Any] | None = None,
        **words: Unpack[IdentityArguments],
    ) -> AsyncLease[D_co]:
        """:meth:`lease` for asyncio: ``async with pool.alease() as lease:``.

        The wait for a browser neither blocks the event loop nor holds a thread.  The driver's commands
        block: run them in threads, as ``await asyncio.to_thread(lease.driver.get, url)``.  If the task
        is cancelled while such a command runs, the browser is ended, and the command raises
        SessionClosed in its thread at once.

        Raises ConfigError, PoolClosed and ForkedSessionError here, the other errors of :meth:`lease` in
        ``async with``.
        """
        limit = self.config.checkout_timeout if timeout is None else timeout
        check_seconds("timeout", limit)
        request = self._request(label, identity, words)
        self._live_controller()
        return AsyncLease(request, self._ask, _prepare, self._timed_out, limit)

    def _lease_for(self, request: Request, limit: float) -> Lease[D_co]:
        try:
            lease = self._ask(request)
            if request.wait(limit) is None:
                raise self._timed_out(request, limit)
        except BaseException:  # a refusal; or an exception of a signal handler (Ctrl-C, a time limit)
            request.cancel()
            raise
        try:
            _prepare(lease)
        except BaseException:
            lease.cut_off("interrupted: an exception came before the lease was ready")
            raise
        return lease

    def _ask(self, request: Request) -> Lease[D_co]:
        """Queue the request, and return its lease, which may be used after the grant.

        The caller must cancel the request after any exception.
        """
        controller = self._live_controller()
        handler = LeaseHandler(request, self)
        handler.check_identity = self._check_identity
        handler.is_single_use = self.isolation == "fresh"
        dropped = weakref.finalize(handler, _warn_of_dropped_lease, controller, request)

        def release() -> None:
            try:
                handler.end_lease()
            finally:
                controller.loop.wake()
                dropped.detach()

        lease: Lease[D_co] = Lease(handler, release)
        controller.request(request)
        return lease

    def _timed_out(self, request: Request, limit: float) -> PoolTimeout:
        """Cancel a request that got no browser within ``limit`` seconds; returns the error to raise."""
        request.timed_out = True
        request.cancel()
        return self._timeout(self._live_controller(), f"No browser came free within {_rounded(limit)}")

    @contextlib.contextmanager
    def driver(
        self,
        timeout: float | None = None,
        *,
        label: str | None = None,
        identity: Identity | Mapping[str, Any] | None = None,
        **words: Unpack[IdentityArguments],
    ) -> Iterator[D_co]:
        """Like :meth:`lease`, but gives the driver alone: ``with pool.driver() as driver:``."""
        with self.lease(timeout, label=label, identity=identity, **words) as lease:
            yield lease.driver

    def map(
        self,
        function: Callable[[Any, T], R],
        items: Iterable[T],
        *,
        retries: int = 0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        workers: int | None = None,
        pace: Pace | None = None,
        identity: Identity | Mapping[str, Any] | Callable[[T], Any] | None = None,
        label: str | Callable[[T], str | None] | None = None,
    ) -> Outcomes[T, R]:
        """Call ``function(driver, item)`` for each item, each call in a lease of its own, in threads.

        Yields an outcome for each item, in the order in which they are ready.  An outcome has the
        ``item``, and the ``value`` or the ``error``.  A call that raised ``retry_on`` is repeated up
        to ``retries`` times, each time in another lease and after a pause.

        As many items as there are ``workers`` are taken from the iterable, and another one whenever
        you have taken an outcome.  If you drop the iterator before its end, the browsers of running
        calls are ended; its ``close()`` also waits for the calls, and its list ``unfinished`` has the
        items without an outcome.  An error of the iterable is raised after all outcomes before it.

        ``pace``: ``per_host(1.0)``, or a function that returns ``(key, seconds)`` for an item, or None
        for an item that does not wait.  Calls with the same key, also repeated ones, start at least so
        many seconds apart.  Items that wait for their turn occupy no browser and do not delay others; up
        to 1,000 of them are taken from the iterable in advance.  The function is called once for an
        item, in a thread of this map.

        ``identity`` and ``label``: as for :meth:`lease`, or functions that return them for an item,
        called before each attempt, in the worker's thread, and never in two threads at once (so that
        ``lambda url: dict(proxy=next(proxies))`` works).  Their exceptions are errors of the attempt, as
        those of ``function``; an exception of ``pace`` is the item's outcome, without a call.
        """
        self._live_controller()
        check_count("retries", retries, least=0)
        workers = self.config.most_leases if workers is None else workers
        check_count("workers", workers, least=1)
        paced, lock = check_pace(pace), threading.Lock()
        if not callable(identity) or not callable(label):  # before anything starts
            known_label = None if callable(label) else label
            self._request(known_label, None if callable(identity) else identity, {})

        def request(item: T) -> Request:
            with lock:  # no signal handler runs in a worker's thread
                name = label(item) if callable(label) else label
                wanted = identity(item) if callable(identity) else identity
            return self._request(name, wanted, {})

        lease = functools.partial(self._lease_for, limit=self.config.checkout_timeout)
        return Outcomes(
            Work(lease, request, function, iter(items), retries + 1, retry_on, workers, paced)
        )

    # -- operations

    def recycle(self) -> None:
        """Replace every browser: idle ones when their replacements are ready, leased ones after their
        lease.  Returns at once."""
        controller = self._live_controller()
        controller.call(controller.scheduler.recycle)

    def resize(self, max_size: int, min_idle: int | None = None) -> None:
        """Change the limits.  Leased browsers above ``max_size`` are closed after their lease."""
        controller = self._live_controller()
        check_count("max_size", max_size, least=1)
        most = max_size * controller.config.leases_per_browser
        least = min(controller.config.min_idle, most) if min_idle is None else min_idle
        changed = dataclasses.replace(controller.config, max_size=max_size, min_idle=least)
        self.config = controller.config = changed
        if controller.browsers is not None:
            controller.browsers.config = changed
            controller.browsers.wake()
        controller.call(lambda now: controller.scheduler.resize(changed.limits, now))

    @property
    def isolation(self) -> Literal["context", "fresh", "none"]:
        """How the pool separates its leases: the argument ``isolation``; for ``auto``, the chosen one.

        It can change once, from ``context`` to ``fresh``: if ``auto`` was given, and the first browser
        that starts is too old for contexts.
        """
        return self._present_config.resolved_isolation

    @property
    def _present_config(self) -> PoolConfig:
        return self._controller.config if self._controller is not None else self.config

    def _check_identity(self, identity: Identity) -> None:
        self._present_config.check_lease_identity(identity)

    def stats(self) -> Mapping[str, float]:
        """Returns counters and gauges, with the names that psycopg_pool uses; times in seconds.

        Gauges: ``pool_browsers`` (how many browsers there are), ``leases_per_browser``, ``pool_min``,
        ``pool_max`` (leases at a time), ``pool_size``, ``pool_available``, ``pool_leased``,
        ``pool_starting``, ``pool_renewing``, ``pool_queued`` (launches that wait for a slot of the
        host), ``requests_waiting``, ``requests_waiting_for_slots`` (those that such a launch is for).
        All but the first count places for a lease, of which a browser has ``leases_per_browser``, and so
        do the counters ``retired_REASON``.

        Counters: ``requests_num``, ``requests_queued``, ``requests_errors``,
        ``requests_wait_seconds``, ``usage_seconds``, ``returns_bad``, ``browsers_num``,
        ``browsers_seconds``, ``browsers_errors``, ``browsers_lost``, ``renewals_seconds``,
        ``leaks``, ``configure_errors``, ``check_errors``, ``reset_errors`` (of the hooks),
        ``launches_queued`` (launches that had to wait for a slot), ``slots_wait_seconds``
        (how long those waited), and ``retired_REASON``: ``retired_yielded`` counts the browsers that
        were given up for other programs, ``retired_host_drained`` those that were closed since the host
        was drained.
        """
        controller = self._live_controller()
        return controller.call(controller.stats)

    def leases(self) -> list[LeaseInfo]:
        """Returns the present leases: which thread has which browser, since when, and taken where."""
        return self._live_controller().leases()

    def sessions(self) -> list[BrowserSession[D_co]]:
        """Returns the sessions of all present browsers, leased or not; none if the pool is not open."""
        if self._controller is None:
            return []
        if (browsers := self._controller.browsers) is not None:
            return browsers.sessions()
        members = self._controller.scheduler.members()
        return [member.browser.session for member in members if member.browser is not None]

    if not TYPE_CHECKING:  # a type checker finds what is missing by itself

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, "use `with pool.lease() as lease:`, and then lease.driver.{}")

    def __repr__(self) -> str:
        return f"<BrowserPool {self._summary()}>"

    def _summary(self) -> str:
        """Which browser, which label, and how many of its browsers do what."""
        controller = self._controller
        label = self.config.browser.label
        head = self.config.browser.name + (f' "{label}"' if label else "")
        if controller is None or controller.scheduler.closed:
            is_closed = controller is not None or self._closed
            return f"{head} {'closed' if is_closed else 'not open'}"
        scheduler = controller.scheduler
        counts = {
            state: len(scheduler.members(state)) for state in ("leased", "idle", "starting", "queued")
        }
        if not counts["queued"]:
            del counts["queued"]
        other = len(scheduler.members()) - sum(counts.values())
        facts = [f"{number} {state}" for state, number in counts.items()] + [f"{other} in between"]
        draining = ", draining" if scheduler.draining else ""
        waiting = f"{scheduler.waiting} waiting{draining}"
        return f"{head} {', '.join(facts)}, of {controller.config.most_leases}; {waiting}"

    # -- internal

    def _live_controller(self) -> Controller:
        controller = self._controller
        if controller is None or self._closed:
            state = "closed" if self._closed else "not open yet"
            raise PoolClosed(f"The pool is {state}; use it inside `with BrowserPool(...) as pool:`.")
        self._refuse_fork(controller)
        return controller

    def _refuse_fork(self, controller: Controller) -> None:
        if os.getpid() != controller.owner:
            raise ForkedSessionError(
                f"This pool belongs to process {controller.owner} and cannot be used in its fork "
                f"{os.getpid()}. Open a pool in the child itself."
            )

    def _timeout(self, controller: Controller, what: str) -> PoolTimeout:
        """The error for a request that got no browser in time; its cause is HostBusy where launches of
        this pool wait for a slot of the host."""
        lines = [f"{what}; the pool: {self._summary()}."]
        scheduler = controller.scheduler
        busy = controller.host.busy() if controller.waits_for_host() else None
        if busy is not None:
            lines.append(f"The pool's launches wait for a slot of the host. {busy}")
        if error := scheduler.breaker.last_error:
            lines.append(f"The last launch failed: {error}")
        if error := scheduler.check_breaker.last_error:
            lines.append(f"The last check failed: {error}")
        server = self.config.browser.server if scheduler.members("starting") else None
        if server is not None:
            lines.append(f"Its requests wait in the queue of the server {server}.")
        longest = sorted(controller.leases(), key=lambda info: -info.seconds)[:3]
        lines += [f"  held: {info}" for info in longest]
        if busy is None:
            sooner = "Give leases back sooner, raise" if longest else "Raise"
            what = "--max of `browserkeeper serve`" if server is not None else "max_size"
            lines.append(f"{sooner} {what}, or wait longer.")
        error_to_raise = PoolTimeout("\n".join(lines))
        error_to_raise.__cause__ = busy
        return error_to_raise


def _rounded(seconds: float) -> str:
    """Seconds for messages, rounded: the rest of a limit may be 2.99984 s."""
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _prepare(lease: Lease[Any]) -> None:
    """Set the identity of the request.  Called after the grant, in the lease's thread.

    After any exception the caller must cut the lease off: the browser must not be used again.
    """
    lease.take_identity()


def _warn_of_dropped_lease(controller: Controller, request: Request) -> None:
    """The lease's handler was garbage-collected before its release; the pool takes the browser back."""
    if os.getpid() != controller.owner or controller.scheduler.closed:
        return
    controller.loop.wake()
    if request.cancelled or request.ended_with is not None:
        return
    warnings.warn(
        "A lease was dropped without release(); its browser is taken back. Use `with pool.lease()`. "
        f"It was taken here:\n{request.stack}",
        ResourceWarning,
        stacklevel=2,
    )


def _end_dropped_pool(controller: Controller, name: str, opened_at: CallStack) -> None:
    """The pool was garbage-collected, or the interpreter exits, before its :meth:`BrowserPool.close`."""
    if os.getpid() != controller.owner:
        return
    controller.abandon()
    warnings.warn(
        f"A pool ({name}) was dropped without close(); its browsers are ended. "
        f"Use `with BrowserPool()`. It was opened here:\n{opened_at}",
        ResourceWarning,
        stacklevel=2,
    )


__all__ = ["BrowserPool", "PoolArguments"]
