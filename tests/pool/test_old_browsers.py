"""Browsers that are too old for the contexts of a pool: ``isolation="auto"`` does without them.

No browser of this machine is, so a command that makes contexts is refused, as an old browser does it.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from browserkeeper import ConfigError, PoolUnavailable
from browserkeeper.drivers.bidi import ProtocolError
from tests.pool.pools import patient_pool
from tests.support.guards import BOTH

REFUSAL = "browser.setDownloadBehavior: no such command"


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise ProtocolError(REFUSAL, "unknown command")

    for engine in ("chromium", "firefox"):
        module = importlib.import_module(f"browserkeeper.drivers.contexts.{engine}")
        monkeypatch.setattr(module, "open_contexts", refuse)


@pytest.mark.parametrize("name", BOTH)
def test_auto_takes_a_new_browser_for_each_lease(
    old: None, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with patient_pool(name, max_size=2, min_idle=2) as pool:
        with pool.lease() as lease:
            lease.driver.get("data:text/html,<title>here</title>")
            assert lease.driver.title == "here"
            first = lease.session.id
        with pool.lease() as lease:
            assert lease.session.id != first
            pool.resize(1)
        assert pool.isolation == "fresh"
        assert pool.stats()["browsers_errors"] == 0
        with pytest.raises(ConfigError, match="isolation='fresh'"):
            pool.lease(locale="de-DE")
    told = [record.getMessage() for record in caplog.records if "isolation=" in record.getMessage()]
    assert len(told) == 1, "two browsers were started"
    assert "isolation='auto' takes 'fresh'" in told[0]
    assert REFUSAL in told[0]


@pytest.mark.chrome
def test_a_word_that_a_new_browser_cannot_take_is_refused_also_to_a_lease_that_waits(old: None) -> None:
    with patient_pool("chrome", max_size=1, min_idle=0) as pool:
        refused = pytest.raises(
            ConfigError, match="locale= cannot be given to a lease with isolation='f"
        )
        with refused, pool.lease(locale="de-DE"):
            raise AssertionError("a lease without its locale")
        with pool.lease() as lease:
            assert lease.driver.current_url


@pytest.mark.chrome
def test_control_context_is_refused_where_it_was_asked_for(old: None) -> None:
    pool = patient_pool("chrome", isolation="context", max_size=1, min_idle=0)
    with pool, pytest.raises(PoolUnavailable, match="Use a newer one, or isolation='fresh'"):
        pool.lease().__enter__()


@pytest.mark.chrome
def test_another_error_does_not_change_the_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("browserkeeper.drivers.contexts.chromium")

    def refuse(*given: object) -> None:
        raise ProtocolError("no such frame: gone", "no such frame")

    with monkeypatch.context() as patch, patient_pool("chrome", max_size=1, min_idle=0) as pool:
        patch.setattr(module, "open_contexts", refuse)
        with pytest.raises(PoolUnavailable):
            pool.lease().__enter__()
        assert pool.isolation == "context"
