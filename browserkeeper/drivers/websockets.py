"""Websockets to a browser or driver on this machine, which never ask a proxy.

The package ``websocket`` obeys ``http_proxy`` and ``https_proxy`` for every host, also for 127.0.0.1,
unless ``no_proxy`` names it.  A proxy cannot reach the loopback of this machine.  So the package gets
a socket that is connected already, and reads no variable.  A websocket to a Grid on another machine
obeys the variables, as Selenium's own does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import time
from collections.abc import Callable
from threading import Thread, local
from typing import Any, Protocol
from urllib.parse import urlsplit

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote import websocket_connection
from selenium.webdriver.remote.websocket_connection import WebSocketConnection
from websocket import WebSocket, WebSocketApp, create_connection

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..wire.requests import connect_to

Observe = Callable[[str, dict[str, Any]], contextlib.AbstractContextManager[None]]
"""Keeps a command, given its name and parameters, that the block of the context manager sends."""


class Filter(Protocol):
    """Changes the commands and events of a connection.  ``bidi_filter.py`` has the filter of leases,
    ``session_filter.py`` that of sessions."""

    def attach(self) -> None:
        """Called before the connection is opened."""

    def run(
        self,
        method: str,
        params: dict[str, Any],
        transmit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> dict[str, Any]:
        """Send a command with ``transmit(params)``, and return the answer for the user."""

    def event(self, text: str) -> str | None:
        """The message for the user, for a message of the browser; None to drop it."""

    def note_unfiltered(self) -> None:
        """A message has gone to the browser past this filter."""


CLOSED = "the BiDi connection was closed while a command waited for its answer"
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
    """Open a websocket to a browser.  ``timeout``: seconds to connect, and for each answer.

    Sends no header Origin: Firefox refuses a connection with it.
    """
    options: dict[str, Any] = {"timeout": timeout, "socket": connected_socket(url)}
    options["suppress_origin"] = True
    return create_connection(url, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], **options)


def _plain(params: Any) -> dict[str, Any]:
    """The parameters as JSON has them: Selenium's may hold dataclasses."""
    encoder = getattr(websocket_connection, "_BiDiEncoder", None)
    found: dict[str, Any] = json.loads(json.dumps(params, cls=encoder))
    return found


class _WebSocketApp(WebSocketApp):
    """Calls ``sending`` before each message that is sent, also if users send it past Selenium's
    commands."""

    sending: Callable[[], None] = staticmethod(lambda: None)

    def send(self, data: Any, *arguments: Any, **named: Any) -> None:
        self.sending()
        super().send(data, *arguments, **named)


class DirectWebSocketConnection(WebSocketConnection):
    """Selenium's BiDi connection.  Selenium's own constructor has no parameter for a socket.

    ``connected`` is the socket, which the package ``websocket`` leaves open where the browser has closed
    the connection; None for one that it has made itself.
    """

    connected: socket.socket | None = None
    _was_open = False
    observe: Callable[[], Observe | None] = staticmethod(lambda: None)
    """A weak reference, since the connection's thread holds this object and must hold no session."""
    lost: Callable[[], Callable[[], object] | None] = staticmethod(lambda: None)
    """The same, for a function that raises the error of a connection that was closed."""

    def __init__(
        self,
        url: str,
        timeout: float,
        interval: float,
        bidi_filter: Filter | None = None,
        socket_path: str = "",
    ) -> None:
        """``bidi_filter``: the filter for commands and events; None to change nothing.
        ``socket_path``: the unix socket of the server that the URL is of; "" for TCP."""
        self.bidi_filter, self._socket_path = bidi_filter, socket_path
        self._sender = local()
        if bidi_filter is not None and not hasattr(WebSocketConnection, "_round_trip"):
            bidi_filter.note_unfiltered()  # Selenium before 4.51
        super().__init__(url, timeout, interval)  # type: ignore[no-untyped-call]

    def _round_trip(self, payload: dict[str, Any]) -> Any:
        """Sends one command and waits for the answer.  (Selenium before 4.51 may have no such method:
        then commands are not observed.)"""
        observe, method = self.observe(), payload.get("method")
        if observe is None or not isinstance(method, str):
            return self._filtered(payload, method)
        # The domains of the DevTools protocol begin with a capital letter, those of BiDi do not.
        with observe("devtools" if method[:1].isupper() else "bidi", {"method": method}):
            return self._filtered(payload, method)

    def _filtered(self, payload: dict[str, Any], method: Any) -> Any:
        if self.bidi_filter is None or not isinstance(method, str):
            return super()._round_trip(payload)  # type: ignore[no-untyped-call]
        send = super()._round_trip

        def transmit(params: dict[str, Any]) -> Any:
            self._sender.is_filtered = True
            try:
                return send({**payload, "params": params})  # type: ignore[no-untyped-call]
            finally:
                self._sender.is_filtered = False

        return self.bidi_filter.run(method, _plain(payload.get("params") or {}), transmit)

    def _process_message(self, message: str) -> None:
        shown = message if self.bidi_filter is None else self.bidi_filter.event(message)
        if shown is not None:
            super()._process_message(shown)  # type: ignore[no-untyped-call]

    def sending(self) -> None:
        """Called before each message to the browser."""
        if self.bidi_filter is not None and not getattr(self._sender, "is_filtered", False):
            self.bidi_filter.note_unfiltered()

    def _wait_until(self, condition: Callable[[], Any]) -> Any:
        """As Selenium's, but ends with the connection: no answer comes after that.

        Then raises what ``lost`` raises.  Selenium would wait for ``websocket_timeout``, 30 s, and the
        thread of a command that was cut off would not be free before.
        """
        until = time.monotonic() + self.response_wait_timeout
        while True:
            self._was_open = self._was_open or self._started  # which close() sets to False
            has_ended = self._was_open and not self._ws_thread.is_alive()  # before the last look
            if result := condition():
                return result
            if has_ended:
                if (raise_lost := self.lost()) is not None:
                    raise_lost()
                raise WebDriverException(CLOSED)
            if time.monotonic() >= until:
                return None
            time.sleep(self.response_wait_interval)

    def _start_ws(self) -> None:
        if self._socket_path:
            connected: socket.socket | None = connect_to(self._socket_path, CONNECT_TIMEOUT)
        else:
            connected = connected_socket(self.url)
        if connected is None:
            super()._start_ws()  # type: ignore[no-untyped-call]
            return
        connected.settimeout(None)  # events may be far apart
        self.connected = connected

        def on_open(ws: WebSocketApp) -> None:
            self._started = True

        def on_message(ws: WebSocketApp, message: str) -> None:
            self._process_message(message)

        def on_error(ws: WebSocketApp, error: Exception) -> None:
            ws.close()

        self._ws = _WebSocketApp(
            self.url, on_open=on_open, on_message=on_message, on_error=on_error, socket=connected
        )
        run = self._ws.run_forever
        self._ws_thread = Thread(target=run, kwargs={"suppress_origin": True}, daemon=True)
        try:
            self._ws_thread.start()
        except BaseException:
            connected.close()
            raise
        self._ws.sending = self.sending


__all__ = ["DirectWebSocketConnection", "connected_socket", "is_loopback", "open_websocket"]
