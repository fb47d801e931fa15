"""A short soak through the server (``make soak-server N=2000`` is a long one), and its controls: with a
fault planted in the server, or in what the soak sees, it must complain."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pool.soak import ROOT, Sample
from tests.server.soak import FAULTS, Attempt, Settings, Soak, Task, draw

SEED = 5
"""A fixed seed, so that a failure can be repeated."""
STEADY = Sample(30, 0, 600 << 20, 30 << 20, 20, 5, 300, 40 << 20)


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as with ``make soak-server``."""
    words = [sys.executable, "-m", "tests.server.soak", "--seed", str(SEED), *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1100, check=False)
    print(done.stdout, done.stderr)
    return done


@pytest.mark.chrome
@pytest.mark.timeout(1200)
def test_a_short_soak_with_each_fault_has_no_complaints() -> None:
    """Two leases in a browser; half of the clients come over the unix socket, half over TCP."""
    number = len(FAULTS) + 8
    share = len(FAULTS) / number
    done = soak("--n", number, "--share", share, "--leases-per-browser", 2, "--hung", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{number} tasks" in done.stdout
    assert " 0 complaints" in done.stdout


@pytest.mark.chrome
@pytest.mark.timeout(1200)
def test_control_a_server_that_mixes_up_leases_is_found() -> None:
    """It gives a lease to two clients, and leases find the traces of others."""
    done = soak("--n", 8, "--share", 0, "--batch", 8, "--planted", "leases_are_mixed_up")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "which was given before" in done.stdout
    assert " and storage " in done.stdout


# ------------------------------------------------------------------ controls without browsers


class NoServer:
    """A server that lives on."""

    life = 1

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()


@pytest.fixture
def idle() -> Soak:
    server: Any = NoServer()
    return Soak(Settings(n=2, seed=1), server, "")


def attempt(fault: str = "", failure: str = "", *, browser: str = "b", done: bool = True) -> Attempt:
    return Attempt(
        *(Task(0, fault), FAULTS.get(fault), "token", 1, time.monotonic(), "session", browser),
        done=done,
        failure=failure,
    )


def test_each_fault_is_drawn_and_the_seed_repeats_the_draw() -> None:
    settings = Settings(n=2000, seed=3)
    tasks = draw(settings)
    assert tasks == draw(settings)
    assert {task.fault for task in tasks} == {"", *FAULTS}
    assert sum(task.fault == "kill server" for task in tasks) == 4
    assert sum(bool(task.fault) for task in tasks) == 400


@pytest.mark.parametrize(
    ("one", "complaint"),
    [
        (attempt(), ""),
        (attempt(done=False), "its client has died"),
        (attempt("kill client", done=False), ""),
        (attempt("kill browser"), "did not fail"),
        (attempt("kill browser", "BrowserDied: gone"), ""),
        (attempt("kill browser", "no such element: gone"), "failed with no such element"),
        (attempt("expire", "BrowserDied: gone"), "failed with BrowserDied"),
        (attempt("expire", "BrowserDied: gone", browser="hurt"), ""),
        (attempt("", "BrowserDied: gone"), "task 0 (no fault) failed: BrowserDied"),
        (attempt("", "BrowserDied: gone", browser="hurt"), ""),
        (attempt("stop client", "invalid session id: idle"), "failed: invalid session id"),
    ],
)
def test_a_lease_that_ends_without_a_reason_is_complained_about(
    idle: Soak, one: Attempt, complaint: str
) -> None:
    idle._hurt["hurt"] = one.began
    idle._judge(one)
    idle.check([])
    assert bool(idle.complaints) == bool(complaint)
    assert complaint in "\n".join(idle.complaints)


def test_a_failure_has_a_reason_while_the_server_is_ended(idle: Soak) -> None:
    idle.server.up.clear()
    assert not idle._judge(attempt("", "ConnectionRefusedError: gone"))
    idle.check([])
    assert idle.complaints == []


def test_a_task_without_a_lease_and_a_session_that_is_given_twice_are_complained_about(
    idle: Soak,
) -> None:
    idle._note_lease(attempt(), {"session": "s", "browser": "b"})
    assert idle.complaints == []
    idle._note_lease(attempt(), {"session": "s", "browser": "b"})
    idle.check([Task(0, "")])
    assert "which was given before" in idle.complaints[0]
    assert idle.complaints[1] == "task 0 (no fault) had 0 leases"


def test_growth_of_a_server_is_found_in_each_of_its_lives(idle: Soak) -> None:
    rising = [dataclasses.replace(STEADY, threads=STEADY.threads + 2 * i) for i in range(20)]
    idle.samples[1], idle.samples[2] = [STEADY] * 20, rising
    idle.check([])
    assert [text.partition(" grew")[0] for text in idle.complaints] == ["server 2: threads"]


def test_the_program_of_a_client_imports_nothing_of_the_library() -> None:
    text = Path(__file__).with_name("soak_client.py").read_text()
    assert "browserkeeper." not in text
    assert "import browserkeeper" not in text
