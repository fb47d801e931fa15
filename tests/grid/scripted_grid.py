"""A Grid on plain sockets that does with a connection what a script says: answers, half answers, and
connections that break.  It answers every request whose path the script does not name with ``null``."""

from __future__ import annotations

import json
import socket
import socketserver
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.grid.background import Background
from tests.support.waiting import wait_until

Step = Callable[[socket.socket], bool]
"""What happens to a connection after a request has been read; False: the connection is closed."""


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def raw(answer: bytes, *, then_open: bool = False) -> Step:
    """Send these bytes, and close the connection unless ``then_open``.

    The close comes at any time after the bytes.  So where the answer is whole and does not announce it,
    a client that sends its next request over the same connection may be faster: ``wait_for_close``.
    """

    def step(link: socket.socket) -> bool:
        link.sendall(answer)
        return then_open

    return step


def http_answer(status: str, body: bytes, *headers: str) -> Step:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return raw("\r\n".join(lines).encode() + body, then_open=True)


def value(found: Any) -> Step:
    kind = "Content-Type: application/json; charset=utf-8"
    return http_answer("200 OK", json.dumps({"value": found}, ensure_ascii=False).encode(), kind)


def hang_up(link: socket.socket) -> bool:
    """Close without an answer."""
    return False


def reset(link: socket.socket) -> bool:
    """Close with a RST in place of a FIN, as where the machine has lost the connection."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


def answer_and_close(link: socket.socket) -> bool:
    """A whole answer, and then the end of the connection without a word: ``wait_for_close``."""
    value("first")(link)
    return False


class ScriptedGrid(Background):
    """``script``: for ``"METHOD /path"`` the steps of its requests in turn; the last one is repeated."""

    def __init__(self, script: dict[str, list[Step]] | None = None):
        self.script = script or {}
        self.seen: list[Request] = []
        self.connections = 0
        self.last_requests: list[Request] = []
        """Of the connections that are closed."""
        server = _Server(("127.0.0.1", 0), _Connection)
        server.grid = self
        super().__init__(server)

    def step_for(self, request: Request) -> Step:
        steps = self.script.get(f"{request.method} {request.path}", [value(None)])
        return steps.pop(0) if len(steps) > 1 else steps[0]

    def wait_for_close(self) -> bool:
        """Block until the connection of the last request is closed: the other end can see it by then."""
        last = self.seen[-1]
        return wait_until(lambda: any(request is last for request in self.last_requests))

    def asked(self, method: str, path: str) -> list[Request]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    grid: ScriptedGrid

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.last_of: dict[socket.socket, Request] = {}
        """The last request of each open connection."""

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        if (last := self.last_of.pop(request, None)) is not None:
            self.grid.last_requests.append(last)

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints nothing: the relay closed its connection."""


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        grid: ScriptedGrid = self.server.grid  # type: ignore[attr-defined]
        grid.connections += 1
        while (request := self._read()) is not None:
            grid.seen.append(request)
            self.server.last_of[self.connection] = request  # type: ignore[attr-defined]
            if not grid.step_for(request)(self.connection):
                return

    def _read(self) -> Request | None:
        first = self.rfile.readline().decode("latin-1").split()
        if len(first) < 2:
            return None
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, text = line.decode("latin-1").partition(":")
            headers[name.lower()] = text.strip()
        return Request(
            first[0], first[1], headers, self.rfile.read(int(headers.get("content-length", 0)))
        )


__all__ = [
    "Request",
    "ScriptedGrid",
    "Step",
    "answer_and_close",
    "hang_up",
    "http_answer",
    "raw",
    "reset",
    "value",
]
