"""Connections to a driver that is in a network namespace of its own (``guard/isolation.py``)."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..guard.isolation import LOOPBACK, SPARES, disconnect

HOST = "driver-is-isolated.browserkeeper.invalid"
"""The host in ``driver.service.service_url``: it says why no other program can connect.  No name below
``.invalid`` exists (RFC 6761)."""
PAUSE = 0.001
"""Seconds between two tries to get a spare socket, where other threads have all of them."""
ACCEPT_TIMEOUT = 10.0
"""Seconds for a connection between two sockets of this process; it takes microseconds."""


class DriverNetwork:
    """Makes connections inside the driver's network namespace.  Safe to use from several threads, and in
    a signal handler."""

    def __init__(self, listener: socket.socket, spares: list[socket.socket]):
        """Sockets that were made in the namespace."""
        self._is_closed = False
        self._listener, self._spares = listener, collections.deque(spares)
        self._listener.settimeout(ACCEPT_TIMEOUT)

    @classmethod
    def receive(cls, handover: socket.socket) -> DriverNetwork:
        """Take the message of the guard.  Raises OSError where there is none yet."""
        handover.setblocking(False)
        room = socket.CMSG_SPACE((1 + SPARES) * 4)
        _, ancillary, _, _ = handover.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        fds = memoryview(b"".join(data for *_, data in ancillary)).cast("i")
        if len(fds) != 1 + SPARES:
            raise OSError(errno.EBADMSG, "the guard has sent no sockets")
        listener, *spares = (socket.socket(fileno=fd) for fd in fds)
        return cls(listener, spares)

    def connect(self, port: int, timeout: float | None) -> socket.socket:
        """A connection to this port.  ``timeout``: seconds for it and for each wait of the socket, None
        for no limit.  Raises OSError."""
        made = self.new_socket()
        try:
            made.settimeout(timeout)
            made.connect((LOOPBACK, port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            made.close()
            raise
        return made

    def new_socket(self) -> socket.socket:
        """Another socket of the namespace, not connected.

        socket(2) would make one outside.  accept(2) makes one in the namespace of the listening socket.
        So a spare socket connects to the listener, and then both ends are disconnected, which makes
        them new again.
        """
        spare = self._take_spare()
        try:
            spare.settimeout(ACCEPT_TIMEOUT)
            spare.connect(self._listener.getsockname())
            made, _ = self._listener.accept()  # perhaps that of another thread, which takes ours
            try:
                disconnect(made)
            except BaseException:
                made.close()
                raise
            finally:
                disconnect(spare)
        finally:
            self._give_back(spare)
        return made

    def _take_spare(self) -> socket.socket:
        until = time.monotonic() + ACCEPT_TIMEOUT
        while not self._is_closed:
            with contextlib.suppress(IndexError):  # other threads have all
                return self._spares.pop()
            if time.monotonic() > until:
                raise TimeoutError("other connections to the driver take too long")
            time.sleep(PAUSE)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the session of this driver is over")

    def _give_back(self, spare: socket.socket) -> None:
        self._spares.append(spare)
        if self._is_closed:
            self._close_spares()

    def close(self) -> None:
        """Make no more connections; those that were made stay.  Idempotent."""
        self._is_closed = True
        self._listener.close()
        self._close_spares()

    def __del__(self) -> None:
        self.close()  # of a session that was dropped

    def _close_spares(self) -> None:
        while self._spares:
            try:
                self._spares.pop().close()
            except IndexError:  # another thread has it
                return


class InsideUrl(str):
    """The address of a websocket of an isolated driver, which knows how to connect to it."""

    network: DriverNetwork

    def __new__(cls, url: str, network: DriverNetwork) -> InsideUrl:
        made = super().__new__(cls, url)
        made.network = network
        return made

    def connect(self, timeout: float | None) -> socket.socket:
        """A connection to the address.  Raises OSError."""
        return self.network.connect(urlsplit(self).port or 80, timeout)

    def __copy__(self) -> InsideUrl:
        return self

    def __deepcopy__(self, _: Any) -> InsideUrl:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class _InsideLink(HTTPConnection):
    def __init__(self, *given: Any, network: DriverNetwork, **named: Any):
        super().__init__(*given, **named)
        self._network = network

    def _new_conn(self) -> socket.socket:
        """Raises the same errors as urllib3's."""
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            return self._network.connect(int(self.port or 80), timeout)
        except TimeoutError as error:
            text = f"Connection to {self.host} timed out. (connect timeout={self.timeout})"
            raise ConnectTimeoutError(self, text) from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error


class _InsidePool(HTTPConnectionPool):
    ConnectionCls: Any = _InsideLink


class InsidePoolManager(urllib3.PoolManager):
    """urllib3's PoolManager for an isolated driver."""

    def __init__(self, network: DriverNetwork, **given: Any):
        super().__init__(**given)
        of_http: Any = functools.partial(_InsidePool, network=network)
        self.pool_classes_by_scheme = {"http": of_http}


__all__ = ["HOST", "DriverNetwork", "InsidePoolManager", "InsideUrl"]
