"""User contexts of a running browser: each lease gets a new one, in a browser that stays open.

What belongs here: the creation of a context, the routing of a lease's classic commands to it, and the
check that nothing of an earlier lease is left.  ``pool/`` decides when a context is made.

    base.py      Contexts: the interface for the pool
    chromium.py  Chromium's, by the DevTools protocol
    firefox.py   Firefox's, by BiDi alone
    firefox_cookies.py   the classic commands for cookies, which Firefox has for one context only
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...config import SessionConfig
from ..bidi import ProtocolError
from ..context_limits import NoContextsError
from .base import Contexts, DownloadFolders, RunCommand

if TYPE_CHECKING:
    from .chromium import Shared

TOO_OLD = frozenset(["unknown command", "unknown method", "invalid argument"])
"""Error codes for a command that the browser does not have; "invalid argument" is the code for an event
that it does not have."""


def for_contexts(config: SessionConfig, *, shared: bool = False) -> SessionConfig:
    """The configuration, completed by the options that contexts need at the start of the browser.

    ``shared``: it is a Chromium that will have several leases at a time.
    """
    from . import chromium, firefox

    if config.engine == "firefox":
        return firefox.for_contexts(config)
    return chromium.for_contexts(config, shared=shared)


def open_contexts(
    config: SessionConfig,
    capabilities: Mapping[str, Any],
    run: RunCommand,
    folders: DownloadFolders,
    shared: Shared | None = None,
) -> Contexts:
    """Connect to a browser that was started with :func:`for_contexts`, and make its first context.

    ``config`` is the user's.  ``shared``: for a Chromium that has other leases at the same time; None
    for other browsers.

    Raises NoContextsError for a browser that is too old for contexts, ProtocolError, or an error of the
    websocket or of WebDriver.
    """
    from . import chromium, firefox

    try:
        if config.engine == "firefox":
            return firefox.open_contexts(config, capabilities, run, folders)
        return chromium.open_contexts(config, capabilities, run, folders, shared)
    except ProtocolError as error:
        if error.code not in TOO_OLD:
            raise
        name, version = (capabilities.get(key, "?") for key in ("browserName", "browserVersion"))
        raise NoContextsError(
            f"{name} {version} has no user contexts that a pool can use ({error}). Use a newer "
            "one, or isolation='fresh'.",
            retryable=False,
        ) from None


__all__ = ["Contexts", "DownloadFolders", "RunCommand", "for_contexts", "open_contexts"]
