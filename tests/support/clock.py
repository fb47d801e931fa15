"""Time limits that fit this machine: multiples of a browser's start, measured once in each test run.

A limit that only ends a failing test is generous.  A limit that a task is meant to hit has to be long
enough for the task to get that far: :func:`task_limit`.
"""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CORES = os.cpu_count() or 1


SCRIPT = """
import sys, time
from browserkeeper import browser
began = time.monotonic()
with browser(sys.argv[1]) as driver:
    driver.get("data:text/html,started")
    print(time.monotonic() - began)
"""


@functools.cache
def start_seconds(name: str = "chrome") -> float:
    """Seconds from nothing to the first page, for one browser alone; measured at the first call.

    In a process of its own: modules that are imported here during a test with ``pytester`` would be
    dropped after it, and imported again as other classes.
    """
    with tempfile.TemporaryDirectory(prefix="tmpclock") as directory:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, name],
            cwd=ROOT,
            env={**os.environ, "BROWSERKEEPER_STATE_DIR": directory},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return float(done.stdout)


def patience(at_once: int = 1) -> float:
    """Seconds to wait for a worker, or for browsers that start ``at_once``: 20 times what they need."""
    rounds = math.ceil(at_once / CORES)
    return min(400.0, max(60.0, 20 * rounds * start_seconds()))


def limits_after_start(name: str) -> tuple[int, ...]:
    """Session timeouts, in whole seconds.  The first passes after the start, on a machine as busy as it
    was when a start was measured; the others are for a test that finds the one before too short."""
    limit = max(8 if name == "firefox" else 5, math.ceil(4 * start_seconds(name)))
    return limit, 2 * limit, 4 * limit


def task_limit(**at_once: int) -> int:
    """Seconds in which so many browsers (``chrome=4, firefox=2``), started at once, are probably there.

    It is no more than probable, so the caller has to repeat with a longer limit if they are not.
    """
    alone = sum(number * start_seconds(name) for name, number in at_once.items())
    return max(2, math.ceil(2 * alone))
