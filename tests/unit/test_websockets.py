"""The BiDi connection of drivers (``drivers/websockets.py``) with servers that serve no websocket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from selenium.common.exceptions import WebDriverException

from browserkeeper.drivers.websockets import DirectWebSocketConnection

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
