"""The deadlines of the leases that share a browser: a late one ends its lease, never a neighbour."""

from __future__ import annotations

import threading
import types
from typing import Any, cast

import pytest

from browserkeeper.drivers.seat_connection import NotLeftError
from browserkeeper.pool.pool import _rounded
from browserkeeper.session import seat as seats
from browserkeeper.session.seat import SeatEnding, SeatGuard
from browserkeeper.session.shared_session import DeadlineWatch, work_of
from tests.support.waiting import wait_until


class Shared:
    """A browser with seats, without a process."""

    def __init__(self) -> None:
        self.backstops: list[float] = []
        self.deadlines = DeadlineWatch(self.backstops.append)
        self.is_closing = self.is_over = False
        self.work = iter(range(1_000_000))
        self.works = True

    def name(self, seat: object, label: str) -> None: ...

    def work_done(self) -> object:
        return next(self.work) if self.works else 0


class Guard:
    def event(self, name: str) -> None: ...


class Leaving:
    """A seat whose end is confirmed when ``confirmed`` is set."""

    def __init__(self) -> None:
        self.confirmed, self.alive = threading.Event(), True

    def leave(self, timeout: float) -> None:
        assert self.confirmed.wait(60)

    def looks_alive(self) -> bool:
        return self.alive


@pytest.fixture
def shared() -> Any:
    shared = Shared()
    yield shared
    shared.deadlines.stop()


def guard_of(shared: Shared, seat: Any) -> SeatGuard:
    return SeatGuard(seat, cast(Any, shared), cast(Any, Guard()))


@pytest.mark.parametrize("how", ["set_deadline", "tell_to_end"])
def test_a_deadline_of_a_lease_that_is_over_does_not_end_the_browser(how: str, shared: Shared) -> None:
    seat, ended = Leaving(), threading.Event()
    guard = guard_of(shared, seat)
    guard.expire = lambda reason: ended.set()
    guard.begin_end("quit")
    guard.ended()
    if how == "set_deadline":
        guard.set_deadline(0.01, "hung")
    else:
        guard.tell_to_end("closed")
    other = guard_of(shared, seat)  # a deadline of another lease shows that the thread works
    other.expire = lambda reason: other_ended.set()
    other_ended = threading.Event()
    other.set_deadline(0.05, "late")
    assert other_ended.wait(60)
    other.ended()
    assert wait_until(lambda: shared.backstops[-1] == 0)
    assert not ended.is_set()


def test_control_a_deadline_of_a_running_lease_passes_once(shared: Shared) -> None:
    seat = Leaving()
    guard, ended = guard_of(shared, seat), threading.Event()
    guard.expire = lambda reason: ended.set()
    guard.set_deadline(0.01, "late")
    assert ended.wait(60)
    assert guard.is_late
    assert shared.backstops[-1] > 0
    guard.ended()
    assert wait_until(lambda: shared.backstops[-1] == 0)


def test_a_browser_that_works_is_given_time(monkeypatch: pytest.MonkeyPatch, shared: Shared) -> None:
    monkeypatch.setattr(seats, "LEAVE_TIMEOUT", 0.1)
    monkeypatch.setattr(seats, "LOOK_EVERY", 0.01)
    seat = Leaving()
    ending = SeatEnding(cast(Any, seat), cast(Any, shared))
    looks: list[object] = []

    def work_done() -> object:
        looks.append(None)
        if len(looks) == 5:  # 4 times as long as one that does nothing is given
            seat.confirmed.set()
        return len(looks)

    monkeypatch.setattr(shared, "work_done", work_done)
    ending._leave(cast(Any, seat))
    assert len(looks) >= 5


@pytest.mark.parametrize("why", ["stopped", "idle", "closing"])
def test_a_browser_that_does_not_work_is_not_waited_for(
    why: str, monkeypatch: pytest.MonkeyPatch, shared: Shared
) -> None:
    monkeypatch.setattr(seats, "LEAVE_TIMEOUT", 0.1)
    seat = Leaving()
    seat.alive, shared.works, shared.is_closing = why != "stopped", why != "idle", why == "closing"
    ending = SeatEnding(cast(Any, seat), cast(Any, shared))
    try:
        with pytest.raises(NotLeftError):
            ending._leave(cast(Any, seat))
    finally:
        seat.confirmed.set()


def test_a_process_that_cannot_be_seen_is_not_taken_for_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.errors import LimitError
    from browserkeeper.session import shared_session

    def facts(pid: int) -> None:
        raise LimitError("no more files")

    monkeypatch.setattr(shared_session, "system", types.SimpleNamespace(facts=facts))
    process = cast(Any, types.SimpleNamespace(pid=1))
    assert work_of(process) != work_of(process)
    assert work_of(None) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.99984, "3 s"), (0.05, "0.05 s"), (1.234, "1.23 s"), (3600.4, "3600 s")]
)
def test_seconds_in_messages_are_readable(seconds: float, text: str) -> None:
    assert _rounded(seconds) == text
