"""A connection to a Grid on which no command is sent twice.

A command that was sent and has no answer may have been executed: a click, a payment.  Only what provably
was not sent may be sent again.  So a connection that was kept open is examined before it is used, and
replaced if the Grid has closed it.  After the first byte of a command, a failure is final.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import select
import socket
import time
from collections.abc import Mapping

from .hub import FAILURES, Answer, Hub, read_answer

IDLE_LIMIT = 2.0
"""Seconds without a command after which a connection is replaced.  Servers and proxies close idle ones
after 5 s or more; such a close could cross a command that is just being sent."""


class NotSentError(ConnectionError):
    """The Grid cannot be reached.  Nothing of the command was sent."""


class UnansweredError(ConnectionError):
    """The command was sent, at least in part, and the connection broke before the whole answer came."""


class Upstream:
    """One connection to the Grid, opened when it is needed.  For one thread, except :meth:`abort`."""

    def __init__(self, hub: Hub):
        self._hub = hub
        self._connection: http.client.HTTPConnection | None = None
        self._idle_since = 0.0

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Answer, Mapping[str, str]]:
        """Send one command, once; returns the answer and its headers.  Blocks until the answer is there,
        without a limit.  Raises NotSentError or UnansweredError."""
        try:
            connection = self._open_connection()
        except FAILURES as error:
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            raise NotSentError(f"cannot be reached: {reason}") from error
        try:
            connection.request(method, self._hub.address.path + path, body or None, dict(headers))
            response = connection.getresponse()
            answer = read_answer(response)
        except FAILURES as error:
            connection.close()
            raise UnansweredError(
                f"gave no answer to {_named(method, path)} ({error or type(error).__name__}). It was "
                "sent, and may have been executed, so it was not sent again"
            ) from error
        self._idle_since = time.monotonic()
        return answer, {name.lower(): value for name, value in response.headers.items()}

    def _open_connection(self) -> http.client.HTTPConnection:
        """The connection that is open; another one where that may be closed."""
        if self._connection is None:
            self._connection = self._hub.connect(None)
        if self._may_be_closed(self._connection.sock):
            self._connection.close()
            self._connection.connect()
        return self._connection

    def _may_be_closed(self, link: socket.socket | None) -> bool:
        """True if the connection was idle for long, or if there is something to read on it: its end, or
        bytes that belong to no command."""
        if link is None or time.monotonic() - self._idle_since > IDLE_LIMIT:
            return True
        poller = select.poll()
        poller.register(link, select.POLLIN)
        return bool(poller.poll(0))

    def abort(self) -> None:
        """Shut the connection down, from another thread: the command in flight fails."""
        link = self._connection.sock if self._connection else None
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _named(method: str, path: str) -> str:
    """The command for messages, without the session's id: who knows it can control the session."""
    return f"{method} {re.sub('(?<=/session/)[^/]+', '…', path)}"


__all__ = ["NotSentError", "UnansweredError", "Upstream"]
