"""The options and capabilities by which a session asks a server (`browserkeeper serve`) for a browser.

The default arguments of local browsers are not sent, since the server's browsers have them already.  The
words of an identity are sent as a capability and not as arguments, so that a running browser can apply
them.
"""

from __future__ import annotations

from typing import Any

from .._version import __version__
from ..config import SessionConfig
from ..wire import words
from . import chromium, firefox

MAX_LEASE_MARGIN = 1.0
"""Seconds between the session's own deadline and the server's later deadline of the lease.  The
session's own error says more; the server's deadline is for a program that is stopped or stuck."""
SHORTEST_WAIT = 1.0
"""Seconds that are asked for also with ``wait=0``.  A ready browser is given sooner; the start of a
browser takes longer."""


def check(config: SessionConfig) -> None:
    """Raises ConfigError for options of another browser."""
    if config.options is not None:
        _user_options(config)


def _user_options(config: SessionConfig) -> Any:
    engine = firefox if config.engine == "firefox" else chromium
    return engine.user_options(config)


def build_options(config: SessionConfig) -> Any:
    """Selenium's options for the request: the user's options, arguments, preferences and window size."""
    from ..selenium_internals.private import set_arguments

    options = _user_options(config)
    if config.name == "chromium":
        options.set_capability("browserName", "chromium")  # not Google Chrome
    if config.engine == "firefox":
        for name, value in config.preferences.items():
            options.set_preference(name, value)
    elif config.preferences:
        prefs = options.experimental_options.get("prefs", {})
        options.add_experimental_option("prefs", {**prefs, **config.preferences})
    given = [*_size_arguments(config), *options.arguments, *config.arguments]
    set_arguments(options, given if config.engine == "firefox" else chromium.merge_features(given))
    return options


def _size_arguments(config: SessionConfig) -> list[str]:
    if config.window_size is None:
        return []
    width, height = config.window_size
    if config.engine == "firefox":
        return [f"--width={width}", f"--height={height}"]
    return [f"--window-size={width},{height}"]


def capabilities(config: SessionConfig, session: str) -> dict[str, Any]:
    """The capabilities of the request for a session besides those of the options.  ``session``: the id
    of our session."""
    found: dict[str, Any] = {words.CLIENT: f"{__version__} {session}"}
    if config.identity:
        found[words.IDENTITY] = config.identity.to_json()
    if config.label:
        found[words.LABEL] = config.label
    if config.wait is not None:
        found[words.TIMEOUT] = max(SHORTEST_WAIT, config.wait)
    if config.timeout is not None:
        found[words.MAX_LEASE] = config.timeout + MAX_LEASE_MARGIN
    if config.lease_isolation:
        found[words.ISOLATION] = config.lease_isolation
    return found


__all__ = ["build_options", "capabilities", "check"]
