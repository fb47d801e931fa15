"""A short draw of the bystander campaign, and its control; ``make bystanders N=200`` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

N = 10

pytestmark = [pytest.mark.root, pytest.mark.namespaces, pytest.mark.slow]


def campaign(*more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: its forks are owners and tools, and must not be pytest's."""
    seed = str(int.from_bytes(os.urandom(3), "big"))
    words = [sys.executable, "-m", "tests.system.bystanders", "--seed", seed, *more]
    root = Path(__file__).resolve().parent.parent.parent
    # In a world of its own, since pid namespaces of a trial must not meet another test's processes.
    environment = {name: value for name, value in os.environ.items() if name != "BROWSERKEEPER_WORLD"}
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=580)
    print(done.stdout, done.stderr)
    return done


def test_random_ends_and_sweeps_harm_no_bystander_and_leave_nothing() -> None:
    done = campaign("--n", str(N), "--no-browsers")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.count(" ok ") == N


def test_control_the_old_rules_of_evidence_harm_bystanders() -> None:
    done = campaign("--n", "6", "--no-browsers", "--rules", "old")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "the control has harmed some" in done.stdout
