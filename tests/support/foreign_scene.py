"""A scene for ``browserkeeper sweep --foreign``, played as PID 1 of a pid namespace.

As PID 1 this program gets the orphans, as the init of a machine or of a container does.  It starts
orphans and bystanders, calls the sweep, first dry, then with ``--yes``, and prints what it has seen as
JSON.  It looks with the witness and shares no code with the package.

    unshare --pid --fork --mount-proc --kill-child python -m tests.support.foreign_scene ORPHAN LIVING
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from selenium.webdriver.common.utils import free_port

from tests.support import witness
from tests.support.waiting import wait_until

CHROMEDRIVER = shutil.which("chromedriver") or ""
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
TMPDIR = Path(os.environ["TMPDIR"])
HERE = Path(__file__).resolve().parent.parent.parent
NOBODY = witness.NOBODY
OLD = 7200.0
DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE


@dataclasses.dataclass
class Owner:
    """A program with plain Selenium; ``drivers`` are its drivers, by name, with their ports."""

    process: subprocess.Popen[str]
    drivers: dict[str, tuple[witness.Seen, int]]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def tree_of(self, name: str) -> list[witness.Seen]:
        driver = self.drivers[name][0]
        return [driver, *witness.below(driver.pid)]


def start_owner(*words: str) -> subprocess.Popen[str]:
    """In a process session of its own, as cron, sshd and service managers start programs."""
    command = [sys.executable, "-m", "tests.support.foreign_owner", *words]
    return subprocess.Popen(command, cwd=HERE, stdout=PIPE, text=True, start_new_session=True)


def owner_of(process: subprocess.Popen[str]) -> Owner:
    """When it has started all."""
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    return Owner(process, {name: (look(pid), port) for name, (pid, port) in found.items()})


def look(pid: int) -> witness.Seen:
    seen = witness.look(pid)
    assert seen is not None, pid
    return seen


def shell(script: str, *words: str) -> None:
    """Run to its end a shell in a session of its own, which leaves what it has put in the background."""
    subprocess.run(["sh", "-c", script, "sh", *words], start_new_session=True, check=True)


def new_child(name: str, known: set[int]) -> witness.Seen:
    """The process of this name that this PID 1 has adopted."""
    found: list[witness.Seen] = []

    def has_come() -> bool:
        below = witness.below(os.getpid())
        found[:] = [s for s in below if s.name == name and s.parent == 1 and s.pid not in known]
        return bool(found)

    assert wait_until(has_come), name
    return found[0]


def sweep(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "browserkeeper", "sweep", "--foreign", *words]
    done = subprocess.run([*command, "--json"], cwd=HERE, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "status": done.returncode}


# ---------------------------------------------------------------------------- the bystanders


def background_driver() -> witness.Seen:
    """``nohup chromedriver &`` of a shell that has ended."""
    log = TMPDIR / "driver-in-background.txt"
    for _ in range(5):
        known = {seen.pid for seen in witness.below(os.getpid())}
        shell('nohup "$1" --port=0 </dev/null >"$2" 2>&1 &', CHROMEDRIVER, str(log))
        seen = new_child("chromedriver", known)
        if has_started(seen.pid, log):
            return seen
    raise AssertionError(log.read_text())


def has_started(pid: int, log: Path) -> bool:
    """Wait until a driver listens, by its log.  False if it ends: another program may have its port."""

    def is_decided() -> bool:
        seen = witness.look(pid)
        return "started successfully" in log.read_text() or seen is None or seen.state == "Z"

    assert wait_until(is_decided), log.read_text()
    return "started successfully" in log.read_text()


def persons_chrome() -> witness.Seen:
    """Started from a shell that has ended, with a debugging port and a profile of its own."""
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = "--headless=new --no-sandbox --enable-automation --remote-debugging-port=0"
    profile = TMPDIR / "person"
    shell(f'"$1" {words} "--user-data-dir=$2" </dev/null >/dev/null 2>&1 &', CHROMIUM, str(profile))
    seen = new_child(Path(os.path.realpath(CHROMIUM)).name[:15], known)
    assert wait_until((profile / "DevToolsActivePort").exists)
    return seen


def other_users_driver() -> witness.Seen:
    """As an orphan of ours, and another user's."""
    log = TMPDIR / "driver-of-nobody.txt"
    log.touch()
    script = "import subprocess as s, sys; log = open(sys.argv[1], 'w');"
    script += "p = s.Popen(sys.argv[2:], stdin=-1, stdout=log, stderr=log); print(p.pid)"
    words = [sys.executable, "-c", f"{script}; sys.stdout.flush(); import os; os._exit(0)", str(log)]
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    for _ in range(5):
        done = subprocess.run(
            [*words, "setpriv", *user, CHROMEDRIVER, "--port=0"],
            stdout=PIPE,
            text=True,
            start_new_session=True,
            check=True,
        )
        if has_started(pid := int(done.stdout.split()[0]), log):
            return named_driver(pid)
    raise AssertionError(log.read_text())


def drivers_in_other_namespaces() -> dict[str, witness.Seen]:
    """As orphans of ours, but for one namespace: unshare(1) becomes the driver.

    In the network namespace a client is connected; in that of this scene it cannot be seen.
    """
    port = free_port()  # in the network namespace, which is new, all are free
    script = """
import subprocess, sys
port, *words = sys.argv[1:]
mounts = subprocess.Popen(["unshare", "--mount", *words, f"--port={port}"], stdin=-1, stdout=-3)
up = "import fcntl, socket as s, struct; lo = struct.pack('16sh14x', b'lo', 65);"
up += "fcntl.ioctl(s.socket(), 0x8914, lo)"
network = ["unshare", "--net", "sh", "-c", f'"$1" -c "{up}"; shift; exec "$@"', "sh", sys.executable]
network = subprocess.Popen([*network, *words, f"--port={port}"], stdin=-1, stdout=-3)
print(mounts.pid, network.pid, flush=True)
import os; os._exit(0)
"""
    words = [sys.executable, "-c", script, str(port), CHROMEDRIVER]
    done = subprocess.run(words, stdout=PIPE, text=True, start_new_session=True, check=True)
    mounts, network = map(named_driver, map(int, done.stdout.split()))
    client = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port}))"
    inside = ["nsenter", f"--net=/proc/{network.pid}/ns/net", sys.executable, "-c"]
    script = f"{client}; print(flush=True); time.sleep(600)"

    def connects() -> bool:
        probe = subprocess.run([*inside, client], capture_output=True, check=False)
        return probe.returncode == 0

    assert wait_until(connects)
    process = subprocess.Popen([*inside, script], stdout=PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return {"other mounts": mounts, "other network": network}


def left_on_purpose() -> witness.Seen:
    """As cron starts programs, with a pipe as standard input: the driver that they leave inherits it."""
    script = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=-3).pid)"
    words = [sys.executable, "-c", script, CHROMEDRIVER, "--port=0"]
    done = subprocess.run(words, input="", stdout=PIPE, text=True, start_new_session=True, check=True)
    return named_driver(int(done.stdout))


def debugger(pid: int) -> subprocess.Popen[str]:
    """A program that has attached to a process (PTRACE_SEIZE), as a debugger or strace(1) does."""
    script = (
        "import ctypes, signal, sys; ptrace = ctypes.CDLL(None).ptrace;"
        "print(ptrace(0x4206, int(sys.argv[1]), None, None), flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(pid)], stdout=PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    return process


def sweep_beside_client(port: int) -> dict[str, Any]:
    """A sweep while a client makes a new connection for each command, as curl(1) does."""
    done = threading.Event()

    def give_commands() -> None:
        while not done.wait(0.2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
                answer.read()

    client = threading.Thread(target=give_commands)
    client.start()
    try:
        return sweep("--older-than", "1")
    finally:
        done.set()
        client.join()


def contained_driver() -> witness.Seen:
    """In a pid namespace of its own, below this one, as a container's is seen from the host."""
    words = ["unshare", "--pid", "--fork", "--kill-child", CHROMEDRIVER, "--port=0"]
    outer = subprocess.Popen(words, stdin=PIPE, stdout=DEVNULL, start_new_session=True)
    assert wait_until(lambda: bool(witness.below(outer.pid)))
    return named_driver(witness.below(outer.pid)[0].pid)


def named_driver(pid: int) -> witness.Seen:
    """After it has executed ChromeDriver."""
    assert wait_until(lambda: look(pid).name == "chromedriver")
    return look(pid)


def named_only() -> witness.Seen:
    """A program that calls itself like a driver (PR_SET_NAME, 15), and lost its parent."""
    known = {seen.pid for seen in witness.below(os.getpid())}
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return new_child("chromedriver", known)
    os.setsid()
    if os.fork():
        os._exit(0)
    ctypes.CDLL(None).prctl(15, b"chromedriver", 0, 0, 0)
    signal.pause()
    raise AssertionError


def zombie() -> tuple[subprocess.Popen[str], int]:
    """A ChromeDriver that has ended and that its parent does not reap."""
    script = (
        "import subprocess, sys, signal; p = subprocess.Popen(sys.argv[1:], stdout=-3); p.kill();"
        "print(p.pid, flush=True); signal.pause()"
    )
    words = [sys.executable, "-c", script, CHROMEDRIVER, "--port=0"]
    parent = subprocess.Popen(words, stdout=PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert wait_until(lambda: look(pid).state == "Z")
    return parent, pid


# -------------------------------------------------------------------------------- profiles


def make_profile(name: str, *files: str, age: float = OLD) -> Path:
    path = TMPDIR / name
    path.mkdir(mode=0o700)
    for file in files:
        (path / file).write_text("x" * 5000)
    os.utime(path, (time.time() - age,) * 2)
    return path


def profiles() -> dict[str, Path]:
    """Two that are left over, and bystanders.  ``young`` was changed in the future: it stays young."""
    found = {
        "firefox": make_profile("rust_mozprofileOLD111", "prefs.js", "user.js"),
        "chromium": make_profile("org.chromium.Chromium.scoped_dir.OLD111", "Local State", "First Run"),
        "young": make_profile("rust_mozprofileYOUNG1", "prefs.js", age=-OLD),
        "empty": make_profile("org.chromium.Chromium.scoped_dir.EMPTY1"),
        "open": make_profile("rust_mozprofileOPEN11", "prefs.js"),
        "directory": make_profile("org.chromium.Chromium.CWD111", "Local State"),
        "strange": make_profile("org.chromium.Chromium.OTHER1", "thesis.odt"),
        "elsewhere": make_profile("profile", "prefs.js"),
        "person's backup": make_profile("com.google.Chrome.backup", "Local State"),
        "person's other": make_profile("scoped_dir_login", "Local State"),
        "nobodys": make_profile("rust_mozprofileNOBODY", "prefs.js"),
    }
    os.chown(found["nobodys"], NOBODY, NOBODY)
    kept_open.append(os.open(found["open"] / "prefs.js", os.O_RDONLY))
    subprocess.Popen(["sleep", "600"], cwd=found["directory"])
    return found


kept_open: list[int] = []


def person_sockets() -> list[bool]:
    """Whether the socket of the person's Chrome is still where its profile says."""
    link = TMPDIR / "person" / "SingletonSocket"
    return [link.exists()] if link.is_symlink() else []


# ------------------------------------------------------------------------------------ the play


def play(orphan: str, living: str) -> dict[str, Any]:
    dying = owner_of(start_owner(orphan, "dying"))
    running = owner_of(start_owner(living, "living"))
    bystanders = {
        "background": background_driver(),
        "nobody's": other_users_driver(),
        "contained": contained_driver(),
        "named only": named_only(),
        "left on purpose": left_on_purpose(),
        **drivers_in_other_namespaces(),
    }
    if orphan == "chrome":
        bystanders["person's"] = persons_chrome()
    zombies_parent, zombie_pid = zombie()
    paths = profiles()
    connection = socket.create_connection(("127.0.0.1", dying.drivers["client"][1]))
    drivers = {name: seen for name, (seen, _) in (dying.drivers | running.drivers).items()}
    bystanders |= {name: seen for name, seen in drivers.items() if name not in ("dying", "reconnecting")}
    orphans, in_use = dying.tree_of("dying"), running.tree_of("living")
    dying.kill()
    tracer = debugger(dying.drivers["debugged"][0].pid)
    young = sweep("--older-than", "100000")
    recent = sweep_beside_client(dying.drivers["reconnecting"][1])
    dry = sweep("--older-than", "0")
    alive = [seen.pid for seen in orphans if witness.is_same(seen)]
    before = [name for name, path in paths.items() if path.exists()]
    wet = sweep("--older-than", "0", "--yes")
    wait_until(lambda: not any(map(witness.is_same, orphans)))
    result: dict[str, Any] = {
        "pids": {name: seen.pid for name, seen in (bystanders | drivers).items()},
        "orphan": orphans[0].pid,
        "zombie": zombie_pid,
        "young": young,
        "recent": recent,
        "dry": dry,
        "alive after the dry run": alive,
        "profiles before": before,
        "wet": wet,
        "orphans left": [seen for seen in orphans if witness.is_same(seen)],
        "bystanders gone": [name for name, seen in bystanders.items() if not witness.is_same(seen)],
        "browser of the running test": any(
            witness.is_same(seen) for seen in in_use if seen.name.startswith(("chrom", "firefox"))
        ),
        "person's sockets": person_sockets(),
        "profiles left": [name for name, path in paths.items() if path.exists()],
    }
    zombies_parent.kill()
    zombies_parent.wait()
    connection.close()
    tracer.kill()
    tracer.wait()
    result |= second_act(dying, running)
    return json.loads(json.dumps(result, default=dataclasses.asdict))  # type: ignore[no-any-return]


def second_act(dying: Owner, running: Owner) -> dict[str, Any]:
    """The client and the fork are gone; the running test loses its owner, then its driver."""
    os.kill(dying.drivers["child of fork"][0].pid, signal.SIGKILL)
    driver = running.drivers["living"][0]
    tree = [seen for seen in running.tree_of("living") if witness.is_same(seen)]
    running.kill()
    os.kill(driver.pid, signal.SIGKILL)
    assert wait_until(lambda: not witness.is_same(driver))
    after = sweep("--older-than", "0", "--yes")
    wait_until(lambda: not any(map(witness.is_same, tree)))
    orphans = {name: dying.drivers[name][0] for name in ("client", "fork", "debugged")}
    orphans["idle"] = running.drivers["idle"][0]
    return {
        "second": after,
        "second left": [seen for seen in tree if witness.is_same(seen)],
        "second tree": len(tree),
        "second orphans left": [name for name, seen in orphans.items() if witness.is_same(seen)],
        "second files": sorted(os.listdir(TMPDIR)),
    }


if __name__ == "__main__":
    faulthandler.dump_traceback_later(800, exit=True)
    assert os.getpid() == 1
    print(json.dumps(play(*sys.argv[1:])), flush=True)
