"""A driver in a network namespace of its own: who can connect to it, and the browser that the guard
starts for it.  Small programs take the place of driver and browser."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.drivers.network import DriverNetwork
from browserkeeper.drivers.stand_in import SHELLS, write_stand_in
from browserkeeper.guard.isolation import VARIABLE
from browserkeeper.guard.options import AUTO, ISOLATED, REQUIRED
from browserkeeper.process.guard_process import GuardProcess
from tests.support import witness
from tests.support.guards import PYTHON, program, start
from tests.support.owners import ROOT
from tests.support.waiting import SECONDS, deadline_in, wait_until

SERVER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(f"on port {server.getsockname()[1]}.", flush=True)
while True:
    link, _ = server.accept()
    link.sendall(b"well met")
    link.close()
"""


def can_be_isolated() -> bool:
    guard = start(("/bin/true",), isolation=AUTO, browser="/bin/true")
    ended = guard.wait_for("ended", deadline=deadline_in())
    guard.end("closed", deadline_in())
    return ended is not None and ended["report"]["driver_isolation"] == ISOLATED


@pytest.fixture(autouse=True, scope="module")
def needs_namespaces() -> None:
    if not can_be_isolated():
        pytest.skip("no network namespace can be made here")


@pytest.fixture
def ended() -> Iterator[list[GuardProcess]]:
    """The guards that a test has started, which are ended."""
    guards: list[GuardProcess] = []
    yield guards
    for guard in guards:
        guard.end("closed", deadline_in())


def port_of(log: Path) -> int:
    assert wait_until(lambda: log.exists() and "on port" in log.read_text())
    return int(log.read_text().split("on port ")[1].split(".")[0])


def greeting(link: socket.socket) -> bytes:
    with link:
        return link.recv(100)


@pytest.mark.parametrize("isolation", [REQUIRED, "not wanted"])
def test_only_the_owner_can_connect_to_an_isolated_driver(
    isolation: str, tmp_path: Path, ended: list[GuardProcess]
) -> None:
    """The control is the same program, not isolated: any program of the machine can connect."""
    log = tmp_path / "log"
    command = (*PYTHON, "-c", SERVER)
    ended.append(guard := start(command, isolation=isolation, browser="/bin/true", log=str(log)))
    port = port_of(log)
    spawned = guard.wait_for("spawned", deadline=deadline_in())
    assert spawned
    if isolation != REQUIRED:
        assert spawned["isolation"] == isolation
        assert greeting(socket.create_connection(("127.0.0.1", port))) == b"well met"
        return
    assert spawned["isolation"] == ISOLATED
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert guard.handover
    network = DriverNetwork.receive(guard.handover)
    links = [network.connect(port, SECONDS) for _ in range(10)]  # more than there are spare sockets
    assert [greeting(link) for link in links] == [b"well met"] * 10
    with network.new_socket() as fresh:  # gevent and eventlet look for an error before they connect
        assert fresh.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    network.close()
    with pytest.raises(ConnectionRefusedError):
        network.connect(port, SECONDS)


STAY = "exec sleep 600"


def stand_in_for(
    tmp_path: Path,
    ended: list[GuardProcess],
    last: str,
    action: str = "none",
    wrapper: tuple[str, ...] = (),
) -> tuple[GuardProcess, Path]:
    """A driver whose browser is a shell script that answers with what it got, and then does ``last``."""
    browser, answer = tmp_path / "browser", tmp_path / "answer"
    browser.write_text(
        "#!/bin/sh\nread -r line <&3\n"
        f'echo "$line|$*|$PWD|$A_WORD|${{BROWSERKEEPER_STAND_IN-none}}|$$" >&4\n{last}\n'
    )
    browser.chmod(0o700)
    words = (write_stand_in(tmp_path), answer, action, "--one", "two words")
    os.environ["A_WORD"] = "kept"
    try:
        guard = start(
            (*wrapper, *program("like_chromedriver", *words)), isolation=REQUIRED, browser=str(browser)
        )
    finally:
        del os.environ["A_WORD"]
    ended.append(guard)
    return guard, answer


def told(answer: Path) -> list[str]:
    return answer.read_text().splitlines() if answer.exists() else []


def names(guard: GuardProcess) -> dict[str, witness.Seen]:
    return {seen.name: seen for seen in witness.below(guard.pid)}


def test_the_browser_gets_what_the_stand_in_got_and_is_outside(
    tmp_path: Path, ended: list[GuardProcess]
) -> None:
    guard, answer = stand_in_for(tmp_path, ended, STAY)
    assert wait_until(lambda: told(answer))
    line, words, directory, word, variable, pid = told(answer)[0].split("|")
    assert (line, words, word, variable) == ("hello", "--one two words", "kept", "none")
    assert directory == os.getcwd()
    event = guard.event("browser")
    assert event
    assert event["pid"] == int(pid)

    def network(number: int | str) -> str:
        return os.readlink(f"/proc/{number}/ns/net")

    spawned = guard.event("spawned")
    assert spawned
    assert network(int(pid)) == network("self")
    assert network(event["stand_in"]) == network(spawned["pid"]) != network("self")
    files = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert not any(file.startswith("socket:") or "epoll" in file for file in files), files


def test_a_wrapper_that_closes_descriptors_for_the_driver_does_no_harm(
    tmp_path: Path, ended: list[GuardProcess]
) -> None:
    """As the script ``chromedriver`` of npm does."""
    closing = (*PYTHON, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], close_fds=True)")
    guard, answer = stand_in_for(tmp_path, ended, "exit 0", wrapper=closing)
    assert wait_until(lambda: len(told(answer)) == 2)
    assert told(answer)[1] == "status 0"
    assert guard.event("browser-ended")


@pytest.mark.parametrize(
    ("last", "status"),
    [("exit 0", 0), ("exit 3", 1), ("kill -SEGV $$", -11), ("kill -KILL $$", -9), ("kill -TERM $$", -9)],
)
def test_the_driver_hears_how_its_browser_ended(
    last: str, status: int, tmp_path: Path, ended: list[GuardProcess]
) -> None:
    guard, answer = stand_in_for(tmp_path, ended, last)
    assert wait_until(lambda: len(told(answer)) == 2)
    assert told(answer)[1] == f"status {status}"
    event = guard.wait_for("browser-ended", deadline=deadline_in())
    assert event
    assert event["code"] == {0: 0, 1: 3}.get(status, -15 if "TERM" in last else status)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("sent", "status"), [([], 1), ([signal.SIGUSR1], 0), ([signal.SIGTERM, signal.SIGUSR2], 1)]
)
def test_the_stand_in_ends_as_it_is_told_in_each_shell(
    shell: str, sent: list[signal.Signals], status: int, tmp_path: Path
) -> None:
    """Without a signal the guard dies, which ends a pipe.  The driver's SIGTERM is passed on."""
    if not (program_of_shell := shutil.which(shell)):
        pytest.skip(f"no {shell}")
    requests, driver_writes = os.pipe()
    driver_reads, alive = os.pipe()
    os.set_blocking(requests, False)
    words = [program_of_shell, *(["sh"] if shell == "busybox" else []), write_stand_in(tmp_path)]
    env = {**os.environ, VARIABLE: f"{driver_writes} {driver_reads}"}
    with subprocess.Popen(words, env=env) as stand_in:
        assert wait_until(lambda: read_line(requests) == f"{stand_in.pid}")
        for number in sent:
            stand_in.send_signal(number)
            if number == signal.SIGTERM:
                assert wait_until(lambda: read_line(requests) == f"{stand_in.pid} TERM")
        if not sent:
            os.close(alive)  # its other end is this process's too, which is the driver here
            os.close(driver_reads)
        assert stand_in.wait(SECONDS) == status
    for fd in (requests, driver_writes, *((driver_reads, alive) if sent else ())):
        os.close(fd)


def read_line(fd: int) -> str:
    try:
        return os.read(fd, 100).decode().strip()
    except BlockingIOError:
        return ""


@pytest.mark.parametrize(("action", "code"), [("SIGKILL", -9), ("SIGTERM", -15)])
def test_a_driver_that_ends_its_browser_ends_the_real_one(
    action: str, code: int, tmp_path: Path, ended: list[GuardProcess]
) -> None:
    guard, answer = stand_in_for(tmp_path, ended, STAY, action)
    event = guard.wait_for("browser-ended", deadline=deadline_in())
    assert event
    assert event["code"] == code
    assert wait_until(lambda: len(told(answer)) == 2)


@pytest.mark.parametrize(
    "who",
    [
        "primary",
        pytest.param("standby", marks=pytest.mark.leaves_zombies(1, "the standby guard, killed")),
        pytest.param("both", marks=pytest.mark.leaves_zombies(5, "all, where both guards are killed")),
        *("driver", "stand-in", "browser"),
    ],
)
def test_nothing_is_left_when_one_of_the_processes_is_killed(
    who: str, tmp_path: Path, ended: list[GuardProcess]
) -> None:
    """This driver goes on without its browser.  Any other death ends the whole session.

    Where both guards are killed, the kernel kills the driver, and the stand-in reads the end of its
    pipe.  The browser, as a Chromium does, reads that of its debugging pipe.
    """
    guard, answer = stand_in_for(tmp_path, ended, "read -r line <&3" if who == "both" else STAY)
    assert wait_until(lambda: told(answer))
    event, spawned = guard.event("browser"), guard.event("spawned")
    assert event
    assert spawned
    pids = {
        "primary": spawned["primary"],
        "standby": guard.pid,
        "driver": spawned["pid"],
        "stand-in": event["stand_in"],
        "browser": event["pid"],
    }
    seen = {name: one for name, pid in pids.items() if (one := witness.look(pid))}
    assert len(seen) == len(pids)
    guards = [seen["standby"], seen["primary"]]
    for one in guards if who == "both" else ():
        os.kill(one.pid, signal.SIGSTOP)  # so that neither has its turn between the two deaths
    witness.end_by_pid(guards if who == "both" else [seen[who]])
    gone = ("stand-in", "browser") if who in ("stand-in", "browser") else tuple(seen)
    ending = [seen[name] for name in gone]
    assert wait_until(lambda: not any(map(witness.is_same, ending))), ending
    if who in ("primary", "driver"):
        over = guard.wait_for("ended", deadline=deadline_in())
        assert over
        # A standby guard does not know how its primary guard has started the driver.
        assert over["report"]["driver_isolation"] == ("" if who == "primary" else ISOLATED)


FILTERED = """
import ctypes, struct, sys, time
from tests.support.guards import start

libc = ctypes.CDLL(None, use_errno=True)
number, isolation = int(sys.argv[1]), sys.argv[2]

def step(code, k, jt=0, jf=0):
    return struct.pack("HBBI", code, jt, jf, k)

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = (
    step(LOAD, 0)  # the system call's number
    + step(EQUAL, number, 0, 1)
    + step(RETURN, 0x00050001)  # EPERM
    + step(RETURN, 0x7FFF0000)  # anything else is allowed
)
text = ctypes.create_string_buffer(program, len(program))
filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, filter_program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
running = start(("/bin/sleep", "600"), isolation=isolation, browser="/bin/true")
event = running.wait_for("failed", "spawned", deadline=time.monotonic() + 60)
report = running.end("closed", time.monotonic() + 60)
print(event["event"], event.get("where"), event.get("errno"), event.get("text"))
print(report["driver_isolation"], report["certificate"])
"""
UNSHARE = {"x86_64": 272, "aarch64": 97}.get(platform.machine(), 0)
"""The number of the system call."""


def run_guard(script: str, *words: object, before: tuple[str, ...] = ()) -> list[str]:
    done = subprocess.run(
        [*before, sys.executable, "-c", script, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not UNSHARE, reason="the number of unshare(2) is known for x86_64 and aarch64 only")
def test_where_a_seccomp_filter_forbids_it_the_reason_is_told() -> None:
    """As Docker's default profile does."""
    told_, ended_ = run_guard(FILTERED, UNSHARE, AUTO)
    assert told_.startswith("spawned")
    assert ended_ == "a seccomp filter, such as Docker's default profile, forbids namespaces ECHILD"
    told_, _ = run_guard(FILTERED, UNSHARE, REQUIRED)
    assert told_.startswith("failed isolation 1 ")
    assert "seccomp" in told_


def test_where_the_kernels_limit_is_reached_the_reason_is_told() -> None:
    """In a user namespace whose limit of network namespaces is 0."""
    script = FILTERED.replace("libc.prctl(", "(lambda *_: 0)(")
    limited = ("unshare", "--user", "--map-root-user", "sh", "-euc")
    words = 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"'
    told_, ended_ = run_guard(script, 0, AUTO, before=(*limited, words, "sh"))
    assert told_.startswith("spawned")
    assert ended_.startswith("user.max_user_namespaces or user.max_net_namespaces is reached")
    told_, _ = run_guard(script, 0, REQUIRED, before=(*limited, words, "sh"))
    assert told_.startswith("failed isolation 28 ")
