"""Breaking off a command that a Grid is executing, over a second channel to the browser.

A Grid executes the commands of a session one after another.  A DELETE waits behind a page load that
does not end, until the Grid's session timeout.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from .hub import FAILURES, Hub, cut_after

ATTEMPT_TIMEOUT = 2.0
"""Seconds for each wait for the Grid."""
ATTEMPT_PAUSE = 0.5
"""Seconds between two attempts."""


def interrupt_command(
    hub: Hub, session: str, deadline: float, has_returned: Callable[[], bool] = lambda: False
) -> None:
    """Make the running command of a session return, where the browser can be told to.

    Chromium is closed over CDP.  Firefox, where the session has BiDi, loads a blank page.  Tries again
    until ``deadline`` (``time.monotonic()``), or until ``has_returned()``: the first websocket of a Grid
    that was just started takes seconds.  Waits end at the deadline; the first ones take 0.1 s at least.
    """
    attempts: list[tuple[str, Callable[[Channel], None]]] = [("cdp", _close), ("bidi", _load_blank)]
    while True:
        for channel, act in attempts:
            timeout = max(0.1, min(ATTEMPT_TIMEOUT, deadline - time.monotonic()))
            connected = _connect(hub, session, channel, timeout, deadline)
            with contextlib.suppress(*FAILURES), connected as websocket:
                act(websocket)
                return
        until = time.monotonic() + ATTEMPT_PAUSE
        if until > deadline:
            return
        while time.monotonic() < until:
            if has_returned():
                return
            time.sleep(ATTEMPT_PAUSE / 10)


def _close(cdp: Channel) -> None:
    cdp.call("Browser.close")


def _load_blank(bidi: Channel) -> None:
    tree = bidi.call("browsingContext.getTree", params={})
    for context in re.findall(r'"context":"([^"]+)"', tree):
        blank = {"context": context, "url": "about:blank", "wait": "none"}
        bidi.call("browsingContext.navigate", params=blank)


@contextlib.contextmanager
def _connect(hub: Hub, session: str, channel: str, timeout: float, deadline: float) -> Iterator[Channel]:
    """Connects to the Grid itself: URLs in capabilities may name hosts that only the Grid can reach."""
    connection = hub.connect(timeout)
    try:
        headers = {
            **hub.headers(),
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        path = f"{hub.address.path}/session/{session}/se/{channel}"
        with cut_after(connection, timeout):
            connection.request("GET", path, headers=headers)
            link = connection.sock  # a response that ends the connection sets connection.sock to None
            status = connection.getresponse().status
        if status != 101 or link is None:
            raise ConnectionError(f"no websocket ({status})")
        yield Channel(link, deadline)
    finally:
        connection.close()


class Channel:
    """A websocket client (RFC 6455) for a few short commands.

    In place of the ``websocket-client`` package, which the relay, started without site-packages,
    cannot import.
    """

    def __init__(self, link: socket.socket, deadline: float):
        self._link, self._deadline = link, deadline
        self._number = 0

    def call(self, method: str, **more: Any) -> str:
        """Send a command and return the next message, which may be an event.  Raises OSError, after the
        first command also where the deadline has passed."""
        left = self._deadline - time.monotonic()
        if self._number and left <= 0:
            raise TimeoutError
        self._link.settimeout(max(0.1, min(ATTEMPT_TIMEOUT, left)))
        self._number += 1
        text = json.dumps({"id": self._number, "method": method, **more}).encode()
        size = len(text)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self._link.sendall(b"\x81" + length + bytes(4) + text)  # a mask of zeros changes no byte
        return self._link.recv(65536).decode("utf-8", "replace")


__all__ = ["interrupt_command"]
