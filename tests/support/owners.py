"""Owner processes: programs of a test that hold sessions and are then killed, or end as they like.

An owner says on its standard output how far it is, one line a step; the test waits for the line.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class Owner:
    """A running owner.  ``pid`` is its process; ``said`` are the lines that it has said so far."""

    def __init__(self, words: list[str], cwd: Path, env: Mapping[str, str] | None):
        self.process = subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.said: list[str] = []

    def wait_for(self, word: str) -> str:
        """Block until it says a line with this word, and return that.  AssertionError if it ends first."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if word in line:
                return self.said[-1]
        raise AssertionError(f"the owner ended without saying {word!r}: {self.said}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal, and reap it."""
        self.process.send_signal(number)
        self.wait()

    def wait(self) -> int:
        """Its exit status, once it has ended; the rest of its lines go to ``said``."""
        output, _ = self.process.communicate()
        self.said += output.splitlines()
        return self.process.returncode


@contextlib.contextmanager
def owner(*words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> Iterator[Owner]:
    """Python with these words, as ``"-c", SCRIPT`` or ``"-m", MODULE``; killed when the block ends."""
    started = Owner([sys.executable, *words], cwd, env)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()
        elif started.process.stdout is not None:
            started.process.stdout.close()
