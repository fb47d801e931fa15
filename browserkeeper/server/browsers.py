"""Which browsers the server's machine has, and their versions."""

from __future__ import annotations

import time

from ..errors import BrowserkeeperError, ConfigError
from ..session.asynchronous import in_thread

FRESH = 60.0
"""Seconds for which a result is kept: a browser may be installed or updated meanwhile."""


class Browsers:
    """Looks for browsers, and keeps the results for a while.  For the event loop's thread only."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str | ConfigError]] = {}

    async def check(self, name: str, version: str) -> None:
        """Raises ConfigError if this machine has no browser of this name, or has another version of it.

        ``name``: as for ``BrowserPool``.  ``version``: the version, or its first numbers; "" and
        "stable" fit every version.
        """
        found = await self._version(name)
        if not version or version.casefold() == "stable":
            return
        asked = version.split(".")
        if found.split(".")[: len(asked)] != asked:
            raise ConfigError(f"browserVersion {version[:100]!r}: this server's {name} is {found}")

    async def _version(self, name: str) -> str:
        known = self._known.get(name)
        if known is None or time.monotonic() - known[0] > FRESH:
            known = self._known[name] = time.monotonic(), await in_thread(lambda: _find(name))
        if isinstance(known[1], ConfigError):
            raise ConfigError(str(known[1]))
        return known[1]


def _find(name: str) -> str | ConfigError:
    """The version of the browser that a pool of this name would start; the error where it could start
    none.  The first call blocks for seconds."""
    from ..drivers.resolve import resolve
    from ..state.ledger import Ledger

    try:
        directory = Ledger.open().directory
        # Offline, since a driver that is missing can be downloaded when a pool starts its first browser.
        found = resolve(name, binary=None, driver_path=None, offline=True, directory=directory)
        return found.browser.version
    except BrowserkeeperError as error:
        first = str(error).partition("\n")[0]
        return ConfigError(f"browserName: this server cannot start {name}: {first}")


__all__ = ["Browsers"]
