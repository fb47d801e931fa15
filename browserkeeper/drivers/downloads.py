"""Where a browser puts its downloads, and how the file of one is named until all is there."""

from __future__ import annotations

import os

from ..config import SessionConfig
from .context_limits import download_dir_of

PARTIAL_SUFFIXES = {"chromium": ".crdownload", "firefox": ".part"}
"""The end of the name of a file that a browser, by its engine, has not downloaded whole."""

CANCEL_GRACE = 1.0
"""Seconds that the owner has to cancel a Chromium's download that has passed ``max_download``, before
the guard ends the session.  The owner notices it within 0.05 s."""


def directory_of_user(config: SessionConfig) -> str:
    """The directory that the user has named, by argument or by preference; "" without one.

    Without links in its path, as ``/proc/PID/fd`` shows the files in it.
    """
    if config.engine == "chromium":
        named = download_dir_of(config)
    else:
        preferences = {**getattr(config.options, "preferences", {}), **config.preferences}
        named = preferences.get("browser.download.dir") or config.download_dir
    return os.path.realpath(named) if named else ""


__all__ = ["CANCEL_GRACE", "PARTIAL_SUFFIXES", "directory_of_user"]
