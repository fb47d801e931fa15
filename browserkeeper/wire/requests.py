"""Single requests to a server, each over a connection of its own, and the errors for failed ones."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import ssl
import stat
from typing import Any

from ..errors import ServerError
from .address import ServerAddress
from .http import FAILURES, Answer, WholeResponse, cut_after, read_answer


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    response_class = WholeResponse

    def __init__(self, path: str, timeout: float | None):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_to(self._path, self.timeout)


def connect_to(path: str, timeout: float | None) -> socket.socket:
    """A connection to the unix socket.  ``timeout``: seconds for each wait, None for no limit.  Raises
    OSError."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


def ask(address: ServerAddress, method: str, path: str, timeout: float, body: Any = None) -> Answer:
    """Send one request, and return the whole answer.  Blocks for ``timeout`` seconds at most.

    Raises one of ``http.FAILURES``; the server may have executed the request also in this case.
    """
    connection = _connection(address, timeout)
    headers = {"Accept": "application/json", **address.headers}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json; charset=utf-8"
    try:
        with cut_after(connection, timeout):
            connection.request(method, address.path + path, data, headers)
            return read_answer(connection.getresponse())
    finally:
        connection.close()


def _connection(address: ServerAddress, timeout: float) -> http.client.HTTPConnection:
    if address.socket:
        return UnixConnection(address.socket, timeout)
    connection: http.client.HTTPConnection
    if address.scheme == "https":
        tls = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout, context=tls
        )
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    connection.response_class = WholeResponse
    return connection


def status(address: ServerAddress, timeout: float) -> dict[str, Any]:
    """The value of the server's ``/status``.  Raises ServerError if the server cannot be asked, refuses
    the token, or gives another answer."""
    try:
        answer = ask(address, "GET", "/status", timeout)
    except FAILURES as error:
        raise unreachable(address, error) from None
    if answer.status in (401, 403):
        raise refused_token(address, answer)
    value = answer.value
    if not isinstance(value, dict) or not isinstance(value.get("ready"), bool):
        raise not_a_server(address, answer.brief)
    return value


def unreachable(address: ServerAddress, error: BaseException) -> ServerError:
    """The error for a server that could not be asked.  Its text says why, and what to do."""
    number = getattr(error, "errno", None)
    where = address if address.socket else f"{address.host}:{address.port} --token-file FILE"
    start = f"Start `browserkeeper serve --listen {where}`, or leave {address.source} out."
    if address.socket:
        mode = None
        with contextlib.suppress(OSError):
            mode = os.stat(address.socket).st_mode
        if number == errno.ENOENT:
            return ServerError(f"No server: the socket {address} does not exist. {start}", "absent")
        if mode is not None and not stat.S_ISSOCK(mode):
            return ServerError(f"No server: {address.socket} is not a socket. {start}", "absent")
        if number == errno.ECONNREFUSED:
            text = f"No server listens on {address} any more: it has ended. {start}"
            return ServerError(text, "absent", retryable=True)
        if number in (errno.EACCES, errno.EPERM):
            who = f"This user (uid {os.geteuid()})"
            return ServerError(
                f"{who} may not connect to {address}{_who_may(address.socket)}. "
                "Start the server with `--group GROUP`, a group of this user, or run as its user.",
                "permission",
            )
    elif number == errno.ECONNREFUSED:
        return ServerError(f"No server listens at {address}. {start}", "absent", retryable=True)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ServerError(f"The server {address} cannot be reached: {why}. {start}", "unreachable")


def refused_token(address: ServerAddress, answer: Answer) -> ServerError:
    """The error for a server that refuses the token, requires one, or refuses the request because of its
    headers."""
    if answer.status == 403 and "token" not in answer.brief.lower():
        return ServerError(f"The server {address} refuses this client ({answer.brief}).", "refused")
    what = "refuses the token of" if address.token else "requires a token, and there is none in"
    return ServerError(
        f"The server {address} {what} {address.source} ({answer.brief}). It is in the file of the "
        "server's --token-file; give it as http://TOKEN@HOST:PORT, best in BROWSERKEEPER_SERVER.",
        "token",
    )


def not_a_server(address: ServerAddress, what: str) -> ServerError:
    """The error for an answer that no server of ours gives."""
    return ServerError(
        f"{address} does not answer as browserkeeper's server does ({what}). For a Selenium Grid use "
        f"remote= in place of {address.source}.",
        "answer",
    )


def _who_may(path: str) -> str:
    """Owner, group and mode of the socket, in brackets; "" where they cannot be read."""
    try:
        found = os.stat(path)
    except OSError:
        return " (a directory on its path is closed to this user)"
    return f" (owner {found.st_uid}, group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o})"


__all__ = [
    "UnixConnection",
    "ask",
    "connect_to",
    "not_a_server",
    "refused_token",
    "status",
    "unreachable",
]
