"""The view of a ChromeDriver session on a shared browser: which messages pass, and which windows."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from browserkeeper.drivers.devtools_view import ONE_WINDOW, DevtoolsView, Frames

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
REQUEST = b"GET /devtools/browser/1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUpgrade: websocket\r\n%s\r\n"


def frame(payload: bytes) -> bytes:
    """A text frame of a server, as RFC 6455 has it."""
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    if size < 65536:
        return bytes([0x81, 126]) + struct.pack(">H", size) + payload
    return bytes([0x81, 127]) + struct.pack(">Q", size) + payload


def answer(number: int, *contexts: str, title: str = "", session: bool = False) -> bytes:
    """An answer to Target.getTargets, as Chromium writes it."""
    targets = [
        {"targetId": f"T{i}", "type": "tab", "title": title, "browserContextId": context}
        for i, context in enumerate(contexts)
    ]
    message = {
        "id": number,
        "result": {"targetInfos": targets},
        **({"sessionId": "S"} if session else {}),
    }
    return json.dumps(message, separators=(",", ":")).encode()


def contexts_in(message: bytes) -> list[str]:
    return [each["browserContextId"] for each in json.loads(message)["result"]["targetInfos"]]


def is_own(target: object) -> bool:
    assert isinstance(target, dict)
    return bool(target["browserContextId"] == "own")


def only_own(message: bytes) -> bytes:
    found = json.loads(message)
    found["result"]["targetInfos"] = [t for t in found["result"]["targetInfos"] if is_own(t)]
    return json.dumps(found).encode()


def payloads(stream: bytes) -> list[bytes]:
    """The payloads of the frames of a whole stream."""
    found, at = [], 0
    while at < len(stream):
        assert stream[at] == 0x81
        size, at = stream[at + 1], at + 2
        if size == 126:
            (size,), at = struct.unpack_from(">H", stream, at), at + 2
        elif size == 127:
            (size,), at = struct.unpack_from(">Q", stream, at), at + 8
        found.append(stream[at : at + size])
        at += size
    return found


OTHERS = [
    b"",
    b"{}",
    b"x" * 125,
    b"x" * 126,
    b"x" * 65535,
    b"x" * 65536,
    b'{"method":"Page.frameNavigated","params":{"url":"about:blank"}}',
    # A page that prints such an answer on its console.
    b'{"method":"Runtime.consoleAPICalled","params":{"type":"log","args":[{"value":%s}]}}'
    % json.dumps(answer(1, "neighbour").decode()).encode(),
    b'{"id":7,"result":{"result":{"type":"string","value":"\\"result\\":{\\"targetInfos\\":["}}}',
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 100_000, 10_000_000])
def test_other_messages_pass_unchanged_in_pieces_of_any_size(size: int) -> None:
    stream = b"".join(frame(each) for each in OTHERS)
    frames = Frames(only_own)
    passed = b"".join(frames.feed(stream[at : at + size]) for at in range(0, len(stream), size))
    assert passed == stream


@pytest.mark.parametrize("seed", range(20))
def test_windows_of_others_are_left_out_wherever_the_stream_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    answers = [
        answer(5, "own", "neighbour"),
        answer(123456789, "neighbour", "neighbour", session=True),
        answer(6),
        answer(7, *["own", "neighbour"] * 40, title="é" * 500),
    ]
    messages = [*answers, *OTHERS]
    chance.shuffle(messages)
    stream = b"".join(map(frame, messages))
    frames, passed = Frames(only_own), b""
    while stream:
        cut = chance.choice([1, 2, 5, 30, 70, 4096, 70_000])
        passed += frames.feed(stream[:cut])
        stream = stream[cut:]
    for sent, come in zip(messages, payloads(passed), strict=True):
        if sent in answers:
            assert set(contexts_in(come)) <= {"own"}
            assert contexts_in(come).count("own") == contexts_in(sent).count("own")
            assert json.loads(come)["id"] == json.loads(sent)["id"]
        else:
            assert come == sent


# ------------------------------------------------------------------ connections


class Browser:
    """A debugging port that answers every connection in the same way, and notes the requests."""

    def __init__(self, serve: Callable[[socket.socket], None]):
        self.requests: list[bytes] = []
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self.requests.append(connection.recv(65536))
                    self._serve(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def viewed(serve: Callable[[socket.socket], None]) -> Iterator[tuple[Browser, DevtoolsView]]:
    browser = Browser(serve)
    view = DevtoolsView(browser.port, is_own)
    try:
        yield browser, view
    finally:
        view.close()
        browser.close()


def connect(view: DevtoolsView, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", view.port), 60)
    connection.sendall(request)
    return connection


def read(connection: socket.socket, length: int | None = None) -> bytes:
    """So many bytes, or all until the other side closes."""
    data = b""
    while (length is None or len(data) < length) and (more := connection.recv(65536)):
        data += more
    return data


def test_a_websocket_shows_own_windows_only_and_asks_for_no_compression() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADE)
        hello = connection.recv(65536)
        connection.sendall(frame(b"first") + frame(answer(1, "own", "neighbour")) + hello)

    with viewed(serve) as (browser, view):
        request = REQUEST % b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        with connect(view, request) as client:
            assert read(client, len(UPGRADE)) == UPGRADE
            client.sendall(frame(b"hello"))
            first, own, back = payloads(read(client))
    assert (first, contexts_in(own), back) == (b"first", ["own"], b"hello")
    assert browser.requests[0] == REQUEST % b""
    assert view.filtered == 1


def test_what_comes_by_http_passes_unchanged() -> None:
    """ChromeDriver asks for the browser's version in this way."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + answer(1, "neighbour")
    with viewed(lambda connection: connection.sendall(body)) as (browser, view):
        client = connect(view, b"GET /json/version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(client) == body
        client.close()
        assert browser.requests == [b"GET /json/version HTTP/1.1\r\nHost: x\r\n\r\n"]
        assert view.filtered == 0


def test_the_end_of_the_browser_is_the_end_of_the_connection() -> None:
    with (
        viewed(lambda connection: connection.sendall(UPGRADE)) as (_, view),
        connect(view, REQUEST % b"") as client,
    ):
        assert read(client) == UPGRADE  # to its end


def test_a_closed_view_cuts_its_connections_and_refuses_new_ones() -> None:
    gone = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADE)
        assert read(connection) == b""  # until the view closes it
        gone.set()

    with viewed(serve) as (_, view), connect(view, REQUEST % b"") as client:
        assert read(client, len(UPGRADE)) == UPGRADE
        view.close()
        view.close()
        assert read(client) == b""
        assert gone.wait(60)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", view.port), 60)


def test_a_view_that_listens_no_more_keeps_its_connections() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADE)
        connection.sendall(connection.recv(65536))

    with viewed(serve) as (_, view), connect(view, REQUEST % b"") as client:
        assert read(client, len(UPGRADE)) == UPGRADE
        view.stop_listening()
        view.stop_listening()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", view.port), 60)
        client.sendall(frame(b"hello"))
        assert payloads(read(client)) == [b"hello"]


def test_a_browser_that_is_gone_ends_the_connection_at_once() -> None:
    with viewed(lambda connection: None) as (browser, view):
        browser.close()
        with connect(view, REQUEST % b"") as client:
            assert read(client) == b""


@pytest.mark.parametrize("rubbish", [b"", b"GET", b"x" * 200_000, b"\r\n\r\n"])
def test_a_client_that_sends_rubbish_disturbs_no_other(rubbish: bytes) -> None:
    with viewed(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as (_, view):
        with connect(view, rubbish) as client:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                read(client)
        with connect(view, b"GET /json/version HTTP/1.1\r\n\r\n") as client:
            assert read(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "request_of_another",
    [
        b"GET /json/list HTTP/1.1\r\n\r\n",
        b"GET /json/close/T1 HTTP/1.1\r\n\r\n",
        b"GET /json/version/../list HTTP/1.1\r\n\r\n",
        b"PUT /json/new HTTP/1.1\r\n\r\n",
        b"GET /devtools/page/T1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        REQUEST % b"Origin: http://127.0.0.1:1\r\n",
    ],
)
def test_what_chromedriver_does_not_ask_never_reaches_the_browser(request_of_another: bytes) -> None:
    """The view's address is in the lease's capabilities."""
    with viewed(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as (browser, view):
        with connect(view, request_of_another) as client, contextlib.suppress(ConnectionResetError):
            assert read(client) == b""
        assert browser.requests == []


@pytest.mark.parametrize("path", [b"/json/list", b"/json/version", b"/json/close/T1"])
def test_a_second_request_of_a_kept_connection_does_not_pass(path: bytes) -> None:
    """ChromeDriver asks for the list of windows in this way: no real one is in it."""
    reply, gone = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(reply)
        assert read(connection) == b""  # until the view closes it
        gone.set()

    with viewed(serve) as (browser, view):
        first = b"GET /json/version HTTP/1.1\r\n\r\n"
        with connect(view, first) as client, contextlib.suppress(ConnectionResetError):
            assert read(client, len(reply)) == reply
            client.sendall(b"GET %s HTTP/1.1\r\n\r\n" % path)
            if path == b"/json/list":
                assert read(client, len(ONE_WINDOW)) == ONE_WINDOW
            else:
                assert read(client) == b""
        assert gone.wait(60)
        assert browser.requests == [first]
