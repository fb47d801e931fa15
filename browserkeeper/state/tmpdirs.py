"""Where a session's TMPDIR goes.

In memory where there is plenty: a browser fsyncs its profile's databases, and deleting 130
fsynced files costs 100 ms on ext4 and 3 ms on tmpfs (``make bench`` shows both).
"""

from __future__ import annotations

import os
import sys
import tempfile

from ..errors import ConfigError
from .permissions import stranger_on_the_way

PREFIX = "bk-"
PATH_LIMIT = 62
"""Bytes.  Chrome puts a socket below TMPDIR, and ``sun_path`` holds 108 (unix(7)); measured: at
80 it does not start."""
MEMORY_ROOT = "/dev/shm"
MEMORY_NEEDED = 2**30
"""Free bytes of tmpfs below which the disk is used."""


def roots() -> list[str]:
    """Every directory that sessions of this user may have theirs in."""
    named = os.environ.get("BROWSERKEEPER_TMPDIR")
    places = dict.fromkeys(filter(None, (named, MEMORY_ROOT, _temporary(), "/tmp")))
    return [place for place in places if not stranger_on_the_way(place)]


def choose_root() -> str:
    """``BROWSERKEEPER_TMPDIR``; else TMPDIR if it is set; else tmpfs if roomy; else /tmp.

    Raises ConfigError where the one that was named cannot be used.
    """
    if named := os.environ.get("BROWSERKEEPER_TMPDIR"):
        return _usable(os.path.abspath(named))
    usual = _temporary()
    # Root after su(1) has its user's TMPDIR.
    suits = usual != "" and _fits(usual) and not stranger_on_the_way(usual)
    if "TMPDIR" in os.environ and suits:
        return usual
    if sys.platform == "linux" and _free(MEMORY_ROOT) >= MEMORY_NEEDED:
        return MEMORY_ROOT
    return usual if suits else _usable("/tmp")


def _temporary() -> str:
    """The directory for temporary files, "" where none can be written: a container's read-only root."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _usable(root: str) -> str:
    if not os.path.isdir(root) or not os.access(root, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{root} is no directory that this user can write; set BROWSERKEEPER_TMPDIR to one."
        )
    if stranger := stranger_on_the_way(root):
        raise ConfigError(
            f"{root}: {stranger} belongs to somebody else, who could put another directory in the "
            "place of a session's; set BROWSERKEEPER_TMPDIR to a directory of this user's or root's."
        )
    if not _fits(root):
        raise ConfigError(
            f"{root} is too long for a session's TMPDIR ({PATH_LIMIT} bytes with a name of 15, "
            "since Chrome's socket below it must fit sun_path); set BROWSERKEEPER_TMPDIR to a "
            "shorter one."
        )
    return root


def _fits(root: str) -> bool:
    return len(os.fsencode(root)) + 1 + len(PREFIX) + 12 <= PATH_LIMIT


def _free(root: str) -> int:
    try:
        facts = os.statvfs(root)
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize if os.access(root, os.W_OK | os.X_OK) else 0
