"""The portable containment, asked for on Linux: what it ends, and one process that it misses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import BrowserDied, BrowserSession, SessionTimeout, browser
from browserkeeper.process import Platform, is_alive, linux, portable
from browserkeeper.process.identity import ProcessIdentity
from fixtures.server import Site
from tests.conftest import PidFile
from tests.support import witness
from tests.support.guards import (
    BOTH,
    SLEEP_FOREVER,
    pids_once_there,
    program,
    start,
    start_owner,
    staying,
)
from tests.support.waiting import deadline_in, wait_until

ORPHANS = pytest.mark.leaves_zombies(40, "no subreaper: orphans are PID 1's to reap, as the docs say")


def pids_when_settled(session: BrowserSession[Any]) -> set[int]:
    """All processes of a session, once none starts or ends any more: a short-lived one that ends just
    before the guard's last scan is missing in the report."""
    seen: list[set[int]] = [set()]

    def is_settled() -> bool:
        seen.append({process.pid for process in session.processes()})
        return seen[-1] == seen[-2]

    assert wait_until(is_settled, pause=1)
    return seen[-1]


@ORPHANS
@pytest.mark.parametrize("name", BOTH)
def test_a_session_ends_with_the_two_scans_certificate(name: str, site: Site) -> None:
    session = browser(name, containment="portable")
    with session as driver:
        driver.get(site.url)
        assert session.containment == "portable"
        pids = pids_when_settled(session)
    assert session.report
    assert (session.report.certificate, session.report.containment) == ("two-scans", "portable")
    assert session.report.clean
    assert pids <= {p.pid for p in session.report.processes}


@ORPHANS
@pytest.mark.chrome
def test_a_session_is_ended_at_its_timeout(site: Site) -> None:
    session = browser(containment="portable", timeout=10)
    with pytest.raises(SessionTimeout), session as driver:
        driver.get(site.url_for("never"))
    assert session.report
    assert session.report.clean


@ORPHANS
@pytest.mark.chrome
def test_a_stopped_browser_is_ended(site: Site) -> None:
    session = browser(containment="portable")
    with session as driver:
        driver.get(site.url)
        assert session.pid
        os.kill(session.pid, signal.SIGSTOP)
    assert session.report
    assert session.report.clean


@ORPHANS
@pytest.mark.chrome
def test_the_owner_ends_the_session_when_the_guard_is_killed(site: Site) -> None:
    session = browser(containment="portable")
    with pytest.raises(BrowserDied, match="its guard was killed"), session as driver:
        driver.get(site.url)
        time.sleep(0.5)  # the guard looks at its tree after 0.25 s
        assert session.guard_pid
        os.kill(session.guard_pid, signal.SIGKILL)
        driver.get(site.url)
        assert session.pid
        os.kill(session.pid, signal.SIGKILL)
        driver.get(site.url)
    assert session.report
    assert session.report.clean


@ORPHANS
@pytest.mark.parametrize("name", ["daemonise", "ignore_term", "stop_itself"])
def test_ends_processes_that_misbehave(name: str, pids_of: PidFile) -> None:
    running = start(staying(program(name, pids_of)), "portable")
    started = pids_once_there(pids_of, 1)
    time.sleep(0.5)
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "two-scans"
    assert not [s for s in started if witness.is_same(s)]


@ORPHANS
def test_a_killed_owners_session_is_ended(pids_of: PidFile) -> None:
    owner = start_owner(staying(program("daemonise", pids_of)), containment="portable")
    (daemon,) = pids_once_there(pids_of, 1)
    owner.kill()
    owner.communicate()
    assert wait_until(lambda: not witness.is_same(daemon))


def test_a_stop_grace_period_is_over_when_the_command_ends() -> None:
    running = start(SLEEP_FOREVER, "portable", stop_grace_period=30)
    assert running.wait_for("spawned", deadline=deadline_in())
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["certificate"] == "two-scans"
    assert report["seconds"]["stop_grace_period"] < 25


def test_the_recorded_guard_is_alive_by_the_clock_of_its_platform(tmp_path: Path) -> None:
    """A sweep takes a session for orphaned whose owner is dead and whose guards it does not find."""
    record = tmp_path / "record.json"
    running = start(SLEEP_FOREVER, "portable", record=str(record))
    assert running.wait_for("spawned", deadline=deadline_in())
    (guard,) = json.loads(record.read_text())["guards"]
    assert is_alive(ProcessIdentity(**guard), portable)
    running.end("closed", deadline_in())


@ORPHANS
def test_control_a_daemon_without_marker_survives_if_it_left_the_tree_unseen(pids_of: PidFile) -> None:
    """The daemon has an empty environment and left the tree before the guard's first look.

    Only a subreaper or a cgroup ends it, so the certificate of this containment is a weaker one.
    """
    running = start(staying(program("clear_environment", pids_of)), "portable")
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned is not None
    os.kill(running.pid, signal.SIGSTOP)  # on a busy machine the program would not be done at that look
    started = pids_once_there(pids_of, 1)
    # The program has returned then, so the daemon has lost the marker.
    assert wait_until(lambda: (seen := witness.look(spawned["pid"])) and seen.name == "sleep")
    os.kill(running.pid, signal.SIGCONT)
    report = running.end("closed", deadline_in())
    assert report is not None
    survived = [s for s in started if witness.is_same(s)]
    witness.end_by_pid(started)
    assert survived


@pytest.mark.parametrize("platform", [linux, portable], ids=["linux", "portable"])
def test_listening_port_finds_the_port_of_a_process(platform: Platform) -> None:
    with socket.socket() as listener, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        child = subprocess.Popen(["sleep", "60"], pass_fds=[listener.fileno(), other.fileno()])
        try:
            assert platform.listening_port(child.pid) == 0, "bound is not listening"
            listener.listen()
            assert platform.listening_port(child.pid) == listener.getsockname()[1]
        finally:
            child.kill()
            child.wait()
        assert platform.listening_port(child.pid) == 0
