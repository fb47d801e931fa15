"""A driver in a network namespace of its own: who can connect to it, and the browser that the guard
starts for it.  Small programs take the place of driver and browser."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import platform
import resource
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


class Interrupt(Exception):
    pass


@pytest.fixture
def network(tmp_path: Path, ended: list[GuardProcess]) -> Iterator[tuple[DriverNetwork, int]]:
    """That of an isolated driver, and its port."""
    log = tmp_path / "log"
    ended.append(
        guard := start((*PYTHON, "-c", SERVER), isolation=REQUIRED, browser="/bin/true", log=str(log))
    )
    port = port_of(log)
    assert guard.handover
    inside = DriverNetwork.receive(guard.handover)
    yield inside, port
    inside.close()


def test_threads_connect_at_the_same_time(network: tuple[DriverNetwork, int]) -> None:
    inside, port = network
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        greetings = threads.map(lambda _: greeting(inside.connect(port, SECONDS)), range(600))
        assert set(greetings) == {b"well met"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connects_that_were_interrupted_spoil_no_later_one(
    network: tuple[DriverNetwork, int],
) -> None:
    """As Ctrl-C, pytest-timeout and SIGALRM interrupt them: by a handler that raises, at any moment.

    A socket that nobody has yet at that moment is closed by the interpreter, which warns of it.
    """
    inside, port = network

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for n in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + n % 30 / 100_000)
                inside.connect(port, SECONDS).close()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert greeting(inside.connect(port, SECONDS)) == b"well met"


def test_a_process_without_free_descriptors_keeps_none(ended: list[GuardProcess]) -> None:
    ended.append(guard := start(("/bin/sleep", "600"), isolation=REQUIRED, browser="/bin/true"))
    assert guard.wait_for("spawned", deadline=deadline_in())
    assert guard.handover
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = [int(name) for name in os.listdir("/proc/self/fd")]
    free = next(number for number in range(3, soft) if number not in open_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(*open_files, free) + 2, hard))
    try:
        fill = [os.open(os.devnull, os.O_RDONLY) for _ in range(free, max(open_files))]
    except OSError:
        fill = []
    try:
        with pytest.raises(OSError, match="not received") as raised:
            DriverNetwork.receive(guard.handover)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fill:
            os.close(fd)
    assert raised.value.errno == errno.EMFILE


STAY = "exec sleep 600"


def stand_in_for(
    tmp_path: Path,
    ended: list[GuardProcess],
    last: str,
    action: str = "none",
    *,
    delay: bool = False,
) -> tuple[GuardProcess, Path]:
    """A driver whose browser is a shell script that answers with what it got, and then does ``last``.

    ``delay``: the driver waits for the file ``go`` first.
    """
    browser, answer = tmp_path / "browser", tmp_path / "answer"
    browser.write_text(
        "#!/bin/sh\nread -r line <&3\n"
        f'echo "$line|$*|$PWD|$A_WORD|${{BROWSERKEEPER_STAND_IN-none}}|$$" >&4\n{last}\n'
    )
    browser.chmod(0o700)
    words = (write_stand_in(tmp_path), answer, action, "--one", "two words")
    wait = ("/bin/sh", "-c", 'while ! [ -e "$0" ]; do sleep 0.05; done; exec "$@"', str(tmp_path / "go"))
    os.environ["A_WORD"] = "kept"
    try:
        guard = start(
            (*(wait if delay else ()), *program("like_chromedriver", *words)),
            isolation=REQUIRED,
            browser=str(browser),
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
    event = guard.wait_for("browser", deadline=deadline_in())
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


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 1),
        ("kill -SEGV $$", -11),
        ("kill -KILL $$", -9),
        ("kill -TERM $$", -9),
        ("kill -HUP $$", -9),
    ],
)
def test_the_driver_hears_how_its_browser_ended(
    last: str, status: int, tmp_path: Path, ended: list[GuardProcess]
) -> None:
    guard, answer = stand_in_for(tmp_path, ended, last)
    assert wait_until(lambda: len(told(answer)) == 2)
    assert told(answer)[1] == f"status {status}"
    codes = {"exit 3": 3, "kill -TERM $$": -signal.SIGTERM, "kill -HUP $$": -signal.SIGHUP}
    event = guard.wait_for("browser-ended", deadline=deadline_in())
    assert event
    assert event["code"] == codes.get(last, status)


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
            os.write(alive, b"\n")
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


def test_a_guard_without_open_files_says_so(tmp_path: Path, ended: list[GuardProcess]) -> None:
    guard, _ = stand_in_for(tmp_path, ended, STAY, delay=True)
    spawned = guard.wait_for("spawned", deadline=deadline_in())
    assert spawned
    few = len(os.listdir(f"/proc/{spawned['primary']}/fd"))
    resource.prlimit(spawned["primary"], resource.RLIMIT_NOFILE, (few, few))
    (tmp_path / "go").touch()
    event = guard.wait_for("browser-failed", deadline=deadline_in())
    assert event
    assert event["errno"] == errno.EMFILE


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
    event = guard.wait_for("browser", deadline=deadline_in())  # the browser may be faster
    spawned = guard.event("spawned")
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
import sys, time
from tests.support.guards import start
from tests.support.seccomp import filter_calls

number, isolation, action = int(sys.argv[1]), sys.argv[2], int(sys.argv[3], 0)
if action:
    filter_calls(number, action)
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
@pytest.mark.parametrize(
    ("action", "why", "number"),
    [
        ("0x00050001", "a seccomp filter, such as Docker's default profile, forbids namespaces", 1),
        ("0x00050026", "the kernel has no user or no network namespaces", 38),  # ENOSYS
        ("0x80000000", "a seccomp filter kills what makes a namespace", 0),
        ("0x00030000", "a seccomp filter kills what makes a namespace", 0),  # by a trap, SIGSYS
    ],
)
def test_where_a_seccomp_filter_forbids_it_the_reason_is_told(
    action: str, why: str, number: int
) -> None:
    """The first one is what Docker's default profile does, the third one systemd's SystemCallFilter=."""
    told_, ended_ = run_guard(FILTERED, UNSHARE, AUTO, action)
    assert told_.startswith("spawned")
    assert ended_ == f"{why} ECHILD"
    told_, ended_ = run_guard(FILTERED, UNSHARE, REQUIRED, action)
    assert told_.startswith(f"failed isolation {number} ")
    assert why in told_
    assert ended_ == f"{why} ECHILD"


def test_where_the_kernels_limit_is_reached_the_reason_is_told() -> None:
    """In a user namespace whose limit of network namespaces is 0."""
    limited = ("unshare", "--user", "--map-root-user", "sh", "-euc")
    words = 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"'
    told_, ended_ = run_guard(FILTERED, 0, AUTO, 0, before=(*limited, words, "sh"))
    assert told_.startswith("spawned")
    assert ended_.startswith("user.max_user_namespaces or user.max_net_namespaces is reached")
    told_, _ = run_guard(FILTERED, 0, REQUIRED, 0, before=(*limited, words, "sh"))
    assert told_.startswith("failed isolation 28 ")


@pytest.mark.root
def test_without_the_capability_for_networks_a_user_namespace_is_made() -> None:
    """As in a container with ``--cap-add SYS_ADMIN``."""
    told_, ended_ = run_guard(
        FILTERED, 0, REQUIRED, 0, before=("setpriv", "--bounding-set", "-net_admin", "--")
    )
    assert told_.startswith("spawned")
    assert ended_ == "isolated ECHILD"


@pytest.mark.parametrize("files", [64, 40])
def test_few_open_files_are_enough(files: int) -> None:
    limit = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
    assert run_guard(FILTERED, 0, REQUIRED, 0, before=limit)[1] == "isolated ECHILD"
