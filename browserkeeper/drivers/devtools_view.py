"""Shows a ChromeDriver session only some of the windows of one Chromium.

Several sessions can be attached to one Chromium by ``debuggerAddress``.  When a session is attached, and
at each command about windows (``switch_to.window``, ``window_handles``, ``new_window``, ``close``),
ChromeDriver connects to every window of the browser that it does not know yet.  Measured with 156:

- ChromeDriver waits without an end for a window that hangs, shows an alert or has crashed.
- It logs the console, the requests and the cookies of every window that it is connected to.
- It can switch to each of these windows.

:class:`DevtoolsView` is a proxy between such a session and the debugging port.  From the answers to
``Target.getTargets``, in which ChromeDriver finds windows, it removes those of other leases.  All other
messages pass unchanged.  Requests that ChromeDriver does not send are refused, since the lease can read
the address of the proxy in its capabilities.  The list of windows (``/json/list``) is answered with a
window that does not exist: ChromeDriver only checks that the list is not empty.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

HOST = "127.0.0.1"
CHUNK = 1 << 16
LARGEST_HEAD = 1 << 16
"""Bytes of an HTTP head; Chromium's and ChromeDriver's have some hundred."""
CONNECT_TIMEOUT = 20.0
"""Seconds to connect to the browser, which takes a millisecond."""
ACCEPT_PAUSE = 0.5
"""Seconds between a failed accept(2) and the next one."""
ANSWER_STARTS = b'"result":{"targetInfos":['
"""Near the beginning of each answer to ``Target.getTargets``; only the command's number precedes it."""
VERSION, LIST, WEBSOCKET = b"GET /json/version ", b"GET /json/list ", b"GET /devtools/browser/"
"""The beginnings of the requests that ChromeDriver sends, the first two over one connection (measured
with 156)."""
_WINDOWS = json.dumps(
    [
        {
            "id": "0",
            "type": "page",
            "title": "",
            "url": "data:,",
            "webSocketDebuggerUrl": "ws://127.0.0.1/0",
        }
    ]
)
ONE_WINDOW = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nConnection: close\r\n"
    f"Content-Length: {len(_WINDOWS)}\r\n\r\n{_WINDOWS}"
).encode()
"""The answer to LIST.  ChromeDriver does not use the connection after it."""
LOOK_AT = 64
"""Bytes at the beginning of a message that are searched for ANSWER_STARTS."""

IsSeen = Callable[[Mapping[str, Any]], bool]
"""Called with each ``Target.TargetInfo`` of an answer, in the view's thread.  Returns True for a target
that the session may know."""

logger = logging.getLogger("browserkeeper")


class DevtoolsView:
    """A port of 127.0.0.1 that is a proxy for a browser's debugging port, without the windows of other
    leases."""

    def __init__(self, port: int, is_seen: IsSeen):
        """Listen on a free port.  ``port``: the browser's debugging port.

        ``is_seen`` must let the session see at least one window at any time: ChromeDriver cannot be
        attached to a browser without one, and ends a session with its last one.  A window is a target of
        the type "tab", whose id is not the window's handle.

        Raises OSError if no port or descriptor is left, and RuntimeError if the system gives no more
        threads.
        """
        self._browser, self._is_seen = (HOST, port), is_seen
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_closed = self._is_full = False
        self.filtered = 0
        """How many answers were filtered.  If the number is 0 after a session was attached, the
        browser's answers do not begin with :data:`ANSWER_STARTS`, and the session must not be used."""
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        try:
            self._start(self._accept)
        except BaseException:
            self._listener.close()
            raise

    @property
    def address(self) -> str:
        """For ChromeDriver's option ``debuggerAddress``."""
        return f"{HOST}:{self.port}"

    def stop_listening(self) -> None:
        """Refuse further connections, once the session is attached: ChromeDriver makes none later
        (measured with 156).  Those that are open stay.  Idempotent; returns at once."""
        self._is_full = True
        with contextlib.suppress(OSError):  # it was closed before
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        self._listener.close()

    def close(self) -> None:
        """Refuse further connections, and cut those that are open.  Idempotent; returns at once."""
        with self._lock:
            self._is_closed = True
            sockets = list(self._open)
        for each in sockets:
            with contextlib.suppress(OSError):  # a socket that was never or is no longer connected
                each.shutdown(socket.SHUT_RDWR)
        self.stop_listening()

    # -- the threads

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        name = f"browserkeeper-view-{self.port}"
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed, or no descriptor is left
                if self._is_full:
                    return
                time.sleep(ACCEPT_PAUSE)
                continue
            try:
                self._start(self._serve, client)
            except RuntimeError:
                logger.warning(
                    "a connection of ChromeDriver is refused: the system gives no more threads"
                )
                client.close()

    def _serve(self, client: socket.socket) -> None:
        """Serve one connection of ChromeDriver: pass its request on, and then the data of both sides."""
        browser: socket.socket | None = None
        try:
            self._note(client)
            head, rest = _read_head(client)
            is_websocket = head.startswith(WEBSOCKET)
            if not (is_websocket or head.startswith(VERSION)) or _is_of_a_page(head):
                raise ValueError("this is no request of ChromeDriver")
            browser = socket.create_connection(self._browser, CONNECT_TIMEOUT)
            browser.settimeout(None)
            for each in (client, browser):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._note(browser)
            browser.sendall(_without_extensions(head) + (rest if is_websocket else b""))
            self._start(self._answer, client, browser)
            while is_websocket and (data := client.recv(CHUNK)):
                browser.sendall(data)
            if not is_websocket and _read_head(client)[0].startswith(LIST):
                client.sendall(ONE_WINDOW)
        except (OSError, RuntimeError, ValueError) as error:
            logger.debug("a connection of ChromeDriver has ended: %s", type(error).__name__)
        finally:
            self._forget(client, browser)

    def _answer(self, client: socket.socket, browser: socket.socket) -> None:
        """Pass on the data of the browser: unchanged in HTTP, filtered in a websocket."""
        try:
            head, rest = _read_head(browser)
            client.sendall(head)
            if head.split(b" ", 2)[1] != b"101":  # Switching Protocols
                client.sendall(rest)
                while data := browser.recv(CHUNK):
                    client.sendall(data)
                return
            frames = Frames(self._filter)
            data = rest
            while data or (data := browser.recv(CHUNK)):
                client.sendall(frames.feed(data))
                data = b""
        except (OSError, ValueError, LookupError) as error:
            logger.debug("a connection to the browser has ended: %s", type(error).__name__)
        finally:
            self._forget(client, browser)

    def _filter(self, message: bytes) -> bytes:
        answer = json.loads(message)
        answer["result"]["targetInfos"] = [
            target for target in answer["result"]["targetInfos"] if self._is_seen(target)
        ]
        self.filtered += 1
        return json.dumps(answer).encode()

    def _note(self, sock: socket.socket) -> None:
        with self._lock:
            if not self._is_closed:
                self._open.add(sock)
                return
        raise OSError("the view is closed")

    def _forget(self, *sockets: socket.socket | None) -> None:
        """Close both ends, so that the other thread of the connection ends as well."""
        for each in sockets:
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                with self._lock:
                    self._open.discard(each)
                each.close()


class Frames:
    """Filters the messages of a websocket's server (RFC 6455, section 5.2), which come in pieces.

    ``change`` is called with each message that begins like an answer with targets, and returns the
    message to send instead.  Chromium sends each message in one frame, neither masked nor compressed.
    """

    def __init__(self, change: Callable[[bytes], bytes]):
        self._change = change
        self._held = b""
        """The beginning of a frame of which more bytes are needed for a decision."""
        self._passing = 0
        """How many bytes are still to come of a frame that passes unchanged."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the browser; returns the bytes that can now be sent on."""
        if not self._held and len(data) <= self._passing:  # a long frame, such as a screenshot
            self._passing -= len(data)
            return data
        data, self._held = self._held + data, b""
        parts, at = [data[: self._passing]], self._passing
        self._passing = 0
        while at < len(data):
            start, length = _header(data, at)
            if not start or len(data) < start + min(length, LOOK_AT):
                break
            if ANSWER_STARTS not in data[start : start + min(length, LOOK_AT)]:
                parts.append(data[at : start + length])
                at = start + length
                if at > len(data):
                    self._passing, at = at - len(data), len(data)
                continue
            if len(data) < start + length:
                break
            parts.append(_frame(data[at], self._change(data[start : start + length])))
            at = start + length
        self._held = data[at:]
        return b"".join(parts)


def _header(data: bytes, at: int) -> tuple[int, int]:
    """Where the payload of the frame at this place begins, and its length; (0, 0) if the header is not
    whole yet."""
    if len(data) < at + 2:
        return 0, 0
    short = data[at + 1] & 0x7F
    size = {126: 2, 127: 8}.get(short, 0)
    start = at + 2 + size
    if len(data) < start:
        return 0, 0
    return start, int.from_bytes(data[at + 2 : start], "big") if size else short


def _frame(first: int, payload: bytes) -> bytes:
    """A frame of a server.  ``first``: its first byte."""
    length = len(payload)
    if length < 126:
        return struct.pack(">BB", first, length) + payload
    if length < 1 << 16:
        return struct.pack(">BBH", first, 126, length) + payload
    return struct.pack(">BBQ", first, 127, length) + payload


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of an HTTP message, and the bytes that have come behind it.  Blocks.

    Raises ValueError for a head that is too long, and OSError if the connection ends within the head.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > LARGEST_HEAD:
            raise ValueError("the head of an HTTP message is too long")
        more = sock.recv(CHUNK)
        if not more:
            raise ConnectionAbortedError("the connection has ended in the head of a message")
        data += more
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


def _is_of_a_page(head: bytes) -> bool:
    """True for a request that a page has sent."""
    return any(line.lower().startswith(b"origin:") for line in head.split(b"\r\n"))


def _without_extensions(head: bytes) -> bytes:
    """The head of the request without the headers that ask for compressed messages."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(x for x in lines if not x.lower().startswith(b"sec-websocket-extensions:"))


__all__ = ["DevtoolsView", "Frames"]
