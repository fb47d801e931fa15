"""The argument ``wait`` of a test's browser, where that browser comes from one of the plugin's pools."""

from __future__ import annotations

from typing import Any

import pytest

from browserkeeper.pool.config import CHECKOUT_TIMEOUT
from browserkeeper.pytest_plugin import warm_pools
from browserkeeper.pytest_plugin.browser_spec import BrowserSpec
from browserkeeper.pytest_plugin.warm_pools import FOR_EVER, START_PATIENCE, WarmBrowsers, open_pool


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pools.RecordingPool, "open", lambda self: self)


class Settings:
    timeout: float | None = None


def spec(**arguments: Any) -> BrowserSpec:
    return BrowserSpec("chrome", arguments)


@pytest.mark.parametrize(("wait", "seconds"), [(0, 0), (5, 5), (300.0, 300), (None, FOR_EVER)])
def test_a_lease_waits_so_much_longer(wait: float | None, seconds: float) -> None:
    for pool in (
        open_pool(spec(wait=wait), Settings()),  # type: ignore[arg-type]
        WarmBrowsers().pool_for(spec(wait=wait), Settings()),  # type: ignore[arg-type]
    ):
        assert pool.config.checkout_timeout == START_PATIENCE + seconds


def test_control_without_it_a_warm_browser_waits_as_long_as_a_plain_one() -> None:
    assert open_pool(spec(), Settings()).config.checkout_timeout == CHECKOUT_TIMEOUT  # type: ignore[arg-type]
    warm = WarmBrowsers().pool_for(spec(), Settings())  # type: ignore[arg-type]
    assert warm.config.checkout_timeout == START_PATIENCE + 60
