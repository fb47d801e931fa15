"""How ``browserkeeper run`` ends what it has started: SIGTERM in a good order, a grace, then SIGKILL."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.state.ledger import Ledger
from tests.support import witness
from tests.support.cli import CLI, ROOT, cli_json, run_shell
from tests.support.waiting import SECONDS, wait_until

LONG = "300"
"""A grace that no test waits for."""


def started_run(started: list[subprocess.Popen[str]], *words: object) -> subprocess.Popen[str]:
    """``browserkeeper run`` with these words, under way; the fixture ends it where the test does not."""
    pipe = subprocess.PIPE
    front = subprocess.Popen((*CLI, "run", *map(str, words)), cwd=ROOT, stdout=pipe, text=True)
    started.append(front)
    return front


def wait_for(file: Path) -> str:
    assert wait_until(file.exists)
    return file.read_text()


# ------------------------------------------------------------------ xvfb-run


@pytest.fixture
def display() -> Iterator[int]:
    """A number without a lock; what a test leaves of it is removed."""
    if not all(map(shutil.which, ("xvfb-run", "Xvfb", "xauth"))):
        pytest.skip("no xvfb-run with Xvfb and xauth")
    number = random.randint(200, 4000)
    yield number
    for path in files_of(number):
        path.unlink()


def files_of(display: int) -> list[Path]:
    paths = (Path(f"/tmp/.X{display}-lock"), Path(f"/tmp/.X11-unix/X{display}"))
    return [path for path in paths if path.exists()]


def under_xvfb(display: int, ready_file: Path, *options: object) -> list[object]:
    ready = f"touch {ready_file}; exec sleep 600"
    return [*options, "--", "xvfb-run", "-n", display, "sh", "-c", ready]


@pytest.mark.parametrize("end", ["timeout", "SIGTERM", "SIGHUP", "owner killed", "primary guard killed"])
@pytest.mark.leaves_zombies(2, "the guards' own, where PID 1 does not reap")
def test_xvfb_run_leaves_neither_lock_nor_socket(
    end: str, display: int, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """The shell of xvfb-run dies of SIGTERM without a word to Xvfb, which has to be asked as well."""
    options = ("--timeout", 4) if end == "timeout" else ()
    front = started_run(started, *under_xvfb(display, tmp_path / "ready", "--grace", 30, *options))
    if end != "timeout":  # which may come before that on a busy machine
        wait_for(tmp_path / "ready")
        assert len(files_of(display)) == 2
    if end.startswith("SIG"):
        front.send_signal(getattr(signal, end))
    elif end == "owner killed":
        front.kill()
    elif end == "primary guard killed":
        (session,) = cli_json("ps")["sessions"]
        os.kill(session["guards"][0]["pid"], signal.SIGKILL)
    front.wait(SECONDS)
    assert wait_until(lambda: not files_of(display) and cli_json("history")["ended"])
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["clean"]


@pytest.mark.parametrize("of", ["run", "xvfb-run"])
def test_an_xvfb_that_was_killed_leaves_neither_lock_nor_socket(
    of: str, display: int, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Killed with all others by `run`, or before that, so that its own parent has reaped it."""
    front = started_run(started, *under_xvfb(display, tmp_path / "ready", "--grace", 0))
    wait_for(tmp_path / "ready")
    assert len(files_of(display)) == 2
    if of == "xvfb-run":
        os.kill(int(Path(f"/tmp/.X{display}-lock").read_text()), signal.SIGKILL)
        assert len(files_of(display)) == 2
    front.send_signal(signal.SIGTERM)
    front.wait(SECONDS)
    assert wait_until(lambda: not files_of(display))


@pytest.mark.leaves_zombies(3, "Xvfb and the program below xvfb-run, where PID 1 does not reap")
def test_control_xvfb_run_alone_leaves_its_lock(display: int, tmp_path: Path) -> None:
    words = [str(word) for word in under_xvfb(display, tmp_path / "ready")[1:]]
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # for the directory of xvfb-run
    with subprocess.Popen(words, env=env, start_new_session=True) as shell:
        wait_for(tmp_path / "ready")
        shell.kill()
        xvfb = int(Path(f"/tmp/.X{display}-lock").read_text())
        known = [seen for seen in witness.below(os.getpid()) if os.getsid(seen.pid) == shell.pid]
        os.kill(xvfb, signal.SIGKILL)
        witness.end_by_pid(known)
    assert len(files_of(display)) == 2


# ------------------------------------------------------------------ the order


def test_a_shell_gets_to_its_trap_when_its_child_was_asked_too(tmp_path: Path) -> None:
    """A shell runs no trap while it waits for a child in the foreground."""
    lock = tmp_path / "lock"
    script = f"trap 'rm -f {lock}; exit 3' TERM; touch {lock}; sleep 600"
    for grace in (4, 20):  # on a busy machine the half of 4 may be too short
        assert run_shell(script, "--timeout", 0.5, "--grace", grace).returncode == 124
        if not lock.exists():
            break
    assert not lock.exists()


def test_what_a_trap_starts_in_the_second_half_is_not_asked(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"trap 'sleep 0.5 && rm -f {lock}; exit 3' TERM; touch {lock}; sleep 600"
    assert run_shell(script, "--timeout", 2, "--grace", 12).returncode == 124
    assert not lock.exists()


SUPERVISOR = """
import os, signal, subprocess, sys
said = open(sys.argv[1], "a", buffering=1)
worker = "trap 'echo worker was asked >>$0' TERM; read line; echo worker ended >>$0"
child = subprocess.Popen(["sh", "-c", worker, sys.argv[1]], stdin=subprocess.PIPE)
def end(*_):
    said.write("supervisor was asked\\n")
    child.communicate(b"end\\n")
    said.write("supervisor ended\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".ready", "w")
while True:
    signal.pause()
"""


def test_a_supervisor_ends_its_workers_itself(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    said = tmp_path / "said"
    # Behind a shell, as most are, so that it is not the command: the shell dies of SIGTERM at once.
    words = ("sh", "-c", '"$@"; :', "sh", sys.executable, "-c", SUPERVISOR, said)
    front = started_run(started, "--grace", LONG, "--", *words)
    wait_for(tmp_path / "said.ready")
    front.send_signal(signal.SIGTERM)
    front.wait(SECONDS)
    expected = ["supervisor was asked", "worker ended", "supervisor ended"]
    assert said.read_text().splitlines() == expected


def test_a_service_is_asked_after_the_program_that_was_started_later(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    said = tmp_path / "said"
    one = f"""
cd {tmp_path}
trap 'sleep 0.2; echo $0 >>said; exit' TERM
touch $0
while :; do sleep 0.01; done
"""
    script = f"""
sh -c "$1" service &
while [ ! -e {tmp_path}/service ]; do sleep 0.01; done
sh -c "$1" program
:"""
    front = started_run(started, "--grace", LONG, "--", "sh", "-c", script, "sh", one)
    wait_for(tmp_path / "program")
    front.send_signal(signal.SIGTERM)
    front.wait(SECONDS)
    assert said.read_text().splitlines() == ["program", "service"]


def test_a_stopped_process_is_continued_to_be_asked(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    said = tmp_path / "said"
    script = f"trap 'echo asked >{said}; exit' TERM; kill -STOP $$; while :; do sleep 0.01; done"
    front = started_run(started, "--grace", LONG, "--", "sh", "-c", script)
    assert wait_until(lambda: "T" in [seen.state for seen in witness.below(front.pid)])
    (ended,) = cli_json("end", "--owner", front.pid, "--yes")["sessions"]
    assert ended["report"]["reason"] == "operator"
    front.wait(SECONDS)
    assert said.read_text() == "asked\n"


# ------------------------------------------------------------------ its length

IGNORES = "(trap '' TERM INT; touch {file}; exec sleep 600) & while [ ! -e {file} ]; do sleep 0.01; done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_ends_the_grace(
    number: signal.Signals, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    asked = tmp_path / "asked"
    # It is asked when the grace has begun; before that a signal is the command's.
    there = tmp_path / "there"
    deaf = f"trap '' INT; trap 'touch {asked}' TERM; touch {there}; while :; do sleep 0.01; done"
    script = f"({deaf}) & while [ ! -e {there} ]; do sleep 0.01; done; exit 5"
    front = started_run(started, "--grace", LONG, "--", "sh", "-c", script)
    wait_for(asked)
    front.send_signal(number)
    assert front.wait(SECONDS) == 5


def test_without_a_grace_nothing_is_asked(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = f"trap 'echo asked >{said}; exit' TERM; while :; do sleep 0.01; done"
    assert run_shell(script, "--timeout", 0.5, "--grace", 0).returncode == 124
    assert not said.exists()


def test_the_report_says_how_long_the_grace_was(tmp_path: Path) -> None:
    script = IGNORES.format(file=tmp_path / "there")
    assert run_shell(script, "--grace", 0.3).returncode == 0
    (ended,) = cli_json("history")["ended"]
    assert 0.3 <= ended["report"]["seconds"]["grace"] < SECONDS
    assert ended["report"]["clean"]


# ------------------------------------------------------------------ sessions inside

DEAF = ("sh", "-c", "trap '' TERM; touch $0; while :; do sleep 0.01; done")


def ended_reports() -> dict[str, dict[str, Any]]:
    """The reports in the history by the name of what ran."""
    return {e["session"]["browser"]: e["report"] for e in cli_json("history")["ended"]}


@pytest.mark.leaves_zombies(2, "the guards' own, where PID 1 does not reap")
def test_a_run_inside_is_ended_by_its_own_guards(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Although its command ignores SIGTERM: its owner is killed, which its guards notice."""
    inner = (*CLI, "run", "--grace", "0", "--", *DEAF, tmp_path / "there")
    front = started_run(started, "--grace", 0.5, "--", *inner)
    wait_for(tmp_path / "there")
    front.kill()
    assert wait_until(lambda: len(ended_reports()) == 2)
    assert {report["certificate"] for report in ended_reports().values()} == {"ECHILD"}
    assert ended_reports()["sh"]["reason"] == "owner-died"
    assert wait_until(lambda: not list(Ledger.open().lock_files()))  # removed after the history is there


@pytest.mark.leaves_zombies(2, "the guards' own, where PID 1 does not reap")
def test_the_grace_of_a_run_inside_cannot_hold_the_outer_one_up(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    inner = (*CLI, "run", "--grace", LONG, "--", *DEAF, tmp_path / "there")
    front = started_run(started, "--grace", 0.2, "--", *inner)
    wait_for(tmp_path / "there")
    front.kill()
    assert wait_until(lambda: len(ended_reports()) == 2)
    assert {report["certificate"] for report in ended_reports().values()} == {"ECHILD"}


@pytest.mark.parametrize("victims", ["both guards", "primary guard"])
@pytest.mark.leaves_zombies(4, "guards are killed, and PID 1 does not reap")
def test_the_record_of_a_session_inside_whose_guards_were_killed_is_retired(
    victims: str, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Nor does its cgroup stay, which the fixture ``nothing_left`` would find."""
    inner = (*CLI, "run", "--", *DEAF, tmp_path / "there")
    front = started_run(started, "--grace", 0.5, "--", "sh", "-c", '"$@"; exit 5', "sh", *inner)
    wait_for(tmp_path / "there")
    assert wait_until(lambda: len(cli_json("ps")["sessions"]) == 2)
    (session,) = [s for s in cli_json("ps")["sessions"] if s["owner"]["pid"] != front.pid]
    pids = [guard["pid"] for guard in session["guards"]]  # the primary one first
    for pid in pids if victims == "both guards" else pids[:1]:
        os.kill(pid, signal.SIGKILL)
    assert front.wait(SECONDS) == 5
    assert not list(Ledger.open().records())
    assert len(cli_json("history")["ended"]) == 2
    assert not list(Ledger.open().lock_files())


BROWSER = """
import signal, sys, time
from browserkeeper import browser
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with browser("chrome") as driver:
    driver.get("data:text/html,here")
    open(sys.argv[1], "w")
    time.sleep(600)
"""


@pytest.mark.chrome
@pytest.mark.parametrize("owner", ["deaf", "plain"])
def test_a_browser_inside_is_ended_with_a_certificate_and_a_history(
    owner: str, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    program = (sys.executable, "-c", BROWSER, tmp_path / "there", owner)
    front = started_run(started, "--grace", 0.5, "--", "sh", "-c", '"$@"; :', "sh", *program)
    wait_for(tmp_path / "there")
    front.send_signal(signal.SIGTERM)
    front.wait(SECONDS)
    inner = ended_reports()["chrome"]
    assert (inner["reason"], inner["certificate"]) == ("owner-died", "ECHILD")
    assert not inner["problems"]
    assert not list(Ledger.open().records())


# ------------------------------------------------------------------ as PID 1


@pytest.mark.root
@pytest.mark.namespaces
def test_as_pid_1_xvfb_run_can_start_again_with_the_same_tmp(display: int) -> None:
    """A container that is restarted keeps its ``/tmp``."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *CLI, "run")
    script = f"test -e /tmp/.X{display}-lock && echo started; kill -TERM 1; sleep 600"
    words = [*inside, "--", "xvfb-run", "-n", str(display), "sh", "-c", script]
    for _ in range(2):
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
        assert done.stdout == "started\n", done.stderr
        assert not files_of(display)
