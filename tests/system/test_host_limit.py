"""Short forms of the trials of the host's limit; ``make host`` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.cli import ROOT


def trial(name: str, *words: str) -> str:
    """Run one trial in processes and a world of its own, and return what it prints."""
    seed = str(int.from_bytes(os.urandom(3), "big"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.host_trial", "--trials", name, "--seed", seed, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=550,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.chrome
def test_three_programs_that_want_four_browsers_each_never_have_more_than_three() -> None:
    """And each of them does its work: four jobs."""
    assert "at most 3 browsers" in trial("browsers", "--jobs", "4")


@pytest.mark.chrome
def test_control_without_a_limit_the_same_programs_have_more() -> None:
    assert "at most 3 browsers" not in trial("control", "--jobs", "4")


@pytest.mark.slow
def test_a_limit_that_is_changed_and_a_drain_harm_no_session() -> None:
    trial("live", "--seconds", "1", "--threads", "2")


@pytest.mark.slow
def test_slots_add_up_while_owners_guards_and_waiters_are_killed_and_stopped() -> None:
    assert "hits" in trial("churn", "--seconds", "12", "--threads", "2")
