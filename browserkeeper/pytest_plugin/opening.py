"""How a test gets a browser: a new one, or a lease of the worker's warm one; and how it ends.

Selenium and the rest of the package are imported here, when the first test wants a browser.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest

from ..errors import BrowserkeeperError, ConfigError, LeaseTimeout
from ..pool import BrowserPool, Lease
from ..session import BrowserSession, browser
from . import capture
from .markers import browser_arguments
from .pools import SPARED
from .records import Opened, TestRecord
from .settings import Settings

DRIVER_LOG = "driver.log"
LEASE_PATIENCE = 90.0
"""Seconds for the warm browser to be ready: a start may take 60."""
CONSOLE_PREFERENCE = "devtools.console.stdout.content"
"""Makes Firefox write what pages say to ``console`` into its output, and thereby the driver's log."""


@dataclasses.dataclass(frozen=True)
class BrowserSpec:
    """A browser as the fixtures and markers describe it: arguments for ``browser()``."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def fingerprint(self) -> tuple[Any, ...]:
        """Equal for two wishes that one warm browser can fulfil."""
        plain = {k: v for k, v in self.arguments.items() if k != "options"}
        options = self.arguments.get("options")
        return self.name, repr(sorted(plain.items())), options and repr(options.to_capabilities())


def wish(name: Any, arguments: Any, options: Any, settings: Settings, **more: Any) -> BrowserSpec:
    """Put together what the fixtures returned; fails the test in one line where that is nonsense."""
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        _refuse(f"the fixture keeper_browser_args must return a dict, not {arguments!r}.")
    if not isinstance(name, str):
        _refuse(f"the fixture keeper_browser_name must return a name, not {name!r}.")
    unknown = sorted(set(arguments) - browser_arguments())
    if unknown:
        _refuse(
            f"keeper_browser_args: browser() has no argument {', '.join(map(repr, unknown))}. "
            f"It has: {', '.join(sorted(browser_arguments()))}."
        )
    given = {**arguments, **({"options": options} if options is not None else {}), **more}
    made = BrowserSpec(name, given)
    with one_line_errors("keeper_browser_args or keeper_options: "):
        browser(name, **given)  # only checks
        return with_console(made) if settings.capture != "never" else made


def _refuse(text: str) -> NoReturn:
    pytest.fail(f"browserkeeper: {text}", pytrace=False)


@contextlib.contextmanager
def one_line_errors(prefix: str = "") -> Iterator[None]:
    """The user's mistakes and the machine's faults need no traceback through our code."""
    try:
        yield
    except ConfigError as error:
        _refuse(f"{prefix}{error}")
    except BrowserkeeperError as error:
        _refuse(f"{type(error).__name__}: {error}")


def with_console(made: BrowserSpec) -> BrowserSpec:
    """The same, with a browser that remembers what pages say to its console."""
    config = browser(made.name, **made.arguments).config
    if config.engine == "firefox":
        preferences = {CONSOLE_PREFERENCE: True, **config.preferences}
        return BrowserSpec(made.name, {**made.arguments, "preferences": preferences})
    from ..drivers.chromium import user_options

    options = user_options(config)
    capability = f"{'ms' if made.name == 'edge' else 'goog'}:loggingPrefs"
    theirs = options.to_capabilities().get(capability) or {}
    options.set_capability(capability, {"browser": "ALL", **theirs})
    return BrowserSpec(made.name, {**made.arguments, "options": options})


# ------------------------------------------------------------------------------- a new browser


def open_fresh(record: TestRecord, made: BrowserSpec) -> Opened:
    """A browser of its own for a test, running.  Whoever calls this calls :func:`end` too."""
    given = dict(made.arguments)
    log = Opened(len(record.opened) + 1, None, browser()).file(DRIVER_LOG)
    with one_line_errors():
        if record.settings.capture != "never" and not given.get("log"):
            given["log"] = _log_path(record, log)
        session: BrowserSession[Any] = browser(made.name, **given)
        opened = record.add(None, session)
        opened.driver = session.start()
    return opened


def _log_path(record: TestRecord, name: str) -> str:
    try:
        return str(record.folder.make() / name)
    except OSError as error:
        _refuse(f"--keeper-output: {record.folder.path} cannot be made: {error.strerror}.")


@contextlib.contextmanager
def fresh(record: TestRecord, made: BrowserSpec) -> Iterator[Opened]:
    opened = open_fresh(record, made)
    try:
        yield opened
    finally:
        end(record, opened)


def end(record: TestRecord, opened: Opened) -> None:
    """Close and verify, as the end of a ``with`` block does; capture first where a fixture that
    used it has just failed."""
    if teardown_has_failed():
        record.failed = True
        capture.take(record, opened)
    opened.session.__exit__(None, None, None)


@contextlib.contextmanager
def leased(record: TestRecord, pool: BrowserPool[Any], timeout: float | None) -> Iterator[Opened]:
    """A lease of the worker's warm browser.  ``timeout``: this test's own, in seconds."""
    with one_line_errors():
        lease = pool.lease(LEASE_PATIENCE)
    opened = note_lease(record, lease)
    if timeout is not None:
        lease.session.set_deadline(timeout, "lease-expired")
    yield opened
    if teardown_has_failed():
        record.failed = True
        capture.take(record, opened)
    noticed = opened.report is not None  # then a command has raised it, once is enough
    try:
        lease.release()
    except LeaseTimeout:
        if not noticed:
            raise


def note_lease(record: TestRecord, lease: Lease[Any]) -> Opened:
    opened = record.add(lease.driver, lease.session, is_leased=True)
    opened.log_start = capture.log_size(opened.session)
    return opened


def note_leases_out(record: TestRecord) -> None:
    """Leases of ``keeper_pool`` that the test, or a fixture of its, holds at this moment."""
    known = {id(opened.session) for opened in record.opened}
    for pool in list(SPARED):
        if isinstance(pool, WatchedPool):
            out = {(info.browser_id, info.uses) for info in pool.leases()}
            for lease in list(pool.given):
                if id(lease.session) not in known and (lease.browser_id, lease.uses) in out:
                    record.add(lease.driver, lease.session, is_leased=True)


def teardown_has_failed() -> bool:
    """Has a finalizer of the running teardown raised already?

    pytest keeps such errors in local variables until all finalizers have run, and tells no hook
    before.  By then the browser is gone, so we look at the frames above us.
    """
    frame = sys._getframe(1)  # noqa: SLF001 # the only way up that costs nothing
    while frame.f_back is not None:
        frame = frame.f_back
        is_pytest = str(frame.f_globals.get("__name__")).startswith("_pytest.")
        if is_pytest and frame.f_code.co_name in ("teardown_exact", "finish"):
            names = ("these_exceptions", "exceptions", "exc")
            if any(frame.f_locals.get(name) for name in names):
                return True
    return False


# ------------------------------------------------------------------------------- a warm browser


class WarmBrowsers:
    """One warm browser for each name, kept over the tests of a worker."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[tuple[Any, ...], BrowserPool[Any]]] = {}

    def pool_for(self, made: BrowserSpec, settings: Settings) -> BrowserPool[Any]:
        """A pool of one.  A wish for another kind of browser replaces it."""
        present = self._pools.get(made.name)
        if present is not None and present[0] == made.fingerprint:
            return present[1]
        if present is not None:
            del self._pools[made.name]
            present[1].close()
        pool = open_pool(made, settings, max_size=1, min_idle=1)
        self._pools[made.name] = made.fingerprint, pool
        return pool

    def close(self) -> None:
        pools, self._pools = self._pools, {}
        with contextlib.ExitStack() as stack:
            for _, pool in pools.values():
                stack.callback(pool.close)


class WatchedPool(BrowserPool[Any]):
    """A BrowserPool that remembers its leases, for the capture of those that a test still has."""

    def __init__(self, name: str, **given: Any):
        super().__init__(name, **given)
        self.given: weakref.WeakSet[Lease[Any]] = weakref.WeakSet()

    def lease(self, timeout: float | None = None) -> Lease[Any]:
        lease = super().lease(timeout)
        self.given.add(lease)
        return lease


def open_pool(made: BrowserSpec, settings: Settings, **sizes: Any) -> WatchedPool:
    """A pool's time limit is by lease; its own limits on age and use stay as they are."""
    given = dict(made.arguments)
    limit = given.pop("timeout", None) or settings.timeout
    with one_line_errors():
        pool = WatchedPool(made.name, max_lease=limit, **sizes, **given)
        SPARED.add(pool)
        pool.open()
    return pool
