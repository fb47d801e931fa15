"""Owner processes: programs of a test that hold sessions and are then killed, or end as they like.

An owner prints how far it is, one line a step, and the test waits for the line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.waiting import SECONDS

ROOT = Path(__file__).resolve().parent.parent.parent


class Owner:
    """An owner process that has been started, in the repository's root or in ``cwd``."""

    def __init__(self, *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def wait_for(self, word: str) -> str:
        """Block until it prints a line with this word, and return the line.

        Raises AssertionError if it ends first.
        """
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            if word in line:
                return line
            printed += line
        raise AssertionError(f"the owner ended without printing {word!r}: {printed}")

    def kill(self) -> None:
        """By SIGKILL; reaped when this returns."""
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Block until it has ended, and return its exit status."""
        self.process.communicate()
        return self.process.returncode


def output_of(script: str, *words: object) -> str:
    """Run a Python script in a process of its own; what it prints, without blanks at the ends.

    Raises AssertionError where it fails, and TimeoutExpired where it does not end.
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=5 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
