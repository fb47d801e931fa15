"""Websockets to a browser or driver on this machine, which never ask a proxy.

The package ``websocket`` obeys ``http_proxy`` and ``https_proxy`` for every host, also for 127.0.0.1,
unless ``no_proxy`` names it.  A proxy cannot reach the loopback of this machine.  So the package gets
a socket that is connected already, and reads no variable.  A websocket to a Grid on another machine
obeys the variables, as Selenium's own does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

from selenium.common.exceptions import WebDriverException
from websocket import WebSocket, WebSocketApp, WebSocketException, create_connection

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..selenium_internals.private import bidi_encoder
from ..wire.requests import connect_to
from .connection_errors import mark_as_of_connection
from .network import InsideUrl

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
THREAD_TIMEOUT = 2.0
"""Seconds for the thread of a BiDi connection to end once its socket was shut; it takes milliseconds."""
SLICE = 0.1
"""Seconds after which a wait for an answer looks at its thread's pending exceptions, such as one of
``PyThreadState_SetAsyncExc``.  An answer ends the wait at once."""
LOG_LENGTH = 9999
"""Characters of a message in the log, as in Selenium's."""

logger = logging.getLogger("selenium.webdriver.remote.websocket_connection")
"""Selenium's own, under which users look for BiDi messages."""


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
    try:
        if isinstance(url, InsideUrl):
            return url.connect(CONNECT_TIMEOUT)
        if parts.scheme != "ws" or not parts.hostname or not is_loopback(parts.hostname):
            return None
        connected = socket.create_connection((parts.hostname, parts.port or 80), CONNECT_TIMEOUT)
    except OSError as error:
        mark_as_of_connection(error)
        raise
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def host_header(url: str) -> str | None:
    """The header Host for this address; None for the one that it says itself."""
    return url.authority if isinstance(url, InsideUrl) else None


def open_websocket(url: str, timeout: float) -> WebSocket:
    """Open a websocket to a browser.  ``timeout``: seconds to connect, and for each answer.

    Sends no header Origin: Firefox refuses a connection with it.
    """
    options: dict[str, Any] = {"timeout": timeout, "socket": connected_socket(url)}
    options["suppress_origin"], options["host"] = True, host_header(url)
    return create_connection(url, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], **options)


def _plain(params: Any) -> dict[str, Any]:
    """The parameters as JSON has them: Selenium's may hold dataclasses."""
    found: dict[str, Any] = json.loads(json.dumps(params, cls=bidi_encoder()))
    return found


class _WebSocketApp(WebSocketApp):
    """Calls ``sending`` before each message that is sent, also if users send it past Selenium's
    commands."""

    sending: Callable[[], None] = staticmethod(lambda: None)

    def send(self, data: Any, *arguments: Any, **named: Any) -> None:
        self.sending()
        super().send(data, *arguments, **named)


class DirectWebSocketConnection:
    """The BiDi connection of a driver: has the public methods of Selenium's ``WebSocketConnection``.

    It is not derived from Selenium's class.  That one has no parameter for a socket, sends its commands
    by other private methods in 4.40, 4.51 and 4.52, looks for an answer ten times a second before 4.52,
    and waits 30 s for an answer after the connection has ended before that version.
    """

    observe: Callable[[], Observe | None] = staticmethod(lambda: None)
    """A weak reference, since the connection's thread holds this object and must hold no session."""
    lost: Callable[[], Callable[[], object] | None] = staticmethod(lambda: None)
    """The same, for a function that raises the error of a connection that was closed."""

    def __init__(
        self, url: str, timeout: float, bidi_filter: Filter | None = None, socket_path: str = ""
    ) -> None:
        """Connect.  ``timeout``: seconds to connect, and for each answer.

        ``bidi_filter``: the filter for commands and events; None to change nothing.
        ``socket_path``: the unix socket of the server that the URL is of; "" for TCP.
        Raises OSError or WebDriverException where there is no connection.
        """
        self.url, self.response_wait_timeout = url, timeout
        self.bidi_filter, self._socket_path = bidi_filter, socket_path
        self.callbacks: dict[str, list[Callable[[Any], None]]] = {}
        """The functions that get an event, by its name."""
        self.session_id: Any = None
        """The session of the DevTools protocol that commands are for; None for BiDi."""
        self._sender = threading.local()
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        """For each command in flight, by its number: takes the answer, or None when the connection has
        ended."""
        self._is_known = threading.Event()
        """Set when the connection is open, or has failed."""
        self._has_ended = False
        self._error: Exception | None = None
        self._connect()

    # -- what Selenium's BiDi modules call

    def execute(self, command: Generator[dict[str, Any], Any, Any]) -> Any:
        """Send the command that the generator yields, and return what it makes of the result.

        Raises WebDriverException for an error of the browser, and what :meth:`send_cmd` raises.
        """
        reply = self._observed(next(command))
        if "error" in reply:
            message = f": {reply['message']}" if "message" in reply else ""
            raise WebDriverException(f"{reply['error']}{message}")
        try:
            command.send(reply["result"])
        except StopIteration as done:
            return done.value
        raise WebDriverException("The command's generator function did not exit when expected!")

    def send_cmd(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a command, and return the answer: with ``result``, or with ``error``.

        Raises WebDriverException without an answer in time, what ``lost`` raises where the connection
        is closed, and WebSocketException or OSError where it breaks while the command is sent.
        """
        return self._observed({"method": method, "params": params})

    def add_callback(self, event: Any, callback: Callable[[Any], None]) -> int:
        """Have ``callback`` called for each event of this class of Selenium's, in a thread of its own.
        Returns the number by which :meth:`remove_callback` removes it."""

        def call(params: Any) -> None:
            callback(event.from_json(params))

        self.callbacks.setdefault(event.event_class, []).append(call)
        return id(call)

    on = add_callback

    def remove_callback(self, event: Any, callback_id: int) -> None:
        """Undo :meth:`add_callback`.  Does nothing for an unknown number."""
        registered = self.callbacks.get(event.event_class, [])
        registered[:] = [one for one in registered if id(one) != callback_id]

    def close(self) -> None:
        """Close the connection and end its thread.  Commands in flight raise.  Idempotent."""
        opened: Any = self._ws.sock
        with contextlib.suppress(Exception):
            # WebSocketApp.close() closes the socket that the thread reads, and then often waits 10 s for
            # the thread.  End of file wakes the thread, which then sends the closing frame and ends.
            self._ws.keep_running = False
            if self._ws_thread is not threading.current_thread():
                socket.socket.shutdown(opened.sock, socket.SHUT_RD)
                self._ws_thread.join(THREAD_TIMEOUT)
        self._cut()
        with contextlib.suppress(Exception):
            self._ws.close()
        for mine in (self.connected, self._second):
            if mine is not None:
                mine.close()

    def _cut(self) -> None:
        """Have each thread return that still sends: a browser that does not read blocks it, and with it
        all who wait for its lock, the one that would send the closing frame among them."""
        if self._second is not None:
            with contextlib.suppress(OSError):
                self._second.shutdown(socket.SHUT_RDWR)
        else:
            opened: Any = self._ws.sock
            with contextlib.suppress(Exception):  # closed already, or never opened
                socket.socket.shutdown(opened.sock, socket.SHUT_RDWR)

    # -- commands

    def _observed(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Sends one command and waits for the answer."""
        observe, method = self.observe(), payload.get("method")
        if observe is None or not isinstance(method, str):
            return self._filtered(payload, method)
        # The domains of the DevTools protocol begin with a capital letter, those of BiDi do not.
        with observe("devtools" if method[:1].isupper() else "bidi", {"method": method}):
            return self._filtered(payload, method)

    def _filtered(self, payload: dict[str, Any], method: Any) -> dict[str, Any]:
        if self.bidi_filter is None or not isinstance(method, str):
            return self._transmit(payload)

        def transmit(params: dict[str, Any]) -> dict[str, Any]:
            self._sender.is_filtered = True
            try:
                return self._transmit({**payload, "params": params})
            finally:
                self._sender.is_filtered = False

        return self.bidi_filter.run(method, _plain(payload.get("params") or {}), transmit)

    def _transmit(self, payload: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        message = {**payload, "id": number}
        if self.session_id:
            message["sessionId"] = self.session_id
        text = json.dumps(message, cls=bidi_encoder())
        waiting = self._answers[number] = queue.SimpleQueue()
        try:
            if self._has_ended:  # after the entry was made: the thread sees one of the two
                self._raise_lost()
            logger.debug(f"-> {text}"[:LOG_LENGTH])
            try:
                self._ws.send(text)
            except (WebSocketException, OSError):
                # The thread that reads learns of a loss, too.  Else it is an error of the user's: of a
                # signal handler, which has interrupted this.
                until = time.monotonic() + THREAD_TIMEOUT
                while not self._has_ended and time.monotonic() < until:
                    time.sleep(SLICE)
                if self._has_ended:
                    self._raise_lost()
                raise
            answer = self._answer(waiting, number)
        finally:
            self._answers.pop(number, None)
        if answer is None:
            self._raise_lost()
        return answer

    def _answer(
        self, waiting: queue.SimpleQueue[dict[str, Any] | None], number: int
    ) -> dict[str, Any] | None:
        until = time.monotonic() + self.response_wait_timeout
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return waiting.get(timeout=min(left, SLICE))
        raise WebDriverException(f"Timed out waiting for response to BiDi command {number}")

    def _raise_lost(self) -> NoReturn:
        """Raises the error of the session or the lease that is over, if it is; else CLOSED."""
        if (raise_lost := self.lost()) is not None:
            raise_lost()
        raise WebDriverException(CLOSED)

    def sending(self) -> None:
        """Called before each message to the browser."""
        if self.bidi_filter is not None and not getattr(self._sender, "is_filtered", False):
            self.bidi_filter.note_unfiltered()

    # -- the thread

    def _connect(self) -> None:
        if self._socket_path:
            connected: socket.socket | None = connect_to(self._socket_path, CONNECT_TIMEOUT)
        else:
            connected = connected_socket(self.url)
        if connected is not None:
            connected.settimeout(None)  # events may be far apart
        self.connected = connected
        """The socket, which the package ``websocket`` leaves open where the browser has closed the
        connection; None for one that it has made itself."""
        self._second = connected.dup() if connected is not None else None
        """The same socket by a descriptor that the package ``websocket`` cannot close."""
        self._ws = _WebSocketApp(
            self.url,
            on_open=lambda _: self._is_known.set(),
            on_message=lambda _, text: self._read(text),
            on_error=self._note_error,
            socket=connected,
        )
        self._ws_thread = threading.Thread(target=self._run, name="browserkeeper-websocket", daemon=True)
        try:
            self._ws_thread.start()
        except BaseException:
            self.close()
            raise
        until = time.monotonic() + self.response_wait_timeout
        try:
            while not self._is_known.wait(SLICE) and time.monotonic() < until:
                pass
        except BaseException:
            self.close()
            raise
        if self._has_ended or not self._is_known.is_set():
            self.close()
            why = self._error or "no answer in time"
            raise WebDriverException(f"The BiDi connection could not be opened: {why}") from self._error
        self._ws.sending = self.sending

    def _run(self) -> None:
        # As Selenium's own class, which checks no certificate here.
        tls = {"cert_reqs": ssl.CERT_NONE} if self.url.startswith("wss:") else None
        try:
            self._ws.run_forever(suppress_origin=True, sslopt=tls, host=host_header(self.url))
        finally:
            self._has_ended = True
            self._is_known.set()
            self._cut()
            for waiting in list(self._answers.values()):
                waiting.put(None)

    def _note_error(self, ws: WebSocketApp, error: Exception) -> None:
        self._error = error
        logger.debug(f"error: {error}")
        self._cut()
        ws.close()

    def _read(self, text: str) -> None:
        shown = text if self.bidi_filter is None else self.bidi_filter.event(text)
        if shown is None:
            return
        message = json.loads(shown)
        logger.debug(f"<- {message}"[:LOG_LENGTH])
        if (waiting := self._answers.get(message.get("id"))) is not None:
            waiting.put(message)
        if "method" in message:
            for callback in list(self.callbacks.get(message["method"], ())):
                threading.Thread(target=callback, args=(message["params"],), daemon=True).start()


__all__ = ["DirectWebSocketConnection", "connected_socket", "is_loopback", "open_websocket"]
