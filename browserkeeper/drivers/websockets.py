"""Websockets to a browser or driver on this machine, which never ask a proxy.

The package ``websocket`` obeys ``http_proxy`` and ``https_proxy`` for every host, also for 127.0.0.1,
unless ``no_proxy`` names it.  A proxy cannot reach the loopback of this machine.  So the package gets
a socket that is connected already, and reads no variable.  A websocket to a Grid on another machine
obeys the variables, as Selenium's own does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver.remote.websocket_connection import WebSocketConnection
from websocket import WebSocket, WebSocketApp, create_connection

Observe = Callable[[str, dict[str, Any]], contextlib.AbstractContextManager[None]]
"""Keeps a command, given its name and parameters, that the block of the context manager sends."""

CONNECT_TIMEOUT = 10.0
"""Seconds to connect to a port of this machine, which takes microseconds."""


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and the addresses of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def connected_socket(url: str) -> socket.socket | None:
    """A socket that is connected to the host of ``ws://HOST:PORT``, if that is this machine's loopback.

    None for every other host, and for ``wss:``.  Raises OSError where the port does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname or not is_loopback(parts.hostname):
        return None
    connected = socket.create_connection((parts.hostname, parts.port or 80), CONNECT_TIMEOUT)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def open_websocket(url: str, timeout: float) -> WebSocket:
    """A websocket to a browser; ``timeout`` is to connect and for each answer, in seconds.

    Without the header Origin, for which Firefox refuses a connection.
    """
    options: dict[str, Any] = {"timeout": timeout, "socket": connected_socket(url)}
    options["suppress_origin"] = True
    return create_connection(url, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], **options)


class DirectWebSocketConnection(WebSocketConnection):
    """Selenium's BiDi connection.  Selenium's own constructor has no parameter for a socket.

    ``connected`` is the socket, which the package ``websocket`` leaves open where the browser has closed
    the connection; None for one that it has made itself.
    """

    connected: socket.socket | None = None
    observe: Callable[[], Observe | None] = staticmethod(lambda: None)
    """A weak reference, since the connection's thread holds this object and must hold no session."""

    def _round_trip(self, payload: dict[str, Any]) -> Any:
        """Sends one command and waits for the answer.  (Selenium before 4.51 may have no such method:
        then commands are not observed.)"""
        observe, method = self.observe(), payload.get("method")
        if observe is None or not isinstance(method, str):
            return super()._round_trip(payload)  # type: ignore[no-untyped-call]
        # The domains of the DevTools protocol begin with a capital letter, those of BiDi do not.
        with observe("devtools" if method[:1].isupper() else "bidi", {"method": method}):
            return super()._round_trip(payload)  # type: ignore[no-untyped-call]

    def _start_ws(self) -> None:
        connected = connected_socket(self.url)
        if connected is None:
            super()._start_ws()  # type: ignore[no-untyped-call]
            return
        connected.settimeout(None)  # events may be far apart
        self.connected = connected

        def on_open(ws: WebSocketApp) -> None:
            self._started = True

        def on_message(ws: WebSocketApp, message: str) -> None:
            self._process_message(message)  # type: ignore[no-untyped-call]

        def on_error(ws: WebSocketApp, error: Exception) -> None:
            ws.close()

        self._ws = WebSocketApp(
            self.url, on_open=on_open, on_message=on_message, on_error=on_error, socket=connected
        )
        run = self._ws.run_forever
        self._ws_thread = Thread(target=run, kwargs={"suppress_origin": True}, daemon=True)
        try:
            self._ws_thread.start()
        except BaseException:
            connected.close()
            raise


__all__ = ["DirectWebSocketConnection", "connected_socket", "is_loopback", "open_websocket"]
