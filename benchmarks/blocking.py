"""What ``block=`` saves: a page of many pictures and fonts, with and without.

    python -m benchmarks.blocking [chrome|firefox] [PAGES]

The server is on this machine and answers each picture after 5 ms, so the figures are the least that is
saved: over a network each request costs more.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from browserkeeper import BrowserPool

PICTURES, FONTS, SIDE = 60, 4, 500
DELAY = 0.005
"""Seconds until a picture or a font is answered."""


def picture() -> bytes:
    """A PNG with noise, about 750 KB once it is decoded."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + os.urandom(SIDE // 10) * 30 for _ in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


PNG = picture()
PAGE = "".join(
    [
        "<!doctype html><title>Shelf</title><style>",
        *(f"@font-face {{ font-family: f{n}; src: url(/{n}.woff2) }}" for n in range(FONTS)),
        "</style>",
        *(f"<p style='font-family: f{n}'>Text {n}</p>" for n in range(FONTS)),
        *(f"<img src=/{n}.png width=100 height=100>" for n in range(PICTURES)),
    ]
).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        kind, body = ("text/html", PAGE) if self.path == "/" else ("image/png", PNG)
        if self.path != "/":
            time.sleep(DELAY)
        self.send_response(200)
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
        except ConnectionError:  # the browser has broken off a request
            pass


def seconds_per_page(name: str, url: str, pages: int, block: list[str]) -> float:
    """A lease for each page, in one warm browser."""
    with BrowserPool(name, max_size=1, isolation="context") as pool:
        with pool.lease(block=block) as lease:  # the first one starts the browser
            lease.driver.get(url)
        begun = time.monotonic()
        for _ in range(pages):
            with pool.lease(block=block) as lease:
                lease.driver.get(url)
        return (time.monotonic() - begun) / pages


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "chrome"
    pages = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    free = seconds_per_page(name, url, pages, [])
    print(f"{name}, nothing blocked: {free * 1000:.0f} ms for each page and lease")
    for block in (["image", "font"], ["*.png", "*.woff2"]):
        taken = seconds_per_page(name, url, pages, block)
        print(f"{name}, {block}: {taken * 1000:.0f} ms, {free / taken:.1f} times as fast")
    server.shutdown()


if __name__ == "__main__":
    main()
