"""What a command passes on its way to the driver: the session's thread, and the connection."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from selenium.webdriver.remote.errorhandler import ErrorHandler

from browserkeeper.drivers.raw_commands import RawConnection
from browserkeeper.server.worker import Worker
from tests.support.waiting import SECONDS

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, tuple[bytes, int, bytes, bool]] = {
    "plain": (OK + b"Content-Length:5\r\nX: y\r\n\r\nabcde", 200, b"abcde", True),
    "empty": (OK + b"content-length: 0\r\n\r\n", 200, b"", True),
    "in chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc", True),
    "the last one": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", False),
    "after another": (
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
        200,
        b"a",
        True,
    ),
    "with more than it says": (OK + b"Content-Length: 2\r\n\r\nabJUNK", 200, b"ab", False),
    "without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "large": (OK + b"Content-Length: 600000\r\n\r\n" + b"z" * 600_000, 200, b"z" * 600_000, True),
}
"""The answer's bytes; its status, its body, and whether the connection can be used again."""
NO_ANSWERS = {
    "nothing": b"",
    "not all": OK + b"Content-Length: 10\r\n\r\nab",
    "no HTTP": b"rubbish\r\n\r\n",
    "no end of the head": b"x" * 300_000,
}


class Driver:
    """A driver's port, which sends given bytes to each request."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []
        url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        config = SimpleNamespace(remote_server_addr=url, timeout=SECONDS)
        driver = SimpleNamespace(
            command_executor=SimpleNamespace(client_config=config),
            error_handler=ErrorHandler(),
            service=SimpleNamespace(driver_process=SimpleNamespace(network=None)),
            session_id="s",
        )
        self.connection, self.requests = RawConnection(driver), b""

    def ask(self, answer: bytes, part: int, *, ends: bool, path: str = "/x") -> Any:
        """The connection's answer to a command, or its error.  ``part``: bytes that are sent at once;
        ``ends``: the driver closes the connection then."""

        def serve() -> None:
            one, _ = self._server.accept()
            self.requests += one.recv(65536)
            for begin in range(0, len(answer), part):
                one.sendall(answer[begin : begin + part])
            one.close() if ends else self._accepted.append(one)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return self.connection.send("POST", path, b"{}")
        except OSError as error:
            return error
        finally:
            thread.join()

    def close(self) -> None:
        self.connection.close()
        for one in (*self._accepted, self._server):
            one.close()


@pytest.fixture
def driver() -> Iterator[Driver]:
    one = Driver()
    yield one
    one.close()


@pytest.mark.parametrize("part", [7, 1_000_000])
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_read_as_it_was_sent(driver: Driver, kind: str, part: int) -> None:
    sent, status, body, is_kept = ANSWERS[kind]
    if kind == "large" and part == 7:
        part = 70_001
    assert driver.ask(sent, part, ends=False) == (status, body)
    assert (driver.connection._socket is not None) == is_kept
    assert driver.requests.startswith(b"POST /session/s/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert driver.requests.endswith(b"Content-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_what_is_no_answer_is_an_error_of_the_connection(driver: Driver, kind: str) -> None:
    error = driver.ask(NO_ANSWERS[kind], 1_000_000, ends=True)
    assert isinstance(error, OSError)
    assert "_of_connection" in vars(error)
    assert driver.connection._socket is None


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/é", "/a\x00"])
def test_a_path_that_would_be_more_than_one_is_not_sent(driver: Driver, path: str) -> None:
    with pytest.raises(ConnectionError, match="InvalidURL"):
        driver.connection.send("GET", path, None)


async def in_worker() -> list[Any]:
    """Functions of a worker that is closed while the first one runs; one awaiter is gone by then."""
    may_go_on = threading.Event()
    ran: list[str] = []
    ends: list[None] = []
    worker = Worker("test", lambda: ends.append(None))
    with pytest.raises(ValueError, match="its own"):
        await worker.call(lambda: int("its own"))
    running = worker.call(lambda: ran.append("first" if may_go_on.wait(SECONDS) else "too late"))
    unheard = worker.call(lambda: ran.append("second"))
    third = worker.call(lambda: ran.append("third"))
    unheard.cancel()
    may_go_on.set()
    await third
    assert running.done()
    may_go_on.clear()
    last = worker.call(lambda: may_go_on.wait(SECONDS) and "done")
    while worker._calls.qsize():  # until it has begun
        await asyncio.sleep(0.001)
    dropped = worker.call(lambda: ran.append("dropped"))
    worker.close(lambda: KeyError("over"))
    worker.close(lambda: KeyError("again"))
    with pytest.raises(KeyError, match="over"):
        await dropped
    may_go_on.set()
    assert await last == "done"
    with pytest.raises(RuntimeError):
        worker.call(lambda: None)
    assert len(ends) == 6
    return ran


def test_a_worker_calls_functions_in_order_and_drops_those_after_its_end() -> None:
    assert asyncio.run(in_worker()) == ["first", "second", "third"]
