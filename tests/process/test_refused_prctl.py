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
import ctypes, struct, sys, time
from tests.support.guards import start

libc = ctypes.CDLL(None, use_errno=True)
prctl_number, refused_errno = int(sys.argv[1]), int(sys.argv[2])

def step(code, k, jt=0, jf=0):
    return struct.pack("HBBI", code, jt, jf, k)

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = (
    step(LOAD, 0)  # the system call's number
    + step(EQUAL, prctl_number, 0, 3)
    + step(LOAD, 16)  # its first argument
    + step(EQUAL, 36, 0, 1)  # PR_SET_CHILD_SUBREAPER
    + step(RETURN, 0x00050000 | refused_errno)
    + step(RETURN, 0x7FFF0000)  # anything else is allowed
)
if refused_errno:
    text = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter_program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
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
