"""A signal ends the watch, in whatever line of its loop it arrives."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from browserkeeper.telemetry.tally import Tally
from browserkeeper.watch.notices import Notice
from browserkeeper.watch.rounds import Watch

TIMES = 300
SHORT = 20e-6
"""Seconds between two rounds: so the loop is nearly always about to wait, or has just waited."""


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Without checks.  SIGALRM ends it."""
    watch = Watch(SHORT, Tally())
    watch.checks.clear()
    before = signal.signal(signal.SIGALRM, lambda number, frame: watch.end())
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_end_it_at_any_moment(watch: Watch) -> None:
    """With ``threading.Event.set()`` in the handler this hung within some dozen rounds."""
    for number in range(TIMES):
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + number * 7e-6)
        watch.run()


def test_a_signal_before_the_first_round_is_not_lost(watch: Watch) -> None:
    rounds: list[Notice] = []

    def count() -> list[Notice]:
        rounds.append(Notice("over", "", ""))
        return rounds

    watch.checks["a count"] = count
    signal.raise_signal(signal.SIGALRM)
    watch.run()
    assert not rounds
