"""Recording proxies and a recording target, as witnesses of which way each request of a browser goes.

A :class:`RecordingProxy` notes each request that it is asked for.  A :class:`RecordingTarget` notes each
request that reaches it, and through which proxy: a proxy registers the port of each connection that it
opens, before it connects.  So a request that went past the proxies is one without a name.

The proxies connect to 127.0.0.1 for every name that ends with ``.test``, which no resolver knows.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any

SOURCES: dict[int, str] = {}
"""The name of the proxy that has opened the connection from this local port."""
NO_ACCESS = b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="p"\r\n'


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request that a proxy got: ``method`` is CONNECT, SOCKS or an HTTP method, ``target`` is
    host:port or a URL.  ``admitted`` is False where the password was missing or wrong."""

    method: str
    target: str
    admitted: bool
    user: str = ""


class RecordingProxy:
    """An HTTP or SOCKS5 proxy on 127.0.0.1, with a password if ``user`` is given.

    With ``tls`` clients speak TLS to it, as to an ``https://`` proxy.
    """

    def __init__(
        self,
        kind: str = "http",
        user: str = "",
        password: str = "",
        *,
        name: str = "",
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        refused: dict[str, bytes] | None = None,
    ):
        """``refused``: by host, the answer to CONNECT; where it is empty, the connection is closed."""
        self._refused = refused or {}
        self.kind, self.user, self.password, self._tls = kind, user, password, tls
        self.asked: list[Asked] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=512)
        self.host, self.port = host, int(self._listener.getsockname()[1])
        self.name = name or f"proxy-{self.port}"
        self._open: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """With the user and the password."""
        scheme = {"http": "https" if self._tls else "http"}.get(self.kind, self.kind)
        credentials = f"{self.user}:{self.password}@" if self.user else ""
        return f"{scheme}://{credentials}{self.address}"

    @property
    def served(self) -> list[str]:
        """The targets of the requests that were admitted."""
        return [asked.target for asked in list(self.asked) if asked.admitted]

    def close(self) -> None:
        """Stop listening, and cut off all connections, as a proxy that is killed."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> RecordingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- in threads

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError), contextlib.ExitStack() as stack:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            stack.enter_context(connection)
            self._open.add(connection)
            stack.callback(self._open.discard, connection)
            serve = self._serve_socks if self.kind.startswith("socks") else self._serve_http
            while serve(connection):
                pass

    def _serve_http(self, client: socket.socket) -> bool:
        """One request; False at the end of the connection."""
        head = _read_head(client)
        if not head:
            return False
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (field.partition(":") for field in fields)}
        user, admitted = self._judge(headers.get("proxy-authorization", ""))
        self.asked.append(Asked(method, target, admitted, user))
        body = _read_exactly(client, int(headers.get("content-length", 0)))
        if not admitted:
            client.sendall(NO_ACCESS + b"Content-Length: 0\r\n\r\n")
            return True
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            if host in self._refused:
                client.sendall(self._refused[host])
                return False
            try:
                server = self._connect(host.strip("[]"), int(port))
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return True
            with server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _copy_both_ways(client, server)
            return False
        place, _, path = target.removeprefix("http://").partition("/")
        host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", "80")
        kept = [f for f in fields if not f.lower().startswith(("proxy-", "connection:"))]
        request = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "Connection: close", "", ""])
        try:
            server = self._connect(host.strip("[]"), int(port))
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad")
            return True
        with server:
            server.sendall(request.encode("latin-1") + body)
            while chunk := server.recv(65536):
                client.sendall(chunk)
        return False

    def _judge(self, given: str) -> tuple[str, bool]:
        if not given:
            return "", not self.user
        pair = base64.b64decode(given.partition(" ")[2]).decode()
        return pair.partition(":")[0], pair == f"{self.user}:{self.password}"

    def _serve_socks(self, client: socket.socket) -> bool:
        """RFC 1928 and 1929."""
        version, count = _read_exactly(client, 2)
        methods = _read_exactly(client, count)
        wanted = 2 if self.user else 0
        if version != 5 or wanted not in methods:
            self.asked.append(Asked("SOCKS", "", admitted=False))
            client.sendall(b"\x05\xff")
            return False
        client.sendall(bytes((5, wanted)))
        user = ""
        if wanted == 2:
            _read_exactly(client, 1)
            user, password = (_read_exactly(client, _read_exactly(client, 1)[0]).decode() for _ in "up")
            if (user, password) != (self.user, self.password):
                self.asked.append(Asked("SOCKS", "", admitted=False, user=user))
                client.sendall(b"\x01\x01")
                return False
            client.sendall(b"\x01\x00")
        _, _, _, kind = _read_exactly(client, 4)
        if kind == 3:
            host = _read_exactly(client, _read_exactly(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _read_exactly(client, size))
        (port,) = struct.unpack("!H", _read_exactly(client, 2))
        self.asked.append(Asked("SOCKS", f"{host}:{port}", admitted=True, user=user))
        try:
            server = self._connect(host, port)
        except OSError:
            client.sendall(b"\x05\x05\x00\x01" + bytes(6))
            return False
        with server:
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            _copy_both_ways(client, server)
        return False

    def _connect(self, host: str, port: int) -> socket.socket:
        host = "127.0.0.1" if host.endswith(".test") or host == "localhost" else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.socket(family)
        try:
            server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            source = server.getsockname()[1]
            SOURCES[source] = self.name
            server.connect((host, port))
        except BaseException:
            server.close()
            raise
        self._open.add(server)
        return server


class RecordingTarget:
    """A web server on 127.0.0.1 that notes each request and through which proxy it came.

    ``pages``: path to (content type, body).  Unknown paths are answered with 404, and noted.
    ``/socket`` is a websocket that says "hello"; ``/big?N`` sends N bytes as a download.
    """

    def __init__(self, pages: dict[str, tuple[str, str]] | None = None, *, tls: Any = None):
        self.pages = {"/": ("text/html", "<title>target</title>target"), **(pages or {})}
        self.requests: list[tuple[str, str]] = []
        """Path, and the name of the proxy, "" for a request that came directly."""
        target = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                target._answer(self)

            do_POST = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self.headers: dict[str, dict[str, str]] = {}
        """The headers of the last request for a path."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, host: str, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def ways(self, path: str = "") -> set[str]:
        """The names of the proxies through which requests (for ``path``) came, "" for direct ones."""
        return {way for asked, way in list(self.requests) if path in ("", asked)}

    @property
    def paths(self) -> set[str]:
        return {path for path, _ in list(self.requests)}

    def forget(self) -> None:
        self.requests.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> RecordingTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        way = SOURCES.get(handler.client_address[1], "")
        path, _, query = handler.path.partition("?")
        size = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(size)
        self.requests.append((path, way))
        self.headers[path] = {name.lower(): value for name, value in handler.headers.items()}
        if path == "/socket":
            self._open_websocket(handler)
            return
        if path == "/big":
            self._send_big(handler, int(query))
            return
        kind, body = self.pages.get(path, ("", ""))
        handler.send_response(200 if kind else 404)
        handler.send_header("Content-Type", kind or "text/plain")
        handler.send_header("Cache-Control", "no-store")
        if kind == "application/octet-stream":
            handler.send_header("Content-Disposition", "attachment; filename=file.bin")
        data = body.encode()
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def _open_websocket(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        handler.close_connection = True
        handler.connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n\x81\x05hello"
        )
        handler.connection.recv(100)

    def _send_big(self, handler: http.server.BaseHTTPRequestHandler, size: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/octet-stream")
        handler.send_header("Content-Disposition", "attachment; filename=big.bin")
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        block = bytes(65536)
        while size > 0:
            handler.wfile.write(block[: min(size, len(block))])
            size -= len(block)


def _read_head(connection: socket.socket) -> bytes:
    """Up to the empty line, without it; b"" at the end of the connection.  Reads nothing of the body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head[:-4]


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _copy_both_ways(one: socket.socket, other: socket.socket) -> None:
    """Until both have ended; the end of the one is passed on while the other goes on."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(other, one), daemon=True)
    back.start()
    copy(one, other)
    back.join()


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which connections are refused: it is bound, and nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])
