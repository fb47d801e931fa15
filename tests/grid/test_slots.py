"""Sessions on Grids take slots of the host, which are counted apart from those of local browsers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import BrowserSession, GridError, HostBusy, browser, sweep
from browserkeeper.admission.gate import Gate
from browserkeeper.state.ledger import Ledger
from tests.grid.mock_hub import BROKEN, MockHub
from tests.support import witness
from tests.support.waiting import wait_until

LIMIT = "BROWSERKEEPER_MAX_GRID_SESSIONS"


@pytest.fixture
def hubs() -> Iterator[tuple[MockHub, MockHub]]:
    """Two Grids: each has one session at the most."""
    with MockHub() as one, MockHub() as two:
        yield one, two


def on(hub: MockHub, **more: Any) -> BrowserSession[Any]:
    return browser(remote=hub.url, attempts=1, **more)


def slots() -> list[str]:
    directory = Path(os.environ["BROWSERKEEPER_STATE_DIR"], "gate", "slots")
    return sorted(path.name.split("-")[0] for path in directory.iterdir())


def test_a_second_grid_session_waits_until_the_first_ends(
    hubs: tuple[MockHub, MockHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    first, second = on(hubs[0], label="first"), on(hubs[1])
    first.start()
    with pytest.raises(HostBusy) as caught:
        on(hubs[1], wait=0).start()
    text = str(caught.value)
    expected = (
        f"No session on a Grid may be started now: 1 session on a Grid runs or starts, and {LIMIT}=1"
    )
    assert text.startswith(expected)
    assert [(one.kind, one.label) for one in caught.value.holders] == [("grid", "first")]
    waiting = threading.Thread(target=second.start)
    waiting.start()
    assert wait_until(lambda: Gate(Ledger.open()).state().waiting)
    assert not hubs[1].running
    first.close()
    waiting.join()
    assert hubs[1].running
    assert slots() == ["grid"]
    second.close()
    assert slots() == []


def test_without_that_limit_both_run_whatever_the_limits_of_local_browsers_are(
    hubs: tuple[MockHub, MockHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a Grid's browsers take neither a place nor memory of this machine."""
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    monkeypatch.setenv("BROWSERKEEPER_MIN_MEMORY", "1GiB")
    held = Gate(Ledger.open()).force("browser")
    with on(hubs[0], wait=0), on(hubs[1], wait=0):
        assert slots() == ["browser", "grid", "grid"]
        assert hubs[0].running
        assert hubs[1].running
    assert slots() == ["browser"]
    held.release()


def test_grid_sessions_take_no_place_of_local_browsers(
    hubs: tuple[MockHub, MockHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "1")
    with on(hubs[0]):
        local = Gate(Ledger.open())
        assert not local.state().counted("browser")
        assert len(local.state().counted("grid")) == 1


@pytest.mark.leaves_zombies(6, "both guards are killed")
def test_a_grid_session_whose_guards_are_killed_holds_no_slot(
    hubs: tuple[MockHub, MockHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    first = on(hubs[0], on_leak="ignore")
    first.start()
    assert first.guard_pid
    (primary,) = (one for one in witness.below(first.guard_pid) if one.parent == first.guard_pid)
    for pid in (primary.pid, first.guard_pid):
        os.kill(pid, signal.SIGKILL)
    with on(hubs[1]):
        assert slots() == ["grid"]
    first.close()
    sweep(dry_run=False)
    assert slots() == []


def test_a_grid_session_that_cannot_be_started_gives_its_slot_back(
    hubs: tuple[MockHub, MockHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    hubs[0].behaviour["new"] = BROKEN
    with pytest.raises(GridError):
        on(hubs[0], wait=0).start()
    with on(hubs[1], wait=0):
        assert slots() == ["grid"]
