"""A scrape whose reads of the processes' memory take for ever, and the watch beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from browserkeeper.process import system
from browserkeeper.state.ledger import Ledger
from browserkeeper.telemetry import collector
from browserkeeper.telemetry.collector import LedgerCollector, registry
from browserkeeper.telemetry.tally import Tally
from browserkeeper.watch.rounds import Watch
from tests.support.guards import SLEEP_FOREVER, start
from tests.support.ledger import new_session
from tests.support.waiting import SECONDS, deadline_in

CONTROL_WAITED = 2.0
"""Seconds for which the control sees that a round does not end; it takes 0.05."""


class SlowMemory:
    """Reads of a process's memory, as of one whose memory map is locked: they return when told to."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, pid: int) -> int:
        self.asked.set()
        assert self.go_on.wait(SECONDS)
        return 4096


@pytest.fixture
def session(state_dir: Path) -> Iterator[None]:
    """A live session with one process, in the ledger."""
    ledger, facts = Ledger.open(state_dir), new_session()
    files = {"record": ledger.record_path(facts.id), "history": ledger.history_path(facts.id)}
    paths = {name: str(path) for name, path in files.items()}
    running = start(SLEEP_FOREVER, session=facts.id, document=facts.to_json(), **paths)
    assert running.wait_for("spawned", deadline=deadline_in())
    yield
    assert running.end("closed", deadline_in())


@pytest.fixture
def memory(session: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowMemory]:
    slow = SlowMemory()
    monkeypatch.setattr(system, "memory", slow)
    yield slow
    slow.go_on.set()


@pytest.fixture
def threads(memory: SlowMemory) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as running:
        yield running
        memory.go_on.set()


def begin_scrape(
    threads: ThreadPoolExecutor, memory: SlowMemory, of: CollectorRegistry
) -> Future[bytes]:
    scraping = threads.submit(generate_latest, of)
    assert memory.asked.wait(SECONDS)
    return scraping


def test_a_scrape_that_waits_for_the_kernel_does_not_hold_up_a_round(
    memory: SlowMemory, threads: ThreadPoolExecutor
) -> None:
    tally = Tally()
    scraping = begin_scrape(threads, memory, registry(tally))
    watch = Watch(10, tally)
    found = threads.submit(watch.round).result(SECONDS)
    assert [notice.kind for notice in found if notice.kind == "look-failed"] == []
    assert tally.rounds == 1
    assert not scraping.done(), "the control: it was waiting all the time"
    memory.go_on.set()
    text = scraping.result(SECONDS).decode()
    assert 'browserkeeper_pss_bytes{browser="chromium"} 4096.0' in text
    assert "browserkeeper_watch_rounds_total 1.0" in text


def test_control_a_scrape_that_holds_the_lock_holds_up_the_round(
    memory: SlowMemory, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old rule."""
    read = LedgerCollector._read_ledger

    def read_with_lock(self: LedgerCollector) -> object:
        with self.tally.lock:
            return read(self)

    monkeypatch.setattr(LedgerCollector, "_read_ledger", read_with_lock)
    tally = Tally()
    begin_scrape(threads, memory, registry(tally))
    held_up = threads.submit(Watch(10, tally).round)
    with pytest.raises(TimeoutError):
        held_up.result(CONTROL_WAITED)
    memory.go_on.set()
    held_up.result(SECONDS)


def test_a_second_scrape_meanwhile_has_the_counters(
    memory: SlowMemory, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the threads of scrapes that Prometheus gave up do not pile up."""
    monkeypatch.setattr(collector, "PATIENCE", 0.1)
    tally = Tally()
    of = registry(tally)
    scraping = begin_scrape(threads, memory, of)
    text = threads.submit(generate_latest, of).result(SECONDS).decode()
    assert "browserkeeper_ledger_up 0.0" in text
    assert "browserkeeper_watch_rounds_total 0.0" in text
    assert "browserkeeper_pss_bytes" not in text
    assert not scraping.done()
    memory.go_on.set()
    scraping.result(SECONDS)
    assert "browserkeeper_ledger_up 1.0" in generate_latest(of).decode()


def test_a_reader_that_stops_between_two_metrics_holds_no_lock(session: None) -> None:
    tally = Tally()
    metrics = LedgerCollector(tally).collect()
    next(metrics)
    with ThreadPoolExecutor(1) as other:
        other.submit(tally.count_round, failed=False).result(SECONDS)
    metrics.close()  # type: ignore[attr-defined]
    assert tally.rounds == 1


def test_a_slow_ledger_does_not_keep_a_round_from_being_counted(
    session: None, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    """Files are read without the lock as well."""
    slow = SlowMemory()
    ledger, tally = Ledger.open(state_dir), Tally()
    ended_ids = Ledger.ended_ids
    monkeypatch.setattr(Ledger, "ended_ids", lambda self: [slow(0), ended_ids(self)][1])
    with ThreadPoolExecutor(2) as threads:
        try:
            updating = threads.submit(tally.update, ledger)
            assert slow.asked.wait(SECONDS)
            threads.submit(tally.count_round, failed=False).result(SECONDS)
            assert not updating.done()
        finally:
            slow.go_on.set()
        updating.result(SECONDS)
