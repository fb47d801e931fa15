"""What another local user reaches of a session that runs: its ports, its files, its processes.

docs/security.md says it in words.  Where a door is open, the test goes through it: when a browser or
its driver closes one some day, a test here fails and the document can be bettered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from browserkeeper import BrowserSession, browser
from browserkeeper.telemetry.collector import registry
from browserkeeper.telemetry.tally import Tally
from fixtures.server import Site
from tests.support import witness
from tests.support.cli import cli
from tests.support.guards import BOTH
from tests.support.other_user import PYTHON, as_nobody, shell_as_nobody

pytestmark = pytest.mark.root
SECRET = "only-the-owner-knows"
LISTENING = "0A"
ACCEPTS = 0x10000
"""``__SO_ACCEPTCON`` among the flags of /proc/net/unix."""

REQUEST = """
import sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
kind = {"Content-Type": "application/json"}
asked = urllib.request.Request(url, body.encode() or None, kind, method=method)
try:
    with urllib.request.urlopen(asked, timeout=30) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""
CONNECT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as connection:
    connection.sendall(sys.argv[2].encode())
    try:
        print(connection.recv(65536).decode())
        message = b'{"id":1,"method":"session.new","params":{"capabilities":{}}}'
        connection.sendall(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
        print(connection.recv(65536).decode())
    except ConnectionError:
        pass
"""
REFUSED = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
except ConnectionRefusedError:
    print("refused")
"""
UPGRADE = """GET /session HTTP/1.1\r
Host: 127.0.0.1:{port}\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r
Sec-WebSocket-Version: 13\r
\r
"""


@dataclasses.dataclass(frozen=True)
class Running:
    session: BrowserSession[Any]
    driver: Any
    site: Site

    @property
    def members(self) -> list[witness.Seen]:
        return [seen for seen in witness.below(os.getpid()) if seen.name != "python3"]

    def request(self, method: str, path: str, body: str = "") -> Any:
        """Ask the driver, as the other user; the answer's value."""
        url = f"http://127.0.0.1:{self.driver.service.port}{path}"
        return json.loads(as_nobody(*PYTHON, REQUEST, method, url, body).stdout)["value"]

    def ports(self) -> dict[int, str]:
        """Every TCP port that the session listens on, whose, and that it is a loopback one."""
        inodes = {inode: seen.name for seen in self.members for inode in sockets(seen.pid)}
        found = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                address, state, inode = (line.split()[place] for place in (1, 3, 9))
                if state == LISTENING and inode in inodes:
                    host, port = address.split(":")
                    assert host in ("0100007F", "00000000000000000000000001000000"), "not the loopback"
                    found[int(port, 16)] = inodes[inode]
        return found


def sockets(pid: int) -> Iterator[str]:
    """Inodes, as ``/proc/net`` names sockets by."""
    handles: list[str] = []
    with contextlib.suppress(OSError):  # it has ended
        handles = os.listdir(f"/proc/{pid}/fd")
    for handle in handles:
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{handle}")
            if target.startswith("socket:"):
                yield target[8:-1]


def records(state_dir: Path) -> list[Path]:
    """Of the sessions that live, without the draft of one that is just replaced."""
    return [path for path in (state_dir / "live").iterdir() if path.suffix != ".tmp"]


@pytest.fixture(params=BOTH)
def running(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Running]:
    session = browser(request.param, env={"A_SECRET": SECRET}, log=tmp_path / "driver.log")
    with session as driver:
        driver.get(site.url)
        driver.add_cookie({"name": "secret", "value": SECRET})
        yield Running(session, driver, site)


@contextlib.contextmanager
def a_trap() -> Iterator[Path]:
    """A program that the other user chose, which says who ran it in the file ``trace``."""
    with tempfile.TemporaryDirectory(prefix="tmp-trap-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "program").write_text(f"#!/bin/sh\nid -u >{directory}/trace\n")
        (directory / "program").chmod(0o755)
        yield directory


def new_session(binary: Path) -> str:
    choices = [{name: {"binary": str(binary)}} for name in ("goog:chromeOptions", "moz:firefoxOptions")]
    return json.dumps({"capabilities": {"firstMatch": choices}})


def test_what_another_user_can_reach(running: Running, state_dir: Path, tmp_path: Path) -> None:
    """One browser for all of it: to start one costs more than all the looks."""
    files_are_closed(running, state_dir, tmp_path)
    processes_show_their_command_lines_only(running)
    unix_sockets_lie_in_the_tmpdir(running)
    if running.session.name == "firefox":
        firefoxes_ports(running)
    else:
        chromiums_port(running)
    assert running.driver.title


def files_are_closed(running: Running, state_dir: Path, tmp_path: Path) -> None:
    for directory in (running.session.tmpdir, state_dir):
        assert shell_as_nobody('ls "$1" 2>&1 || true', directory).endswith("Permission denied\n")
    places = [Path(running.session.tmpdir), state_dir, state_dir / "live", state_dir / "history"]
    assert {path.stat().st_mode & 0o777 for path in places} == {0o700}
    files = [*records(state_dir), tmp_path / "driver.log"]
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def processes_show_their_command_lines_only(running: Running) -> None:
    """The environment, with whatever secrets the owner's has, is this user's alone (proc(5))."""
    for seen in witness.alive(running.members):
        words = shell_as_nobody('cat "/proc/$1/cmdline" 2>&1 || true', seen.pid)
        assert SECRET not in words
        assert running.site.url not in words
        for name in ("environ", "maps", "mem"):
            opened = shell_as_nobody('head -c 1 "/proc/$1/$2" 2>&1 || true', seen.pid, name)
            # A helper of the browser may have ended meanwhile.
            assert opened.endswith("Permission denied\n") or not witness.is_same(seen)


def unix_sockets_lie_in_the_tmpdir(running: Running) -> None:
    """None that accepts connections is abstract, where no mode would keep anybody off (unix(7))."""
    inodes = {inode for seen in running.members for inode in sockets(seen.pid)}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = line.split()
        if inode in inodes and int(flags, 16) & ACCEPTS:
            assert path
            assert path[0].startswith(running.session.tmpdir)


def chromiums_port(running: Running) -> None:
    """There is none: the driver's is in a network namespace of its own.  ``test_isolated_driver.py``
    tries all ports."""
    assert not running.ports()
    refused = [*PYTHON, REFUSED, str(running.driver.service.port)]
    assert as_nobody(*refused).stdout.strip() == "refused"
    assert shell_as_nobody('ls -L "/proc/$1/ns/net" 2>&1 || true', running.members[0].pid).endswith(
        "Permission denied\n"
    )


@pytest.mark.chrome
def test_control_a_driver_that_is_not_isolated_obeys_everybody(site: Site) -> None:
    """It lists the sessions, lets everybody drive them, and runs any program as its own user."""
    session = browser("chrome", isolate_driver=False)
    with session as driver:
        driver.get(site.url)
        driver.add_cookie({"name": "secret", "value": SECRET})
        whoever_connects_has_it_all(Running(session, driver, site))


def whoever_connects_has_it_all(running: Running) -> None:
    assert set(running.ports().values()) == {"chromedriver"}
    (listed,) = running.request("GET", "/sessions")
    assert listed["id"] == running.driver.session_id
    (cookie,) = running.request("GET", f"/session/{listed['id']}/cookie")
    assert cookie["value"] == SECRET
    with a_trap() as trap:
        answer = running.request("POST", "/session", new_session(trap / "program"))
        assert answer["error"] == "session not created"
        assert (trap / "trace").read_text() == f"{os.getuid()}\n"


def firefoxes_ports(running: Running) -> None:
    """geckodriver has one session and does not tell its name; Firefox opens two ports of its own."""
    ports = running.ports()
    assert sorted(ports.values()) == ["firefox-esr", "firefox-esr", "geckodriver"]
    assert running.request("GET", "/status")["ready"] is False
    with a_trap() as trap:
        answer = running.request("POST", "/session", new_session(trap / "program"))
        assert answer["message"] == "Session is already started"
        assert not (trap / "trace").exists()
    said = [
        as_nobody(*PYTHON, CONNECT, str(port), UPGRADE.format(port=port)).stdout.strip()
        for port, name in ports.items()
        if name == "firefox-esr"
    ]
    assert not any("sessionId" in words for words in said), "a second session, for another user"


@pytest.mark.chrome
def test_a_debugging_port_shows_the_pages_to_everybody(site: Site) -> None:
    """Why it is not opened unless it is asked for."""
    session = browser("chrome", debugging="port")
    with session as driver:
        driver.get(site.url)
        ports = Running(session, driver, site).ports()
        (port,) = (port for port, name in ports.items() if name != "chromedriver")
        url = f"http://127.0.0.1:{port}/json/list"
        pages = json.loads(as_nobody(*PYTHON, REQUEST, "GET", url, "").stdout)
        assert site.url in [page["url"] for page in pages]
        assert all(page["webSocketDebuggerUrl"] for page in pages)


@pytest.mark.firefox
def test_geckodriver_serves_whoever_comes_first() -> None:
    """Before it has a session anybody can start one, and name the program."""
    command = [shutil.which("geckodriver") or "", "--port", "0"]
    with a_trap() as trap, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        port = next(line for line in driver.stdout if "Listening" in line).strip().rpartition(":")[2]
        words = (f"http://127.0.0.1:{port}/session", new_session(trap / "program"))
        answer = json.loads(as_nobody(*PYTHON, REQUEST, "POST", *words).stdout)["value"]
        driver.kill()
        assert (trap / "trace").read_text() == f"{os.getuid()}\n", answer


@pytest.mark.parametrize("name", BOTH)
def test_secrets_reach_the_log_and_nothing_else(
    name: str, site: Site, state_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log in detail, which only ``log=`` keeps, is the control: the secrets did go to the driver."""
    caplog.set_level("DEBUG", "browserkeeper")
    log = tmp_path / "driver.log"
    user = f"somebody:{SECRET}@" if name == "chrome" else ""  # Firefox asks the user about it
    with browser(name, log=log, env={"A_SECRET": SECRET}) as driver:
        driver.get(f"{site.url.replace('//', f'//{user}')}?token={SECRET}")
        driver.execute_script("setTimeout(() => { throw Error(location.href) })")
        told = [generate_latest(registry(Tally())).decode(), cli("ps", "--tree", "--json").stdout]
        told += [path.read_text() for path in records(state_dir)]
    told += [path.read_text() for path in (state_dir / "history").iterdir()]
    told += [cli("history", "--json").stdout, caplog.text]
    assert all(told)
    assert len(told) == 6
    for text in told:
        assert SECRET not in text
        assert site.url not in text
    assert SECRET in log.read_text()


def test_a_runs_command_is_in_the_ledger_but_not_in_the_metrics(state_dir: Path) -> None:
    """As in ps(1), but it stays there for 500 sessions, which docs/security.md says."""
    assert cli("run", "--", "true", SECRET).returncode == 0
    (kept,) = (state_dir / "history").iterdir()
    assert SECRET in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert SECRET not in generate_latest(registry(Tally())).decode()
