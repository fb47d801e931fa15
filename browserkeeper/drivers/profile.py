"""Checks of a profile directory that the user named: it exists, is writable, and is not in use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ProfileError


def check(profile: Path, holder: Callable[[Path], str]) -> None:
    """Make the directory if it does not exist.

    ``holder`` says which browser has the profile open, "" for none.  Raises ProfileError where there is
    one, and where the directory cannot be made or written.
    """
    try:
        profile.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProfileError(f"Profile {profile} cannot be made: {error.strerror}.") from error
    if not os.access(profile, os.W_OK | os.X_OK):
        raise ProfileError(f"Profile {profile} is not writable by this user.")
    if user := holder(profile):
        raise ProfileError(
            f"Profile {profile} is in use by {user}. Close it, or give each session a profile "
            "of its own."
        )


def chromium_holder(profile: Path) -> str:
    """The Chromium that has this profile open, "" for none.

    ``SingletonLock`` is a link to ``HOST-PID`` (process_singleton_posix.cc).  The lock of a process that
    has ended does not count: Chromium takes it over.
    """
    try:
        target = os.readlink(profile / "SingletonLock")
    except OSError:
        return ""
    host, _, pid = target.rpartition("-")
    alive = pid.isdigit() and os.path.exists(f"/proc/{pid}")
    return f"the browser with pid {pid}" if host == os.uname().nodename and alive else ""


def firefox_holder(profile: Path) -> str:
    """The Firefox that has this profile open, "" for none.

    It holds a POSIX lock on ``.parentlock`` (nsProfileLock.cpp).
    """
    try:
        with open(profile / ".parentlock", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except OSError:
        return "another Firefox"
    return ""
