"""Find a browser and a driver that fit each other: the first of each that works.

They are looked for in this order: the argument; environment variables; PATH; the usual places; the
caches of Selenium Manager and webdriver-manager.  Only then, and unless offline, Selenium Manager and
webdriver-manager are run to download a driver: each under a guard, with a timeout, and one at a time
for this user.  webdriver-manager is the last resort, and as root it is run only if that was allowed
(``webdriver_manager.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import ResolveError, VersionMismatch
from ..wire.credentials import environment_without_credentials
from . import webdriver_manager
from .cancellation import Cancellation
from .families import DRIVER_PLACES, EXECUTABLE_SUFFIX, FAMILIES, Family
from .probe import Program, VersionCache, ask, probe

DOWNLOAD_TIMEOUT = 300.0
"""Seconds for a manager to download a driver, and as many to wait for another process to do so."""
INSISTENT = ("BROWSERKEEPER_", "SE_")
"""How the names of variables begin whose path must work, as in Selenium.  Others only suggest one."""
LOCK_PAUSE = 0.5
"""Seconds between two looks whether the launch that waits for a download was cancelled."""

GECKODRIVER_NEEDS = ((36, 128), (34, 115), (32, 102), (31, 91), (30, 78), (0, 60))
"""(geckodriver 0.N, the first Firefox it supports), newest first.
Source: https://firefox-source-docs.mozilla.org/testing/geckodriver/Support.html"""


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A browser and a driver that fit each other."""

    browser: Program
    driver: Program


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A binary to try.  ``insist``: the user named it, so the search ends with an error if it fails."""

    path: str
    origin: str
    insist: bool = False


class Resolver:
    """One search.  Keeps a list of what it tried, for the error message."""

    def __init__(
        self,
        family: Family,
        cache: VersionCache,
        lock: Path,
        *,
        offline: str,
        cancellation: Cancellation | None = None,
    ):
        """``offline``: what forbids a download; "" where a driver may be downloaded."""
        self.family, self.cache, self.lock, self.offline = family, cache, lock, offline
        self.cancellation = cancellation
        self.tried: list[tuple[str, str]] = []
        self.mismatch: VersionMismatch | None = None

    def resolve(self, binary: str | None, driver_path: str | None) -> Resolved:
        """Raises ResolveError, which lists all places, or VersionMismatch where only versions differ."""
        browser = self._browser(binary)
        if driver := self._fitting(self._local_drivers(driver_path), browser):
            return Resolved(browser, driver)
        ask = not self.offline and not driver_path
        if ask and (driver := self._fitting(self._managed_drivers(browser), browser)):
            return Resolved(browser, driver)
        if self.mismatch:
            raise self.mismatch
        raise ResolveError(
            f"No {self.family.driver} for {browser.path} ({browser.version}). Install it "
            f"({self.family.where_driver}) on PATH, set {self.family.driver_environment[0]} to its "
            f"path, or pass driver_path=. {self._about_download()}",
            tuple(self.tried),
        )

    def _about_download(self) -> str:
        if self.offline:
            return (
                f"No driver was downloaded, since {self.offline}; where that is allowed, Selenium "
                "Manager fetches one."
            )
        return "It could not be downloaded either; the last lines say why."

    # -- the browser

    def _browser(self, binary: str | None) -> Program:
        for candidate in self._browser_candidates(binary):
            try:
                return self._probe(candidate, self.family.engine)
            except ResolveError as error:
                if candidate.insist:
                    raise ResolveError(f"{candidate.origin}: {error}") from None
                self.tried.append((candidate.path, str(error)))
        raise ResolveError(
            f"No {self.family.name} found. Install it ({self.family.where_browser}), set "
            f"{self.family.environment[0]} to its path, or pass binary=.",
            tuple(self.tried),
        )

    def _probe(self, candidate: _Candidate, kind: str) -> Program:
        return probe(candidate.path, kind, candidate.origin, self.cache, self.cancellation)

    def _browser_candidates(self, binary: str | None) -> Iterator[_Candidate]:
        if binary:
            yield _Candidate(binary, "binary= or options.binary_location", insist=True)
            return
        for name in self.family.environment:
            if path := os.environ.get(name):
                yield _Candidate(path, name, insist=name.startswith(INSISTENT))
        yield from self._on_path(self.family.programs)
        for place in self.family.places:
            if os.path.exists(place):
                yield _Candidate(place, "usual place")
        for path in _selenium_cache(self.family.manager_name, self.family.programs):
            yield _Candidate(path, "Selenium Manager's cache")

    # -- the driver

    def _local_drivers(self, driver_path: str | None) -> Iterator[_Candidate]:
        program = self.family.driver + EXECUTABLE_SUFFIX
        if driver_path:
            yield _Candidate(driver_path, "driver_path=", insist=True)
            return
        for name in self.family.driver_environment:
            if path := os.environ.get(name):
                path = os.path.join(path, program) if os.path.isdir(path) else path
                yield _Candidate(path, name, insist=name.startswith(INSISTENT))
        yield from self._on_path((program,))
        for place in DRIVER_PLACES:
            path = os.path.join(os.path.expanduser(place), program)
            if os.path.exists(path):
                yield _Candidate(path, "usual place")
        for path in _selenium_cache(self.family.driver, (program,)):
            yield _Candidate(path, "Selenium Manager's cache")
        for path in _wdm_cache(self.family.driver, program):
            yield _Candidate(path, "webdriver-manager's cache")

    def _on_path(self, programs: tuple[str, ...]) -> Iterator[_Candidate]:
        found = [path for program in programs if (path := shutil.which(program))]
        if not found:
            self.tried.append(("PATH", f"no {' or '.join(programs)}"))
        for path in found:
            yield _Candidate(path, "PATH")

    def _fitting(self, candidates: Iterator[_Candidate], browser: Program) -> Program | None:
        for candidate in candidates:
            try:
                driver = self._probe(candidate, self.family.driver)
                check_fit(self.family, browser, driver)
                return driver
            except VersionMismatch as error:
                if candidate.insist:
                    raise
                self.mismatch = self.mismatch or error
                self.tried.append((candidate.path, str(error)))
            except ResolveError as error:
                if candidate.insist:
                    raise ResolveError(f"{candidate.origin}: {error}") from None
                self.tried.append((candidate.path, str(error)))
        return None

    # -- the driver managers, which download

    def _managed_drivers(self, browser: Program) -> Iterator[_Candidate]:
        from filelock import Timeout

        try:
            # flock(2): the kernel releases it when the process that holds it ends, in any way.
            with self._only_download():
                yield from self._run_manager("Selenium Manager", self._selenium_manager(browser))
                if why := webdriver_manager.why_not():
                    self.tried.append(("webdriver-manager", why))
                else:
                    command = webdriver_manager.command(self.family, browser)
                    yield from self._run_manager("webdriver-manager", command)
        except Timeout:
            self.tried.append((str(self.lock), f"locked by another process for {DOWNLOAD_TIMEOUT:g} s"))

    @contextlib.contextmanager
    def _only_download(self) -> Iterator[None]:
        """Hold the download lock.  Raises filelock's Timeout, or the error of a cancelled launch."""
        from filelock import FileLock, Timeout

        lock, until = FileLock(self.lock), time.monotonic() + DOWNLOAD_TIMEOUT
        while True:
            if self.cancellation is not None:
                self.cancellation.check()
            try:
                lock.acquire(timeout=LOCK_PAUSE)
                break
            except Timeout:
                if time.monotonic() >= until:
                    raise
        try:
            yield
        finally:
            lock.release()

    def _run_manager(self, manager: str, command: tuple[str, ...] | None) -> Iterator[_Candidate]:
        if command is None:
            self.tried.append((manager, "it ships no binary for this platform"))
            return
        quiet = {**environment_without_credentials(), "SE_AVOID_STATS": "true", "WDM_LOG": "0"}
        try:
            status, text = ask(command, DOWNLOAD_TIMEOUT, quiet, self.cancellation)
        except (OSError, TimeoutError) as error:
            self.tried.append((manager, str(error)))
            return
        path = _path_in(text)
        if path:
            yield _Candidate(path, manager)
        else:
            self.tried.append((manager, f"status {status}: {' '.join(text.split())[-200:]}"))

    def _selenium_manager(self, browser: Program) -> tuple[str, ...] | None:
        from ..selenium_internals.private import manager_program

        manager = manager_program()
        if manager is None:
            return None
        which = ("--browser", self.family.manager_name, "--browser-path", browser.path)
        return (manager, *which, "--avoid-browser-download", "--output", "json")


def _path_in(text: str) -> str:
    """The driver's path in the JSON that a manager printed, perhaps among log lines; "" for none."""
    for chunk in (text[text.find("{") :], text.strip().splitlines()[-1] if text.strip() else ""):
        try:
            answer = json.loads(chunk)
            return str(answer.get("path") or answer["result"]["driver_path"])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return ""


def check_fit(family: Family, browser: Program, driver: Program) -> None:
    """Raises VersionMismatch, with both versions and the remedy, if they do not work together."""
    if family.engine == "chromium" and driver.major != browser.major:
        raise VersionMismatch(
            f"{driver.path} is {family.driver} {driver.version} ({driver.origin}), but "
            f"{browser.path} is version {browser.version}: the majors must be equal. Install "
            f"{family.driver} {browser.major} ({family.where_driver}), or pass a fitting binary= or "
            "driver_path=.",
            browser.version,
            driver.version,
        )
    if family.engine == "firefox":
        minor = int(driver.version.split(".")[1])
        needed = next(firefox for gecko, firefox in GECKODRIVER_NEEDS if minor >= gecko)
        if driver.major == 0 and browser.major < needed:
            raise VersionMismatch(
                f"{driver.path} is geckodriver {driver.version}, which needs Firefox {needed} or "
                f"newer, but {browser.path} is {browser.version}. Upgrade Firefox, or pass an "
                "older geckodriver as driver_path=.",
                browser.version,
                driver.version,
            )


def _selenium_cache(kind: str, programs: tuple[str, ...]) -> list[str]:
    """``$SE_CACHE_PATH/KIND/PLATFORM/VERSION/PROGRAM``, newest version first."""
    root = os.environ.get("SE_CACHE_PATH") or os.path.expanduser("~/.cache/selenium")
    found = [p for name in programs for p in glob.glob(f"{glob.escape(root)}/{kind}/*/*/{name}")]
    return sorted(found, key=_version_in_path, reverse=True)


def _wdm_cache(driver: str, program: str) -> list[str]:
    """``~/.wdm/drivers/DRIVER/PLATFORM/VERSION/…/PROGRAM``, newest version first."""
    root = os.path.expanduser(f"~/.wdm/drivers/{driver}")
    found = glob.glob(f"{glob.escape(root)}/**/{program}", recursive=True)
    return sorted(found, key=_version_in_path, reverse=True)


def _version_in_path(path: str) -> list[int]:
    match = re.search(r"/(\d+(?:\.\d+)+)/", path)
    return [int(part) for part in match.group(1).split(".")] if match else []


def resolve(
    name: str,
    *,
    binary: str | None,
    driver_path: str | None,
    offline: bool,
    directory: Path,
    cancellation: Cancellation | None = None,
    offline_because: str = "offline=True",
) -> Resolved:
    """Find a browser of this name, and a driver for it.

    ``offline``: no driver may be downloaded; ``offline_because`` says what has set that.
    ``directory`` is for the version cache and the download lock.  Raises ResolveError, VersionMismatch,
    or the error of ``cancellation``.  Blocks for up to 20 s for each version query, and 300 s for a
    download.
    """
    cache, lock = VersionCache(directory / "versions.json"), directory / "download.lock"
    why = offline_because if offline else ""
    resolver = Resolver(FAMILIES[name], cache, lock, offline=why, cancellation=cancellation)
    return resolver.resolve(binary, driver_path)
