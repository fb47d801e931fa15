"""The temporary profiles that drivers and browsers make themselves, in the directory for such files.

Only browsers that other code started have one: sessions of ours have a TMPDIR of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from ..process import system

PROFILES = re.compile(
    r"(?:\.?(?:org\.chromium\.Chromium|com\.google\.[Cc]hrome(?:\.for\.testing)?|com\.microsoft\.[Ee]dge)"
    r"\.(?:scoped_dir\.)?|rust_mozprofile|scoped_dir)[A-Za-z0-9]{6}|scoped_dir\d+_\d+"
)
"""How drivers and browsers name their temporary profiles, to the end: mkdtemp(3) gives the last six
characters.  A person's ``com.google.backup`` or ``scoped_dir_login`` is none."""


def profiles_of(pid: int, places: Collection[Path] = ()) -> Iterator[Path]:
    """The temporary profiles that a browser's command line names, and for Chrome the directory of its
    socket.  ``places`` as for :func:`is_temporary`."""
    for profile in named_profiles(pid):
        for path in (profile, *_socket_directory(profile)):
            if is_temporary(path, places):
                yield path


def named_profiles(pid: int) -> list[Path]:
    """The profiles that a browser's command line names, wherever they are."""
    words = system.command_line(pid).split(b"\0")
    named = [w.partition(b"=")[2] for w in words if w.startswith(b"--user-data-dir=")]
    named += [b for a, b in itertools.pairwise(words) if a in (b"-profile", b"--profile")]
    return [Path(os.fsdecode(name)) for name in named]


def _socket_directory(profile: Path) -> Iterator[Path]:
    """The directory that Chrome makes for its socket, since the path of the profile may be too long."""
    with contextlib.suppress(OSError):
        yield (profile / "SingletonSocket").readlink().parent


def is_temporary(path: Path, places: Collection[Path] = ()) -> bool:
    """True if the path may be removed as a temporary profile: it belongs to this user, has the name of
    one, and is in the directory for temporary files, or in one of ``places``."""
    if path.parent not in (Path(tempfile.gettempdir()), *places) or not PROFILES.fullmatch(path.name):
        return False
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == os.geteuid() and not path.is_symlink()
    return False


def may_be_a_persons(path: Path) -> bool:
    """True if a person may have given the name of a temporary profile: it ends with a word, such as
    ``com.google.Chrome.backup``.  So do 5 of 1000 that mkdtemp(3) gives."""
    return re.search(r"[a-z]{6}$", path.name) is not None
