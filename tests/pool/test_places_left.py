"""Places of browsers that go out of use while other places wait for them.  No browser is started."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from browserkeeper import ExitReport, SessionClosed
from browserkeeper.admission.gate import SlotRequest
from browserkeeper.config import SessionConfig
from browserkeeper.pool import shared_browser
from browserkeeper.pool.config import PoolConfig
from browserkeeper.pool.shared_browser import Browsers, Place
from tests.support.waiting import wait_until


class FakeShared:
    """A browser that starts when it is let, and counts how often it was ended."""

    may_start = threading.Event()
    made: list[Any]
    """Those of this test."""

    def __init__(self, config: object):
        self.session = SimpleNamespace(report=None)
        self.state, self.retire_reason, self.shared = "starting", "", SimpleNamespace(is_closing=False)
        self.places: dict[int, Place] = {}
        self.ends: list[str] = []
        self.made.append(self)

    def start(self, request: SlotRequest) -> None:
        assert self.may_start.wait(60)

    def end(self, reason: str) -> ExitReport:
        self.ends.append(reason)
        self.session.report = ExitReport(
            f"fake-{self.made.index(self) + 1}", "fake", reason, "fake", "fake"
        )
        return self.session.report  # type: ignore[no-any-return]

    @property
    def has_room(self) -> bool:
        return not self.retire_reason and self.state != "over"


@pytest.fixture
def browsers(monkeypatch: pytest.MonkeyPatch) -> Browsers:
    monkeypatch.setattr(FakeShared, "made", [], raising=False)
    monkeypatch.setattr(FakeShared, "may_start", threading.Event())
    monkeypatch.setattr(shared_browser, "SharedBrowser", FakeShared)
    monkeypatch.setattr(shared_browser, "_launch_config", lambda config: config.browser)
    return Browsers(
        PoolConfig.build(SessionConfig.build(name="chrome"), max_size=1, leases_per_browser=2)
    )


def taking(browsers: Browsers) -> tuple[Place, threading.Thread, list[Any]]:
    place, taken = Place(browsers, SlotRequest()), list[Any]()

    def take() -> None:
        try:
            taken.append(browsers.take(place))
        except SessionClosed as error:
            taken.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return place, thread, taken


def test_a_browser_is_ended_by_a_place_that_waited_for_it_in_vain(browsers: Browsers) -> None:
    """The place that has started it leaves before the other has noticed that it runs."""
    first, starting, _ = taking(browsers)
    assert wait_until(lambda: first.browser)
    second = Place(browsers, SlotRequest())
    with browsers._changed:
        lost, starts = browsers._find(second, browsers.config.browser)
    assert (lost, starts) == (FakeShared.made[0], False)
    FakeShared.may_start.set()
    starting.join(60)
    browsers.retire(FakeShared.made[0], "failed")
    assert browsers.leave(first, "failed") is None, "the other place has it"

    assert browsers.take(second) is FakeShared.made[1]
    assert FakeShared.made[0].ends == ["failed"]
    assert [report.session for report in browsers.reports] == ["fake-1"]
    assert browsers.count() == 1


def test_a_place_that_leaves_twice_takes_no_other_with_it(browsers: Browsers) -> None:
    FakeShared.may_start.set()
    (first, _, _), (stays, staying, _) = taking(browsers), taking(browsers)
    assert wait_until(lambda: len(FakeShared.made) == 1 and len(FakeShared.made[0].places) == 2)
    staying.join(60)
    assert browsers.leave(first, "retired") is None
    third, taking_its_number, taken = taking(browsers)
    taking_its_number.join(60)
    assert (third.number, taken) == (first.number, [stays.browser])
    assert browsers.leave(first, "retired") is None
    assert set(FakeShared.made[0].places.values()) == {stays, third}
    assert FakeShared.made[0].ends == []
