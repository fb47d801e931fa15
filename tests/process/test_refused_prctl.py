"""A kernel or a sandbox that lets no process become a child subreaper: the error says what it said."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.support.owners import ROOT
from tests.support.waiting import SECONDS

PRCTL = {"x86_64": 157, "aarch64": 167}.get(platform.machine(), 0)
"""The number of the system call."""

SCRIPT = """
import sys, time
from tests.support.guards import start
from tests.support.seccomp import ERRNO, filter_calls

prctl_number, refused_errno = int(sys.argv[1]), int(sys.argv[2])
if refused_errno:
    filter_calls(prctl_number, ERRNO | refused_errno, 36)  # PR_SET_CHILD_SUBREAPER
running = start(("/bin/sleep", "600"))
event = running.wait_for("failed", "spawned", deadline=time.monotonic() + 60)
running.end("closed", time.monotonic() + 60)
print(event["event"], event.get("where"), event.get("errno"), event.get("text"), sep="|")
"""


@pytest.mark.skipif(not PRCTL, reason="the number of prctl(2) is known for x86_64 and aarch64 only")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, "failed|subreaper|1|[Errno 1] prctl(36) was refused: Operation not permitted"),
        (38, "failed|subreaper|38|[Errno 38] prctl(36) was refused: Function not implemented"),
        (0, "spawned|None|None|None"),
    ],
)
def test_the_error_of_a_refused_prctl_is_the_kernels(number: int, told: str) -> None:
    """By a seccomp filter.  The last case is the control: nothing is refused."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(PRCTL), str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.stdout.strip() == told, done.stderr
