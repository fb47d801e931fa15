"""A ``/proc`` that shows another pid namespace, and one that hides processes (hidepid)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.guard.procfs import foreign_proc, hidden_processes
from browserkeeper.process.guard_process import GUARD_DIRECTORY
from tests.conftest import PROGRAMS
from tests.support import witness
from tests.support.cli import CLI
from tests.support.guards import altered_guard
from tests.support.other_user import NOBODY, python_for_nobody
from tests.support.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.root, pytest.mark.namespaces]
ROOT = Path(__file__).resolve().parent.parent.parent
FOREIGN = ("unshare", "--pid", "--fork", "--kill-child")
"""A pid namespace below the ``/proc`` of the namespace above it."""
NO_PROC = (
    *FOREIGN,
    "--mount",
    "/bin/sh",
    "-c",
    'while umount -l /proc; do :; done 2>/dev/null; "$@"',
    "sh",
)
REASONS = {
    FOREIGN: "/proc shows another pid namespace",
    NO_PROC: "/proc is not mounted",
}
everywhere = pytest.mark.parametrize("place", [FOREIGN, NO_PROC], ids=["foreign /proc", "no /proc"])


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


# ------------------------------------------------------------ /proc of another pid namespace


@everywhere
@pytest.mark.parametrize("command", ["run -- true", "sweep", "sweep --yes", "ps", "top --once"])
def test_commands_refuse_and_name_the_reason(place: tuple[str, ...], command: str) -> None:
    done = run(*place, *CLI, *command.split())
    assert done.returncode == (125 if command.startswith("run ") else 3)
    assert REASONS[place] in done.stderr
    assert "No process was started, signalled or judged" in done.stderr


@everywhere
def test_the_doctor_fails(place: tuple[str, ...]) -> None:
    done = run(*place, *CLI, "doctor")
    assert done.returncode == 1
    assert any(REASONS[place] in line for line in done.stdout.splitlines() if line.startswith("fail"))


IN_PYTHON = """
import sys
from types import SimpleNamespace
from browserkeeper import ContainmentError, adopt, browser, sweep
driver = SimpleNamespace(service=SimpleNamespace(process=SimpleNamespace(pid=1)), caps={})
calls = browser("chrome", containment=sys.argv[1]).start, sweep, lambda: adopt(driver)
for call in calls:
    try:
        call()
    except ContainmentError as error:
        print(error)
"""


@everywhere
@pytest.mark.parametrize("containment", ["auto", "portable"])
def test_the_functions_raise_a_containment_error(place: tuple[str, ...], containment: str) -> None:
    done = run(*place, sys.executable, "-c", IN_PYTHON, containment)
    assert done.stdout.count(REASONS[place]) == 3, done.stderr


def test_a_pid_namespace_with_a_proc_of_its_own_is_no_obstacle() -> None:
    place = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    assert run(*place, *CLI, "run", "--", "true").returncode == 0
    assert run(*place, sys.executable, "-c", IN_PYTHON, "no such kind").stderr.count("ConfigError")
    assert foreign_proc() == ""


GUARD = """
import os, subprocess, sys, time

def start(number, *words):
    "In this pid namespace, the next pid is the number that follows this one."
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))
    return subprocess.Popen(words)

directory, parent, child = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bystander = start(child, "sleep", "600")
boot = "import sys;sys.path.append(sys.argv.pop(1));from guard.boot import main;main()"
words = (sys.executable, "-I", "-S", "-c", boot, directory, "--foreground", "1", "--", "sleep", "0.2")
guard = start(parent - 1, *words)  # the standby guard; the primary one gets the next number
status = guard.wait()
try:  # a process that was killed may take a moment to end
    bystander.wait(1 if status == 126 else 20)
    alive = False
except subprocess.TimeoutExpired:
    alive = True
print(bystander.pid == child, guard.pid == parent - 1, status, alive)
bystander.kill()
bystander.wait()
"""
REFUSAL = ("        why = foreign_proc()\n", "        why = ''\n")


@pytest.mark.skipif(
    not os.path.exists("/proc/sys/kernel/ns_last_pid"), reason="pids cannot be chosen on this kernel"
)
@pytest.mark.parametrize("altered", [False, True], ids=["guard", "control"])
def test_a_guard_refuses_where_it_would_signal_other_processes(tmp_path: Path, altered: bool) -> None:
    """Outside, a process has the number that the primary guard gets inside, and a child.  Inside, a
    bystander has the child's number.  The control, a guard that does not ask, kills the bystander."""
    directory = altered_guard(tmp_path / "altered", REFUSAL) if altered else GUARD_DIRECTORY
    script = "sleep 600 & echo $! ; wait"
    outside = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert outside.stdout is not None
    child = outside.stdout.readline().strip()
    try:
        done = run(*FOREIGN, sys.executable, "-c", GUARD, directory, str(outside.pid), child)
    finally:
        outside.stdout.close()
        witness.end_by_pid([seen for pid in (outside.pid, int(child)) if (seen := witness.look(pid))])
        outside.wait()
        assert wait_until(lambda: int(child) in witness.reap_orphans(set()))
    status, alive = ("0", "False") if altered else ("126", "True")
    assert done.stdout.split() == ["True", "True", status, alive], done.stderr
    assert (REASONS[FOREIGN] in done.stderr) == (not altered)


# ------------------------------------------------------------------------------ hidden processes

HIDEPID = ["noaccess", "invisible", "ptraceable"]
END_A_SESSION = """
import json, os, signal, subprocess, sys, time
from browserkeeper.process import identity_of
from browserkeeper.process.containment import Containment, choose
from browserkeeper.process.guard_process import GuardPlan, GuardProcess

kind, number, pids, command = sys.argv[1], int(sys.argv[2]), sys.argv[3], tuple(sys.argv[4:])

def wait():
    while not os.path.exists(pids) or open(pids).read().count("\\n") < number:
        time.sleep(0.01)

containment = Containment("adopted", "a test") if kind == "adopted" else choose(kind)
if kind == "adopted":
    driver = subprocess.Popen(command)
    wait()
    me = identity_of(driver.pid)
    command = (f"{me.pid}:{me.start!r}",)
guard = GuardProcess(GuardPlan(os.urandom(6).hex(), command, dict(os.environ), containment))
if kind == "adopted":
    assert guard.wait_for("ready", "failed", deadline=time.monotonic() + 60)["event"] == "ready"
    guard.keep()
assert guard.wait_for("spawned", "failed", deadline=time.monotonic() + 60)["event"] == "spawned"
if kind == "portable":  # on a busy machine it could look while the daemon is still in the tree
    os.kill(guard.pid, signal.SIGSTOP)
wait()
if kind == "portable":
    os.kill(guard.pid, signal.SIGCONT)
report = guard.end("closed", time.monotonic() + 60)
print(json.dumps(report))
"""


def end_as_nobody(mode: str, kind: str, *more: str) -> tuple[dict[str, Any], list[witness.Seen]]:
    """The report of a session of ``hide.py`` below a ``/proc`` with this ``hidepid``; what survived."""
    python, env = python_for_nobody()
    pids = Path(f"/tmp/tmp-hidden-{os.urandom(4).hex()}")
    command = (python, str(PROGRAMS / "hide.py"), str(pids), *more)
    options = ["-o", f"hidepid={mode}"] if mode else []
    mount = f'mount -t proc {" ".join(options)} proc /proc || exit 77; exec "$@"'
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    words = (*user, python, "-c", END_A_SESSION, kind, str(2 + len(more)), str(pids), *command)
    try:
        done = subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-c", mount, "sh", *words],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode == 77:
            pytest.skip(f"no /proc with hidepid={mode} here: {done.stderr}")
        numbers = map(int, pids.read_text().split())
    finally:
        pids.unlink(missing_ok=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), witness.alive([s for n in numbers if (s := witness.look(n))])


@pytest.mark.parametrize("containment", ["subreaper", "auto"])
@pytest.mark.parametrize("mode", HIDEPID)
def test_a_guard_ends_processes_that_proc_hides_and_says_how_many(mode: str, containment: str) -> None:
    report, left = end_as_nobody(mode, containment, "daemon")
    assert left == []
    assert report["certificate"] == "ECHILD"
    assert report["problems"] == []
    hidden = [process["name"] for process in report["processes"]].count("?")
    assert hidden >= 2  # the first one may have been seen before it hid
    assert report["notes"] == [f"{hidden} processes are listed without a name, since /proc hid them"]


@pytest.mark.leaves_zombies(9, "what survived")
@pytest.mark.parametrize("containment", ["adopted", "portable"])
@pytest.mark.parametrize("mode", HIDEPID)
def test_scans_certify_nothing_where_proc_hides_processes(mode: str, containment: str) -> None:
    report, left = end_as_nobody(mode, containment, "daemon")
    witness.end_by_pid(left)
    # The child of a visible process is found by its parent's list of children; two others are not.
    assert len(left) == 2
    assert report["certificate"] is None
    assert [text for text in report["problems"] if f"hidepid={mode}" in text]


@pytest.mark.leaves_zombies(9, "neither guard reaps what is not below it")
@pytest.mark.parametrize("containment", ["adopted", "portable"])
def test_control_without_hidepid_scans_find_and_end_all(containment: str) -> None:
    report, left = end_as_nobody("", containment)
    assert left == []
    assert (report["certificate"], report["problems"]) == ("two-scans", [])


@pytest.mark.leaves_zombies(9, "what survived, and what a guard by scans does not reap")
def test_scans_certify_nothing_where_an_orphans_environment_cannot_be_read() -> None:
    """It has left the tree unseen, and only its marker could tell that it is the session's."""
    report, left = end_as_nobody("", "portable", "daemon")
    witness.end_by_pid(left)
    (orphan,) = left
    assert report["certificate"] is None
    assert [
        text for text in report["problems"] if f"environment of {orphan.name} ({orphan.pid})" in text
    ]


SEES = "from browserkeeper.guard.procfs import *; print(hidden_processes())"
CAPABLE = "--inh-caps=+sys_ptrace"


@pytest.mark.parametrize(
    ("options", "user", "hides"),
    [
        ("hidepid=2", f"--reuid={NOBODY} --regid={NOBODY} --clear-groups", True),
        ("hidepid=1", f"--reuid={NOBODY} --regid={NOBODY} --clear-groups", True),
        ("hidepid=ptraceable", f"--reuid={NOBODY} --regid=0 --clear-groups", True),
        ("hidepid=2,gid=1234", f"--reuid={NOBODY} --regid={NOBODY} --groups=1234", False),
        ("hidepid=2,gid=1234", f"--reuid={NOBODY} --regid=1234 --clear-groups", False),
        ("hidepid=2,gid=1234", f"--reuid={NOBODY} --regid=1235 --clear-groups", True),
        ("hidepid=2", f"--reuid={NOBODY} --regid=0 --clear-groups", False),
        ("hidepid=2", "--reuid=0", False),
        ("hidepid=ptraceable", "--reuid=0 --bounding-set=-sys_ptrace", True),
        ("hidepid=0", f"--reuid={NOBODY} --regid={NOBODY} --clear-groups", False),
    ],
)
def test_whom_proc_hides_processes_from(options: str, user: str, hides: bool, tmp_path: Path) -> None:
    """The kernel's answer is the control: can the process see one of its user's that is not dumpable?"""
    python, env = python_for_nobody()
    kernel = (
        "import ctypes, os, time; r, w = os.pipe()\n"
        "if (pid := os.fork()) == 0:\n"
        "    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); os.write(w, b'x'); time.sleep(600)\n"
        "os.read(r, 1)\n"
        "try: open(f'/proc/{pid}/stat').read(); print('seen')\n"
        "except OSError: print('hidden')\n"
        "os.kill(pid, 9); os.waitpid(pid, 0)"
    )
    mount = f'mount -t proc -o {options} proc /proc || exit 77; exec "$@"'
    words = ["setpriv", *user.split(), "--", python, "-c", f"{SEES}\n{kernel}"]
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", mount, "sh", *words],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode == 77:
        pytest.skip(f"no /proc with {options} here: {done.stderr}")
    assert done.stdout, done.stderr
    said, seen = done.stdout.splitlines()
    assert (seen == "hidden") == hides
    assert bool(said) == hides
    assert wait_until(lambda: hidden_processes() == "")
