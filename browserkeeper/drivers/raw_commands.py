"""WebDriver Classic commands and answers as bytes, for the server, which passes answers on unchanged.

Selenium's own code parses each answer into objects, which the server would have to turn into JSON again.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import select
import socket
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from selenium.common.exceptions import WebDriverException

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from .connection_errors import mark_as_of_connection

if TYPE_CHECKING:
    from .network import DriverNetwork

HEADERS = (
    "Accept-Encoding: identity\r\nAccept: application/json\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
)
PATH = re.compile(r"[!-~]*")
"""The characters that a path may have (RFC 9112, 3.2)."""
CHUNK = 256 * 1024
"""Bytes of one read."""
SIMPLE_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})[^\r\n]*"
    rb"(?:\r\n(?!connection:|transfer-encoding:|content-length:)[^\r\n]*)*"
    rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*"
    rb"(?:\r\n(?!connection:|transfer-encoding:|content-length:)[^\r\n]*)*",
    re.IGNORECASE,
)
"""The head of an answer whose body has the length of its only ``Content-Length``.  Its groups are the
status and the length."""


class Answer(NamedTuple):
    """An answer of a driver."""

    status: int
    body: bytes


class RawConnection:
    """A connection to the driver of a managed driver object, for that object's session.

    The connection is opened by the first command, kept, and opened again after an error.  Only one
    thread at a time may send commands.
    """

    def __init__(self, driver: Any):
        config = driver.command_executor.client_config
        address = urlsplit(config.remote_server_addr)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self._config, self._errors = config, driver.error_handler
        self._prefix = f"{address.path.rstrip('/')}/session/{driver.session_id}"
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._headers = f"Host: {host}:{self._port}\r\n{HEADERS}"
        self._network: DriverNetwork | None = driver.service.driver_process.network
        self._socket: socket.socket | None = None
        self._is_closed = False

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        """Send a command, and return the answer.  ``path`` follows the session's id.

        Raises WebDriverException for an error answer, which :func:`answer_in` returns.  Raises OSError
        if the connection breaks, or if no answer comes within the command timeout.
        """
        answer = self._exchange(method, path, body)
        if answer.status >= 400:
            self._raise(answer)
        return answer

    def _connect(self) -> socket.socket:
        if self._network is not None:
            return self._network.connect(self._port or 80, self._config.timeout)
        sock = socket.create_connection((self._host, self._port), self._config.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _exchange(self, method: str, path: str, body: bytes | None) -> Answer:
        """Send a request, and read the answer.  Raises OSError.

        Not by ``http.client``, which needs seven times the processor time.  Only answers that
        SIMPLE_HEAD does not match are read by it.
        """
        sock = self._socket
        self._socket = None  # after an error, or an interrupted command, it cannot be used again
        try:
            request = self._request(method, path, body)
            if sock is not None and _was_closed(sock):
                sock.close()
                sock = None
            if sock is None:
                sock = self._connect()
            sock.sendall(request)
            answer, is_kept = _read_answer(sock, method)
        except (http.client.HTTPException, OSError) as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                error = ConnectionError(f"the driver's answer was no HTTP: {type(error).__name__}")
            mark_as_of_connection(error)
            raise error from None
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if not is_kept:
            sock.close()
            return answer
        self._socket = sock
        if self._is_closed:  # close() was called meanwhile, and did not close this connection
            self.close()
        return answer

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        """The bytes of a request.  Raises InvalidURL for a path with characters, such as line ends, by
        which it would be more than a path."""
        if not PATH.fullmatch(path):
            raise http.client.InvalidURL("the path has characters that none may have")
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
        if body is not None or method == "POST":
            head += f"Content-Length: {len(body or b'')}\r\n"
        return head.encode("ascii") + b"\r\n" + (body or b"")

    def _raise(self, answer: Answer) -> None:
        text = answer.body.decode("utf-8", "replace")
        try:
            self._errors.check_response({"status": answer.status, "value": text})
        except WebDriverException as error:
            vars(error)["_raw_answer"] = answer
            raise
        raise WebDriverException(f"the driver answered with HTTP status {answer.status}")

    def close(self) -> None:
        """Close the connection; if a command is in flight, after its answer.  May be called in any
        thread.  Idempotent."""
        self._is_closed = True
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()


def _read_answer(sock: socket.socket, method: str) -> tuple[Answer, bool]:
    """The answer, and whether the connection can be used again.  Raises HTTPException and OSError."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0 and len(data) < CHUNK:
        if not (more := sock.recv(CHUNK)):
            raise http.client.RemoteDisconnected("the driver closed the connection without an answer")
        data += more
    found = SIMPLE_HEAD.fullmatch(data, 0, end) if end >= 0 else None
    status = int(found[1]) if found else 0
    if found is None or status in (204, 304):
        response = http.client.HTTPResponse(_Begun(sock, data), method=method)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        return Answer(response.status, body), not response.will_close
    length, begin = int(found[2]), end + 4
    missing = length - (len(data) - begin)
    while missing > 0:
        if not (more := sock.recv(min(missing, CHUNK))):
            raise http.client.IncompleteRead(b"", missing)
        data += more
        missing -= len(more)
    return Answer(status, bytes(data[begin : begin + length])), missing == 0


class _Begun(io.RawIOBase):
    """A connection for ``http.client.HTTPResponse``, of which the first bytes (``data``) have been read
    already."""

    def __init__(self, sock: socket.socket, data: bytearray):
        self._sock, self._data = sock, data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            return self._sock.recv_into(buffer)
        part = self._data[: len(buffer)]
        del self._data[: len(part)]
        buffer[: len(part)] = part
        return len(part)


def _was_closed(sock: socket.socket) -> bool:
    """True if the driver has closed the connection since the last answer: then its end can be read."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def answer_in(error: WebDriverException) -> Answer | None:
    """The driver's answer from which :meth:`RawConnection.send` has made this error; None for other
    errors."""
    found: Answer | None = vars(error).get("_raw_answer")
    return found


__all__ = ["Answer", "RawConnection", "answer_in"]
