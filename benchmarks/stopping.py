"""What is left of browsers when a service manager stops the program that uses them.

    python -m benchmarks.stopping systemd        # each KillMode; needs root, systemd, cgroup v2
    python -m benchmarks.stopping supervisord    # stopasgroup, killasgroup; needs root, supervisor

Each case runs a real service manager in a pid namespace of its own: systemd is PID 1 there, with one
unit, and the machine's own services are not touched.  A worker opens Chromium and waits; the manager
stops it; then this program counts the processes in the namespace and the files in the worker's TMPDIR,
without code of browserkeeper.  A "deaf" worker ignores SIGTERM, so that the manager's timeout (3 s)
passes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 3
"""Seconds from the manager's first signal to its last."""
SETTLE = 3.0
"""Seconds for the processes that got no signal to end after the death of their owner."""
START = 60.0
SHELF = "data:text/html,<title>shelf</title>"

BOOT = """
set -eu
echo $$ >"$1/cgroup.procs"
exec unshare --pid --mount --uts --cgroup --ipc --fork --mount-proc --kill-child sh -euc '
    mount --make-rprivate /
    umount -l /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    mount -t tmpfs tmpfs /run
    export container=docker SYSTEMD_UNIT_PATH="$1"
    export SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent
    exec /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=0
' sh "$2"
"""
UNIT = """
[Unit]
DefaultDependencies=no
[Service]
ExecStart={python} -m benchmarks.stopping worker {kind}
WorkingDirectory={root}
Environment={environment}
KillMode={mode}
TimeoutStopSec={patience}
{more}
"""
PROGRAM = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={directory}/pid
[unix_http_server]
file={directory}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{directory}/socket
[program:worker]
command={python} -m benchmarks.stopping worker {kind}
directory={root}
environment={environment}
autorestart=false
stopwaitsecs={patience}
stopasgroup={stop}
killasgroup={kill}
"""
REAPING = '"$@" & while :; do wait; sleep 1; done'
"""A shell that is PID 1 and reaps orphans."""
KINDS = ("plain", "plain deaf", "browserkeeper", "browserkeeper deaf")


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left in one namespace and one TMPDIR after a stop."""

    names: tuple[str, ...]
    files: int
    containment: str

    def __str__(self) -> str:
        what = f"{len(self.names)} processes" if self.names else "nothing"
        return f"{what}, {self.files} files{f' ({self.containment})' if self.containment else ''}"


# --------------------------------------------------------------------------------- the worker


def work(kind: str) -> None:
    """Open a browser and wait to be stopped."""
    if "deaf" in kind:
        signal.signal(signal.SIGTERM, lambda *_: None)  # not SIG_IGN, which the browser would inherit
    ready = Path(os.environ["TMPDIR"], "ready")
    if "plain" in kind:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        options.add_argument("--headless=new")
        options.add_argument("--no-sandbox")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
    else:
        from browserkeeper import browser

        session = browser("chromium")
        driver = session.start()
        (ready.parent / "containment").write_text(session.containment)
    driver.get(SHELF)
    ready.write_text("")
    while True:
        time.sleep(600)


# ------------------------------------------------------------------------------- the namespaces


def members(leader: int) -> dict[int, str]:
    """Who lives in the leader's pid namespace besides it: pid (as seen from here) and name."""
    inside = os.readlink(f"/proc/{leader}/ns/pid")
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            same = os.readlink(f"/proc/{entry}/ns/pid") == inside
            if same and int(entry) != leader and state not in "ZX":
                found[int(entry)] = Path(f"/proc/{entry}/comm").read_text().strip()
    return found


def only_child(pid: int) -> int:
    """The child of unshare(1); blocks until there is one."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: bool(path.read_text().split()))
    return int(path.read_text().split()[0])


def until(condition: Callable[[], bool], seconds: float = START) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def look(leader: int, place: Path, known: set[int]) -> Left:
    """Count what is left after SETTLE seconds, and end it by pid."""
    until(lambda: not members(leader).keys() - known, SETTLE)
    left = {pid: name for pid, name in members(leader).items() if pid not in known}
    files = [path for path in place.rglob("*") if path.is_file() and path.parent != place]
    said = place / "containment"
    result = Left(tuple(sorted(left.values())), len(files), said.read_text() if said.exists() else "")
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not members(leader).keys() - known)
    return result


@contextlib.contextmanager
def place_to_work() -> Iterator[tuple[Path, dict[str, str]]]:
    """(TMPDIR, environment of a worker that uses it); the state directory is elsewhere."""
    with (
        tempfile.TemporaryDirectory(prefix="tmpstop") as name,
        tempfile.TemporaryDirectory(prefix="tmpstate") as state,
    ):
        yield (
            Path(name),
            {
                "TMPDIR": name,
                "HOME": name,
                "PATH": os.environ["PATH"],
                "BROWSERKEEPER_OFFLINE": "1",
                "BROWSERKEEPER_STATE_DIR": state,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )


# ----------------------------------------------------------------------------------- systemd


def cgroup2() -> Path:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")


@contextlib.contextmanager
def systemd(units: Path) -> Iterator[int]:
    """Run a systemd in a pid namespace; yields its pid outside of the namespace."""
    leaf = cgroup2() / f"tmpstopping-{os.getpid()}"
    leaf.mkdir()
    (units / "basic.target").write_text("[Unit]\nDescription=nothing\n")
    process = subprocess.Popen(["sh", "-c", BOOT, "sh", str(leaf), str(units)])
    leader = only_child(process.pid)
    try:
        # Before that /run is this machine's, and its own systemd would answer.
        until(lambda: Path(f"/proc/{leader}/comm").read_text().strip() == "systemd")
        until(lambda: enter(leader, "systemctl", "is-system-running").stdout.strip() == "running")
        yield leader
    finally:
        os.kill(leader, signal.SIGKILL)  # the namespace goes with its PID 1
        process.wait()
        until(lambda: "populated 0" in (leaf / "cgroup.events").read_text())
        for inner in sorted(leaf.rglob("*/"), reverse=True):
            inner.rmdir()
        leaf.rmdir()


def enter(leader: int, *command: str) -> subprocess.CompletedProcess[str]:
    into = ("nsenter", "-t", str(leader), "--mount", "--pid", "--cgroup")
    return subprocess.run([*into, *command], capture_output=True, text=True, check=False)


def stopped_by_systemd(leader: int, units: Path, mode: str, more: str, kind: str) -> Left:
    known = set(members(leader))
    with place_to_work() as (place, env):
        environment = " ".join(f"{name}={value}" for name, value in env.items())
        words = {"python": sys.executable, "root": ROOT, "patience": PATIENCE}
        (units / "worker.service").write_text(
            UNIT.format(**words, kind=kind, environment=environment, mode=mode, more=more)
        )
        enter(leader, "systemctl", "daemon-reload")
        enter(leader, "systemctl", "start", "worker.service")
        if not until((place / "ready").exists):
            raise SystemExit(f"KillMode={mode}: the worker opened no browser")
        enter(leader, "systemctl", "stop", "worker.service")
        found = look(leader, place, known)
        enter(leader, "systemctl", "reset-failed", "worker.service")
        return found


def all_of_systemd() -> None:
    cases = [(mode, "") for mode in ("control-group", "mixed", "process", "none")]
    cases.append(("control-group", "Delegate=yes"))
    with tempfile.TemporaryDirectory(prefix="tmpunits") as name, systemd(Path(name)) as leader:
        heading("KillMode")
        for mode, more in cases:
            stop = functools.partial(stopped_by_systemd, leader, Path(name), mode, more)
            print_row(f"{mode} {more}", stop)


# -------------------------------------------------------------------------------- supervisord


def stopped_by_supervisord(stop: str, kill: str, kind: str) -> Left:
    with place_to_work() as (place, env), tempfile.TemporaryDirectory(prefix="tmpsup") as name:
        configuration = Path(name, "supervisord.conf")
        environment = ",".join(f'{name}="{value}"' for name, value in env.items())
        words = {"python": sys.executable, "root": ROOT, "patience": PATIENCE, "directory": name}
        configuration.write_text(
            PROGRAM.format(**words, kind=kind, environment=environment, stop=stop, kill=kill)
        )
        inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        command = [*inside, "sh", "-c", REAPING, "sh", *command]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            leader = only_child(process.pid)
            if not until((place / "ready").exists):
                raise SystemExit("supervisord: the worker opened no browser")
            known = {pid for pid in members(leader) if is_manager(pid)}
            control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(configuration)]
            subprocess.run([*control, "stop", "worker"], stdout=subprocess.DEVNULL, check=True)
            return look(leader, place, known | {pid for pid in members(leader) if is_manager(pid)})
        finally:
            process.kill()
            process.wait()


def is_manager(pid: int) -> bool:
    """Is it supervisord, or the ``sleep`` of the shell that is PID 1?"""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"supervisor.supervisord" in words or words.startswith(b"sleep\0")


def all_of_supervisord() -> None:
    heading("stopasgroup, killasgroup")
    for stop, kill in (("false", "false"), ("false", "true"), ("true", "true")):
        print_row(f"{stop}, {kill}", functools.partial(stopped_by_supervisord, stop, kill))


# ------------------------------------------------------------------------------------ the table


def heading(first: str) -> None:
    print(f"| {' | '.join((first, *KINDS))} |\n|{' --- |' * (len(KINDS) + 1)}")


def print_row(first: str, case: Callable[[str], Left]) -> None:
    cells = [case(kind) for kind in KINDS]
    print(f"| {first} | {' | '.join(map(str, cells))} |", flush=True)


def main(words: list[str]) -> None:
    if words[:1] == ["worker"]:
        work(" ".join(words[1:]))
    elif words == ["systemd"]:
        all_of_systemd()
    elif words == ["supervisord"]:
        all_of_supervisord()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
