"""What this machine offers to sessions: one small function for each check, facts out, no printing.

``CHECKS`` holds those for every platform, ``LINUX_CHECKS`` those that ask about Linux's own
means; that is the only place where the platform decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from ..cleanup.sweeper import sweep
from ..drivers import chromium
from ..drivers.families import FAMILIES
from ..drivers.resolve import resolve
from ..errors import BrowserkeeperError, ConfigError, ResolveError
from ..process import system
from ..process.containment import choose, writable_cgroup
from ..process.guard_process import GuardPlan, GuardProcess, interpreter
from ..process.identity import ProcessIdentity
from ..process.limits import cgroup_left, memory_left
from ..state.ledger import Ledger
from ..state.tmpdirs import MEMORY_NEEDED, MEMORY_ROOT, choose_root

Status = Literal["ok", "warn", "fail"]

FILES_NEEDED = 1024
"""Open files: a browser process uses up to 300, its driver and Selenium a few more."""
PROCESSES_NEEDED = 512
"""Processes and threads: one browser has 100 to 250 threads."""
MEMORY_WANTED = 1024**3
"""Bytes: one browser with one heavy page."""
REAP_PATIENCE = 5.0
"""Seconds that PID 1 may take to reap an orphan; one that polls every 2 s was measured."""
LOCK_AGE, PROFILE_AGE = 600.0, 86400.0
"""Seconds after which a download's lock, or a profile in a temporary directory, has no owner."""
_PROFILES = ("*org.chromium.Chromium.*", "*com.google.Chrome.*", "rust_mozprofile*", "scoped_dir*")


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.  ``fail``: no session will work; ``warn``: one may not, or is weaker."""

    name: str
    status: Status
    what: str
    remedy: str = ""


def diagnose() -> Iterator[Check]:
    """Every check for this platform.  Takes about a second, starts a few short-lived processes."""
    try:
        yield from browsers()
    except OSError as error:  # no temporary directory: a container's read-only root
        yield _unchecked("browsers", error)
    for check in (*CHECKS, *(LINUX_CHECKS if sys.platform == "linux" else ())):
        try:
            yield check()
        except (OSError, ValueError) as error:
            yield _unchecked(check.__name__.replace("_", " "), error)


def _unchecked(name: str, error: Exception) -> Check:
    return Check(name, "warn", f"could not be checked: {error}", "Look into that error first.")


# ----------------------------------------------------------------------- browsers and drivers


def browsers() -> Iterator[Check]:
    """Each family; a missing one is a failure only where none is there."""
    with contextlib.ExitStack() as stack:
        directory = _state_directory() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = [browser(name, directory) for name in FAMILIES]
    none_fits = not any(check.status == "ok" for check in found)
    for check in found:
        yield dataclasses.replace(check, status="fail") if none_fits else check


def browser(name: str, directory: Path) -> Check:
    """``directory`` holds the cache of versions."""
    try:
        found = resolve(name, binary=None, driver_path=None, offline=True, directory=directory)
    except ResolveError as error:
        what, _, remedy = str(error).partition("\n")[0].partition(". ")
        return Check(name, "warn", what, remedy or "Install it.")
    programs = (found.browser, found.driver)
    return Check(name, "ok", " with ".join(f"{p.path} {p.version} ({p.origin})" for p in programs))


def _state_directory() -> Path | None:
    try:
        return Ledger.open().directory
    except BrowserkeeperError:
        return None


def python() -> Check:
    """The interpreter that the guard runs in."""
    path = interpreter()
    if shutil.which(path):
        return Check("python", "ok", f"{path} runs the guard")
    return Check("python", "fail", f"{path} cannot be executed", "Put a python3 on PATH.")


def webdriver_manager_locks() -> Check:
    """A process that was killed during a download leaves its lock for ever."""
    pattern = os.path.expanduser("~/.wdm/.wdm-lock-*")
    old = [path for path in glob.glob(pattern) if _age(path) > LOCK_AGE]
    if not old:
        return Check("locks", "ok", "no stale webdriver-manager lock")
    remedy = f"Remove it: rm {' '.join(old)}"
    return Check("locks", "warn", f"{len(old)} stale webdriver-manager lock(s)", remedy)


def proxy() -> Check:
    names = [name for name in ("http_proxy", "HTTP_PROXY", "all_proxy") if os.environ.get(name)]
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not names:
        return Check("proxy", "ok", "none is set")
    if "127.0.0.1" in exempt or "*" in exempt:
        return Check("proxy", "ok", f"{names[0]} is set, and 127.0.0.1 exempt")
    remedy = (
        "For plain Selenium set no_proxy=localhost,127.0.0.1, or it may ask the proxy for its driver."
    )
    return Check("proxy", "ok", f"{names[0]} is set without no_proxy", remedy)


# ------------------------------------------------------------------------- places and leftovers


def state_directory() -> Check:
    """Ledger.open makes it, and makes it private."""
    try:
        path = Ledger.open().directory
    except BrowserkeeperError as error:
        return Check("state directory", "fail", *_split(error))
    mode = path.stat().st_mode & 0o777
    return Check("state directory", "ok", f"{path}, mode {mode:04o}")


def session_tmpdirs() -> Check:
    try:
        root = choose_root()
    except ConfigError as error:
        return Check("TMPDIRs", "fail", *_split(error))
    free = shutil.disk_usage(root).free
    what = f"sessions have theirs in {root}, {_mb(free)} free"
    if free < MEMORY_NEEDED // 4:
        return Check("TMPDIRs", "warn", what, "Free space there, or set BROWSERKEEPER_TMPDIR.")
    return Check("TMPDIRs", "ok", what)


def leftovers() -> Check:
    """Of dead owners' sessions."""
    try:
        found = sweep(dry_run=True)
    except BrowserkeeperError as error:
        return Check("leftovers", "warn", *_split(error))
    if not found:
        return Check("leftovers", "ok", "nothing is left of any dead owner")
    kinds = [finding.kind for finding in found]
    what = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return Check("leftovers", "warn", what, "See `browserkeeper sweep`, then add --yes.")


def stale_profiles() -> Check:
    """What plain Selenium's browsers left in the temporary directory."""
    root = glob.escape(tempfile.gettempdir())
    found = [p for pattern in _PROFILES for p in glob.glob(f"{root}/{pattern}")]
    found += [p for pattern in _PROFILES for p in glob.glob(f"{root}/.{pattern.lstrip('*')}")]
    old = sorted(path for path in set(found) if _is_ours(path) and _age(path) > PROFILE_AGE)
    if not old:
        return Check("profiles", "ok", "no old browser profile in the temporary directory")
    remedy = f"If no browser of yours uses them, remove them ({old[0]} and the like)."
    return Check("profiles", "warn", f"{len(old)} browser directories older than a day", remedy)


def _is_ours(path: str) -> bool:
    return os.lstat(path).st_uid == os.geteuid()


def _age(path: str) -> float:
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


# ----------------------------------------------------------------------------------- the limits


def open_files() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft == resource.RLIM_INFINITY or soft >= FILES_NEEDED:
        return Check("open files", "ok", f"limit {limit}")
    remedy = f"Raise it: ulimit -n {FILES_NEEDED} (docker run --ulimit nofile={FILES_NEEDED})."
    return Check("open files", "warn", f"limit {limit}, hard limit {hard}", remedy)


def memory() -> Check:
    left = memory_left()
    if left >= MEMORY_WANTED:
        return Check("memory", "ok", f"{_mb(left)} available")
    remedy = f"Give {_mb(MEMORY_WANTED)} for each session, and run fewer at once."
    return Check("memory", "warn", f"{_mb(left)} available", remedy)


def processes() -> Check:
    """The user's limit and the cgroup's, whichever leaves less."""
    in_cgroup = cgroup_left("pids", ("pids.max", "pids.current"))
    lefts = [left for left in (in_cgroup, user_processes_left()) if left is not None]
    if not lefts:
        return Check("processes", "ok", "no limit")
    if min(lefts) >= PROCESSES_NEEDED:
        return Check("processes", "ok", f"{min(lefts)} more are allowed")
    remedy = "Raise the limit: docker run --pids-limit, systemd's TasksMax=, or ulimit -u."
    return Check("processes", "warn", f"only {min(lefts)} more are allowed, threads included", remedy)


def user_processes_left() -> int | None:
    """RLIMIT_NPROC counts the threads of all the user's processes; root is exempt (setrlimit(2))."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0:
        return None
    return soft - sum(map(_threads, filter(str.isdigit, os.listdir("/proc"))))


def _threads(pid: str) -> int:
    try:
        ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        return len(os.listdir(f"/proc/{pid}/task")) if ours else 0
    except OSError:
        return 0


# ------------------------------------------------------------------------ Linux's means to contain


def pid_1() -> Check:
    """Who takes orphans here, and does it reap them?  Asked by making one.

    Where it does not, the orphan's zombie stays: that is the finding.
    """
    orphan, adopter = make_orphan()
    who = f"{_name(1)} is PID 1" + (
        "" if adopter == 1 else f", {_name(adopter)} ({adopter}) takes orphans"
    )
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
    """A process that lost its parent and has exited since, and the pid of whoever adopted it."""
    command = [interpreter(), "-I", "-S", "-c", _ORPHAN]
    text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    pid, ticks, adopter = map(int, text.split())
    return ProcessIdentity(pid, ticks / os.sysconf("SC_CLK_TCK")), adopter


def seconds_to_reap(process: ProcessIdentity) -> float | None:
    """How long it took until it was gone; None where that is more than REAP_PATIENCE."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < REAP_PATIENCE:
        found = system.facts(process.pid)
        if found is None or not process.is_same_as(found.identity):
            return waited
        time.sleep(0.02)
    return None


def shared_memory() -> Check:
    size = chromium.shared_memory_size()
    if not size:
        remedy = "Mount a tmpfs there; without one browsers are slower and tabs may crash."
        return Check(MEMORY_ROOT, "warn", "is not there or not writable", remedy)
    facts = os.statvfs(MEMORY_ROOT)
    what = f"{_mb(size)}, {_mb(facts.f_bavail * facts.f_frsize)} free"
    if size < chromium.SMALL_SHARED_MEMORY:
        remedy = "docker run --shm-size=1g; until then Chromium gets --disable-dev-shm-usage."
        return Check(MEMORY_ROOT, "warn", what, remedy)
    return Check(MEMORY_ROOT, "ok", what)


def sandbox() -> Check:
    obstacle = chromium.why_no_sandbox()
    namespaces = "user namespaces work" if chromium.has_user_namespaces() else "no user namespaces"
    if not obstacle:
        return Check("sandbox", "ok", f"Chromium's sandbox works ({namespaces})")
    remedy = "Run as an ordinary user, with user namespaces allowed (sysctl user.max_user_namespaces)."
    return Check("sandbox", "warn", f"{obstacle} ({namespaces})", remedy)


def guard() -> Check:
    """A real one: subreaper, spawn, certificate."""
    plan = GuardPlan(f"helper-{os.urandom(4).hex()}", ("true",), os.environ, choose("subreaper"))
    guarded = GuardProcess(plan)
    try:
        event = guarded.wait_for("ended", deadline=time.monotonic() + 10)
    finally:
        guarded.end("closed", time.monotonic() + 10)
    if event and event["report"]["certificate"] == "ECHILD":
        taken = event["report"]["seconds"]["lifetime"] * 1000
        return Check("guard", "ok", f"is a subreaper and certified an end (ECHILD) in {taken:.0f} ms")
    remedy = "Is prctl(2) forbidden here (seccomp)? Use containment='portable' until it is allowed."
    return Check("guard", "fail", f"gave no certificate: {guarded.event('failed') or event}", remedy)


def pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        remedy = "Use Linux 5.3 or newer, and allow pidfd_open in the seccomp profile."
        return Check("pidfd", "warn", f"does not work: {error}", remedy)
    return Check("pidfd", "ok", "works: signals cannot reach a recycled pid")


def setpriv() -> Check:
    if path := shutil.which("setpriv"):
        return Check("setpriv", "ok", f"{path}: Firefox ends with its driver")
    what = "is not there: Firefox would outlive a guard and owner that are both SIGKILLed"
    return Check("setpriv", "warn", what, "Install util-linux (Debian: apt install util-linux).")


def cgroup() -> Check:
    """A want, not a need: the subreaper's certificate does not depend on it."""
    path, obstacle = writable_cgroup()
    if path:
        return Check("cgroup v2", "ok", f"{path} is writable and has cgroup.kill")
    remedy = "To close the last gap (a SIGKILLed guard), delegate one: systemd's Delegate=yes."
    return Check("cgroup v2", "ok", f"not to be had: {obstacle}", remedy)


def containment() -> Check:
    chosen = choose()
    return Check("containment", "ok", f"auto is {chosen.kind} ({chosen.why})")


def display() -> Check:
    names = [name for name in ("WAYLAND_DISPLAY", "DISPLAY") if os.environ.get(name)]
    if names:
        return Check("display", "ok", f"{names[0]}={os.environ[names[0]]}: headed sessions are possible")
    remedy = "For headless=False run under xvfb-run, or set DISPLAY."
    return Check("display", "ok", "none: headless sessions only", remedy)


# -------------------------------------------------------------------------------------- helpers


def _split(error: BrowserkeeperError) -> tuple[str, str]:
    """Our messages end with their remedy: what was wrong, and what to do."""
    text = " ".join(str(error).split())
    for mark in (". ", "; "):
        what, found, remedy = text.rpartition(mark)
        if found:
            return what, remedy
    return text, "See the message."


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


Checks = Iterable[Callable[[], Check]]
CHECKS: Checks = (
    python,
    state_directory,
    session_tmpdirs,
    leftovers,
    stale_profiles,
    webdriver_manager_locks,
    proxy,
    containment,
    open_files,
    memory,
)
LINUX_CHECKS: Checks = (
    guard,
    pid_1,
    pidfd,
    cgroup,
    setpriv,
    sandbox,
    shared_memory,
    processes,
    display,
)

__all__ = ["Check", "diagnose"]
