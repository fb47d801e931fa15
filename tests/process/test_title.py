"""The guards' names and command lines: who ends processes by name spares them, so that they clean up.

The tests do what such a tool of procps does: they search ``/proc/PID/comm`` and, as ``-f``, the words of
``/proc/PID/cmdline`` for a regular expression, among the processes below the test only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from browserkeeper.process import guard_process
from browserkeeper.state.ledger import Ledger
from tests.support import witness
from tests.support.guards import altered_guard, start, staying
from tests.support.owners import ROOT, Owner
from tests.support.waiting import deadline_in, wait_until

NAMES = ("chrome", "firefox", "geckodriver", "chromedriver", "chromium", "python", "venv")


def matches(pid: int, pattern: str) -> bool:
    """True where the tool, with or without ``-f``, would signal the process."""
    try:
        comm = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        return False
    return bool(re.search(pattern, comm) or re.search(pattern, os.fsdecode(words)))


def kill_by_pattern(pattern: str, *, below: int, children_first: bool = False) -> list[str]:
    """SIGKILL to what matches below a process; the names of those that got it."""
    hit = [seen for seen in witness.below(below) if matches(seen.pid, pattern)]
    for seen in reversed(hit) if children_first else hit:
        with contextlib.suppress(ProcessLookupError):  # the guards end the others at the first death
            os.kill(seen.pid, signal.SIGKILL)
    return [seen.name for seen in hit]


def environment_named_after(name: str, tmp_path: Path, *changes: tuple[str, str]) -> tuple[str, str]:
    """(a copy of the guard, a driver) in a virtual environment whose path has the name of a browser."""
    home = tmp_path / f"{name}-bot" / "venv" / "lib"
    home.mkdir(parents=True)
    driver = home / name
    shutil.copy("/bin/sleep", driver)
    return altered_guard(home, *changes), str(driver)


@pytest.mark.parametrize("name", ["chromedriver", "geckodriver"])
def test_guards_survive_a_kill_by_the_name_of_their_driver_and_clean_up(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, driver = environment_named_after(name, tmp_path)
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    running = start((driver, "600"), tmpdir=str(tmp_path / f"bk-{name}"), log=str(tmp_path / name))
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    assert wait_until(lambda: matches(spawned["pid"], name))  # it has done its exec
    guards = [running.pid, running.primary_pid]
    assert not [name for name in NAMES for pid in guards if matches(pid, name)]
    assert kill_by_pattern(name, below=os.getpid()) == [name]
    ended = running.wait_for("ended", deadline=deadline_in())
    assert ended is not None
    assert (ended["report"]["reason"], ended["report"]["certificate"]) == ("exited", "ECHILD")
    assert not (tmp_path / f"bk-{name}").exists()
    running.end("closed", deadline_in())


@pytest.mark.leaves_zombies(2, "both guards are killed")
def test_control_guards_with_their_own_command_line_die_with_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ('        set_title(os.environ.get("BROWSERKEEPER_SESSION", ""))\n', "        set_title\n")
    directory, driver = environment_named_after("chromedriver", tmp_path, plain)
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    running = start((driver, "600"), tmpdir=str(tmp_path / "bk-control"))
    assert running.wait_for("spawned", deadline=deadline_in())
    # Stopped first, as if all died at one moment: the second guard would act on the death of the first.
    # Children first, since the death of a parent continues its stopped child.
    guards = running.pid, running.primary_pid
    for guard in guards:
        os.kill(guard, signal.SIGSTOP)
    assert wait_until(lambda: witness.is_stopped(guards[0]) and witness.is_stopped(guards[1]))
    assert len(kill_by_pattern("chrome", below=os.getpid(), children_first=True)) == 3
    running.process.wait()
    assert (tmp_path / "bk-control").exists()
    running.close()


def test_the_command_line_of_a_guard_names_its_session_and_nothing_else() -> None:
    for containment in ("subreaper", "portable"):
        running = start(("/bin/sleep", "600"), containment)
        assert running.wait_for("spawned", deadline=deadline_in())
        for pid in {running.pid, running.primary_pid}:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
            assert line == f"bk-guard {running.plan.session}"
            assert Path(f"/proc/{pid}/comm").read_text() == "bk-guard\n"
        running.end("closed", deadline_in())


def test_the_command_keeps_its_own_name_and_arguments(tmp_path: Path) -> None:
    """What the guard has written over its arguments does not reach the programs that it executes."""
    file = tmp_path / "line"
    running = start(staying(("/bin/sh", "-c", f"tr '\\0' ' ' </proc/$$/cmdline >{file}; :")))
    assert wait_until(lambda: file.exists() and file.read_text())
    assert file.read_text().startswith("/bin/sh -c tr")
    running.end("closed", deadline_in())


OWNER = """
import os, sys, time
from browserkeeper import browser
with browser(sys.argv[1]) as driver:
    driver.get("data:text/html,here")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.chrome
@pytest.mark.leaves_zombies(1, "the standby guard's own, where PID 1 does not reap")
def test_a_session_of_chromium_is_cleaned_up_after_a_kill_by_name(state_dir: Path) -> None:
    """The owner's script is named after the browser, so it is killed as well."""
    owner = Owner(sys.executable, "-c", OWNER, "chrome", cwd=ROOT)
    owner.wait_for("ready")
    hit = kill_by_pattern("chrom", below=os.getpid())
    assert owner.wait() == -signal.SIGKILL
    assert "bk-guard" not in hit
    assert len(hit) > 4
    ledger = Ledger.open()
    assert wait_until(lambda: list(ledger.ended()) and not list(ledger.records()))
    (ended,) = ledger.ended()
    assert ended.report.clean
    assert ended.report.certificate == "ECHILD"
    assert not Path(ended.session.tmpdir).exists()
