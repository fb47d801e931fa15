"""The pytest hooks that look for leaked browsers: when to look, and what becomes of test and browser."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from . import background_pools, leak_ending
from .leaks import Leak, LeakDetector
from .markers import allowed_reason
from .records import RECORD, TestRecord
from .settings import Settings

REMEDY = (
    "Use the fixture `driver`, `with browserkeeper.browser() as driver:`, or quit() in a finally "
    "block. If the leak cannot be avoided: @pytest.mark.keeper_allow_leak(reason)."
)


class LeakedBrowserWarning(pytest.PytestWarning):
    """A test left a browser running (``--keeper-leaks=warn``)."""


LeakedBrowserWarning.__module__ = __package__ or ""


class LeakHooks:
    """``run``: the name that every process has in its environment that is started from now on."""

    def __init__(self, settings: Settings, run: str):
        self._settings = settings
        self._detector = LeakDetector(run, background_pools.guard_pids)
        self._pools: dict[Any, Any] = {}
        self._allowed: list[Leak] = []

    # -- a test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        self._detector.begin()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        try:
            result = yield
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException:
            self._end_leaks(item)
            raise
        if text := self._end_leaks(item):
            self._complain(item, text)
        return result

    def _end_leaks(self, item: pytest.Item) -> str:
        """End what the test has left running, unless it is allowed; the complaint, or ""."""
        found = self._detector.end()
        if not found:
            return ""
        record: TestRecord = item.stash[RECORD]
        record.leaks = found
        mark = item.get_closest_marker("keeper_allow_leak")
        if mark is not None:
            record.allowed = str(allowed_reason(mark))
            self._allowed += found
            return ""
        record.stuck = leak_ending.end(found)
        number = "1 browser" if len(found) == 1 else f"{len(found)} browsers"
        outcome = "could NOT be ended" if record.stuck else "ended now"
        head = f"{item.nodeid} left {number} running ({outcome}):"
        return "\n".join([head, *(f"  {leak}" for leak in found), REMEDY])

    def _complain(self, item: pytest.Item, text: str) -> None:
        if self._settings.leaks == "warn":
            warnings.warn(LeakedBrowserWarning(text), stacklevel=2)
            return
        item.stash[RECORD].only_leaked = True
        pytest.fail(text, pytrace=False)

    # -- fixtures of a wider scope than a test

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        with self._detector.fixture_setup(fixturedef):
            value = yield
        if (pool := _as_pool(value)) is not None:
            self._pools[fixturedef] = pool
            background_pools.BACKGROUND_POOLS.add(pool)
        return value

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        if (pool := self._pools.pop(fixturedef, None)) is not None:
            background_pools.BACKGROUND_POOLS.discard(pool)
        self._detector.fixture_torn_down(
            fixturedef, f"the fixture {fixturedef.argname!r} ({fixturedef.scope} scope), torn down here"
        )

    # -- the end

    def pytest_sessionfinish(self) -> None:
        """End the allowed leaks too.  They were left until now since later tests may have used them."""
        leak_ending.end(self._allowed)
        self._allowed.clear()


def _as_pool(value: Any) -> Any:
    """``value`` if it is a BrowserPool, else None.  Does not import the pool: if no other code has,
    there is none."""
    module = sys.modules.get(f"{__package__}".rpartition(".")[0] + ".pool")
    return value if module is not None and isinstance(value, module.BrowserPool) else None
