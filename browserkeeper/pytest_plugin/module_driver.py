"""The browser of ``keeper_module_driver``: one for a module's tests, and one driver object.

Each test has a lease of a pool of one browser, and the driver object becomes the lease's driver.  So the
pool cleans the browser between two tests, verifies that it is clean, and replaces one that is not.

Imported when the first test asks for the fixture, since it imports Selenium.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..config import START_TIMEOUT
from ..errors import LeaseEnded
from ..pool import Lease
from ..pool.logs import log
from . import capture
from .browser_spec import make_spec
from .browsers import is_of_a_server, leased_browser
from .failing import fail
from .fixtures import record_of
from .markers import options_of, skips_of
from .module_tests import Running, arguments_of_a_test, problem_of
from .records import OpenedBrowser
from .settings import Settings
from .warm_pools import START_PATIENCE, RecordingPool, open_pool

if TYPE_CHECKING:
    from ..drivers.websockets import Filter
    from ..pool.lease import LeaseHandler
    from ..proxy.relay import Route
    from ..session import BrowserSession


@contextlib.contextmanager
def open_module_driver(
    module: pytest.Collector, running: Running, settings: Settings, name: str, args: Any, options: Any
) -> Iterator[ModuleDriver]:
    """The driver of a module, with its browser running.  The browser has ended, verified, at the end of
    the block.

    Fails the test, with one line, if the arguments are not valid or the browser cannot be started.
    """
    _fail_if_not_for(running.item, name)
    of_a_test = arguments_of_a_test()
    marked = {word: value for word, value in options_of(module).items() if word not in of_a_test}
    spec = make_spec(name, args, options, settings, **marked)
    if spec.arguments.get("profile") is not None:
        fail("keeper_module_driver cannot be clean with a profile (profile=). Use keeper_driver.")
    sizes = {} if is_of_a_server(spec) else {"min_idle": 1}
    patience = START_PATIENCE + START_TIMEOUT
    with open_pool(spec, settings, max_size=1, checkout_timeout=patience, **sizes) as pool:
        driver = ModuleDriver(module.nodeid, running, pool)
        try:
            driver.begin_test()
            yield driver
        finally:
            driver.close()


class ModuleDriver:
    """The one driver object of a module, and the lease that it has at present.

    It is the driver's command handler: a command that comes while there is no lease takes one.
    """

    def __init__(self, module: str, running: Running, pool: RecordingPool):
        self._module, self._running, self._pool = module, running, pool
        self._stack: contextlib.ExitStack | None = None
        self._opened: OpenedBrowser | None = None
        self._lease: LeaseHandler | None = None
        self._is_used = False
        """True if a command was sent in the present lease."""
        self._is_over = False
        self._session: BrowserSession[Any] | None = None
        self.driver: Any = None

    # -- the lease

    def begin_test(self) -> None:
        """Give the running test a clean browser.  Blocks until it is ready.

        Does nothing if the test has one already to which no command was sent.
        """
        if self._lease is None or self._is_used:
            self.end_test()
            self._take()

    def end_test(self, *, failed: bool = False) -> None:
        """Take the browser back from the test, if it has it.  Returns at once: the pool cleans or
        replaces the browser in the background.

        ``failed``: the test's teardown has raised.  Raises LeaseTimeout if the test had the browser for
        longer than its ``keeper_timeout``.
        """
        stack, opened, item = self._stack, self._opened, self._running.item
        if stack is None:
            return
        if failed and opened is not None and item is not None:
            record = record_of(item)
            record.failed = True
            capture.take(record, opened)
        self._stack = self._opened = None
        try:
            stack.close()  # a capture of a failed test sends commands by this lease
        finally:
            self._lease = None

    def close(self) -> None:
        """Let every later command of the driver raise LeaseEnded, and end the browser, verified."""
        self._is_over = True
        try:
            self.end_test()
        finally:
            self._pool.close()

    def _take(self) -> LeaseHandler:
        item = self._running.item
        if item is None or self._is_over:
            raise LeaseEnded(
                f"No test of {self._module} is running: keeper_module_driver is for its tests and "
                "fixtures."
            )
        _fail_if_not_for(item, self._pool.config.browser.name)
        given = _lease_arguments(item)
        own = given.pop("timeout", None), given.pop("label", None)
        with contextlib.ExitStack() as stack:
            lease = leased_browser(record_of(item), self._pool, *own, self._drive, **given)
            self._opened = stack.enter_context(lease)
            self._is_used = False  # the trace has sent commands of its own
            self._stack = stack.pop_all()
        assert self._lease is not None
        return self._lease

    def _drive(self, lease: Lease[Any]) -> Any:
        self._say_if_replaced(lease)
        self.driver = lease.drive_by(self._handle, self.driver)
        self._is_used = False
        return self.driver

    def _say_if_replaced(self, lease: Lease[Any]) -> None:
        before, self._session = self._session, lease.session
        if before in (None, lease.session) or self._pool.isolation != "context":
            return  # with "fresh" each lease has another browser
        report = before.report if before is not None else None
        why = report.reason if report and report.reason != "retired" else "the pool has replaced it"
        text = "keeper_module_driver: %s has another browser now. The one before has ended: %s."
        log(logging.WARNING, text, self._module, why)

    def _handle(self, handler: LeaseHandler) -> ModuleDriver:
        self._lease = handler
        return self

    # -- the command handler

    def _present(self) -> LeaseHandler:
        return self._lease or self._take()

    def run_command(self, name: str, params: dict[str, Any], command: Callable[[], Any]) -> Any:
        lease = self._present()
        self._is_used = True
        return lease.run_command(name, params, command)

    def observe_command(
        self, name: str, params: dict[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        self._is_used = True
        return self._lease.observe_command(name, params) if self._lease else contextlib.nullcontext()

    def quit_driver(self) -> None:
        """``driver.quit()`` in a test: the pool replaces the browser before the next test."""
        if self._lease is not None:
            self._is_used = True
            self._lease.quit_driver()

    @property
    def bidi_filter(self) -> Filter | None:
        self._is_used = True
        return self._present().bidi_filter

    @property
    def proxy_route(self) -> Route | None:
        return self._present().proxy_route

    @property
    def session(self) -> BrowserSession[Any]:
        """For ``browserkeeper.session_of(driver)``."""
        return self._present().session


def _lease_arguments(item: pytest.Item) -> dict[str, Any]:
    """The words of a test's markers for its lease.  Fails the test if it has others of its own."""
    if problem := problem_of(item):
        fail(problem)
    of_a_test = arguments_of_a_test()
    return {word: value for word, value in options_of(item).items() if word in of_a_test}


def _fail_if_not_for(item: pytest.Item | None, name: str) -> None:
    """Skips or fails a test whose markers are for other browsers than the module's.  pytest has
    parametrized the others."""
    if item is None:
        return
    if name in (skips := skips_of(item)):
        pytest.skip(skips[name])
    mark = item.get_closest_marker("keeper_browser")
    if mark is not None and name not in mark.args:
        fail(
            f"@pytest.mark.keeper_browser({mark.args[0]!r}) cannot hold for this test, which pytest "
            f"does not parametrize: its module's browser is {name}. Use keeper_driver, or name "
            "keeper_module_driver in the arguments of the test."
        )
