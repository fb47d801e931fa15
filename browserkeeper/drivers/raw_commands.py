"""Classic commands as bytes: for the server, which passes on the answers of a driver as they are.

Selenium's own path parses the answer, makes objects of it, and would have to be undone for each answer.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import select
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from selenium.common.exceptions import WebDriverException

from ..errors import hide_frames as __tracebackhide__  # noqa: F401

HEADERS = (
    "Accept-Encoding: identity\r\nAccept: application/json\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
)
PATH = re.compile(r"[!-~]*")
"""What a path may consist of (RFC 9112, 3.2)."""
CHUNK = 256 * 1024
"""Bytes that are read at once."""
SIMPLE_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})[^\r\n]*"
    rb"(?:\r\n(?!connection:|transfer-encoding:|content-length:)[^\r\n]*)*"
    rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*"
    rb"(?:\r\n(?!connection:|transfer-encoding:|content-length:)[^\r\n]*)*",
    re.IGNORECASE,
)
"""The head of an answer of which ``Content-Length`` says all: the status and the length."""


class Answer(NamedTuple):
    """An answer of a driver."""

    status: int
    body: bytes


class RawConnection:
    """A connection to the driver of a managed driver object, for that object's session.

    It is opened with the first command, kept, and opened again after an error.  Not for two threads at a
    time.
    """

    def __init__(self, driver: Any):
        config = driver.command_executor.client_config
        address = urlsplit(config.remote_server_addr)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self._config, self._errors = config, driver.error_handler
        self._prefix = f"{address.path.rstrip('/')}/session/{driver.session_id}"
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._headers = f"Host: {host}:{self._port}\r\n{HEADERS}"
        self._socket: socket.socket | None = None
        self._is_closed = False

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        """Send a command, and return the answer.  ``path`` follows the session's id.

        Raises WebDriverException for an answer that is an error; :func:`answer_in` has the answer.
        Raises OSError where the connection breaks, or no answer comes in time.
        """
        answer = self._exchange(method, path, body)
        if answer.status >= 400:
            self._raise(answer)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None) -> Answer:
        """In place of ``http.client``, which takes seven times the processor time for it: most of what
        passing on a command costs.  Answers that are not of the common form are left to it."""
        sock = self._socket
        self._socket = None  # after an error, or an interrupted command, it cannot be used again
        try:
            request = self._request(method, path, body)
            if sock is not None and _was_closed(sock):
                sock.close()
                sock = None
            if sock is None:
                sock = socket.create_connection((self._host, self._port), self._config.timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request)
            answer, is_kept = _read_answer(sock, method)
        except (http.client.HTTPException, OSError) as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                error = ConnectionError(f"the driver's answer was no HTTP: {type(error).__name__}")
            vars(error)["_of_connection"] = True  # see drivers/managed.py
            raise error from None
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if not is_kept:
            sock.close()
            return answer
        self._socket = sock
        if self._is_closed:  # in another thread, which did not see this connection
            self.close()
        return answer

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        """Raises InvalidURL for a path that would be more than one."""
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
        """Close the connection, that of a command in flight after its answer.  May be called in any
        thread."""
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
    """A connection of which some bytes have been read, for ``http.client.HTTPResponse``."""

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
    """True if the driver has closed it since the last answer: then there is an end to be read."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def answer_in(error: WebDriverException) -> Answer | None:
    """The driver's answer that an error of :meth:`RawConnection.send` was made of; None for an error of
    another origin."""
    found: Answer | None = vars(error).get("_raw_answer")
    return found


__all__ = ["Answer", "RawConnection", "answer_in"]
