"""The pytest hooks that look for leaked browsers: when to look, and what becomes of test and browser."""

from __future__ import annotations

import fnmatch
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from . import background_pools, leak_ending
from .leak_warnings import LeakedBrowserWarning, SharedBrowserWarning
from .leaks import Leak, LeakDetector
from .markers import allowed_reason
from .records import RECORD, TestRecord
from .settings import SETTINGS

REMEDY = (
    "Use the fixture `driver`, `with browserkeeper.browser() as driver:`, or quit() in a finally "
    "block. If the leak cannot be avoided: @pytest.mark.keeper_allow_leak(reason)."
)


class LeakHooks:
    """``run``: the name that every process has in its environment that is started from now on.

    ``why``: what of ours the run uses, if the check is on for that reason (``keeper_leaks = auto``).
    """

    def __init__(self, config: pytest.Config, run: str, why: str = ""):
        self._settings = config.stash[SETTINGS]
        self._ini = config.inipath
        self._why = why
        self._detector = LeakDetector(run, background_pools.guard_pids)
        self._pools: dict[Any, Any] = {}
        self._allowed: list[Leak] = []
        self._warned_of: set[str] = set()

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
            item.stash[RECORD].notice = self._handle_leaks(item)[1]
            raise
        own, shared = self._handle_leaks(item)
        if shared:
            try:
                item.warn(SharedBrowserWarning(shared))
            except SharedBrowserWarning:
                # A filter such as -W error must not fail a suite for what it does on purpose.
                item.stash[RECORD].notice = shared
        if own and self._settings.leaks == "warn":
            item.warn(LeakedBrowserWarning(own))
        elif own:
            item.stash[RECORD].only_leaked = True
            pytest.fail(own, pytrace=False)
        return result

    def _handle_leaks(self, item: pytest.Item) -> tuple[str, str]:
        """End what the test has left running, if it is the test's own and not allowed.

        Returns the complaint of it, and the notice of browsers that may be in use; each may be "".
        """
        found = self._detector.end()
        own = [leak for leak in found if not leak.holder]
        mark = item.get_closest_marker("keeper_allow_leak")
        shared = [] if mark is not None else [leak for leak in found if leak.holder]
        return self._handle_own(item, own, mark), self._notice(item, shared)

    def _handle_own(self, item: pytest.Item, own: list[Leak], mark: pytest.Mark | None) -> str:
        if not own:
            return ""
        record: TestRecord = item.stash[RECORD]
        record.leaks = own
        if mark is not None:
            record.allowed = str(allowed_reason(mark))
            self._allowed += own
            return ""
        number = "1 browser" if len(own) == 1 else f"{len(own)} browsers"
        if self._settings.leaks == "warn":
            record.leaks_stay = True
            outcome = "not ended, since keeper_leaks is warn"
        else:
            record.stuck = leak_ending.end(own)
            outcome = "could NOT be ended" if record.stuck else "ended now"
        head = f"{item.nodeid} left {number} running ({outcome}):"
        why = [f"(keeper_leaks = auto is error here: the run uses {self._why}.)"] if self._why else []
        return "\n".join([head, *(f"  {leak}" for leak in own), REMEDY, *why])

    def _notice(self, item: pytest.Item, shared: list[Leak]) -> str:
        """Once for each holder in a run, and not for those that ``keeper_shared`` names."""
        patterns, known = self._settings.shared, self._warned_of
        new = [leak for leak in shared if leak.holder not in known and not _matches(leak, patterns)]
        if not new:
            return ""
        holders = dict.fromkeys(leak.holder for leak in new)
        known.update(holders)
        return "\n".join(
            [
                f"{item.nodeid} left a browser running that is not plainly its own. It was not ended:",
                *(f"  {leak}" for leak in new),
                f"If it is meant to outlive the test, add to {self._line_to_add(list(holders))}",
                "Else quit it in the test or in a fixture.",
            ]
        )

    def _line_to_add(self, holders: list[str]) -> str:
        name = self._ini.name if self._ini is not None else "pytest.ini"
        if name.endswith(".toml"):
            return f"{name}: keeper_shared = {json.dumps(holders)}"
        return f"{name}: keeper_shared = {shlex.join(holders)}"

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


def _matches(leak: Leak, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(leak.holder, pattern) for pattern in patterns)


def _as_pool(value: Any) -> Any:
    """``value`` if it is a BrowserPool, else None.  Does not import the pool: if no other code has,
    there is none."""
    module = sys.modules.get(f"{__package__}".rpartition(".")[0] + ".pool")
    return value if module is not None and isinstance(value, module.BrowserPool) else None
