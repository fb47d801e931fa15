"""The units in ``examples/systemd``, under a real systemd that is PID 1 of a namespace of its own."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stopping import cgroup2, enter, members, systemd
from browserkeeper.guard.files import make_session_directory
from browserkeeper.state.records import new_id
from tests.browser.test_plain_user import home
from tests.support import witness
from tests.support.cli import ROOT
from tests.support.other_user import NOBODY, python_for_nobody
from tests.support.waiting import SECONDS, wait_until

SERVE = ROOT / "examples" / "systemd" / "browserkeeper-serve.service"
UNIT = ROOT / "examples" / "systemd" / "browserkeeper-watch.service"
PROGRAM = "/opt/app/venv/bin/browserkeeper"
__all__ = ["home"]  # a fixture

pytestmark = [pytest.mark.root, pytest.mark.namespaces]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_sound(tmp_path: Path) -> None:
    """The control has a word that systemd does not know."""
    for more, status in (("", 0), ("ProtectSistem=yes", 1)):
        unit = tmp_path / UNIT.name
        text = UNIT.read_text().replace(PROGRAM, sys.executable).replace("User=worker", "User=root")
        unit.write_text(text.replace("[Service]", f"[Service]\n{more}"))
        command = ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert bool(done.returncode or "Unknown key" in done.stderr) == bool(status), done.stderr


@pytest.fixture
def units() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tmp-units-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for target in ("sysinit.target", "shutdown.target"):
            (directory / target).write_text("[Unit]\nDefaultDependencies=no\n")
        yield directory


@pytest.fixture
def leader(units: Path) -> Iterator[int]:
    if not os.access(cgroup2_or_nothing(), os.W_OK):
        pytest.skip("needs a writable cgroup v2")
    with systemd(units) as running:
        yield running


def cgroup2_or_nothing() -> str:
    try:
        return str(cgroup2())
    except StopIteration:
        return ""


@pytest.fixture
def old_directory() -> Iterator[Path]:
    """A TMPDIR in /tmp that a session of the user ``nobody`` left, older than one that just starts."""
    directory = Path("/tmp", f"bk-{new_id()}")
    leave(directory)
    yield directory
    if directory.exists():
        directory.rmdir()


def leave(directory: Path) -> None:
    make_session_directory(str(directory))
    os.chown(directory, NOBODY, NOBODY)
    old = time.time() - 120
    os.utime(directory, (old, old))


def parent(pid: int) -> int:
    seen = witness.look(pid)
    assert seen
    return seen.parent


def a_dead_session_is_swept(leader: int, python: str, env: dict[str, str]) -> bool:
    """Start a session as the user ``nobody`` in the namespace, SIGKILL its owner and its guards at once,
    and wait until the watch has moved its record to the history."""
    history = Path(env["BROWSERKEEPER_STATE_DIR"], "history")
    before = set(history.glob("*.json"))  # not its draft, which has another name
    words = ["env", *(f"{name}={value}" for name, value in env.items()), "setpriv", f"--reuid={NOBODY}"]
    words += [f"--regid={NOBODY}", "--clear-groups", python, "-m", "browserkeeper", "run", "--"]
    enter(leader, "sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *words, "sleep", "600")
    assert wait_until(lambda: "sleep" in members(leader).values())
    (sleeping,) = (pid for pid, name in members(leader).items() if name == "sleep")
    primary = parent(sleeping)
    standby = parent(primary)
    front = parent(standby)  # the owner
    # A standby guard that runs continues its primary; the watch continues the guards of a dead owner.
    for pid in (front, standby, primary):
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(functools.partial(witness.is_stopped, pid))
    # The primary guard first: at the death of its parent, the standby, the kernel continues a stopped
    # process group that has lost its last parent in its session (setpgid(2), "orphaned process group").
    for pid in (primary, standby, front):
        os.kill(pid, signal.SIGKILL)
    return wait_until(lambda: set(history.glob("*.json")) - before)


def test_the_watch_sweeps_as_a_hardened_service(
    leader: int, units: Path, home: Path, old_directory: Path
) -> None:
    """A dead session, and a directory.  The control: a private /tmp hides the directory."""
    python, env = python_for_nobody()
    env = {**env, "BROWSERKEEPER_STATE_DIR": str(home / "state")}
    words = f"ExecStart={python} -m browserkeeper watch --interval 1 "
    text = UNIT.read_text().replace(f"ExecStart={PROGRAM} watch ", words)
    text = text.replace("127.0.0.1:10187", "127.0.0.1:0").replace("User=worker", f"User={NOBODY}")
    for name, value in env.items():
        text = text.replace("[Service]", f"[Service]\nEnvironment={name}={value}")
    restart(leader, units, text)
    assert a_dead_session_is_swept(leader, python, env)
    assert wait_until(lambda: not old_directory.exists())
    enter(leader, "systemctl", "stop", UNIT.name)
    leave(old_directory)
    seen = " ".join([*env["PYTHONPATH"].split(":"), str(home)])  # wherever in /tmp the tests run
    restart(leader, units, text.replace("PrivateTmp=no", f"PrivateTmp=yes\nBindPaths={seen}"))
    assert a_dead_session_is_swept(leader, python, env)
    assert a_dead_session_is_swept(leader, python, env), "so a whole round lies between the two"
    assert old_directory.exists()
    enter(leader, "systemctl", "stop", UNIT.name)
    assert wait_until(lambda: not list(Path("/tmp").glob(f"systemd-private-*{UNIT.name}*"))), "its /tmp"


RUN = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
User={user}
ExecStart={python} -m browserkeeper run -- true
{more}
"""


@pytest.mark.parametrize(("more", "containment"), [("", "subreaper"), ("Delegate=yes", "cgroup")])
def test_delegation_gives_a_plain_user_a_cgroup(
    leader: int, units: Path, home: Path, more: str, containment: str
) -> None:
    python, env = python_for_nobody()
    env = {**env, "BROWSERKEEPER_STATE_DIR": str(home / "state")}
    more += "".join(f"\nEnvironment={name}={value}" for name, value in env.items())
    (units / "run.service").write_text(RUN.format(user=NOBODY, python=python, more=more))
    done = enter(leader, "systemctl", "start", "run.service")
    assert done.returncode == 0, done.stderr
    (ended,) = (home / "state" / "history").iterdir()
    report = json.loads(ended.read_text())["exit"]
    assert (report["containment"], report["certificate"]) == (containment, "ECHILD")


def test_the_server_is_started_by_its_socket_and_drained(leader: int, units: Path, home: Path) -> None:
    """The client is in another pid namespace than the server, as one in a container is."""
    python, env = python_for_nobody()
    env = {**env, "BROWSERKEEPER_STATE_DIR": str(home / "state")}
    path = home / "s"
    text = SERVE.with_suffix(".socket").read_text().replace("SocketGroup=browsers", "SocketGroup=0")
    (units / f"{SERVE.stem}.socket").write_text(text.replace("/run/browserkeeper.sock", str(path)))
    words = f"ExecStart={python} -m browserkeeper serve --min-idle 0 "
    text = SERVE.read_text().replace(f"ExecStart={PROGRAM} serve ", words).replace("--min-idle 2 ", "")
    text = text.replace("User=worker", f"User={NOBODY}")
    for name, value in env.items():
        text = text.replace("[Service]", f"[Service]\nEnvironment={name}={value}")
    (units / SERVE.name).write_text(text)
    enter(leader, "systemctl", "daemon-reload")
    done = enter(leader, "systemctl", "start", f"{SERVE.stem}.socket")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    for _ in range(2):  # started by its first client, also after it was stopped
        assert status_over(path) == 200
        done = enter(leader, "systemctl", "stop", SERVE.name)
        assert done.returncode == 0, done.stderr
        shown = enter(leader, "systemctl", "show", "-p", "Result,ExecMainStatus", SERVE.name).stdout
        assert "Result=success" in shown
        assert "ExecMainStatus=0" in shown
        enter(leader, "systemctl", "start", f"{SERVE.stem}.socket")
    enter(leader, "systemctl", "stop", f"{SERVE.stem}.socket")


def status_over(path: Path) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(SECONDS)
    connection.sock.connect(str(path))
    connection.request("GET", "/status")
    status = connection.getresponse().status
    connection.close()
    return status


def restart(leader: int, units: Path, text: str) -> None:
    (units / UNIT.name).write_text(text)
    enter(leader, "systemctl", "daemon-reload")
    done = enter(leader, "systemctl", "restart", UNIT.name)
    assert done.returncode == 0, done.stderr
