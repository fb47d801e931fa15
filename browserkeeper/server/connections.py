"""The connections of clients, as sockets that note which process has sent the bytes.

asyncio reads with recv(2), which does not say who the sender is.  The event loop calls ``accept()`` of
the listening socket, and ``recv()`` and ``close()`` of the connection.  So subclasses of
``socket.socket`` can note senders and times without any private part of asyncio or aiohttp.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

MOST_CONNECTIONS = 1024
OPEN_FILES_OF_ONE = 4
"""Open files that are counted for one connection.  A connection has at most a socket and two pidfds; the
rest is left for the browsers."""

CREDENTIALS = struct.Struct("=iII")
"""``struct ucred`` (unix(7)): pid, uid, gid."""
SO_PEERPIDFD = 77
"""include/uapi/asm-generic/socket.h, Linux 6.5; Python has no name for it."""
UNKNOWN = -1
"""A pid that the system does not tell."""


class Connection(socket.socket):
    """An accepted connection.

    ``pid`` and ``uid`` are those of the process that has sent the last bytes, not only of the one that
    has connected: a fork may use the connection of its parent.  ``pid`` is 0 for a process of another
    pid namespace that cannot be seen from ours (pid_namespaces(7)), and UNKNOWN over TCP.
    """

    registry: Connections | None = None

    def adopt(self, registry: Connections, address: Any) -> None:
        """Set up the connection, after it was accepted, and add it to ``registry``.  ``address``: the
        client's, as ``socket.accept()`` returns it.  Raises OSError if it is closed already."""
        self.registry = registry
        self.accepted_at = registry.clock()
        self.is_unix = self.family == socket.AF_UNIX
        self.peer = "" if self.is_unix else str(address[0])
        self.pid, self.uid = UNKNOWN, UNKNOWN
        self.origin: object = None
        """The user, over the unix socket, or the IP address.  One origin may have half of all
        connections, so that it cannot keep all others out."""
        self.pidfd = -1
        """The pidfd of the process that has connected, as long as no other process has sent; else -1.
        Closed with the connection."""
        self.requests = 0
        """Requests whose heads have arrived."""
        self.in_request = False
        self.waiting_since: float | None = self.accepted_at
        """When the first byte of a request came whose head is not complete; None while there is no such
        request.  For a new connection the time of its start, since a client sends at once."""
        self.idle_since: float | None = None
        """When the last request was answered; None during a request, and before the first one."""
        self.has_body_arrived: Callable[[], bool] | None = None
        self.body_until = 0.0
        self.leases = 0
        """Live leases that have been asked for or used over this connection."""
        self.abort: Callable[[], None] | None = None
        """Ends the event loop's transport of this connection; None before the first request."""
        self.on_close: dict[object, Callable[[], None]] = {}
        """Called when the connection is closed, whoever closes it."""
        if self.is_unix:
            self._ask_for_credentials()
        else:
            self._have_the_kernel_look()
        self.origin = ("uid", self.uid) if self.is_unix else ("address", self.peer)
        registry.add(self)

    def _ask_for_credentials(self) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        raw = self.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        self.pid, self.uid, _ = CREDENTIALS.unpack(raw)
        with contextlib.suppress(OSError):  # before Linux 6.5; or the process is dead already
            self.pidfd = self.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)

    def _have_the_kernel_look(self) -> None:
        """Have the kernel close dead connections: after 90 s to a machine that was switched off, or to a
        client that reads nothing (tcp(7))."""
        for name, value in (
            ("KEEPIDLE", 30),
            ("KEEPINTVL", 10),
            ("KEEPCNT", 6),
            ("USER_TIMEOUT", 90000),
        ):
            if (option := getattr(socket, f"TCP_{name}", None)) is not None:
                self.setsockopt(socket.IPPROTO_TCP, option, value)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self.registry is None:  # accepted by other code
            return super().recv(size, flags)
        if not self.is_unix:
            data = super().recv(size, flags)
        else:
            data, ancillary, _, _ = self.recvmsg(size, socket.CMSG_SPACE(CREDENTIALS.size), flags)
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and data:
                    self._note_sender(*CREDENTIALS.unpack(content[: CREDENTIALS.size])[:2])
        if data and self.waiting_since is None and not self.in_request:
            self.waiting_since = self.registry.clock()
        return data

    def _note_sender(self, pid: int, uid: int) -> None:
        if (pid, uid) == (self.pid, self.uid):
            return
        self.pid, self.uid = pid, uid
        self._close_pidfd()  # it belongs to the process that has connected, not to this sender

    def _close_pidfd(self) -> None:
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def begin_request(self) -> None:
        """Note that the head of a request is complete."""
        self.requests += 1
        self.in_request = True
        self.waiting_since = self.idle_since = None

    def expect_body(self, has_arrived: Callable[[], bool], patience: float) -> None:
        """Note that the body of the request is being read, and must arrive within ``patience`` seconds.
        ``has_arrived`` returns True once the whole body has come."""
        self.has_body_arrived = has_arrived
        if self.registry is not None:
            self.body_until = self.registry.clock() + patience

    def end_request(self) -> None:
        """Note that the answer to the request was written."""
        self.in_request = False
        self.has_body_arrived = None
        if self.registry is not None:
            self.idle_since = self.registry.clock()

    def cut(self) -> None:
        """End this connection.  While the event loop does not read, since requests of the client wait to
        be handled, it does not notice the shutdown; so the transport is aborted as well."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        if self.abort is not None:
            self.abort()

    def close(self) -> None:
        registry, self.registry = self.registry, None
        if registry is not None:
            registry.remove(self)
            self._close_pidfd()
            for callback in list(self.on_close.values()):
                callback()
            self.on_close.clear()
        super().close()


class Connections:
    """All open connections of the server, by their file descriptors."""

    def __init__(
        self,
        most: int | None = None,
        most_of_one: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """``most``: how many there may be; None: as many as this process may have open files for."""
        self.most = most_by_open_files() if most is None else most
        self.most_of_one = max(1, self.most // 2) if most_of_one is None else most_of_one
        self.clock = clock
        self.refused = 0
        """Connections that were closed at once, or before their first request, to keep the limits."""
        self._open: dict[int, Connection] = {}
        self._of_origin: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open.values()))

    def find(self, fd: int) -> Connection | None:
        return self._open.get(fd)

    def add(self, connection: Connection) -> None:
        self._open[connection.fileno()] = connection
        origin = connection.origin
        self._of_origin[origin] = self._of_origin.get(origin, 0) + 1

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection.fileno(), None)
        origin = connection.origin
        left = self._of_origin.get(origin, 1) - 1
        if left:
            self._of_origin[origin] = left
        else:
            self._of_origin.pop(origin, None)

    def keep_limits(self, new: Connection) -> bool:
        """Make room for a connection that was just accepted; returns False if there is none.

        The oldest connection that has not sent one whole request is cut.  A client sends its request
        within milliseconds; one that keeps connections open without a request is idle or hostile.
        """
        origin = new.origin
        if self._of_origin[origin] > self.most_of_one:
            return self._make_room(new, [one for one in self._open.values() if one.origin == origin])
        if len(self._open) > self.most:
            return self._make_room(new, list(self._open.values()))
        return True

    def _make_room(self, new: Connection, among: list[Connection]) -> bool:
        self.refused += 1
        silent = [one for one in among if one is not new and not one.requests]
        if not silent:
            return False
        min(silent, key=lambda one: one.accepted_at).cut()
        return True

    def cut_slow(self, head: float, idle: float) -> int:
        """Cut slow and idle connections; returns how many.

        A connection is slow if the head of a request was not complete within ``head`` seconds, or its
        body did not come in time.  It is idle if it has no lease, and no request for ``idle`` seconds.
        """
        now = self.clock()
        slow = [one for one in self._open.values() if _is_slow(one, now, head, idle)]
        for connection in slow:
            connection.cut()
        return len(slow)


def most_by_open_files() -> int:
    """MOST_CONNECTIONS, or less where this process may open few files (getrlimit(2), RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, soft // OPEN_FILES_OF_ONE))


def _is_slow(one: Connection, now: float, head: float, idle: float) -> bool:
    if one.waiting_since is not None:
        return now - one.waiting_since > head
    if one.has_body_arrived is not None:
        return now > one.body_until and not one.has_body_arrived()
    return one.idle_since is not None and not one.leases and now - one.idle_since > idle


class Listener(socket.socket):
    """A listening socket whose connections are :class:`Connection`."""

    connections: Connections | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        if self.connections is None:
            return accepted, address
        connection = Connection(self.family, self.type, self.proto, fileno=accepted.detach())
        try:
            connection.adopt(self.connections, address)
            has_room = self.connections.keep_limits(connection)
        except OSError:  # it was closed already
            connection.close()
            raise BlockingIOError from None
        if not has_room:
            connection.close()
            raise BlockingIOError  # the event loop goes on with the next one
        return connection, address


__all__ = ["UNKNOWN", "Connection", "Connections", "Listener"]
