"""Connections to a driver that is in a network namespace of its own (``guard/isolation.py``)."""

from __future__ import annotations

import array
import contextlib
import errno
import functools
import socket
import time
import weakref
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..guard.isolation import LOOPBACK, PAIRS, disconnect

HOST = "driver-is-isolated.browserkeeper.invalid"
"""The host in ``driver.service.service_url``: it says why no other program can connect.  No name below
``.invalid`` exists (RFC 6761)."""
PAUSE = 0.001
"""Seconds between two tries to get a pair of sockets, where other threads have all of them."""
ACCEPT_TIMEOUT = 10.0
"""Seconds for a connection between two sockets of this process; it takes microseconds."""


class DriverNetwork:
    """Makes connections inside the driver's network namespace.  Safe to use from several threads, and in
    a signal handler."""

    def __init__(self, pairs: Iterable[tuple[socket.socket, socket.socket]]):
        """``pairs``: listening sockets and client sockets that were made in the namespace."""
        self._is_closed = False
        self._pairs = _Pairs(pairs)

    @classmethod
    def receive(cls, handover: socket.socket) -> DriverNetwork:
        """Take the message of the guard.  Raises OSError where there is none yet, and EMFILE where this
        process may not have so many open files."""
        handover.setblocking(False)
        room = socket.CMSG_SPACE(2 * PAIRS * 4)
        _, ancillary, flags, _ = handover.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for *_, data in ancillary:
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
        sockets = [socket.socket(fileno=fd) for fd in fds]
        if len(sockets) == 2 * PAIRS:
            return cls(zip(sockets[:PAIRS], sockets[PAIRS:], strict=True))
        for one in sockets:
            one.close()
        number = errno.EMFILE if flags & socket.MSG_CTRUNC else errno.EBADMSG
        raise OSError(number, "the sockets of the driver's network were not received")

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
        """Another socket of the namespace, not connected.  Raises OSError.

        socket(2) would make one outside.  accept(2) makes one in the namespace of the listening socket.
        So a client socket connects to the listener, and then the accepted end is disconnected, which
        makes it new again.
        """
        use = _Use()
        try:
            listener, client = self._take_pair(use)
            _renew(listener, client)
            client.connect(listener.getsockname())
            made, _ = listener.accept()
            try:
                disconnect(made)
            except BaseException:
                made.close()
                raise
            return made
        finally:
            self._pairs.release(use)
            if self._is_closed:
                self._pairs.close()

    def _take_pair(self, use: _Use) -> tuple[socket.socket, socket.socket]:
        until = time.monotonic() + ACCEPT_TIMEOUT
        while not self._is_closed:
            if pair := self._pairs.take(use):
                return pair
            if time.monotonic() > until:
                raise TimeoutError("other connections to the driver take too long")
            time.sleep(PAUSE)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the session of this driver is over")

    def close(self) -> None:
        """Make no more connections; those that were made stay.  Idempotent."""
        self._is_closed = True
        self._pairs.close()

    def __del__(self) -> None:  # of a session that was dropped
        if _Use is not None:  # the interpreter's end clears this module before its last objects
            self.close()


def _renew(listener: socket.socket, client: socket.socket) -> None:
    """Make a pair as new, after a use that may have been interrupted at any moment."""
    disconnect(client)
    listener.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
    listener.settimeout(ACCEPT_TIMEOUT)
    client.settimeout(ACCEPT_TIMEOUT)


class _Use:
    """The right to use a pair of sockets.  It ends with this object at the latest."""


class _Pairs:
    """Pairs of sockets, each of which has one user at a time.

    Has no lock: a signal handler may need a pair while the thread that it interrupts takes one.  An
    exception of a handler, at any moment, costs no pair for longer than it lives itself.
    """

    def __init__(self, pairs: Iterable[tuple[socket.socket, socket.socket]]):
        self._pairs = tuple(pairs)
        self._users: dict[int, weakref.ref[_Use]] = {}

    def take(self, use: _Use) -> tuple[socket.socket, socket.socket] | None:
        """A pair that nobody uses; None if there is none."""
        for number, pair in enumerate(self._pairs):
            user = weakref.ref(use, functools.partial(self._forget, number))
            if self._users.setdefault(number, user) is user:  # atomic
                return pair
        return None

    def release(self, use: _Use) -> None:
        """End a use, which may have taken no pair."""
        for number, user in list(self._users.items()):
            if user() is use:
                self._forget(number, user)

    def _forget(self, number: int, user: weakref.ref[_Use]) -> None:
        if self._users.get(number) is user:
            del self._users[number]

    def close(self) -> None:
        """Close those that nobody uses.  A user closes its own at its end."""
        use = _Use()
        while pair := self.take(use):
            for one in pair:
                one.close()


class InsideUrl(str):
    """The address of a websocket of an isolated driver, which knows how to connect to it.

    As text it has the host HOST, so that no other client connects to a stranger who listens on that port
    of the machine's own loopback.
    """

    network: DriverNetwork
    authority: str
    """The host and port by which the driver itself calls the address, for the header Host."""

    def __new__(cls, url: str, network: DriverNetwork) -> InsideUrl:
        parts = urlsplit(url)
        made = super().__new__(cls, parts._replace(netloc=f"{HOST}:{parts.port or 80}").geturl())
        made.network, made.authority = network, parts.netloc
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
