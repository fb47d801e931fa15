"""Classic commands as bytes: for the server, which passes on the answers of a driver as they are.

Selenium's own path parses the answer, makes objects of it, and would have to be undone for each answer.
"""

from __future__ import annotations

import contextlib
import http.client
import select
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from selenium.common.exceptions import WebDriverException

from ..errors import hide_frames as __tracebackhide__  # noqa: F401

HEADERS = {"Accept": "application/json", "Content-Type": "application/json; charset=utf-8"}


class Answer(NamedTuple):
    """An answer of a driver."""

    status: int
    body: bytes


class RawConnection:
    """A connection to the driver of a managed driver object, for that object's session.

    It is opened with the first command, kept, and opened again after an error.  Not for two threads at a
    time.
    """

    def __init__(self, driver: Any):
        config = driver.command_executor.client_config
        address = urlsplit(config.remote_server_addr)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self._config, self._errors = config, driver.error_handler
        self._prefix = f"{address.path.rstrip('/')}/session/{driver.session_id}"
        self._connection: http.client.HTTPConnection | None = None
        self._is_closed = False

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        """Send a command, and return the answer.  ``path`` follows the session's id.

        Raises WebDriverException for an answer that is an error; :func:`answer_in` has the answer.
        Raises OSError where the connection breaks, or no answer comes in time.
        """
        answer = self._exchange(method, path, body)
        if answer.status >= 400:
            self._raise(answer)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None) -> Answer:
        connection = self._connection
        self._connection = None  # after an error, or an interrupted command, it cannot be used again
        if connection is not None and _was_closed(connection):
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._config.timeout)
        try:
            connection.request(method, self._prefix + path, body, HEADERS)
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if not isinstance(error, OSError):
                error = ConnectionError(f"the driver's answer was no HTTP: {type(error).__name__}")
            vars(error)["_of_connection"] = True  # see drivers/managed.py
            raise error from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if self._is_closed:  # in another thread, which did not see this connection
            self.close()
        return answer

    def _raise(self, answer: Answer) -> None:
        text = answer.body.decode("utf-8", "replace")
        try:
            self._errors.check_response({"status": answer.status, "value": text})
        except WebDriverException as error:
            vars(error)["_raw_answer"] = answer
            raise
        raise WebDriverException(f"the driver answered with HTTP status {answer.status}")

    def close(self) -> None:
        """Close the connection, that of a command in flight after its answer.  May be called in any
        thread."""
        self._is_closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def _was_closed(connection: http.client.HTTPConnection) -> bool:
    """True if the driver has closed it since the last answer: then there is an end to be read."""
    if connection.sock is None:
        return True
    poller = select.poll()
    poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(0))


def answer_in(error: WebDriverException) -> Answer | None:
    """The driver's answer that an error of :meth:`RawConnection.send` was made of; None for an error of
    another origin."""
    found: Answer | None = vars(error).get("_raw_answer")
    return found


__all__ = ["Answer", "RawConnection", "answer_in"]
