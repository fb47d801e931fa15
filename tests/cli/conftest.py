"""Fixtures of the tests of the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.state.ledger import Ledger
from tests.support.sessions import Sessions
from tests.support.waiting import SECONDS, deadline_in


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """For processes that a test starts: terminated after it, by the pids in this list."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.terminate()  # SIGKILL would leave its guard's zombie to pytest
        process.communicate(timeout=SECONDS)


@pytest.fixture
def sessions(state_dir: Path) -> Iterator[Sessions]:
    """Starts sessions without a browser; all are ended after the test."""
    found = Sessions(Ledger.open())
    yield found
    for guard in found.guards.values():
        guard.end("closed", deadline_in())
