"""The plugin's pools: one warm browser for each browser name, and the pool of ``keeper_pool``.

Imported when the first test asks for a browser, since it imports Selenium.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

from ..config import START_TIMEOUT
from ..errors import LeaseTimeout
from ..options.labels import safe_label
from ..pool import AsyncLease, BrowserPool, Lease
from ..report import ExitReport
from ..session import browser, control_of
from .background_pools import BACKGROUND_POOLS
from .browser_spec import BrowserSpec, one_line_errors
from .settings import Settings

START_PATIENCE = 90.0
"""Seconds for a pool's browser to be ready where it need not wait for a slot of the host; its start may
take 60."""
FOR_EVER = 365 * 86400.0
"""Seconds, for ``wait=None``."""


class RecordingPool(BrowserPool[Any]):
    """A BrowserPool that remembers its leases, so that a failing test's can be captured.

    A lease without a label has the running test's, unless the user has given one to the browsers.
    """

    def __init__(self, name: str, **given: Any):
        super().__init__(name, **given)
        self.given: weakref.WeakSet[Lease[Any]] = weakref.WeakSet()

    def lease(
        self, timeout: float | None = None, *, label: str | None = None, **identity: Any
    ) -> Lease[Any]:
        lease = super().lease(timeout, label=self._label_of(label), **identity)
        self._record(lease)
        return lease

    def alease(
        self, timeout: float | None = None, *, label: str | None = None, **identity: Any
    ) -> AsyncLease[Any]:
        lease = super().alease(timeout, label=self._label_of(label), **identity)
        lease.on_entered = self._record
        return lease

    def _label_of(self, label: str | None) -> str | None:
        if label is None and not self.config.browser.label:
            return running_test() or None
        return label

    def _record(self, lease: Lease[Any]) -> None:
        if self.config.max_lease is not None:
            name_limit(lease, self.config.max_lease)
        self.given.add(lease)


def running_test() -> str:
    """The node id of the test that runs, made safe for a label; "" between tests.

    pytest has it in the environment, with the phase behind it: ``test_a.py::test_b[1] (call)``.
    """
    return safe_label(os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0])


def name_limit(lease: Lease[Any], seconds: float) -> None:
    """Have the error of a lease that lasts longer than this name keeper_timeout: the pool's max_lease is
    the plugin's own."""

    def error(text: str, report: ExitReport | None) -> LeaseTimeout:
        return LeaseTimeout(f"{text} It was the test's, of {seconds:g} s (keeper_timeout).", report)

    control_of(lease.session).deadline_errors["lease-expired"] = error


def open_pool(spec: BrowserSpec, settings: Settings, **sizes: Any) -> RecordingPool:
    """An open pool.  The timeout of ``spec``, or else of ``settings``, is the limit of each lease.

    A pool has no ``wait``: that of ``spec`` makes the requests for its browsers wait longer.
    """
    given = dict(spec.arguments)
    limit = given.pop("timeout", None) or settings.timeout
    with one_line_errors():
        if "wait" in given:
            wait = browser(spec.name, **spec.arguments).config.wait
            given.pop("wait")
            sizes["checkout_timeout"] = START_PATIENCE + (FOR_EVER if wait is None else wait)
        pool = RecordingPool(spec.name, max_lease=limit, **sizes, **given)
        BACKGROUND_POOLS.add(pool)
        pool.open()
    return pool


class WarmBrowsers:
    """One warm browser for each name, shared by the tests of one process."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[tuple[Any, ...], RecordingPool]] = {}

    def pool_for(self, spec: BrowserSpec, settings: Settings) -> RecordingPool:
        """An open pool of one browser.  A different spec for the same name replaces it."""
        present = self._pools.get(spec.name)
        if present is not None and present[0] == spec.fingerprint:
            return present[1]
        if present is not None:
            del self._pools[spec.name]
            present[1].close()
        patience = START_PATIENCE + START_TIMEOUT  # as long as a plain browser() waits for a slot
        pool = open_pool(spec, settings, max_size=1, min_idle=1, checkout_timeout=patience)
        self._pools[spec.name] = spec.fingerprint, pool
        return pool

    def close(self) -> None:
        pools, self._pools = self._pools, {}
        with contextlib.ExitStack() as stack:
            for _, pool in pools.values():
                stack.callback(pool.close)
