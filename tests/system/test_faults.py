"""A short draw of the fault campaign; ``make faults N=200`` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

N = 14


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.timeout(900)
def test_random_faults_leave_nothing() -> None:
    """In processes of its own: the campaign plays PID 1 and must not reap pytest's children."""
    seed = str(int.from_bytes(os.urandom(3), "big"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.faults", "--n", str(N), "--seed", seed],
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=850,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    assert done.stdout.count(" ok ") >= N * 3 // 4, "most faults must hit something"
