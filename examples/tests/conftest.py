"""Fixtures of all tests of the shop.  Copy this folder as a start for your own; it needs nothing else.

pip install browserkeeper pytest
pytest tests
pytest tests --keeper-isolation context
pytest tests -n 2                           # with pytest-xdist installed
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SHELVES = {"fiction": {"Middlemarch": "£9.00", "Bleak House": "£8.50"}, "nature": {"Moss": "£12.00"}}
NAVIGATION = "<nav>" + " ".join(f'<a href="/category/{name}">{name}</a>' for name in SHELVES) + "</nav>"


class Shop(BaseHTTPRequestHandler):
    """A small shop to test.  Yours takes its place: see ``keeper_base_url``."""

    def do_GET(self) -> None:
        shelf = SHELVES.get(self.path.removeprefix("/category/"), {})
        cards = (
            f'<p class="card">{book} <b class="cost">{cost}</b></p>' for book, cost in shelf.items()
        )
        if self.path == "/slow":
            time.sleep(1)
        body = f"<!doctype html><title>The Leaky Shelf</title>{NAVIGATION}{''.join(cards)}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *given: Any) -> None:
        """Keeps the requests out of pytest's output."""


@pytest.fixture(scope="session")
def keeper_base_url() -> Iterator[str]:
    """What ``driver.get("/")`` opens.  Here a shop for the tests.  Yours may return its URL, or
    leave the fixture out, and say where the shop is: ``pytest --keeper-base-url http://localhost:8000``.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def keeper_browser_args(keeper_browser_args: dict[str, Any]) -> dict[str, Any]:
    """Gives every browser of this suite the same window size."""
    return {**keeper_browser_args, "window_size": (1200, 900)}
