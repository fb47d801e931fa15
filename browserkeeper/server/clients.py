"""Who the clients are, how the server notices that a client is gone, and when its sessions then end.

A client on the unix socket is a process.  The kernel says which one (unix(7), SO_PASSCRED), and a pidfd
is readable as soon as that process has died (pidfd_open(2)).  Of a client over TCP the server sees only
its connections and its commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import re
import select
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

from .connections import Connection

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

RETURN = 15.0
"""Seconds in which a client whose connection was closed may send a command over a new connection.
Clients close a connection when an answer takes too long, and then send the next command: fewer seconds
would end the sessions of living clients."""
KEEPS_CONNECTIONS = re.compile(r"selenium/[\w.+-]+ \(python\b|browserkeeper/")
"""``User-Agent`` of clients that keep their connection for as long as they have a driver."""

Key = tuple[object, ...]


class Client:
    """One client: a process on the unix socket, an IP address over TCP.

    ``key`` is equal for equal clients; ``--max-per-client`` counts the sessions of each key.  ``pidfd``
    is closed by :meth:`unwatch`; -1 for a client whose death the server cannot notice by a pidfd.
    """

    def __init__(self, key: Key, name: str, pidfd: int = -1):
        self.key, self.name = key, name
        self._pidfd = pidfd
        self.is_gone = False
        self.on_gone: dict[object, Callable[[], None]] = {}
        """Called once, in the event loop, when the process has died."""

    def __str__(self) -> str:
        return self.name

    @property
    def is_watched(self) -> bool:
        return self._pidfd >= 0 or self.is_gone

    def has_exited(self) -> bool:
        """True if the process is known to have exited.  Asks the pidfd, if there is one."""
        if self._pidfd < 0:
            return self.is_gone
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self.die, loop)

    def die(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the process has exited, and call the functions of ``on_gone``."""
        self.is_gone = True
        self.unwatch(loop)
        callbacks = list(self.on_gone.values())
        self.on_gone.clear()
        for callback in callbacks:
            callback()

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pidfd >= 0:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


NO_CLIENT = Client(("unknown",), "an unknown client")
"""The client of requests that did not come over a :class:`~.connections.Connection`."""


class Clients:
    """The clients that are processes.  For the event loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._known: dict[Key, Client] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, connection: Connection | None) -> Client:
        """The client that has sent the last request over this connection.  ``connection`` is None where
        no :class:`~.connections.Listener` has accepted it."""
        if connection is None:
            return NO_CLIENT
        if not connection.is_unix:
            return Client(("address", connection.peer), f"a client at {connection.peer}")
        if connection.pid > 0:
            return self._process(connection)
        return self._process_elsewhere(connection)

    def _process(self, connection: Connection) -> Client:
        """The client for a process of our pid namespace, or of one below it.

        A pid may be reused once its process has exited.  So a known client with this pid is taken only
        if it has not exited.
        """
        key = ("pid", connection.pid)
        if (known := self._living(key)) is not None:
            return known
        name = f"{_program(connection.pid)} (pid {connection.pid})"
        try:
            known_fd = connection.pidfd
            pidfd = os.dup(known_fd) if known_fd >= 0 else os.pidfd_open(connection.pid)
        except ProcessLookupError:
            client = Client(key, name)
            client.is_gone = True
            return client
        except (OSError, AttributeError) as error:  # too many open files; Linux before 5.3; macOS
            logger.debug("server: %s cannot be watched: %s", name, error)
            return Client(key, name)
        return self._add(Client(key, name, pidfd))

    def _process_elsewhere(self, connection: Connection) -> Client:
        """The client for a process of another pid namespace: it has no pid here, but the socket may give
        its pidfd."""
        name = f"a process of user {connection.uid} in another pid namespace"
        if connection.pidfd < 0:
            return Client(("elsewhere", connection.uid), name)
        if have_pidfds_inodes():
            facts = os.fstat(connection.pidfd)
            key: Key = ("pidfd", facts.st_dev, facts.st_ino)
        else:
            key = vars(connection).setdefault("client_key", ("connection", next(self._numbers)))
        if (known := self._living(key)) is not None:
            return known
        try:
            return self._add(Client(key, name, os.dup(connection.pidfd)))
        except OSError as error:
            logger.debug("server: %s cannot be watched: %s", name, error)
            return Client(key, name)

    def _living(self, key: Key) -> Client | None:
        known = self._known.get(key)
        if known is not None and known.has_exited():
            known.die(self._loop)
            return None
        return known

    def _add(self, client: Client) -> Client:
        self._known[client.key] = client
        client.on_gone[self] = lambda: self._forget(client)
        client.watch(self._loop)
        return client

    def _forget(self, client: Client) -> None:
        if self._known.get(client.key) is client:
            del self._known[client.key]

    def close(self) -> None:
        for client in self._known.values():
            client.unwatch(self._loop)
        self._known.clear()


@functools.cache
def have_pidfds_inodes() -> bool:
    """True if each process has an inode of its own for its pidfds, as since Linux 6.9 (pidfs).  In older
    kernels all pidfds share one inode with other descriptors that have no file (anon_inode)."""
    pidfd, other = os.pidfd_open(os.getpid()), select.epoll()
    try:
        return os.fstat(pidfd).st_dev != os.fstat(other.fileno()).st_dev
    finally:
        os.close(pidfd)
        other.close()


def _program(pid: int) -> str:
    """The name of the program, for messages.  The process may choose it itself.  Not the command line,
    which may have secrets."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            name = file.read(64).strip()
    except OSError:
        name = ""
    return "".join(c if c.isprintable() else "?" for c in name) or "a process"


def keeps_its_connection(headers: Mapping[str, str]) -> bool:
    """True if these are the headers of a client that closes its connection only at its own end.

    ``Connection: keep-alive`` alone does not prove that: Node's clients send it too, and close a
    connection that was idle for some seconds.  Selenium's Python client with keep_alive=False does not
    send it.
    """
    if "keep-alive" not in headers.get("Connection", "").lower():
        return False
    return KEEPS_CONNECTIONS.match(headers.get("User-Agent", "")) is not None


class ClientGoneError(Exception):
    """The client that has asked is dead, or has closed its connection."""


async def while_connected(client: Client, connection: Connection | None, work: Awaitable[T]) -> T:
    """Await ``work``, and return its result.  Cancels it if the client dies or closes the connection.

    Raises ClientGoneError after a cancelled ``work`` has ended, and so has given back its turn and its
    lease.
    """
    task = asyncio.ensure_future(work)
    gone = False
    token = object()

    def leave() -> None:
        nonlocal gone
        # The death of a client calls this twice: for its pidfd, and for its connection.  A second
        # cancellation would interrupt the code that gives turn and lease back.
        if not gone:
            gone = True
            task.cancel()

    client.on_gone[token] = leave
    if connection is not None:
        connection.on_close[token] = leave
    try:
        if client.is_gone or (connection is not None and connection.fileno() < 0):
            leave()
        return await task
    except asyncio.CancelledError:
        if not gone:
            task.cancel()
            raise
        raise ClientGoneError(f"{client} has gone away") from None
    finally:
        client.on_gone.pop(token, None)
        if connection is not None:
            connection.on_close.pop(token, None)


class Lifetime:
    """Ends a session whose client is gone or idle.  The deadline of the lease is kept by the pool.

    ``end`` is called once, in the event loop, with the reason:

    - The client's process has died: at once.
    - The last connection of the client was closed in the middle of a command, or although such clients
      keep their connections (KEEPS_CONNECTIONS): RETURN seconds later, if no command comes.  Not for a
      client that is watched by a pidfd.
    - No command has come for ``idle_timeout`` seconds, unless the client is a watched process that lives
      and has a connection.

    A command that runs counts as use, however long it takes.
    """

    def __init__(
        self,
        client: Client,
        end: Callable[[str], None],
        *,
        idle_timeout: float | None,
        loop: asyncio.AbstractEventLoop,
        back_within: float = RETURN,
    ):
        self.client, self._end, self._loop = client, end, loop
        self._idle, self._back_within = idle_timeout, back_within
        self._connections: set[Connection] = set()
        self._in_flight = 0
        self._last_use = loop.time()
        self._lost_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        client.on_gone[self] = lambda: self._finish(f"the client, {client}, has died")
        if client.is_gone:
            loop.call_soon(self._finish, f"the client, {client}, has died")
        self._set_timer()

    @contextlib.contextmanager
    def command(self, connection: Connection | None, is_kept: bool = False) -> Iterator[None]:
        """For a block that handles a command of the session, the request for the session included.
        ``is_kept``: see :func:`keeps_its_connection`."""
        self._lost_at = None
        self._in_flight += 1
        if connection is not None and connection not in self._connections:
            self._use(connection, is_kept)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._last_use = self._loop.time()

    def _use(self, connection: Connection, is_kept: bool) -> None:
        if connection.fileno() < 0:  # it was closed before this command was handled
            self._closed(connection, cut_short=True)
            return
        self._connections.add(connection)
        connection.leases += 1
        connection.on_close[self] = lambda: self._closed(
            connection, cut_short=is_kept or connection.in_request
        )

    def _closed(self, connection: Connection, *, cut_short: bool) -> None:
        self._connections.discard(connection)
        if self._is_over or self._connections:
            return
        if self.client.is_watched:
            self._last_use = self._loop.time()  # a living process without a connection may be idle now
        elif cut_short:
            self._lost_at = self._loop.time()
        self._set_timer()

    def _deadline(self) -> tuple[float, str] | None:
        """The moment at which the session ends if nothing happens until then, and the reason."""
        if self._lost_at is not None:
            return self._lost_at + self._back_within, f"{self.client} has closed its connection"
        if self._idle is None or (self.client.is_watched and self._connections):
            return None
        since = self._loop.time() if self._in_flight else self._last_use
        return since + self._idle, f"no command for {self._idle:g} s (--idle-timeout)"

    def _set_timer(self) -> None:
        """Commands do not move the timer, since they are frequent.  So it may fire too early; then
        :meth:`_look` sets it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_over and (deadline := self._deadline()) is not None:
            self._timer = self._loop.call_at(deadline[0], self._look)

    def _look(self) -> None:
        deadline = self._deadline()
        if deadline is not None and self._loop.time() >= deadline[0]:
            self._finish(deadline[1])
        else:
            self._set_timer()

    def _finish(self, reason: str) -> None:
        if not self._is_over:
            self.close()
            self._end(reason)

    def close(self) -> None:
        """Stop watching, since the session has ended.  Idempotent."""
        self._is_over = True
        self.client.on_gone.pop(self, None)
        for connection in self._connections:
            connection.leases -= 1
            connection.on_close.pop(self, None)
        self._connections.clear()
        self._set_timer()


__all__ = [
    "NO_CLIENT",
    "Client",
    "ClientGoneError",
    "Clients",
    "Lifetime",
    "keeps_its_connection",
    "while_connected",
]
