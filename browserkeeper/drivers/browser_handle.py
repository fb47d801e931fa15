"""What can be seen of a browser from here: its process, or nothing but what its Grid says."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity

DEATH_PATIENCE = 0.5
"""Seconds between a driver's "disconnected" and its browser being seen to be gone."""
_LOST_BROWSER = re.compile(
    r"disconnected|not reachable|session deleted|invalid session id|marionette|connection",
    re.IGNORECASE,
)
_LOST_SESSION = re.compile(
    r"browserkeeper: the Grid|InvalidSessionIdException|unable to find session|"
    r"unable to execute request for an existing session|not reachable|session deleted|"
    r"disconnected|failed to decode response from marionette",
    re.IGNORECASE,
)


class BrowserHandle(Protocol):
    """A session's browser, once it is there."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """Its main process, where it is one of this machine's."""

    def is_lost(self, message: str) -> bool:
        """Is it gone, or going, after the driver's complaint in these words ("" for none)?"""

    def is_running(self) -> bool:
        """Does a look from outside, without a word to it, find it well?"""


class LocalBrowserHandle:
    """One whose process is below our guard; None where it could not be told which that is."""

    def __init__(self, identity: ProcessIdentity | None):
        self.identity = identity

    def is_lost(self, message: str) -> bool:
        """A driver may say so before the process has ended."""
        if self.identity is None:
            return False
        until = time.monotonic() + (DEATH_PATIENCE if _LOST_BROWSER.search(message) else 0)
        while True:
            found = system.facts(self.identity.pid)
            if found is None or found.is_zombie or not self.identity.is_same_as(found.identity):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)

    def is_running(self) -> bool:
        return is_running(self.identity)


class RemoteBrowserHandle:
    """One that is on a Grid: the pid in its capabilities means nothing here."""

    identity = None

    def is_lost(self, message: str) -> bool:
        return bool(_LOST_SESSION.search(message))

    def is_running(self) -> bool:
        """Nobody can tell without a command."""
        return True


def find_local(capabilities: Mapping[str, Any], tree: Sequence[ProcessFacts]) -> LocalBrowserHandle:
    """The driver says which process it started; where it does not, its first child is it."""
    pid = capabilities.get("goog:processID") or capabilities.get("moz:processID")
    named = (p for p in tree if p.pid == pid)
    first = (p for p in tree[1:] if p.parent == tree[0].pid)
    found = next(named, None) or next(first, None)
    return LocalBrowserHandle(found.identity if found else None)


def is_running(identity: ProcessIdentity | None) -> bool:
    """Neither gone, nor a zombie, nor stopped."""
    found = system.facts(identity.pid) if identity else None
    return found is not None and found.identity.is_same_as(identity) and found.state not in "ZTtX"
