"""Where a browser puts its downloads, and how the file of one is named until all is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container

from ..config import SessionConfig
from ..guard.downloads import open_partial_files
from ..process import is_alive
from ..process.identity import ProcessIdentity
from .context_limits import download_dir_of

FileId = tuple[int, int]
"""Device and inode."""
PARTIAL_SUFFIXES = {"chromium": ".crdownload", "firefox": ".part"}
"""The end of the name of a file that a browser, by its engine, has not downloaded whole."""

CANCEL_GRACE = 5.0
"""Seconds that the owner has to cancel a Chromium's download that has passed ``max_download``, before
the guard ends the session.  The owner notices it within 0.05 s, and the browser removes the file 0.1 s
later; a busy machine takes ten times as long."""


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


def need_bidi(config: SessionConfig) -> bool:
    """True if BiDi must be turned on for the browser's events of downloads.

    Always for Firefox, which needs no more time or memory with BiDi.  With BiDi a Chromium has a further
    hidden page (20 MB, and 0.2 s of its start).  So only with ``download_dir=`` or ``max_download=``:
    only BiDi tells which files in a directory of the user are its own, and can cancel a download.  Never
    if the user has turned BiDi off.
    """
    if not config.is_here or config.debugger_address or config.for_contexts:
        return False
    if getattr(config.options, "capabilities", {}).get("webSocketUrl") is False:
        return False
    return config.engine == "firefox" or bool(directory_of_user(config) or config.max_download)


def files_written_by(
    browser: ProcessIdentity | None, engine: str, directory: str
) -> Callable[[], Container[FileId]] | None:
    """Returns a function that returns the ids of the partial files that the browser's main process has
    open for writing.  None if that is not known: without the process's identity, or without
    ``/proc``."""
    if browser is None or sys.platform != "linux":
        return None
    suffix = PARTIAL_SUFFIXES[engine]
    return lambda: open_partial_files([browser.pid] if is_alive(browser) else [], suffix, directory)


__all__ = ["CANCEL_GRACE", "PARTIAL_SUFFIXES", "directory_of_user", "files_written_by", "need_bidi"]
