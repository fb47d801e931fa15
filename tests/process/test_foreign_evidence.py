"""What ``sweep --foreign`` takes for evidence: connections, cgroups, names and places of profiles.

``tests/cli/test_foreign.py`` has drivers and browsers.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.cleanup import foreign, foreign_evidence, foreign_profiles
from browserkeeper.cleanup.foreign_profiles import ProfileUsers, checks_of_profile
from browserkeeper.cleanup.temporary_profiles import PROFILES, may_be_a_persons
from browserkeeper.drivers import profile_holders
from browserkeeper.process import system
from browserkeeper.process.clients import Connections, connections_of
from browserkeeper.process.identity import ProcessFacts
from browserkeeper.state.ledger import Ledger
from tests.support.waiting import wait_until

CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
if sys.argv[2] == "half": connection.shutdown(socket.SHUT_WR)
print(flush=True)
sys.stdin.read()
"""
"""A client of another process: ``open`` has its connection, ``half`` has closed the direction to us."""

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
server.accept()[0].close()
sys.stdin.read()
"""
"""Closes its first connection, and goes on to listen."""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """For IPv6 and IPv4: the kernel shows its ends as IPv6, and those of its clients here as IPv4."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def start_client(server: socket.socket, kind: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CLIENT, str(port_of(server)), kind]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def connections() -> Connections:
    found = connections_of([os.getpid()], [])
    assert found is not None
    return found


def clients(server: socket.socket) -> list[str]:
    return [who for who in connections().clients if who.endswith(f"to port {port_of(server)}")]


@pytest.mark.parametrize("kind", ["open", "half"])
@pytest.mark.parametrize("accepts", [True, False])
def test_a_client_counts_while_it_has_its_socket(
    server: socket.socket, kind: str, accepts: bool
) -> None:
    """Also where nothing has accepted it, and where it has closed one direction and reads on."""
    assert not clients(server)
    with start_client(server, kind) as client:
        assert client.stdout is not None
        client.stdout.readline()
        accepted = server.accept()[0] if accepts else None
        assert wait_until(lambda: any(f"(pid {client.pid})" in who for who in clients(server)))
        client.kill()
        client.wait()
        assert wait_until(lambda: not clients(server)), "the control: its death alone ends that"
        if accepted:
            accepted.close()


def test_a_connection_of_the_process_with_itself_is_no_client(server: socket.socket) -> None:
    with socket.create_connection(("127.0.0.1", port_of(server))), server.accept()[0]:
        assert not clients(server)


def test_a_connection_that_was_closed_is_remembered() -> None:
    """Of a process of its own: other tests' servers in this one have connections, too."""
    words = [sys.executable, "-c", SERVER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        before = connections_of([server.pid], [])
        assert before
        assert not before.was_closed
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert client.recv(1) == b""
        assert wait_until(lambda: (now := connections_of([server.pid], [])) and now.was_closed)
        server.communicate("")


def test_the_addresses_at_which_a_process_listens_tell_whether_others_reach_it(
    server: socket.socket,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as local:
        at = {port: address for _, (address, port) in connections().listening}
        assert not at[port_of(server)].is_loopback
        assert at[port_of(local)].is_loopback


@pytest.mark.parametrize(
    ("cgroups", "service"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("0::/system.slice/a.service/worker/1\n", "/system.slice/a.service"),
        ("1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        (
            "0::/user.slice/user-1.slice/user@1.service/app.slice/b.service\n",
            "/user.slice/user-1.slice/user@1.service/app.slice/b.service",
        ),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/run-3.scope\n", ""),
        ("0::/user.slice/user-1.slice/session-2.scope\n", ""),
        ("3:cpu:/a.service\n0::/\n", ""),
        ("0::/\n", ""),
    ],
)
def test_the_service_of_a_process_is_known_from_its_cgroup_and_from_one_below(
    cgroups: str, service: str
) -> None:
    assert foreign_evidence._service(cgroups) == service


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("org.chromium.Chromium.scoped_dir.fVHbrD", True),
        (".org.chromium.Chromium.t7cX1x", True),
        ("com.google.Chrome.scoped_dir.a1B2c3", True),
        ("rust_mozprofileQz8k1w", True),
        ("scoped_dir1234_567", True),
        ("com.google.backup", False),
        ("com.google.Chrome", False),
        ("org.chromium.Chromium.my-profile", False),
        ("scoped_dir_login", False),
        ("rust_mozprofile", False),
        ("rust_mozprofileQz8k1w.old", False),
        ("com.google.Chrome.backup", False),
        ("rust_mozprofilesaved1", True),
    ],
)
def test_only_a_whole_name_that_drivers_give_is_a_temporary_profiles(name: str, is_one: bool) -> None:
    assert (bool(PROFILES.fullmatch(name)) and not may_be_a_persons(Path(name))) == is_one


def last_check(profile: Path) -> foreign_evidence.Check:
    """The last one that is made: the first that does not hold, or the last of all."""
    for check in checks_of_profile(profile, 60, ProfileUsers([profile]), time.time()):
        if not check.holds:
            return check
    return check


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "rust_mozprofileAAAA11"
    path.mkdir(mode=0o700)
    (path / "prefs.js").write_text("")
    os.utime(path, (0, 0))
    return path


def test_a_profile_that_other_machines_may_share_is_listed_only(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A plain user has processes that nobody may look into (ssh-agent); a lock says enough without them.
    (profile / ".parentlock").touch()
    os.utime(profile, (0, 0))
    assert last_check(profile).holds, "the control"
    for kind in ("nfs4", "fuse.sshfs", ""):
        monkeypatch.setattr(profile_holders, "_file_system", lambda path, kind=kind: kind)
        check = last_check(profile)
        assert (check.name, check.holds) == ("place", None)


def test_where_proc_hides_processes_a_profile_without_a_lock_is_listed_only(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a lock is judged by that: the kernel answers for hidden processes as well."""
    hidden = "/proc is mounted with hidepid=2"
    monkeypatch.setattr(foreign_profiles, "hidden_processes", lambda: hidden)
    check = last_check(profile)
    assert (check.name, check.holds) == ("holder", None)
    assert hidden in check.seen
    (profile / ".parentlock").touch()
    os.utime(profile, (0, 0))
    assert last_check(profile).holds


def start_as(program: Path, original: str, *words: str, **env: str) -> subprocess.Popen[bytes]:
    """Start a copy of a program under this path, and wait until it executes that file."""
    shutil.copy(original, program)
    started = subprocess.Popen([str(program), *words], env={**os.environ, **env})
    # The kernel shows the new file a moment before the new environment.
    assert wait_until(
        lambda: (
            system.program(started.pid) == program.name
            and all(system.marker_value(started.pid, key) == value for key, value in env.items())
        )
    )
    return started


def facts_of(process: subprocess.Popen[bytes]) -> ProcessFacts:
    found = system.facts(process.pid)
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "is_headless"), [("chrome", False), ("msedge", False), ("firefox", True)]
)
def test_the_variable_that_hides_firefox_hides_no_other_browser(
    name: str, is_headless: bool, tmp_path: Path
) -> None:
    process = start_as(tmp_path / name, "/bin/sleep", "600", MOZ_HEADLESS="1")
    try:
        assert foreign_evidence._is_headless(process.pid) is is_headless
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("child", "holds"), [("opt/chrome_crashpad_handler", True), ("other/viewer", False)]
)
def test_a_program_that_a_browser_has_started_is_no_part_of_it(
    child: str, holds: bool, tmp_path: Path
) -> None:
    """A helper is in the browser's directory; a program of the user's may have windows and data."""
    for directory in ("opt", "other"):
        (tmp_path / directory).mkdir()
    shutil.copy("/bin/sleep", tmp_path / child)
    browser = start_as(tmp_path / "opt/chrome", "/bin/sh", "-c", f"{tmp_path / child} 600 & wait")
    try:
        name = Path(child).name
        assert wait_until(
            lambda: [system.program(one.pid) for one in system.tree(browser.pid)] == [name]
        )
        check = foreign_evidence._tree(browser.pid, [facts_of(browser)])
        assert check.holds is holds, check.seen
    finally:
        for one in system.tree(browser.pid):
            os.kill(one.pid, signal.SIGKILL)
        browser.wait()  # the shell has reaped it, and ends


def test_a_profile_that_is_gone_meanwhile_is_a_problem_and_no_traceback(profile: Path) -> None:
    found = foreign.Foreign("profile", str(profile), 1.0, "orphan", "", ())
    with foreign._opened([profile]) as directories:
        shutil.rmtree(profile)
        ended = foreign._without(found, directories)
    assert not ended.removed
    assert "was not removed" in ended.problem


def test_an_orphan_that_is_judged_otherwise_right_before_its_end_is_a_problem(
    profile: Path, state_dir: Path
) -> None:
    found = foreign.Foreign("profile", str(profile), 1.0, "orphan", "", ())
    os.utime(profile)  # somebody has used it meanwhile
    ended = foreign.ForeignSweep(Ledger.open(state_dir)).end(found)
    assert (ended.verdict, ended.removed) == ("listed only", False)
    assert "not ended any more" in ended.problem
    assert profile.exists()
