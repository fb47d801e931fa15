"""Fixtures of the tests of the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.waiting import SECONDS


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """For processes that a test starts: terminated after it, by the pids in this list."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.terminate()  # SIGKILL would leave its guard's zombie to pytest
        process.communicate(timeout=SECONDS)
