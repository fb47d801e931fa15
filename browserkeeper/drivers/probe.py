"""The version of a binary: from ``--version``, run under a guard, or from a cache."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from ..errors import LimitError, ResolveError
from ..guard.files import write_atomically
from ..process.containment import choose
from ..process.guard_process import output_of
from ..process.limit_errors import limit_of_errno, probable_causes
from ..wire.credentials import environment_without_credentials
from .cancellation import Cancellation

TIMEOUT = 20.0
"""Seconds for ``--version``.  A Chromium that is not in the page cache takes two on a busy machine."""

_PATTERNS = {
    "chromium": re.compile(r"(?:Chromium|Chrome|Edge|HeadlessShell)\D*(\d+(?:\.\d+)+)"),
    "firefox": re.compile(r"Firefox\D*(\d+(?:\.\d+)+)"),
    "chromedriver": re.compile(r"ChromeDriver (\d+(?:\.\d+)+)"),
    "msedgedriver": re.compile(r"(?:Microsoft Edge WebDriver|MSEdgeDriver) (\d+(?:\.\d+)+)"),
    "geckodriver": re.compile(r"geckodriver (\d+(?:\.\d+)+)"),
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A binary that runs, with its version; ``origin`` says where it was found."""

    path: str
    version: str
    origin: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


class VersionCache:
    """Versions by a file's path, size, inode and modification time, kept in one small file.

    It saves each session two process starts, 0.1 s.
    """

    def __init__(self, file: Path):
        self.file = file
        self._lock = threading.RLock()  # a signal handler may start a browser in between
        self._known: dict[str, str] | None = None

    def get(self, key: str) -> str | None:
        with self._lock:
            return self._load().get(key)

    def put(self, key: str, version: str) -> None:
        with self._lock:
            known = self._load()
            known[key] = version
            while len(known) > 50:
                del known[next(iter(known))]
            try:
                write_atomically(str(self.file), json.dumps(known))
            except OSError:
                pass  # the next session runs --version again

    def _load(self) -> dict[str, str]:
        if self._known is None:
            try:
                found = json.loads(self.file.read_text())
                self._known = {str(k): str(v) for k, v in found.items()}
            except (OSError, ValueError, AttributeError):
                self._known = {}
        return self._known


def probe(
    path: str, kind: str, origin: str, cache: VersionCache, cancellation: Cancellation | None = None
) -> Program:
    """Check that ``path`` is an executable of this kind, and find its version.

    Raises ResolveError, which says why it is not, LimitError where a limit of the system is the reason,
    and the error of a cancelled launch.  Blocks for up to
    TIMEOUT seconds; a program that does not answer by then is ended, with all processes that it started.
    """
    _check_file(path, kind)
    key = _key(path, kind)
    version = cache.get(key) if key else None
    if version is None:
        version = _ask(path, kind, cancellation)
        if key:
            cache.put(key, version)
    return Program(path, version, origin)


def _check_file(path: str, kind: str) -> None:
    if not os.path.exists(path):
        raise ResolveError(f"{path} does not exist.")
    if not os.path.isfile(path):
        raise ResolveError(f"{path} is not a file.")
    if not os.access(path, os.X_OK):
        raise ResolveError(f"{path} is not executable; run `chmod +x {path}` if it is a {kind}.")


def _key(path: str, kind: str) -> str:
    """What the version is cached by; "" for a snap, whose launcher is the same file for each version."""
    if os.path.basename(os.path.realpath(path)) == "snap":
        return ""
    facts = os.stat(path)
    return f"{kind}:{path}:{facts.st_size}:{facts.st_ino}:{facts.st_mtime_ns}"


def ask(
    command: tuple[str, ...], timeout: float, env: Mapping[str, str], cancellation: Cancellation | None
) -> tuple[int, str]:
    """Run a helper under a guard; see :func:`output_of`.

    Raises the error of ``cancellation`` where the launch was cancelled.
    """
    if cancellation is None:
        return output_of(command, timeout=timeout, containment=choose(), env=env)
    cancellation.check()
    answer = output_of(
        command, timeout=timeout, containment=choose(), env=env, on_start=cancellation.watch
    )
    cancellation.check()
    return answer


def _ask(path: str, kind: str, cancellation: Cancellation | None = None) -> str:
    try:
        status, text = ask((path, "--version"), TIMEOUT, environment_without_credentials(), cancellation)
    except TimeoutError:
        raise ResolveError(f"{path} --version did not answer within {TIMEOUT:g} s.") from None
    except OSError as error:
        if limit := limit_of_errno(error.errno or 0, forking=True):
            raise LimitError(f"{path} cannot be run. {limit}") from None
        raise ResolveError(f"{path} cannot be run: {error.strerror}.") from None
    match = _PATTERNS[kind].search(text)
    if match is None and status < 0 and (cause := probable_causes()):
        raise LimitError(f"{path} --version was killed by signal {-status}.{cause}")
    if match is None:
        words = " ".join(text.split())[:120] or "nothing"
        raise ResolveError(f"{path} is not a {kind}: --version (status {status}) says {words!r}.")
    return match.group(1)
