"""The BiDi connection of drivers (``drivers/websockets.py``) with servers that serve no websocket,
and with one that stops reading."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from browserkeeper.drivers.websockets import DirectWebSocketConnection
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.compat

LIMIT = 300.0
"""Seconds for an answer.  Far more than the tests may take: an error must not wait for it."""


@pytest.fixture(params=[b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
def no_websocket(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that gives this answer to one connection, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(request.param)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/session/1"
        thread.join()


@pytest.mark.timeout(LIMIT / 2)
def test_a_connection_that_cannot_be_opened_is_an_error_at_once(no_websocket: str) -> None:
    before = threading.active_count()
    with pytest.raises(WebDriverException, match=r"could not be opened: .+"):
        DirectWebSocketConnection(no_websocket, LIMIT)
    assert threading.active_count() <= before


def test_a_port_where_nothing_listens_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        DirectWebSocketConnection(f"ws://127.0.0.1:{port}/", LIMIT)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server that opens a websocket and reads nothing from it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_over = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = connection.recv(65536).decode()
                key = re.search(r"Sec-WebSocket-Key: (\S+)", asked, re.IGNORECASE)
                assert key
                accepted = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode())
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + base64.b64encode(accepted.digest()) + b"\r\n\r\n"
                )
                is_over.wait()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/session/1"
        is_over.set()
        thread.join()


@pytest.mark.timeout(LIMIT / 2)
@pytest.mark.parametrize("closer", ["another thread", "the thread of the connection"])
def test_close_does_not_wait_for_a_command_that_the_browser_does_not_read(
    deaf: str, closer: str
) -> None:
    connection = DirectWebSocketConnection(deaf, LIMIT)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            connection.send_cmd("script.evaluate", {"expression": "x" * 50_000_000})
        except Exception as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    opened: Any = connection._ws.sock
    assert wait_until(opened.lock.locked)
    if closer == "another thread":
        connection.close()
    else:
        connection._ws.on_error = lambda *_: connection.close()
        socket.socket.shutdown(opened.sock, socket.SHUT_RD)
    sender.join(SECONDS)
    connection._ws_thread.join(SECONDS)
    assert errors
    assert not sender.is_alive()
    assert not connection._ws_thread.is_alive()
