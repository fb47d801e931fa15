"""Tasks on a real worker that are in a known phase of their browser, and what is left of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures.server import Site
from tests.celery.workers import VERSIONS, Sent, Worker
from tests.support import witness
from tests.support.clock import patience
from tests.support.waiting import wait_until

WORKER_POOLS = ("prefork", "threads", "solo", "gevent")
PHASES = ("idle", "command", "launch")
"""Between commands (nearly always), in a command that never ends, in a launch that never ends."""


@dataclasses.dataclass(frozen=True)
class Begun:
    """A task that was sent, and how to tell that it has come to its phase.

    ``has_reached`` stays true when the task ends, except in the phase ``launch``.
    """

    result: Sent
    has_reached: Callable[[], bool]

    def reaches(self) -> bool:
        """Blocks until the task is in its phase, or has ended; whether it came to its phase."""
        reached = False

        def reached_or_done() -> bool:
            nonlocal reached
            reached = self.has_reached()
            return reached or self.result.is_done()

        assert wait_until(reached_or_done, patience(9), pause=0.05), self.result.state
        return reached or self.has_reached()


def send(worker: Worker, browser: str, phase: str, site: Site, **options: Any) -> Begun:
    """Send a task that comes to this phase and stays in it."""
    if phase == "launch":
        result = worker.send(f"{browser}.launch", **options)
        return Begun(result, lambda: _hangs_at_its_launch(worker, browser))
    path, body = ("never", "hang") if phase == "command" else ("about", "idle")
    result = worker.send(f"{browser}.{body}", site.url_for(path), **options)
    return Begun(result, lambda: f"GET /{path}" in site.requests)


def begin(worker: Worker, browser: str, phase: str, site: Site, **options: Any) -> Sent:
    """The same, and wait until the task is in its phase."""
    begun = send(worker, browser, phase, site, **options)
    assert begun.reaches(), f"{begun.result.result}\n{worker.lines()}"
    return begun.result


def _hangs_at_its_launch(worker: Worker, browser: str) -> bool:
    """Does the fake browser of this name run?  (Not the one that only prints its version.)"""
    version = VERSIONS[browser].split()[0]
    for process in worker.new_below():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process.pid}/cmdline").read_text()
            hangs = "fake_browser" in command and "--version" not in command
            if hangs and version in Path(f"/proc/{process.pid}/environ").read_text():
                return True
    return False


def drivers(worker: Worker) -> set[int]:
    """The pids of the drivers that live, one for each browser."""
    names = ("chromedriver", "geckodriver")
    found = [s for s in worker.new_below() if s.name in names and s.state != "Z"]
    pids = {s.pid for s in found}
    return {s.pid for s in found if s.parent not in pids}  # a child has its name until it executes


def assert_nothing_is_left(worker: Worker) -> None:
    """No process, no zombie, no record of a session."""
    left = worker.left_after(patience())
    assert not left, f"{left}\n{worker.lines()}"
    assert not worker.records()


def assert_no_browser_is_left(worker: Worker) -> None:
    """No living process and no record, after prefork children were killed.

    Zombies may be left, of guards only: Celery gives a child 0.1 s from SIGTERM to SIGKILL, and a child
    that needs longer to reap its guards leaves them to PID 1.
    """
    may_stay = {"bk-guard"} if worker.pool == "prefork" else set()

    def is_gone() -> bool:
        left = worker.new_below()
        return not witness.alive(left) and {process.name for process in left} <= may_stay

    assert wait_until(is_gone, patience(), pause=0.02), f"{worker.new_below()}\n{worker.lines()}"
    assert not worker.records()
