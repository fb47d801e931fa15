"""The browsers of a test: opened or leased, entered in its record, and ended with it.

Imported when the first test asks for a browser, since it imports Selenium.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import LeaseTimeout, PoolClosed
from ..pool import Lease
from ..session import BrowserSession, browser, control_of
from . import capture
from .background_pools import BACKGROUND_POOLS
from .browser_spec import BrowserSpec, one_line_errors
from .failing import fail
from .records import OpenedBrowser, TestRecord, numbered
from .warm_pools import RecordingPool, name_limit

DRIVER_LOG = "driver.log"


def open_new(record: TestRecord, spec: BrowserSpec) -> OpenedBrowser:
    """Start a new browser for a test.  The caller must call :func:`end`, even if this raises."""
    given = dict(spec.arguments)
    with one_line_errors():
        has_log = not is_of_a_server(spec)  # the logs of a server's drivers are on the server
        if has_log and record.settings.capture != "never" and not given.get("log"):
            given["log"] = _log_path(record, numbered(DRIVER_LOG, len(record.opened) + 1))
        if given.get("label") is None:
            given["label"] = record.label or None
        session: BrowserSession[Any] = browser(spec.name, **given)
        if record.settings.trace != "off":
            session = BrowserSession(dataclasses.replace(session.config, for_trace=True))
        opened = record.add(None, session)
        opened.driver = session.start()
    try:
        _prepare(record, opened)
    except BaseException:  # a timeout of the test's, say: no fixture knows the browser yet
        end(record, opened)
        raise
    return opened


def _prepare(record: TestRecord, opened: OpenedBrowser) -> None:
    """Give the driver what all drivers of a test have: the base URL, and the trace if one is wanted."""
    opened.driver.base_url = record.base_url
    if record.settings.trace != "off":
        from .trace.trace import Trace

        opened.trace = Trace(opened.driver, opened.session)
        opened.trace.begin()


def is_of_a_server(spec: BrowserSpec) -> bool:
    """True if the browser is a lease of a server."""
    return browser(spec.name, **spec.arguments).config.place == "server"


def _log_path(record: TestRecord, name: str) -> str:
    try:
        return str(record.folder.make() / name)
    except OSError as error:
        fail(f"--keeper-output: {record.folder.path} cannot be made: {error.strerror}.")


def end(record: TestRecord, opened: OpenedBrowser) -> None:
    """Close the browser and verify its end, as the end of a ``with`` block does.  If a fixture that
    used it has failed in its teardown, capture first."""
    _capture_failed_teardown(record, opened)
    if opened.trace is not None:
        opened.trace.end()
    try:
        opened.session.__exit__(None, None, None)
    finally:
        _mask_log(record, opened)


def _mask_log(record: TestRecord, opened: OpenedBrowser) -> None:
    """Remove the secrets of the identity from the driver's log, unless the user has named the log."""
    config = opened.session.config
    if not config.log or Path(config.log).parent != record.folder.path:
        return
    with contextlib.suppress(OSError):  # there is no log: the driver has not started
        log = Path(config.log)
        text = log.read_text(errors="replace")
        if (masked := config.identity.mask(text)) != text:
            log.write_text(masked)


@contextlib.contextmanager
def new_browser(record: TestRecord, spec: BrowserSpec) -> Iterator[OpenedBrowser]:
    opened = open_new(record, spec)
    try:
        yield opened
    finally:
        end(record, opened)


@contextlib.contextmanager
def leased_browser(
    record: TestRecord,
    pool: RecordingPool,
    timeout: float | None,
    label: str | None,
    drive: Callable[[Lease[Any]], Any] = lambda lease: lease.driver,
    **identity: Any,
) -> Iterator[OpenedBrowser]:
    """A lease of a warm browser.  ``timeout``, in seconds, ``label`` and ``identity`` are this test's
    own, None or absent where it has none.  ``drive`` returns the lease's driver."""
    with one_line_errors():
        lease = pool.lease(label=label, **identity)
    opened = record.add(drive(lease), lease.session, is_leased=True)
    opened.log_start = capture.log_size(opened.session)
    if timeout is not None:
        control_of(lease.session).set_deadline(timeout, "lease-expired")
        name_limit(lease, timeout)
    try:
        _prepare(record, opened)
    except BaseException:
        lease.release()
        raise
    yield opened
    _capture_failed_teardown(record, opened)
    if opened.trace is not None:
        opened.trace.end()
    was_raised = opened.report is not None  # a command of the test has raised the timeout already
    try:
        lease.release()
    except LeaseTimeout:
        if not was_raised:
            raise


def record_pool_leases(record: TestRecord) -> None:
    """Add the leases of ``keeper_pool`` that the test, or one of its fixtures, has at this moment."""
    known = {id(opened.session) for opened in record.opened}
    for pool in list(BACKGROUND_POOLS):
        if isinstance(pool, RecordingPool):
            try:
                out = {(info.browser_id, info.uses) for info in pool.leases()}
            except PoolClosed:  # that of an earlier module, of which something still has a reference
                continue
            for lease in list(pool.given):
                if id(lease.session) not in known and (lease.browser_id, lease.uses) in out:
                    record.add(lease.driver, lease.session, is_leased=True)


def _capture_failed_teardown(record: TestRecord, opened: OpenedBrowser) -> None:
    if _teardown_has_failed():
        record.failed = True
        capture.take(record, opened)


def _teardown_has_failed() -> bool:
    """Has another finalizer of the running teardown raised?

    pytest keeps such errors in local variables until all finalizers have run, and calls no hook before
    that.  The browser would be gone by then, so this reads the variables in the frames above.
    """
    frame = sys._getframe(1)  # noqa: SLF001 # inspect.stack() reads the source of every frame
    while frame.f_back is not None:
        frame = frame.f_back
        is_pytest = str(frame.f_globals.get("__name__")).startswith("_pytest.")
        if is_pytest and frame.f_code.co_name in ("teardown_exact", "finish"):
            names = ("these_exceptions", "exceptions", "exc")
            if any(frame.f_locals.get(name) for name in names):
                return True
    return False
