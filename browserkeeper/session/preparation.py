"""What is decided once for the start of a session, before it takes a slot of the host."""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import TYPE_CHECKING

from ..config import SessionConfig
from ..drivers.cancellation import Cancellation
from ..drivers.downloads import directory_of_user
from ..errors import ConfigError, ResolveError
from ..options.check import check_environment
from ..options.display import VIRTUAL
from ..process.containment import Containment, choose
from ..state.ledger import Ledger

if TYPE_CHECKING:
    from ..drivers.resolve import Resolved


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The decisions that all attempts of one start share.  ``found``: browser and driver; None for a
    Grid, which has its own.  ``xvfb``: the path of the X server of a virtual display, or
    ""."""

    config: SessionConfig
    containment: Containment
    ledger: Ledger
    found: Resolved | None
    xvfb: str = ""

    @classmethod
    def make(cls, config: SessionConfig, cancellation: Cancellation) -> Preparation:
        """Check what can be checked now, and find browser and driver.

        Starts no browser, but may run programs for their version, and download a driver: no slot is to
        be held meanwhile.  Raises ConfigError, ResolveError, VersionMismatch, ContainmentError,
        LedgerError, or the error of ``cancellation``.
        """
        containment = choose(config.containment)  # first: the search for a driver starts guards, too
        ledger = Ledger.open()
        ledger.prune()
        if any(ledger.live.glob("*.json")):  # a start beside no other session needs not that package
            from ..cleanup.in_passing import finish_the_dead

            finish_the_dead(ledger)
        if config.log:
            _check_log(config.log)
        if config.remote is None:
            _check_downloads(directory_of_user(config))
        found = _resolve(config, ledger, cancellation)
        _check_engine(config, found)
        return cls(config, containment, ledger, found, _find_xvfb(config))


def _resolve(config: SessionConfig, ledger: Ledger, cancellation: Cancellation) -> Resolved | None:
    """Browser and driver on this machine; None for a Grid."""
    from ..drivers.resolve import resolve

    if config.remote is not None:
        return None
    check_environment(config)
    return resolve(
        config.name,
        binary=config.binary,
        driver_path=config.driver_path,
        offline=config.offline,
        offline_because=config.offline_because,
        directory=ledger.directory,
        cancellation=cancellation,
    )


def _find_xvfb(config: SessionConfig) -> str:
    """The path of Xvfb where the session needs one, else "".  Raises ResolveError if it is missing."""
    if config.display != VIRTUAL:
        return ""
    path = config.env.get("PATH", os.environ.get("PATH"))
    found = shutil.which("Xvfb", path=path)
    if found is None:
        raise ResolveError(
            "display='virtual' needs Xvfb, which is not installed: `apt install xvfb` (Debian, Ubuntu), "
            "`dnf install xorg-x11-server-Xvfb` (Fedora). It was looked for in PATH.",
            (("PATH", path or "is not set"),),
        )
    return os.path.abspath(found)


def _check_engine(config: SessionConfig, found: Resolved | None) -> None:
    """Raises ConfigError for options of another browser or of another version."""
    from ..drivers import chromium, firefox, remote

    if found is None:
        remote.check(config)
    elif config.engine == "firefox":
        firefox.check(config, found)
    else:
        chromium.check(config, found)


def _check_log(path: str) -> None:
    """Raises ConfigError where the driver's log cannot be appended to this file in the end."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"log={path!r} is not a regular file.")
    try:  # 0600 from the start: the log holds every address, typed text and cookie
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(f"log={path!r} cannot be written: {error.strerror}.") from None


def _check_downloads(directory: str) -> None:
    """Raises ConfigError where no browser can save a file: each download would fail without a word.

    A directory that does not exist is made by the browser.  "" is none of the user's.
    """
    if directory and os.path.exists(directory):
        if not os.path.isdir(directory):
            raise ConfigError(f"The directory for downloads, {directory}, is a file. Name a directory.")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"The directory for downloads, {directory}, is not writable by this user. Name another "
                "one, or change its permissions."
            )


__all__ = ["Preparation"]
