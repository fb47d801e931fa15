"""When to look for leaked browsers, and what becomes of the test and of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from . import leaks, pools
from .leaks import Leak
from .markers import allowed_reason
from .records import RECORD, TestRecord
from .settings import Settings

REMEDY = (
    "Use the fixture `driver`, `with browserkeeper.browser() as driver:`, or quit() in a finally "
    "block. If it cannot be helped: @pytest.mark.keeper_allow_leak(reason)."
)


class LeakedBrowserWarning(pytest.PytestWarning):
    """A test left a browser running (``--keeper-leaks=warn``)."""


LeakedBrowserWarning.__module__ = __package__ or ""


class LeakHooks:
    """``run`` names this process's run; every process that is started from now on inherits it."""

    def __init__(self, settings: Settings, run: str):
        self._settings = settings
        self._watch = leaks.Watch(run, pools.guard_pids)
        self._pools: dict[Any, Any] = {}
        self._allowed: list[Leak] = []

    # -- a test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        self._watch.begin()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        try:
            result = yield
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException:
            self._look(item)
            raise
        if text := self._look(item):
            self._complain(item, text)
        return result

    def _look(self, item: pytest.Item) -> str:
        """End what is found, "" where nothing is; else the complaint."""
        found = self._watch.end()
        if not found:
            return ""
        record: TestRecord = item.stash[RECORD]
        record.leaks = found
        mark = item.get_closest_marker("keeper_allow_leak")
        if mark is not None:
            record.allowed = str(allowed_reason(mark))
            self._allowed += found
            return ""
        record.stuck = leaks.end(found)
        outcome = "could NOT be ended" if record.stuck else "ended now"
        lines = [f"  {leak}" for leak in found]
        head = f"{item.nodeid} left {_count(found)} running ({outcome}):"
        return "\n".join([head, *lines, REMEDY])

    def _complain(self, item: pytest.Item, text: str) -> None:
        if self._settings.leaks == "warn":
            warnings.warn(LeakedBrowserWarning(text), stacklevel=2)
            return
        item.stash[RECORD].only_leaked = True
        pytest.fail(text, pytrace=False)

    # -- fixtures that live longer than a test

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        with self._watch.holding(fixturedef):
            value = yield
        if (pool := _as_pool(value)) is not None:
            self._pools[fixturedef] = pool
            pools.SPARED.add(pool)
        return value

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        if (pool := self._pools.pop(fixturedef, None)) is not None:
            pools.SPARED.discard(pool)
        self._watch.release(
            fixturedef, f"the fixture {fixturedef.argname!r} ({fixturedef.scope} scope), torn down here"
        )

    # -- the end

    def pytest_sessionfinish(self) -> None:
        """Leaks that were allowed may have served other tests; nothing outlives the run."""
        leaks.end(self._allowed)
        self._allowed.clear()


def _as_pool(value: Any) -> Any:
    """A BrowserPool, or None; where nobody imported the pool, there is none."""
    module = sys.modules.get(f"{__package__}".rpartition(".")[0] + ".pool")
    return value if module is not None and isinstance(value, module.BrowserPool) else None


def _count(found: list[Leak]) -> str:
    return "1 browser" if len(found) == 1 else f"{len(found)} browsers"
