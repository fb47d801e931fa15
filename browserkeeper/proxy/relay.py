"""The relay's thread, and the routes through it.

A route is a port of 127.0.0.1 with a proxy.  Each session or lease with a proxy has a route of its own,
so that the port alone tells to which session or lease a request belongs.  The thread starts with the
first route of a process and ends with the last one.

A forked process inherits the sockets but not the thread.  It closes the sockets at once: otherwise the
port of a relay that has ended would still accept connections, and browsers would wait for answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import ConfigError, ProxyError
from ..options.proxy import Proxy
from ..process.monkey_patches import require_usable
from . import peers
from .client import Client
from .upstream import Link, Reader, Upstream

HOST = "127.0.0.1"
BACKLOG = 1024
ACCEPT_PAUSE = 1.0
"""Seconds until a connection is accepted again after that has failed; asyncio waits as long."""
EMPTY_ROUNDS = 5
"""Rounds of the event loop without a connection after which none can be about to come."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

logger = logging.getLogger("browserkeeper")


class Accepted(asyncio.StreamReaderProtocol):
    """A connection from a browser.  Its transport is in ``transports`` while it is open."""

    def __init__(self, serve: Serve, transports: set[asyncio.BaseTransport]):
        super().__init__(Reader(), serve, loop=asyncio.get_running_loop())
        self._transports = transports
        self._own: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._own = transport
        self._transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._own is not None:
            self._transports.discard(self._own)


class Listener:
    """Accepts connections on a port.  Its methods must be called in the relay's thread.

    Not ``asyncio.start_server``: that leaves a connection open which it has accepted right before it is
    closed (Python 3.11: the server's ``_attach`` fails then).
    """

    def __init__(self, sock: socket.socket, serve: Serve, transports: set[asyncio.BaseTransport]):
        """``transports`` has the open connections, from now on."""
        self._sock, self._serve, self._transports = sock, serve, transports
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor or no memory is left: it would be tried without a pause
            self._loop.remove_reader(self._sock)
            self._loop.call_later(ACCEPT_PAUSE, self._listen)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._connected(task, connection))

    async def _connect(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(
            lambda: Accepted(self._serve, self._transports), connection
        )

    def _connected(self, task: asyncio.Task[None], connection: socket.socket) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            connection.close()

    def close(self) -> None:
        """Refuse further connections."""
        self._loop.remove_reader(self._sock)
        self._sock.close()


class Entry:
    """The part of a route that the relay's thread uses."""

    def __init__(self, proxy: Proxy):
        """Listen on a free port.  Raises OSError if no port or descriptor is left."""
        self.upstream = Upstream(proxy)
        self.listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self.port = int(self.listener.getsockname()[1])
        self.tasks: set[asyncio.Task[Any]] = set()
        self._accepting: Listener | None = None
        self._is_closed = False

    def open(self, transports: set[asyncio.BaseTransport]) -> None:
        """Accept connections, and keep them in ``transports``.  Must be called in the relay's thread."""
        if not self._is_closed:
            self._accepting = Listener(self.listener, self._serve, transports)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Reader)
        own = Link(reader, writer)
        try:
            if not peers.is_ours(own.sock):
                own.abort()
                return
        except peers.UnknownPeerError:  # the user was told when the route was opened
            pass
        except OSError:  # the browser has closed it already
            own.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.upstream.sockets.add(own.sock)
        try:
            await Client(self.upstream, own).serve()
        except asyncio.CancelledError:
            own.abort()
        finally:
            self.tasks.discard(task)

    def close(self) -> None:
        """Refuse connections from now on, and cut off those that are open."""
        self._is_closed = True
        if self._accepting is not None:
            self._accepting.close()
        self.listener.close()
        for task in list(self.tasks):
            task.cancel()


class Relay:
    """The relay's thread and its event loop.  Made for the first route of a process."""

    def __init__(self) -> None:
        """Start the thread.  Raises RuntimeError if the system gives no more threads."""
        self.loop = asyncio.SelectorEventLoop(selectors.DefaultSelector())
        self.loop.set_exception_handler(_note)
        self.entries: set[Entry] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        """The open connections from browsers, of all routes."""
        self._ends = False
        self.thread = threading.Thread(target=self._run, name="browserkeeper-proxy", daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self.loop.close()
            raise

    def add(self, entry: Entry) -> bool:
        """Serve a route.  Returns False if this relay is ending: then another one is needed.  To be
        called under the lock."""
        if self._ends or not self.thread.is_alive():
            return False
        self.entries.add(entry)
        self.loop.call_soon_threadsafe(entry.open, self._transports)
        return True

    def remove(self, entry: Entry) -> None:
        """Stop serving a route.  Takes no lock, so that the garbage collector may call it at any
        time."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all entries with it
            self.loop.call_soon_threadsafe(self._remove, entry)

    def _remove(self, entry: Entry) -> None:
        entry.close()
        with _lock:
            self.entries.discard(entry)
            if not self.entries:
                self._ends = True
                self.loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._ends = True
            for entry in list(self.entries):
                entry.close()
            self.loop.run_until_complete(self._close_connections())
            self.loop.close()

    async def _close_connections(self) -> None:
        """Cancel all tasks, and close all connections.

        asyncio closes a connection in its next round, and one that it has just accepted is for a moment
        neither a task nor in the set.  So this ends after some rounds in which there was neither.
        """
        own, cancelled, rounds = asyncio.current_task(), set[asyncio.Task[Any]](), 0
        while rounds < EMPTY_ROUNDS:
            tasks = asyncio.all_tasks() - {own}
            rounds = 0 if tasks or self._transports else rounds + 1
            for task in tasks - cancelled:
                task.cancel()
            cancelled |= tasks
            for transport in list(self._transports):
                transport.abort()  # type: ignore[attr-defined]
            await asyncio.sleep(0)


class Route:
    """A session's or a lease's route to its proxy: the address for the browser, and the proxy's
    failures.

    A route is closed when it is garbage-collected.
    """

    def __init__(self, proxy: Proxy):
        """Open the route.  Raises ConfigError if the relay cannot work in this process, OSError if no
        port or descriptor is left, and RuntimeError if the system gives no more threads."""
        require_usable(pool=True)
        _require_peers()
        self.proxy, self._owner = proxy, os.getpid()
        self._entry = Entry(proxy)
        self.port = self._entry.port
        try:
            self._relay: Relay | None = _relay_for(self._entry)
        except BaseException:
            self._entry.listener.close()
            raise

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the relay.  The browser uses it as an HTTP proxy, also if the proxy is
        SOCKS5."""
        return f"{HOST}:{self.port}"

    @property
    def last_failure(self) -> ProxyError | None:
        """The error of the last failed request; None after a request has succeeded.  The same object
        until the next success or failure."""
        return self._entry.upstream.failure

    def failure(self) -> ProxyError | None:
        """A new error to raise, if the last request through the proxy has failed or the relay has ended;
        else None."""
        if self._relay is not None and not self._relay.thread.is_alive():
            text = f"proxy {self.proxy}: the relay of this program has ended; no request is sent"
            return ProxyError(text, str(self.proxy), self.proxy.username, "relay")
        return copy.copy(self._entry.upstream.failure)

    def close(self) -> None:
        """Refuse further connections, and cut off the open ones.  Returns at once.  Idempotent."""
        relay, self._relay = self._relay, None
        if relay is not None and self._owner == os.getpid():
            relay.remove(self._entry)

    def __del__(self) -> None:
        if getattr(self, "_relay", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Route {self.address} to {self.proxy!r}>"


_lock = threading.RLock()
"""Held while a relay gets a route, and while it decides whether to end."""
_current: Relay | None = None
_inherited: list[Relay] = []
"""In a forked process: the parent's relay, kept so that its event loop is never garbage-collected."""
_told = False


def _relay_for(entry: Entry) -> Relay:
    """Give the entry to the relay of this process, and return that relay."""
    global _current
    with _lock:
        relay = _current
        if relay is None or not relay.add(entry):
            relay = Relay()
            relay.add(entry)
            _current = relay
        return relay


def _require_peers() -> None:
    """Raises ConfigError if Linux does not tell which user owns a connection; on other systems warns
    once."""
    global _told
    if sys.platform == "linux":
        if not peers.can_tell():
            raise ConfigError(
                "proxy=: the kernel does not tell which user has opened a connection (neither sock_diag "
                "nor /proc/self/net/tcp can be read), so that other users of this machine could use the "
                "proxy with your password. Mount /proc in full, or use a proxy without a password by "
                "options.proxy."
            )
    elif not _told:
        _told = True
        logger.warning(
            "This system does not tell which user has opened a connection: other users of this machine "
            "can use the proxies of proxy= while a browser does."
        )


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no request waits for, such as a connection that breaks while it is being
    closed."""
    logger.debug("proxy relay: %s", type(context.get("exception")).__name__)


def _leave_to_the_parent() -> None:
    """In a forked process: close the sockets of the relay, whose thread is in the parent."""
    global _current, _lock
    relay, _current, _lock = _current, None, threading.RLock()
    if relay is None:
        return
    _inherited.append(relay)
    for entry in list(relay.entries):
        for one in (entry.listener, *entry.upstream.sockets):
            with contextlib.suppress(OSError):
                one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)

__all__ = ["Entry", "Relay", "Route"]
