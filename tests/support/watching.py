"""A ``browserkeeper watch`` that runs during a test, and its log."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import CLI, ROOT
from tests.support.waiting import SECONDS, wait_until

INTERVAL = 0.2
"""Seconds between two rounds."""


class Watching:
    """Starts the command with ``--json``; its log lines go to the file ``log``."""

    def __init__(self, log: Path, *arguments: object):
        self.log = log
        words = [*CLI, "watch", "--interval", INTERVAL, "--json", *arguments]
        with log.open("wb") as file:
            self.process = subprocess.Popen(list(map(str, words)), cwd=ROOT, stderr=file)

    def lines(self, action: str = "") -> list[dict[str, Any]]:
        """The log so far; with ``action`` only the lines of that ``event.action``."""
        whole, _, _ = self.log.read_text().rpartition("\n")  # a line may be seen before its end is there
        logged = [json.loads(line) for line in whole.splitlines()]
        return [facts for facts in logged if not action or facts.get("event.action") == action]

    def wait_for(self, action: str) -> dict[str, Any]:
        """The first line of this ``event.action``; waits until it is logged."""
        assert wait_until(lambda: self.lines(action)), self.lines()
        return self.lines(action)[0]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request to the address of ``--listen``."""
        address = self.wait_for("watch-listening")["browserkeeper.address"]
        return get(f"http://{address}{path}")

    def close(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(SECONDS)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Starts watches with the given arguments, and ends them after the test."""
    mine: list[Watching] = []

    def start(*arguments: object) -> Watching:
        mine.append(Watching(tmp_path / f"watch{len(mine)}.log", *arguments))
        mine[-1].wait_for("watch-started")
        return mine[-1]

    yield start
    for watch in mine:
        watch.close()


def get(url: str) -> tuple[int, str]:
    """Status and body of an HTTP request, of an error too."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
