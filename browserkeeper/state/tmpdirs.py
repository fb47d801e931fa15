"""Where the TMPDIR of a session is made.

On tmpfs where enough of it is free: a browser fsyncs the databases of its profile, and deleting 130
fsynced files takes 100 ms on ext4 and 3 ms on tmpfs (``make bench`` shows both).
"""

from __future__ import annotations

import os
import sys
import tempfile

from ..errors import ConfigError
from .permissions import first_untrusted_directory
from .records import is_id, new_id

_PREFIX = "bk-"
PATH_LIMIT = 62
"""Most bytes of the path of a session's TMPDIR.  Chrome makes a socket below TMPDIR, and ``sun_path``
holds 108 bytes (unix(7)); measured: with a TMPDIR of 80 bytes Chrome does not start."""
MEMORY_ROOT = "/dev/shm"
MEMORY_NEEDED = 2**30
"""Bytes of tmpfs that must be free; else the session's TMPDIR is made on disk."""


def tmpdir_name(session: str) -> str:
    """The name of the TMPDIR of a session."""
    return _PREFIX + session


def session_of(name: str) -> str:
    """The id of the session whose TMPDIR has this name; "" if it is the name of no session's."""
    session = name.removeprefix(_PREFIX)
    return session if is_id(session) and name == tmpdir_name(session) else ""


def new_tmpdir_path(session: str) -> str:
    """The path at which the guard of a new session makes its TMPDIR.  Raises ConfigError as
    :func:`choose_root` does."""
    return os.path.join(choose_root(), tmpdir_name(session))


def roots() -> list[str]:
    """The directories in which a session of this user may have its TMPDIR."""
    named = os.environ.get("BROWSERKEEPER_TMPDIR")
    places = dict.fromkeys(filter(None, (named, MEMORY_ROOT, _temporary_directory(), "/tmp")))
    return [place for place in places if not first_untrusted_directory(place)]


def choose_root() -> str:
    """The directory for a new session's TMPDIR: ``BROWSERKEEPER_TMPDIR``; else ``TMPDIR`` if it is
    set and can be used; else tmpfs if enough of it is free; else ``/tmp``.

    Raises ConfigError where ``BROWSERKEEPER_TMPDIR``, or as the last resort ``/tmp``, cannot be used.
    """
    if named := os.environ.get("BROWSERKEEPER_TMPDIR"):
        return _usable(os.path.abspath(named))
    usual = _temporary_directory()
    # After su(1), root may have the TMPDIR of another user.
    suits = usual != "" and _fits(usual) and not first_untrusted_directory(usual)
    if "TMPDIR" in os.environ and suits:
        return usual
    if sys.platform == "linux" and _free(MEMORY_ROOT) >= MEMORY_NEEDED:
        return MEMORY_ROOT
    return usual if suits else _usable("/tmp")


def _temporary_directory() -> str:
    """The directory for temporary files; "" if none can be written (a container's read-only root)."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _usable(root: str) -> str:
    if not os.path.isdir(root) or not os.access(root, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{root} is not a directory that this user can write; set BROWSERKEEPER_TMPDIR to one."
        )
    if untrusted := first_untrusted_directory(root):
        raise ConfigError(
            f"{root}: {untrusted} belongs to another user, or is written by all and has a link on the "
            "way: another directory could be put in the place of a session's; set "
            "BROWSERKEEPER_TMPDIR to a directory of this user or of root."
        )
    if not _fits(root):
        raise ConfigError(
            f"{root} is too long for a session's TMPDIR ({PATH_LIMIT} bytes with a name of 15, "
            "since Chrome's socket below it must fit sun_path); set BROWSERKEEPER_TMPDIR to a "
            "shorter one."
        )
    return root


def _fits(root: str) -> bool:
    return len(os.fsencode(os.path.join(root, tmpdir_name(new_id())))) <= PATH_LIMIT


def _free(root: str) -> int:
    try:
        facts = os.statvfs(root)
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize if os.access(root, os.W_OK | os.X_OK) else 0
