"""A profile directory of the user's: is it there, ours to write, and free?"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ProfileError


def check(profile: Path, holder: Callable[[Path], str]) -> None:
    """Make the directory where it is missing.

    Raises ProfileError where it cannot be written or another browser holds it.
    """
    try:
        profile.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProfileError(f"Profile {profile} cannot be made: {error.strerror}.") from error
    if not os.access(profile, os.W_OK | os.X_OK):
        raise ProfileError(f"Profile {profile} is not writable by this user.")
    if whose := holder(profile):
        raise ProfileError(
            f"Profile {profile} is in use by {whose}. Close it, or give each session a profile "
            "of its own."
        )


def chromium_holder(profile: Path) -> str:
    """``SingletonLock`` is a link to ``HOST-PID`` (process_singleton_posix.cc); a lock that a
    dead pid left is taken over by Chromium."""
    try:
        target = os.readlink(profile / "SingletonLock")
    except OSError:
        return ""
    host, _, pid = target.rpartition("-")
    alive = pid.isdigit() and os.path.exists(f"/proc/{pid}")
    return f"the browser with pid {pid}" if host == os.uname().nodename and alive else ""


def firefox_holder(profile: Path) -> str:
    """Firefox holds a POSIX lock on ``.parentlock`` (nsProfileLock.cpp)."""
    try:
        with open(profile / ".parentlock", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except OSError:
        return "another Firefox"
    return ""
