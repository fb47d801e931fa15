"""Error answers of WebDriver (w3.org/TR/webdriver2, "Errors"), and our exceptions as such answers."""

from __future__ import annotations

import json
from typing import Any

from ..errors import (
    BrowserDied,
    BrowserkeeperError,
    ConfigError,
    LeaseEnded,
    PoolError,
    SessionClosed,
    SessionTimeout,
)
from ..wire.errors import to_data

STATUS = {
    "detached shadow root": 404,
    "element click intercepted": 400,
    "element not interactable": 400,
    "insecure certificate": 400,
    "invalid argument": 400,
    "invalid cookie domain": 400,
    "invalid element state": 400,
    "invalid selector": 400,
    "invalid session id": 404,
    "javascript error": 500,
    "move target out of bounds": 500,
    "no such alert": 404,
    "no such cookie": 404,
    "no such element": 404,
    "no such frame": 404,
    "no such shadow root": 404,
    "no such window": 404,
    "script timeout": 500,
    "session not created": 500,
    "stale element reference": 404,
    "timeout": 500,
    "unable to capture screen": 500,
    "unable to set cookie": 500,
    "unexpected alert open": 500,
    "unknown command": 404,
    "unknown error": 500,
    "unknown method": 405,
    "unsupported operation": 500,
}
"""The HTTP status of each error code, as in the table of the specification."""

ENDED = (SessionTimeout, SessionClosed, LeaseEnded, BrowserDied)
"""Errors of a command that say that its session is over."""


class WireError(Exception):
    """An error answer.  ``code`` is one of :data:`STATUS`.

    ``cause``: the exception of browserkeeper that the answer reports.  ``data``: its class, attributes
    and exit report; None without a cause.  The cause itself is not kept, since its traceback would keep
    the lease alive.
    """

    def __init__(self, code: str, message: str, cause: BrowserkeeperError | None = None):
        super().__init__(message)
        self.code, self.message = code, message
        self.data = None if cause is None else data_of(cause)

    def again(self) -> WireError:
        """An equal error, for another raise: each raise of one object makes its traceback longer."""
        error = WireError(self.code, self.message)
        error.data = self.data
        return error

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    def body(self) -> bytes:
        """The body of the answer, JSON."""
        value: dict[str, Any] = {"error": self.code, "message": self.message, "stacktrace": ""}
        if self.data is not None:
            value["data"] = self.data
        return json.dumps({"value": value}).encode()


def data_of(error: BrowserkeeperError) -> dict[str, Any]:
    """The class, attributes and exit report, from which our own clients make the same exception."""
    return to_data(error)


def of_command(error: BrowserkeeperError) -> WireError:
    """The answer to a command of a session that has raised this error."""
    if isinstance(error, ENDED):
        return WireError("invalid session id", str(error), error)
    if isinstance(error, ConfigError):
        return WireError("unsupported operation", str(error), error)
    return WireError("unknown error", str(error), error)


def of_new_session(error: BrowserkeeperError) -> WireError:
    """The answer to the request for a session that has raised this error."""
    text = str(error)
    if isinstance(error, PoolError):
        text = text.replace("max_size", "--max")
    return WireError("session not created", text, error)


__all__ = ["STATUS", "WireError", "data_of", "of_command", "of_new_session"]
