"""A web site that keeps what it was asked for, and answers what the test says."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = tuple[str, bytes]
"""Content type and body."""


class RecordingSite:
    """On a port of 127.0.0.1, from ``with`` to the end of the block.  ``answers``: by path."""

    def __init__(self, answers: Mapping[str, Answer]):
        self.headers: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each request; header names in lower case."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                named = {name.lower(): value for name, value in self.headers.items()}
                site.headers.append((self.path, named))
                kind, body = answers.get(path, ("text/plain", b"none"))
                self.send_response(200 if path in answers else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # a test has ended its browser
                    pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def paths(self) -> list[str]:
        """The paths of the requests so far, with their queries."""
        return [path for path, _ in self.headers]

    def __enter__(self) -> RecordingSite:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
