"""The machine's clock is set to another time while the watch and a session run: nothing is unhealthy or
overdue for that.  The controls: by the clock alone it would be."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from browserkeeper.process import system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Record
from browserkeeper.status.snapshot import SessionStatus, snapshot
from browserkeeper.telemetry.collector import gauges
from browserkeeper.telemetry.server import Server
from browserkeeper.telemetry.tally import Tally
from browserkeeper.watch import sessions
from browserkeeper.watch.rounds import Watch
from tests.support.guards import SLEEP_FOREVER, start
from tests.support.ledger import new_session
from tests.support.waiting import deadline_in
from tests.support.watching import get

DAY = 86400.0
STEPS = [pytest.param(DAY, id="forward"), pytest.param(-DAY, id="back")]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


@pytest.mark.parametrize("seconds", STEPS)
def test_the_watch_stays_healthy(seconds: float, step: Callable[[float], None], state_dir: Path) -> None:
    watch = Watch(10, Tally())
    server = Server("127.0.0.1:0", watch.tally, watch.why_unhealthy, watch.why_not_ready)
    try:
        watch.round()
        step(seconds)
        assert get(f"http://{server.address}/healthz") == (200, "ok\n")
        assert get(f"http://{server.address}/readyz") == (200, "ok\n")
        watch.round()
        step(0)
        assert get(f"http://{server.address}/healthz") == (200, "ok\n")
    finally:
        server.close()
    assert abs(time.time() - watch.tally.last_round - -seconds) < DAY / 2, "the control: it was set"


@pytest.mark.parametrize("seconds", STEPS)
def test_a_session_is_not_overdue_because_the_clock_was_set(
    seconds: float, step: Callable[[float], None], state_dir: Path
) -> None:
    ledger, facts = Ledger.open(state_dir), new_session()
    facts = dataclasses.replace(facts, deadline=facts.created + 600)
    files = {"record": ledger.record_path(facts.id), "history": ledger.history_path(facts.id)}
    paths = {name: str(path) for name, path in files.items()}
    running = start(SLEEP_FOREVER, session=facts.id, document=facts.to_json(), timeout=600, **paths)
    try:
        assert running.wait_for("spawned", deadline=deadline_in())
        step(seconds)
        found = snapshot()
        (status,) = found.sessions
        assert status.deadline_left
        assert 0 < status.deadline_left <= 600
        assert 0 <= status.age < 600
        assert list(sessions.check(found.sessions)) == []
        overdue = [m for m in gauges(found, set()) if m.name == "browserkeeper_sessions_overdue"]
        assert [sample.value for metric in overdue for sample in metric.samples] == [0]
        by_the_clock = status.record.session.deadline - time.time()  # type: ignore[operator]
        assert not 0 < by_the_clock <= 600, "the control"
    finally:
        assert running.end("closed", deadline_in())


@pytest.mark.parametrize("seconds", STEPS)
def test_a_session_that_is_overdue_stays_so(seconds: float) -> None:
    """Its first guard started 100 s ago, and its timeout was 50 s."""
    facts = dataclasses.replace(new_session(), created=time.time() + seconds)
    facts = dataclasses.replace(facts, deadline=facts.created + 50)
    guards = (ProcessIdentity(1, system.now() - 100), ProcessIdentity(1, system.now() - 99))
    status = SessionStatus(Record(Path("x.json"), facts, guards, ()), "live", (), {})
    assert [notice.kind for notice in sessions.check([status])] == ["overdue"]


def test_a_record_of_another_host_is_judged_by_the_clock() -> None:
    """The start times of its guards are on the clock of that host's boot."""
    facts = dataclasses.replace(new_session(), host="elsewhere", created=time.time() - 20)
    status = SessionStatus(
        Record(Path("x.json"), facts, (ProcessIdentity(1, 1.0),), ()), "foreign", (), {}
    )
    assert 20 <= status.age < 600
