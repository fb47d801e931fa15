"""A mock of a Grid that fails in ways that a real Grid cannot be made to: errors, invalid answers, no
answers, restarts.

It can have one session.  ``behaviour`` maps a kind of request (``new``, ``command``, ``delete``,
``status``) to the function that answers it; without one the answer is that of a working Grid.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any

from tests.grid.background import Background

Answerer = Callable[["_Handler"], None]
SESSION = "c0ffee"


def answer(status: int, body: str, kind: str = "application/json") -> Answerer:
    return lambda handler: handler.reply(status, body.encode(), kind)


def error(status: int, name: str, message: str) -> Answerer:
    return answer(status, json.dumps({"value": {"error": name, "message": message, "stacktrace": ""}}))


def silence(handler: _Handler) -> None:
    """No answer, until the mock is closed."""
    handler.hub.stopped.wait(60)
    handler.close_connection = True


def hang_up(handler: _Handler) -> None:
    handler.close_connection = True


NO_WEBDRIVER = answer(200, "<html>It works!</html>", "text/html")
TRUNCATED = answer(200, '{"value": {"sessionId": "c0f', "application/json")
BROKEN = error(500, "unknown error", "the node is on fire")


class MockHub(Background):
    def __init__(self) -> None:
        self.behaviour: dict[str, Answerer] = {}
        self.running: set[str] = set()
        self.seen: list[tuple[str, str]] = []
        self.stopped = threading.Event()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.hub = self  # type: ignore[attr-defined]
        super().__init__(server)

    def __exit__(self, *raised: Any) -> None:
        self.stopped.set()
        super().__exit__(*raised)

    def asked(self, method: str, path: str) -> bool:
        return (method, path) in self.seen


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> MockHub:
        found: MockHub = self.server.hub  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.seen.append((self.command, self.path))
        kind = self._kind()
        self.hub.behaviour.get(kind, getattr(self, f"good_{kind}"))(self)

    do_GET = do_DELETE = do_POST  # noqa: N815 # http.server's names

    def _kind(self) -> str:
        if self.path == "/status":
            return "status"
        if self.path == "/session":
            return "new"
        return "delete" if self.command == "DELETE" else "command"

    def value(self, value: Any) -> None:
        self.reply(200, json.dumps({"value": value}).encode(), "application/json")

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def good_new(handler: _Handler) -> None:
        handler.hub.running.add(SESSION)
        handler.value({"sessionId": SESSION, "capabilities": {"browserName": "chrome"}})

    @staticmethod
    def good_delete(handler: _Handler) -> None:
        handler.hub.running.discard(SESSION)
        handler.value(None)

    @staticmethod
    def good_command(handler: _Handler) -> None:
        handler.value("a title")

    @staticmethod
    def good_status(handler: _Handler) -> None:
        sessions = [{"session": {"sessionId": s, "capabilities": {}}} for s in handler.hub.running]
        handler.value({"ready": True, "nodes": [{"slots": [*sessions, {"session": None}]}]})
