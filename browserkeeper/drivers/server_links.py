"""The connections of one session to a server, over a unix socket or TCP.  Another thread can cut them.

Selenium's Remote connection uses urllib3's ``PoolManager``.  The subclass here makes connections that
can be cut.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import socket
import weakref
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..wire.address import ServerAddress
from ..wire.http import Answer
from ..wire.requests import connect_to, not_a_server, refused_token


class Links:
    """The open connections of one session.  Safe to use from several threads, and in a signal
    handler."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_cut = False

    def add(self, connection: Any) -> None:
        """Note a new connection.  To be called before its first request.  Raises ConnectionAbortedError
        after :meth:`cut`, so that a request that was called off is not sent."""
        self._open.add(connection)
        if self._is_cut:  # checked after the adding: cut() sets it first, and then reads the set
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "the session is being ended")

    def cut(self) -> None:
        """Shut all connections down, and let no new one be used.  Commands in flight fail at once."""
        self._is_cut = True
        for connection in list(self._open):
            link = getattr(connection, "sock", None)
            if link is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(link, socket.SHUT_RDWR)


class _UnixLink(HTTPConnection):
    """A connection to a unix socket.  The host that urllib3 passes has no meaning."""

    def __init__(self, *given: Any, socket_path: str, links: Links, **named: Any):
        super().__init__(*given, **named)
        self._socket_path, self._links = socket_path, links

    def _new_conn(self) -> socket.socket:
        """Raises OSError, and not urllib3's error: its number says why there is no connection."""
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        return connect_to(self._socket_path, timeout)

    def connect(self) -> None:
        super().connect()
        self._links.add(self)


class _TcpLink(HTTPConnection):
    def __init__(self, *given: Any, links: Links, **named: Any):
        super().__init__(*given, **named)
        self._links = links

    def connect(self) -> None:
        super().connect()
        self._links.add(self)


class _TlsLink(HTTPSConnection):
    def __init__(self, *given: Any, links: Links, **named: Any):
        super().__init__(*given, **named)
        self._links = links

    def connect(self) -> None:
        super().connect()
        self._links.add(self)


class _UnixPool(HTTPConnectionPool):
    ConnectionCls: Any = _UnixLink


class _TcpPool(HTTPConnectionPool):
    ConnectionCls: Any = _TcpLink


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _TlsLink


class ServerPoolManager(urllib3.PoolManager):
    """urllib3's PoolManager for one server.

    Follows no redirect, which could send the token to another server.  Raises ServerError for a
    redirect, for a refused token, and for an error answer that is not one of WebDriver.
    """

    def __init__(self, address: ServerAddress, links: Links, **given: Any):
        super().__init__(**given)
        self._address = address
        plain: Any = functools.partial(_TcpPool, links=links)
        if address.socket:
            plain = functools.partial(_UnixPool, socket_path=address.socket, links=links)
        tls: Any = functools.partial(_TlsPool, links=links)
        self.pool_classes_by_scheme = {"http": plain, "https": tls}

    def request(self, *given: Any, **named: Any) -> Any:
        answer = super().request(*given, **{**named, "redirect": False})
        if 300 <= answer.status < 400:
            raise not_a_server(self._address, f"{answer.status}: it redirects")
        if answer.status in (401, 403):
            raise refused_token(self._address, Answer(answer.status, answer.data))
        if answer.status >= 400 and not _is_of_webdriver(answer.data):
            raise not_a_server(self._address, Answer(answer.status, answer.data).brief)
        return answer


def _is_of_webdriver(body: bytes) -> bool:
    """True for the body of an error of WebDriver."""
    try:
        return isinstance(json.loads(body)["value"]["error"], str)
    except (ValueError, TypeError, KeyError):
        return False


__all__ = ["Links", "ServerPoolManager"]
