"""A server with downloads of all kinds, for the tests of ``expect_download``."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from browserkeeper import BrowserSession
from browserkeeper.guard.downloads import open_partial_files
from browserkeeper.session import control_of
from tests.support.waiting import wait_until

LINKS = (
    *("file", "empty", "tricks", "odd", "cut", "redirect", "endless", "large", "program"),
    *("missing", "page"),
)
PAGE = """<title>Downloads</title>
{links}
<a id=popup target=_blank href=/file?popup>popup</a>
<a id=pdf download href=/pdf>pdf</a>
<a id=data download=data.txt href="data:text/plain,hello">data</a>
<a id=blob download=blob.txt>blob</a>
<iframe id=frame src=/inner></iframe>
<script>
  document.getElementById('blob').href = URL.createObjectURL(new Blob(['a blob']));
  document.getElementById('data').dataset.ready = 1;
</script>"""
NAMES = {
    "file": 'filename="file.bin"',
    "empty": 'filename="empty.bin"',
    "tricks": 'filename="../../../tmp/tricks.bin"',
    "odd": "filename*=UTF-8''%C3%A4%20%27%22%3B%5C%0A.txt",
    "cut": 'filename="cut.bin"',
    "endless": 'filename="endless.bin"',
    "large": 'filename="large.bin"',
    "program": 'filename="program.exe"',
}
LARGE = 200 * 10**6
BLOCK = b"x" * 100_000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: DownloadSite

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.strip("/")
        if name in ("", "inner", "page"):
            links = "".join(f"<a id={n} download href=/{n}?a=1>{n}</a> " for n in LINKS)
            page = "<a id=in-frame download href=/file?frame>inner</a>" if name == "inner" else PAGE
            self.answer(page.format(links=links).encode(), "text/html")
        elif name == "redirect":
            self.send_response(302)
            self.send_header("Location", "/file?redirected")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name == "pdf":
            self.answer(b"%PDF-1.4\n%%EOF", "application/pdf")
        elif name in NAMES:
            self.download(name)
        else:
            self.send_error(404)

    def answer(self, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def download(self, name: str) -> None:
        size = {"empty": 0, "endless": 10**9, "large": LARGE, "cut": 10**6}.get(name, 1000)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", f"attachment; {NAMES[name]}")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        with contextlib.suppress(OSError):  # the browser is gone, or has cancelled it
            if name == "large":
                for _ in range(size // len(BLOCK)):
                    self.wfile.write(BLOCK)
            elif name == "endless":
                self.wfile.write(BLOCK)
                while not self.server.over.wait(0.05):
                    if self.server.flowing.is_set():
                        self.wfile.write(BLOCK)
            else:
                self.wfile.write(b"x" * min(size, 1000))
        self.close_connection = name in ("cut", "endless")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class DownloadSite(ThreadingHTTPServer):
    """``flowing``: the endless download goes on, else it stops after its first 100,000 bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.over, self.flowing = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: browsers end connections as they like."""


@contextlib.contextmanager
def download_site() -> Iterator[DownloadSite]:
    site = DownloadSite()
    run = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    run.start()
    try:
        yield site
    finally:
        site.over.set()
        site.shutdown()
        site.server_close()


def stop_chromium(session: BrowserSession[Any]) -> None:
    """As the last step before an end that cuts off the download named "endless": a Chromium whose driver
    dies first quits, and removes its partial file.

    Only once it has that file open by its last name: it closes it for the renaming, and a guard looks
    for open ones.
    """
    if control_of(session).config.engine == "chromium":
        pid = session.pid
        assert pid

        def is_open() -> bool:
            paths = open_partial_files([pid], ".crdownload", "").values()
            return any(os.path.basename(path).startswith("endless") for path in paths)

        assert wait_until(is_open)
        os.kill(pid, signal.SIGSTOP)


def partial_files(directory: str | os.PathLike[str]) -> list[str]:
    """Names of files that a browser has not downloaded whole."""
    return [name for name in os.listdir(directory) if name.endswith((".part", ".crdownload"))]
