"""The checks of this machine: can browser sessions work here, and how well are they protected?

Each check is a function that returns a :class:`Check`; ``CHECKS`` lists those for every platform, and
``doctor_linux.CHECKS`` those for Linux, ``doctor_limits`` those of the system's limits, and
``doctor_host`` those of the host's gate.  Nothing is printed here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..cleanup.sweeper import sweep
from ..drivers.families import FAMILIES
from ..errors import BrowserkeeperError, ConfigError, LaunchError, ResolveError, SeleniumVersionError
from ..frozen import VARIABLE, own_program
from ..process.containment import choose
from ..process.interpreter import interpreter
from ..state.ledger import Ledger
from ..state.tmpdirs import MEMORY_NEEDED, choose_root
from . import doctor_host, doctor_limits, doctor_linux
from .check import Check
from .programs import installed
from .text import whole_megabytes

INODES_NEEDED = 1000
"""Files of one browser's profile: 60 to 150 measured, more with a cache."""
STATE_NEEDED = 1024**2
"""Bytes: records and reports of a few sessions."""
LOCK_AGE = 600.0
"""Seconds after which the lock of a driver's download is stale: no download takes so long."""
PROFILE_AGE = 86400.0
"""Seconds after which a profile in the temporary directory is reported as probably abandoned."""
_PROFILES = ("*org.chromium.Chromium.*", "*com.google.Chrome.*", "rust_mozprofile*", "scoped_dir*")


def diagnose() -> Iterator[Check]:
    """Runs every check for this platform.  Takes about a second, starts a few short-lived processes."""
    try:
        yield from browsers()
    except OSError as error:  # no temporary directory: a container's read-only root
        yield _unchecked("browsers", error)
    on_linux = (*doctor_linux.CHECKS, *doctor_limits.LINUX_CHECKS) if sys.platform == "linux" else ()
    for check in (*CHECKS, *on_linux):
        try:
            yield check()
        except (OSError, ValueError) as error:
            yield _unchecked(check.__name__.replace("_", " "), error)


def _unchecked(name: str, error: Exception) -> Check:
    return Check(name, "warn", f"could not be checked: {error}", "Look into that error first.")


# ----------------------------------------------------------------------- browsers and drivers


def browsers() -> Iterator[Check]:
    """One check for each browser family: a missing one is a warning, a failure if none is there."""
    with contextlib.ExitStack() as stack:
        directory = _state_directory() or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = [browser(name, directory) for name in FAMILIES]
    none_fits = not any(check.status == "ok" for check in found)
    for check in found:
        yield dataclasses.replace(check, status="fail") if none_fits else check


def browser(name: str, directory: Path) -> Check:
    """``directory``: where the versions of programs are cached."""
    try:
        found = installed(name, directory)
    except ResolveError as error:
        what, _, remedy = str(error).partition("\n")[0].partition(". ")
        return Check(name, "warn", what, remedy or "Install it.")
    programs = (found.browser, found.driver)
    return Check(name, "ok", " with ".join(f"{p.path} {p.version} ({p.origin})" for p in programs))


def _state_directory() -> Path | None:
    """None if it cannot be used, which the check of the state directory reports."""
    try:
        return Ledger.open().directory
    except BrowserkeeperError:
        return None


def python() -> Check:
    """Can the interpreter that the guard needs be executed?"""
    if own := own_program():
        return Check("python", "ok", f"this program runs the guard by itself: {own}")
    try:
        return Check("python", "ok", f"{interpreter()} runs the guard")
    except LaunchError as error:
        remedy = f"Install Python 3.10 or newer, and set {VARIABLE} to its path."
        return Check("python", "fail", str(error), remedy)


def selenium() -> Check:
    """Has the installed Selenium all that the drivers use?"""
    try:
        from ..selenium_internals import known

        known.require()
    except SeleniumVersionError as error:
        return Check("selenium", "fail", *_split(error))
    except ImportError as error:
        return Check(
            "selenium", "fail", f"it cannot be imported: {error}", "pip install 'selenium>=4.40,<5'"
        )
    version = known.installed()
    if known.is_untested(version):
        what = f"{version} has all that is used, and is newer than what was run (up to {known.LAST})"
        return Check("selenium", "ok", what)
    return Check("selenium", "ok", f"{version} (run: {known.FIRST} to {known.LAST})")


def webdriver_manager_locks() -> Check:
    """webdriver-manager never removes the lock of a download during which its process was killed."""
    pattern = os.path.expanduser("~/.wdm/.wdm-lock-*")
    old = [path for path in glob.glob(pattern) if _age(path) > LOCK_AGE]
    if not old:
        return Check("locks", "ok", "no stale webdriver-manager lock")
    remedy = f"Remove it: rm {' '.join(old)}"
    return Check("locks", "warn", f"{len(old)} stale webdriver-manager lock(s)", remedy)


def proxy() -> Check:
    """Would plain Selenium ask an HTTP proxy for the driver on 127.0.0.1?"""
    names = [name for name in ("http_proxy", "HTTP_PROXY", "all_proxy") if os.environ.get(name)]
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not names:
        return Check("proxy", "ok", "none is set")
    if "127.0.0.1" in exempt or "*" in exempt:
        return Check("proxy", "ok", f"{names[0]} is set, and 127.0.0.1 exempt")
    remedy = (
        "browserkeeper asks no proxy for drivers and browsers on this machine.  For plain Selenium set "
        "no_proxy=localhost,127.0.0.1, or it may ask the proxy for its driver."
    )
    return Check("proxy", "ok", f"{names[0]} is set without no_proxy", remedy)


# ------------------------------------------------------------------------- places and leftovers


def state_directory() -> Check:
    """Ledger.open() creates the directory and makes it private, or raises."""
    try:
        path = Ledger.open().directory
    except BrowserkeeperError as error:
        return Check("state directory", "fail", *_split(error))
    mode, free = path.stat().st_mode & 0o777, shutil.disk_usage(path).free
    what = f"{path}, mode {mode:04o}, {whole_megabytes(free)} free"
    if free < STATE_NEEDED:
        return Check("state directory", "fail", what, "Free space, or set BROWSERKEEPER_STATE_DIR.")
    return Check("state directory", "ok", what)


def session_tmpdirs() -> Check:
    """Is there space where sessions get their TMPDIRs?"""
    try:
        root = choose_root()
    except ConfigError as error:
        return Check("TMPDIRs", "fail", *_split(error))
    free, facts = shutil.disk_usage(root).free, os.statvfs(root)
    what = f"sessions have theirs in {root}, {whole_megabytes(free)} free"
    # A file system that does not count its inodes says that it has none.
    if facts.f_files > 0 and facts.f_favail < INODES_NEEDED:
        what += f", and only {facts.f_favail:,} inodes"
        return Check("TMPDIRs", "warn", what, "Remove files there, or set BROWSERKEEPER_TMPDIR.")
    if free < MEMORY_NEEDED // 4:
        return Check("TMPDIRs", "warn", what, "Free space there, or set BROWSERKEEPER_TMPDIR.")
    return Check("TMPDIRs", "ok", what)


def leftovers() -> Check:
    """Runs a sweep that only lists what it would remove."""
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
    """Old profiles in the temporary directory, which browsers of plain Selenium left there."""
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


# ---------------------------------------------------------------------------------- containment


def containment() -> Check:
    chosen = choose()
    return Check("containment", "ok", f"auto is {chosen.kind} ({chosen.why})")


# -------------------------------------------------------------------------------------- helpers


def _split(error: BrowserkeeperError) -> tuple[str, str]:
    """Splits a message into cause and remedy: the remedy is the last sentence of each of ours."""
    text = " ".join(str(error).split())
    for mark in (". ", "; "):
        what, found, remedy = text.rpartition(mark)
        if found:
            return what, remedy
    return text, "See the message."


CHECKS: tuple[Callable[[], Check], ...] = (
    python,
    selenium,
    state_directory,
    session_tmpdirs,
    leftovers,
    stale_profiles,
    webdriver_manager_locks,
    proxy,
    containment,
    *doctor_limits.CHECKS,
    *doctor_host.CHECKS,
)

__all__ = ["Check", "diagnose"]
