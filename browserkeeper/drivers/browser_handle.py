"""A running browser as this process sees it: its process, or what its Grid answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..errors import LimitError
from ..guard.procfs import is_exiting
from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity

EXIT_TIMEOUT = 10.0
"""Seconds to wait for a browser's process to end, after its driver has reported it as lost.  Firefox
gives up its session first and ends after that: on a busy machine 0.5 s are too short."""
LOST_CODES = frozenset({"invalid session id", "disconnected", "chrome not reachable"})
"""Error codes by which a driver says that it has lost its browser (measured: the first one with
ChromeDriver 156 and geckodriver 0.37; the others are in ChromeDriver's source)."""
LOST_MESSAGES = frozenset(
    {"Failed to decode response from marionette", "Failed to write request to stream"}
)
"""What geckodriver says, with the code "unknown error", to the command during which the connection to
Firefox ends (its marionette.rs).  Every later command gets the code "invalid session id"."""
_GRID_LOST_SESSION = re.compile(
    r"(unknown error: )?(browserkeeper: the Grid|unable to find session|"
    r"unable to execute request for an existing session|session deleted|"
    r"failed to decode response from marionette)",
    re.IGNORECASE,
)
"""How the messages of a Grid, its driver, or our relay begin at the end of the session, where the error
has no code of its own."""
_NO_CODE_OF_ITS_OWN = ("", "unknown error")
CONNECT_TIMEOUT = 1.0
"""Seconds for a browser that was attached to by its address to accept a connection."""


class BrowserHandle(Protocol):
    """The browser of a session."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """Its main process; None where that is unknown or on another machine."""

    def is_lost(self, code: str = "", message: str = "") -> bool:
        """True if the browser is gone.  ``code`` and ``message`` are those of the driver's error, "" if
        there was none.

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

    def is_lost(self, code: str = "", message: str = "") -> bool:
        """The system is asked, whatever the error says."""
        if self.identity is None:
            return _announces_end(code, message)
        until = time.monotonic() + (EXIT_TIMEOUT if _announces_end(code, message) else 0)
        while True:
            is_last_look = time.monotonic() >= until
            if _has_ended(self.identity):
                return True
            if is_last_look:
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

    def is_lost(self, code: str = "", message: str = "") -> bool:
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

    def is_lost(self, code: str = "", message: str = "") -> bool:
        if code in _NO_CODE_OF_ITS_OWN:
            return bool(_GRID_LOST_SESSION.match(message))
        return code in LOST_CODES

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


def _announces_end(code: str, message: str) -> bool:
    """A message counts only as a whole: a page or an element may be named in it."""
    return code in LOST_CODES or (code == "unknown error" and message in LOST_MESSAGES)


def _has_ended(identity: ProcessIdentity) -> bool:
    """True if the process is gone, a zombie, or on its way out.

    A process closes its files, which the driver notices, before it is a zombie.  The kernel marks its
    threads as exiting before that (do_exit() in kernel/exit.c).  False as well where this process may
    open no more files, so that nothing can be seen.
    """
    try:
        found = system.facts(identity.pid)
    except LimitError:
        return False
    if found is None or found.is_zombie or not identity.is_same_as(found.identity):
        return True
    return is_exiting(identity.pid) is True


def is_running(identity: ProcessIdentity | None) -> bool:
    """True if the process exists and is neither stopped nor a zombie; False for None.

    True as well where this process may open no more files, so that nothing can be seen.
    """
    try:
        found = system.facts(identity.pid) if identity else None
    except LimitError:
        return True
    if found is None or not found.identity.is_same_as(identity) or found.state in "ZTtX":
        return False
    return is_exiting(found.pid) is not True
