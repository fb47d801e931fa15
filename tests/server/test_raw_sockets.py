"""What is hardly HTTP, over raw sockets: an error or the end of the connection, in bounded memory, while
others get their answers.  No browser is started."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from browserkeeper.server import bodies, gatekeeper
from tests.server.serving import Answer, Serving
from tests.support.waiting import SECONDS, wait_until

STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
NEW = b"POST /session HTTP/1.1\r\nHost: x\r\n"
WEBSOCKET = (
    b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
NO_SESSION = b"0123456789abcdef0123456789abcdef"
BOMB = gzip.compress(b"{" + b" " * 2**24 + b"}")
ODD: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "HTTP/1.0": (b"GET /status HTTP/1.0\r\n\r\n", (200,)),
    "HTTP/1.0 that is kept": (b"GET /status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", (200,)),
    "HTTP/0.9": (b"GET /status\r\n\r\n", (200, 400)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), (400,)),
    "zeros": (bytes(1000) + b"\r\n\r\n", (400,)),
    "random bytes": (os.urandom(1000).replace(b"\n", b"") + b"\r\n\r\n", (400,)),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404, 405)),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404, 405)),
    "an absolute address": (b"GET http://example.org/no HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    "a zero byte in the path": (b"GET /sta\0tus HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    "a path that is no UTF-8": (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    "two lengths": (NEW + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", (400,)),
    "a negative length": (NEW + b"Content-Length: -1\r\n\r\n", (400,)),
    "a length and chunks": (
        NEW + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        (400,),
    ),
    "a chunk without a size": (NEW + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", (400,)),
    "a huge chunk": (NEW + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 40 + b"\r\n{", (400,)),
    "no gzip": (NEW + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", (400,)),
    "a bomb": (
        NEW + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB,
        (400,),
    ),
    "a long header": (b"GET /status HTTP/1.1\r\nX-Long: " + b"x" * 2**20 + b"\r\n\r\n", (400,)),
    "a long path": (b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "a websocket to nothing": (b"GET /nothing" + WEBSOCKET, (404,)),
    "a websocket to a page": (b"GET /status" + WEBSOCKET, (200, 400)),
    "a websocket to a command": (b"GET /session/" + NO_SESSION + b"/url" + WEBSOCKET, (404,)),
    "a websocket to no session": (
        b"GET /session/" + NO_SESSION + b"/se/bidi/secret" + WEBSOCKET,
        (404,),
    ),
    "HTTP/2 by an upgrade": (
        b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        (200, 400),
    ),
    "three requests at once": (STATUS * 3, (200,)),
}
"""What is sent, and the status that may be answered; the connection may also be closed without one."""


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving(min_idle=0) as serving:
        yield serving


def connect(server: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), SECONDS)


def first_line(one: socket.socket) -> bytes:
    """b"" if the connection is closed without an answer."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n" not in found and (more := one.recv(65536)):
            found += more
    return found.partition(b"\r\n")[0]


def is_well(server: Serving) -> bool:
    """Asks again where this client, on a busy machine, was too slow for the server's patience."""
    answers: list[Answer] = []

    def is_answered() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(server.ask("GET", "/status"))
        return bool(answers)

    if not wait_until(is_answered):
        return False
    (answer,) = answers
    return bool(answer.status == 200 and answer.value["ready"] and not answer.value["queue"])


@pytest.mark.parametrize("name", ODD)
def test_odd_requests_get_an_error_and_are_no_failure_of_the_server(server: Serving, name: str) -> None:
    sent, allowed = ODD[name]
    with connect(server) as one:
        with contextlib.suppress(OSError):  # it may refuse what is too long before all is sent
            one.sendall(sent)
        line = first_line(one)
        assert not line or int(line.split()[1]) in allowed, line
    assert is_well(server)


@pytest.mark.parametrize(
    "sent",
    [
        STATUS,
        STATUS[:20],
        NEW + b"Content-Length: 20\r\n\r\n{",
        NEW + b"Expect: 100-continue\r\nContent-Length: 20\r\n\r\n",
        NEW + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /nothing" + WEBSOCKET,
    ],
)
def test_half_closed_connections_are_closed(server: Serving, sent: bytes) -> None:
    """The client sends nothing more, but would read."""
    with connect(server) as one:
        one.sendall(sent)
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass
    assert wait_until(lambda: not len(server.server.connections))
    assert is_well(server)


ENDLESS = {
    "headers": (b"GET /status HTTP/1.1\r\nHost: x\r\n", b"X-More: and more\r\n" * 4096),
    "a line": (b"GET /status HTTP/1.1\r\nX-Long: ", b"x" * 65536),
    "requests": (b"", STATUS * 2048),
    "chunks": (NEW + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000),
    "a chunk's size": (NEW + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536),
    "trailers": (NEW + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: and more\r\n" * 4096),
    "empty lines": (b"", b"\r\n" * 32768),
    "frames after a refused upgrade": (b"GET /nothing" + WEBSOCKET, b"\x81\x7e\xff\xff" * 16384),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_takes_bounded_memory_and_delays_no_other(
    server: Serving, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The client reads nothing, and sends as much as the server takes: at most 64 MiB are tried.  Then
    the server closes the connection, also where it does not read at that moment."""
    for patience in ("HEAD_PATIENCE", "IDLE_PATIENCE"):
        monkeypatch.setattr(gatekeeper, patience, 2.0)
    monkeypatch.setattr(bodies, "BODY_PATIENCE", 2.0)
    monkeypatch.setattr(bodies, "BODY_RATE", 2**30)
    begin, more = ENDLESS[name]
    before = psutil.Process().memory_info().rss
    with connect(server) as one:
        one.sendall(begin)
        one.settimeout(1)  # the server holds the client back: as well as an end
        with contextlib.suppress(OSError):
            for _ in range(2**26 // len(more)):
                one.sendall(more)
        assert is_well(server)
        grown = psutil.Process().memory_info().rss - before
        assert grown < 50 * 2**20, f"{grown / 2**20:.0f} MiB"
        assert wait_until(lambda: not len(server.server.connections))
    assert is_well(server)


def test_more_connections_than_there_may_be(server: Serving) -> None:
    """Half of them have asked; those that have not make room."""
    connections = server.server.connections
    most = connections.most_of_one
    held = []
    for number in range(most + 50):
        held.append(connect(server))
        if number % 2:
            with contextlib.suppress(OSError):
                held[-1].sendall(STATUS)
    assert wait_until(lambda: connections.refused >= 50)
    assert wait_until(lambda: len(connections) <= most)
    assert is_well(server)
    for one in held:
        one.close()
    assert wait_until(lambda: not len(connections))
    assert is_well(server)


def test_the_status_lists_free_slots_as_a_grid_does(server: Serving) -> None:
    value = server.ask("GET", "/status").value
    (node,) = value["nodes"]
    assert [one["session"] for one in node["slots"]] == [None] * node["maxSessions"]
    assert len({one["id"]["id"] for one in node["slots"]}) == node["maxSessions"]
    assert (node["availability"], node["sessionCount"], value["ready"]) == ("UP", 0, True)
