"""The doctor's checks of what only Linux has: reaping, namespaces, cgroups, /dev/shm, process limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ..config import SessionConfig
from ..drivers import chromium
from ..drivers.stand_in import obstacle
from ..errors import BrowserkeeperError, LaunchError
from ..guard.options import AUTO, ISOLATED
from ..guard.procfs import foreign_proc, hidden_processes
from ..process import system
from ..process.containment import choose, writable_cgroup
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessIdentity
from ..process.interpreter import interpreter
from ..state.ledger import Ledger
from ..state.tmpdirs import MEMORY_ROOT
from ..wire.credentials import environment_without_credentials
from .check import Check
from .programs import installed
from .text import whole_megabytes

REAP_PATIENCE = 15.0
"""Seconds that PID 1 may take to reap an orphan; one that polls every 2 s was measured, and a machine
may be busy.  Only where none reaps does it take so long."""
ORPHAN_PATIENCE = 10.0
"""Seconds that an interpreter may take to start, and to make an orphan."""


def proc() -> Check:
    """Does ``/proc`` show the processes of this pid namespace, and all of this user's own?"""
    remedy = "Mount /proc in this pid namespace: mount -t proc proc /proc, or unshare --mount-proc."
    if why := foreign_proc():
        return Check("/proc", "fail", why, remedy)
    if why := hidden_processes():
        remedy = "Mount /proc with gid= of a group that this user is in."
        return Check("/proc", "warn", f"{why}: no certificate by two-scans", remedy)
    return Check("/proc", "ok", "shows this pid namespace, and hides no process of this user")


def _true_under_a_guard(isolation: str = "") -> tuple[GuardProcess, dict[str, Any] | None]:
    """Run ``true`` under a guard: the guard, which has ended, and its last event; None for no answer.

    ``isolation``: as in GuardPlan.
    """
    plan = GuardPlan(
        f"helper-{os.urandom(4).hex()}",
        ("true",),
        environment_without_credentials(),
        choose("subreaper"),
        isolation=isolation,
        browser="true",
    )
    process = GuardProcess(plan)
    try:
        event = process.wait_for("ended", deadline=time.monotonic() + 10)
    finally:
        process.end("closed", time.monotonic() + 10)
    return process, event


def guard() -> Check:
    """Runs ``true`` under a guard: the guard must be a subreaper, spawn, and certify the end."""
    process, event = _true_under_a_guard()
    if event and event["report"]["certificate"] == "ECHILD":
        taken = event["report"]["seconds"]["lifetime"] * 1000
        return Check("guard", "ok", f"is a subreaper and certified an end (ECHILD) in {taken:.0f} ms")
    remedy = "Is prctl(2) forbidden here (seccomp)? Use containment='portable' until it is allowed."
    return Check("guard", "fail", f"gave no certificate: {process.event('failed') or event}", remedy)


def driver_port() -> Check:
    """Would ChromeDriver be isolated?  Looks at it, and runs ``true`` in a network namespace."""
    try:
        directory = Ledger.open().directory
        driver = installed("chrome", directory).driver.path
    except BrowserkeeperError:  # other checks report it
        why_not, told = "", "a network namespace can be made; no ChromeDriver was found to look at"
    else:
        why_not = obstacle(SessionConfig("chrome"), driver, directory)
        told = "ChromeDriver's is closed: it gets a network namespace"
    if not (why_not := why_not or _refusal_of_a_namespace()):
        return Check("driver port", "ok", told)
    remedy = "If you do not trust all users, see docs/security.md for what helps."
    return Check("driver port", "warn", f"every local user can connect to a driver: {why_not}", remedy)


def _refusal_of_a_namespace() -> str:
    """Why the system gives no network namespace; "" if it does."""
    _, event = _true_under_a_guard(AUTO)
    found = str(event["report"]["driver_isolation"]) if event else "the guard gave no answer"
    return "" if found == ISOLATED else found


def pid_1() -> Check:
    """Makes an orphan, and waits until the process that adopted it has reaped it.

    Where none reaps, the orphan stays as a zombie.
    """
    try:
        orphan, adopter = make_orphan()
    except LaunchError as error:
        return Check("PID 1", "warn", f"cannot be tried without an interpreter: {error}")
    except subprocess.TimeoutExpired:
        what = f"cannot be tried: an interpreter made no orphan within {ORPHAN_PATIENCE:g} s"
        return Check("PID 1", "warn", what, "Run the doctor again when the machine is less busy.")
    who = f"{_name(1)} is PID 1"
    if adopter != 1:
        who += f", {_name(adopter)} ({adopter}) takes orphans"
    seconds = seconds_to_reap(orphan)
    if seconds is not None:
        return Check("PID 1", "ok", f"{who}, reaped one within {seconds:.1f} s")
    remedy = "Run under `browserkeeper run -- CMD`, or start the container with docker run --init."
    return Check("PID 1", "warn", f"{who}, does not reap (zombie {orphan.pid})", remedy)


def _name(pid: int) -> str:
    found = system.facts(pid)
    return found.name if found else "?"


_ORPHAN = """
import os, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.002)
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    print(os.getpid(), fields[19], os.getppid(), flush=True)
    os._exit(0)
"""


def make_orphan() -> tuple[ProcessIdentity, int]:
    """A process whose parent has exited and that has exited since, and the pid that adopted it."""
    command = [interpreter(), "-I", "-S", "-c", _ORPHAN]
    done = subprocess.run(
        command,
        env=environment_without_credentials(),
        capture_output=True,
        text=True,
        timeout=ORPHAN_PATIENCE,
        check=True,
    )
    pid, ticks, adopter = map(int, done.stdout.split())
    return ProcessIdentity(pid, ticks / os.sysconf("SC_CLK_TCK")), adopter


def seconds_to_reap(process: ProcessIdentity) -> float | None:
    """Seconds until the process is gone; None if it is still there after REAP_PATIENCE."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < REAP_PATIENCE:
        found = system.facts(process.pid)
        if found is None or not process.is_same_as(found.identity):
            return waited
        time.sleep(0.02)
    return None


def pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        remedy = "Use Linux 5.3 or newer, and allow pidfd_open in the seccomp profile."
        return Check("pidfd", "warn", f"does not work: {error}", remedy)
    return Check("pidfd", "ok", "works: signals cannot reach a recycled pid")


def identity() -> Check:
    """Whether a recorded pid can be known to mean the same process later (``process.identity.Host``)."""
    here = system.host()
    if missing := here.missing_parts():
        what = f"the {' and the '.join(missing)} cannot be read, so sweep and watch end no session"
        remedy = "Mount /proc without subset=pid (systemd: ProcSubset=all), and of this pid namespace."
        return Check("identity", "warn", what, remedy)
    if here.is_machine_unnamed:
        what = "no machine id: a sweep leaves what sessions of an earlier boot left"
        return Check("identity", "ok", what, "Run systemd-machine-id-setup, or mount /etc/machine-id.")
    return Check("identity", "ok", "machine, boot and pid namespace can be told from others")


def cgroup() -> Check:
    """Never a warning: the subreaper's certificate does not depend on a cgroup."""
    path, obstacle = writable_cgroup()
    if path:
        return Check("cgroup v2", "ok", f"{path} is writable and has cgroup.kill")
    remedy = "To close the last gap (a SIGKILLed guard), delegate one: systemd's Delegate=yes."
    return Check("cgroup v2", "ok", f"not available: {obstacle}", remedy)


def setpriv() -> Check:
    if path := shutil.which("setpriv"):
        return Check("setpriv", "ok", f"{path}: Firefox ends with its driver")
    what = "is not there: Firefox would outlive a guard and owner that are both SIGKILLed"
    return Check("setpriv", "warn", what, "Install util-linux (Debian: apt install util-linux).")


def sandbox() -> Check:
    obstacle = chromium.why_no_sandbox()
    namespaces = "user namespaces work" if chromium.has_user_namespaces() else "no user namespaces"
    if not obstacle:
        return Check("sandbox", "ok", f"Chromium's sandbox works ({namespaces})")
    remedy = "Run as an ordinary user, with user namespaces allowed (sysctl user.max_user_namespaces)."
    return Check("sandbox", "warn", f"{obstacle} ({namespaces})", remedy)


def shared_memory() -> Check:
    size = chromium.shared_memory_size()
    if not size:
        remedy = "Mount a tmpfs there; without one browsers are slower and tabs may crash."
        return Check(MEMORY_ROOT, "warn", "is not there or not writable", remedy)
    facts = os.statvfs(MEMORY_ROOT)
    free = whole_megabytes(facts.f_bavail * facts.f_frsize)
    what = f"{whole_megabytes(size)}, {free} free"
    if size < chromium.SMALL_SHARED_MEMORY:
        remedy = "docker run --shm-size=1g; until then Chromium gets --disable-dev-shm-usage."
        return Check(MEMORY_ROOT, "warn", what, remedy)
    return Check(MEMORY_ROOT, "ok", what)


def display() -> Check:
    names = [name for name in ("WAYLAND_DISPLAY", "DISPLAY") if os.environ.get(name)]
    if names:
        return Check("display", "ok", f"{names[0]}={os.environ[names[0]]}: headed sessions are possible")
    if found := shutil.which("Xvfb"):
        what = f"none; {found} gives headed sessions one, with display='virtual'"
        return Check("display", "ok", what)
    remedy = "For headless=False: pass display='virtual' (apt install xvfb), or set DISPLAY."
    return Check("display", "ok", "none: headless sessions only", remedy)


CHECKS: tuple[Callable[[], Check], ...] = (
    proc,
    guard,
    driver_port,
    pid_1,
    pidfd,
    identity,
    cgroup,
    setpriv,
    sandbox,
    shared_memory,
    display,
)
