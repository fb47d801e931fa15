"""A running browser as this process sees it: its process, or what its Grid answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity

EXIT_TIMEOUT = 0.5
"""Seconds to wait for a browser's process to end, after its driver has reported it as lost."""
_DRIVER_LOST_BROWSER = re.compile(
    r"disconnected|not reachable|session deleted|invalid session id|marionette|connection",
    re.IGNORECASE,
)
"""Errors of a local driver after which the browser's process may be about to end."""
_GRID_LOST_SESSION = re.compile(
    r"browserkeeper: the Grid|InvalidSessionIdException|unable to find session|"
    r"unable to execute request for an existing session|not reachable|session deleted|"
    r"disconnected|failed to decode response from marionette",
    re.IGNORECASE,
)
"""Errors of a Grid, its driver, or our relay that mean the end of the session."""
_NO_SESSION = "InvalidSessionIdException"
"""How the message of an error begins with which a driver says that it has lost its browser."""
CONNECT_TIMEOUT = 1.0
"""Seconds for a browser that was attached to by its address to accept a connection."""


class BrowserHandle(Protocol):
    """The browser of a session."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """Its main process; None where that is unknown or on another machine."""

    def is_lost(self, message: str) -> bool:
        """True if the browser is gone.  ``message`` is the driver's error, "" if there was none.

        After an error that announces the browser's end, waits for it for up to EXIT_TIMEOUT.
        """

    def is_running(self) -> bool:
        """False if the process is known to have ended, to be stopped or to be a zombie.  Sends no
        command."""


class LocalBrowserHandle:
    """A browser below this session's guard.

    ``identity`` is None where no such process was found.  Then only the driver knows whether the browser
    lives: it is lost when the driver says that its session is, and taken for running until then.
    """

    def __init__(self, identity: ProcessIdentity | None):
        self.identity = identity

    def is_lost(self, message: str) -> bool:
        if self.identity is None:
            return message.startswith(_NO_SESSION)
        until = time.monotonic() + (EXIT_TIMEOUT if _DRIVER_LOST_BROWSER.search(message) else 0)
        while True:
            found = system.facts(self.identity.pid)
            if found is None or found.is_zombie or not self.identity.is_same_as(found.identity):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)

    def is_running(self) -> bool:
        return self.identity is None or is_running(self.identity)


class AttachedBrowserHandle:
    """A browser that the driver was attached to by its address, ``HOST:PORT``.  It is not the session's.

    Its process is not looked for: a forwarded port may lead to another machine.
    """

    identity = None

    def __init__(self, address: str):
        self.address = address

    def is_lost(self, message: str) -> bool:
        """True if no program listens at the address.  Blocks for up to CONNECT_TIMEOUT seconds.

        Anything else, such as a timeout, proves nothing.  A driver may also have lost its session with
        a browser that lives, since its last window was closed: that error is passed on as it is.
        """
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
        except ConnectionRefusedError:
            return True
        except (OSError, ValueError, OverflowError):
            return False
        return False

    def is_running(self) -> bool:
        """Always True: only a connection could find out."""
        return True


class RemoteBrowserHandle:
    """A browser on a Grid.  The pid in its capabilities is one of another machine."""

    identity = None

    def is_lost(self, message: str) -> bool:
        return bool(_GRID_LOST_SESSION.search(message))

    def is_running(self) -> bool:
        """Always True: only a command could find out."""
        return True


def find_local(capabilities: Mapping[str, Any], tree: Sequence[ProcessFacts]) -> LocalBrowserHandle:
    """The browser among the processes of the session, of which the first one is the driver.

    By the pid in the driver's capabilities; without that, the driver's first child.
    """
    pid = capabilities.get("goog:processID") or capabilities.get("moz:processID")
    named = (p for p in tree if p.pid == pid)
    first = (p for p in tree[1:] if p.parent == tree[0].pid)
    found = next(named, None) or next(first, None)
    return LocalBrowserHandle(found.identity if found else None)


def is_running(identity: ProcessIdentity | None) -> bool:
    """True if the process exists and is neither stopped nor a zombie; False for None."""
    found = system.facts(identity.pid) if identity else None
    return found is not None and found.identity.is_same_as(identity) and found.state not in "ZTtX"
