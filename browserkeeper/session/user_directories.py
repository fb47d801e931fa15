"""The user's directories that browsers read, inside the private ones that they write to.

``environment.py`` moves the XDG directories into the session's TMPDIR.  What the user has put into the
original ones must still be found: a company's root certificate, fonts and their aliases, proxies, native
messaging hosts.  So the private directories get symbolic links to the user's entries.  What browsers
write is left out, or is copied, or is a private directory of links, so that new files stay in it.
The removal of TMPDIR removes links and never follows them (``guard/trees.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ..errors import LaunchError

HOME_OF = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": os.path.join(".local", "share"),
}
"""The variables, and the directory below HOME that they stand for where they are not set."""
PRIVATE_NAME = {"XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"}
"""The variables, and the name of the private directory in TMPDIR."""

_OF_BROWSERS = (
    *("chromium", "google-chrome", "google-chrome-beta", "google-chrome-unstable", "chrome-unstable"),
    *(
        "google-chrome-for-testing",
        "microsoft-edge",
        "microsoft-edge-beta",
        "microsoft-edge-dev",
        "mozilla",
    ),
)
READ_OF_BROWSERS = (
    *("NativeMessagingHosts", "policies", "External Extensions"),
    *("native-messaging-hosts", "managed-storage", "pkcs11-modules", "certificates", "extensions"),
)
"""What browsers read in a directory of their own.  The rest are profiles and crash reports."""
_LEFT_OUT = {
    "XDG_DATA_HOME": {"recently-used.xbel", "gvfs-metadata", "Trash"},
    "XDG_CONFIG_HOME": {"autostart"},
}
"""What browsers, or GTK in them, write and have no need to read."""
_LINKED_INSIDE = {
    "applications",
    "dconf",
    "fontconfig",
    "gtk-2.0",
    "gtk-3.0",
    "gtk-4.0",
    "icons",
    "mime",
    "pulse",
}
"""Directories that are read and written: private ones, with a link for each entry."""
_COPIED = "pki"
"""NSS's databases.  NSS opens them for writing and locks them, so that a link would need a HOME that can
be written, and browsers would write to it."""
MOST_COPIED = 64 * 2**20
"""Bytes of a file of a database; ordinary ones have 50 KB."""


def link_user_directories(env: Mapping[str, str], tmpdir: str) -> None:
    """Make the private directories that ``env`` names in ``tmpdir``, and links in them to what the user
    has put into the original ones.

    Directories that do not exist, or that cannot be read, are as in a browser without us.  Raises
    LaunchError where a link cannot be made.
    """
    try:
        for variable, name in PRIVATE_NAME.items():
            private = os.path.join(tmpdir, name)
            source = _original(variable, env)
            if env.get(variable) == private and source:
                _fill(variable, source, private)
    except OSError as error:
        raise LaunchError(
            f"The user's directories cannot be linked into the session's TMPDIR ({error.filename}): "
            f"{error.strerror}. Free space there, or set BROWSERKEEPER_TMPDIR to another directory."
        ) from error


def _original(variable: str, env: Mapping[str, str]) -> str:
    """The directory that a browser would use without us; "" where there is no HOME."""
    set_by_user = os.environ.get(variable, "")
    if os.path.isabs(set_by_user):  # others are ignored (XDG Base Directory Specification)
        return set_by_user
    home = env.get("HOME", "")
    return os.path.join(home, HOME_OF[variable]) if os.path.isabs(home) else ""


def _fill(variable: str, source: str, private: str) -> None:
    _make_directory(private)
    for entry in _entries(source):
        target = os.path.join(private, entry.name)
        if variable == "XDG_CACHE_HOME":
            if (
                entry.name == "fontconfig"
            ):  # else each session would look through all of the user's fonts
                _link_inside(entry.path, target)
        elif entry.name in _LEFT_OUT[variable]:
            continue
        elif entry.name == _COPIED and variable == "XDG_DATA_HOME":
            _copy_databases(entry.path, target)
        elif entry.name in _OF_BROWSERS and variable == "XDG_CONFIG_HOME":
            _link_inside(entry.path, target, only=READ_OF_BROWSERS)
        elif entry.name in _LINKED_INSIDE and _is_directory(entry):
            _link_inside(entry.path, target)
        else:
            _link(entry.path, target)


def _make_directory(path: str) -> None:
    """Make a directory, but none of its parents: a guard that ends the session meanwhile has removed
    TMPDIR, and does not look for it again."""
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """False also for what cannot be asked, such as a link to itself, or a file system that has gone."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            yield from found
    except OSError:
        return


def _link_inside(source: str, private: str, only: tuple[str, ...] = ()) -> None:
    _make_directory(private)
    for entry in _entries(source):
        if not only or entry.name in only:
            _link(entry.path, os.path.join(private, entry.name))


def _link(source: str, link: str) -> None:
    try:
        os.symlink(source, link)
    except FileExistsError:  # the browser was faster, or TMPDIR was filled before
        pass


def _copy_databases(source: str, private: str) -> None:
    """Copy the regular files of a directory and of the directories in it."""
    _make_directory(private)
    for entry in _entries(source):
        target = os.path.join(private, entry.name)
        if _is_directory(entry):
            _make_directory(target)
            for file in _entries(entry.path):
                _copy(file, os.path.join(target, file.name))
        else:
            _copy(entry, target)


def _copy(entry: os.DirEntry[str], target: str) -> None:
    """Nothing is copied of a file that cannot be read: a browser without us has no use of it either."""
    try:
        if not entry.is_file() or entry.stat().st_size > MOST_COPIED:
            return
        with open(entry.path, "rb") as file:
            content = file.read(MOST_COPIED)
    except OSError:
        return
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy:
        copy.write(content)


__all__ = ["PRIVATE_NAME", "link_user_directories"]
