"""The profile directory that a user names: which one it is, and whether a session may have it."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from ..config import SessionConfig
from ..errors import ProfileError
from ..guard.files import CHROMIUM_FILES, CHROMIUM_LOCK
from ..options.profiles import named_profiles
from .profile_holders import Finder, Finding, chromium, firefox, session_with

_FIREFOX_HOMES = ("~/.mozilla/firefox", "~/.config/mozilla/firefox", "~/.firefox")
"""Where Firefox keeps ``profiles.ini``, which says where the profiles of ``-P NAME`` are."""


class ProfileInUse:
    """Who has a profile: asked before the launch, and again after a launch that has failed."""

    def __init__(self, directory: Path, find: Finder):
        self.directory, self._find = directory, find

    def check(self) -> None:
        """Make the directory where it does not exist, and remove a Chromium's lock that no living
        browser has.

        Raises ProfileError where the profile is or may be in use, and where the directory cannot be made
        or written.  Blocks for up to 3 s.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProfileError(f"Profile {self.directory} cannot be made: {error.strerror}.") from None
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise ProfileError(f"Profile {self.directory} is not writable by this user.")
        finding = self._find(self.directory)
        if finding.holder:
            raise self._error(finding)
        if finding.stale:
            _remove_stale_lock(self.directory, finding.stale)

    def error(self, *, locked: bool = False) -> ProfileError | None:
        """The error for a launch that has failed because of the profile's holder; None for none.

        ``locked``: another session's guards have the profile.  Its browser may not have started yet.
        """
        finding = self._find(self.directory)
        if locked and not finding.holder:
            finding = Finding(session_with(self.directory))
        return self._error(finding) if finding.holder else None

    def _error(self, finding: Finding) -> ProfileError:
        return ProfileError(
            f"Profile {self.directory} is in use by {finding.holder}. Close it, or give each session a "
            "profile of its own."
        )


def profile_of(config: SessionConfig) -> ProfileInUse | None:
    """The profile that a session on this machine keeps; None for a temporary one, and for ``-P NAME``
    where ``profiles.ini`` has none of that name."""
    find = firefox if config.engine == "firefox" else chromium
    for named in named_profiles(config):  # two that differ have been refused before
        if directory := named.directory or (named.name and _firefox_profile(named.name)):
            return ProfileInUse(directory, find)
    return None


def _firefox_profile(name: str) -> Path | None:
    """The directory of the Firefox profile of that name; None where there is none."""
    for home in _FIREFOX_HOMES:
        directory = Path(home).expanduser()
        profiles = configparser.RawConfigParser(strict=False)
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            profiles.read(directory / "profiles.ini", encoding="utf-8")
        for section in profiles.sections():
            facts: Mapping[str, str] = profiles[section]
            if facts.get("name") == name and (path := facts.get("path")):
                return directory / path  # an absolute path stays what it is
    return None


def _remove_stale_lock(profile: Path, target: str) -> None:
    """Remove a Chromium's lock, if it is still a link to ``target``.

    Under the directory's lock, which the guards of another session would hold: their browser may have
    made a new lock.  A plain browser may do so at any time, so the lock is moved away first and looked
    at again.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    aside = f"{CHROMIUM_LOCK}.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        place = os.open(profile, flags)
    except OSError:
        return
    try:
        with contextlib.suppress(BlockingIOError):
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                pass  # a file system without such locks
            os.rename(CHROMIUM_LOCK, aside, src_dir_fd=place, dst_dir_fd=place)
            if os.readlink(aside, dir_fd=place) != target:
                with contextlib.suppress(FileExistsError):
                    os.link(
                        aside, CHROMIUM_LOCK, src_dir_fd=place, dst_dir_fd=place, follow_symlinks=False
                    )
            else:
                for name in CHROMIUM_FILES:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=place)
            os.unlink(aside, dir_fd=place)
    except OSError:
        pass  # the browser takes the lock over, or says why it does not
    finally:
        os.close(place)
