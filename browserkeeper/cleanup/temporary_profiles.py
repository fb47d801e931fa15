"""Directories that drivers and browsers make for one session in the place for temporary files."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..process import system

PROFILES = re.compile(r"\.?(org\.chromium\.|com\.google\.|com\.microsoft\.|rust_mozprofile|scoped_dir)")
"""Temporary profiles, as drivers name them."""


def profiles_of(pid: int) -> Iterator[Path]:
    """The temporary profiles on a browser's command line, and what Chrome keeps beside its own."""
    words = system.command_line(pid).split(b"\0")
    places = [w.partition(b"=")[2] for w in words if w.startswith(b"--user-data-dir=")]
    places += [b for a, b in itertools.pairwise(words) if a in (b"-profile", b"--profile")]
    for profile in map(Path, map(os.fsdecode, places)):
        yield from filter(is_temporary, [profile, *_socket_directory(profile)])


def _socket_directory(profile: Path) -> Iterator[Path]:
    """Chrome keeps its socket there, since a profile's path may be too long for one."""
    with contextlib.suppress(OSError):
        yield (profile / "SingletonSocket").readlink().parent


def is_temporary(path: Path) -> bool:
    """Ours to remove: this user's, named as browsers and drivers name them, and in the directory for
    such things."""
    if path.parent != Path(tempfile.gettempdir()) or not PROFILES.match(path.name):
        return False
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == os.geteuid() and not path.is_symlink()
    return False
