"""Connections to the proxy of a route, through it to a target, and directly to a target (``bypass``)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import ProxyError
from ..options.proxy import Proxy
from . import failures
from .messages import LARGEST_HEAD

T = TypeVar("T")

CONNECT_TIMEOUT = 20.0
"""Seconds for a connection to the proxy, TLS included."""
ANSWER_TIMEOUT = 60.0
"""Seconds for the proxy's answer to CONNECT, of HTTP or SOCKS5; the proxy connects to the target
meanwhile."""
NAME_LIFETIME = 30.0
"""Seconds for which the addresses of a name are used again."""

SOCKS_REFUSED = 2
"""SOCKS5's reply "connection not allowed by ruleset" (RFC 1928)."""
SOCKS_ADDRESS = {1: 4, 4: 16}
"""Bytes of an address, by its type (ATYP in RFC 1928)."""


class ProxyFailedError(Exception):
    """The proxy cannot be used.  ``error`` says why; None if the proxy is not the cause."""

    def __init__(self, error: ProxyError | None):
        super().__init__(str(error))
        self.error = error


class TargetError(Exception):
    """The target cannot be reached, although the proxy works or is not used for it."""


class Reader(asyncio.StreamReader):
    """A StreamReader with an event, ``ended``, which is set at the end of the stream or after an
    error."""

    def __init__(self) -> None:
        super().__init__(limit=LARGEST_HEAD // 2)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)  # type: ignore[arg-type]
        self.ended.set()


class Link:
    """One connection: ``reader``, ``writer`` and ``sock``, the socket below them."""

    def __init__(self, reader: Reader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.is_used = False
        """True after the first answer came through it."""
        wrapped = writer.get_extra_info("socket")
        self.sock: socket.socket = getattr(wrapped, "_sock", wrapped)

    def end_writing(self) -> None:
        """Close the writing half of the connection.  TLS has no half-closed connections: there, all of
        it."""
        with contextlib.suppress(OSError, RuntimeError):
            if self.writer.can_write_eof():
                self.writer.write_eof()
            else:
                self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Close the connection by a TCP reset, after which ChromeDriver reports a failed page load.
        After an ordinary end without an answer, ``driver.get`` would return (measured with 156)."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def close(self) -> None:
        """Close the connection after all written data was sent."""
        self.writer.close()


class Upstream:
    """Makes the connections of one route, and has the state of its proxy.

    Its methods must be called in the relay's thread; other threads may make it and read its attributes.
    """

    def __init__(self, proxy: Proxy):
        self.proxy = proxy
        self.failure: ProxyError | None = None
        """The error of the last request; None after a request has succeeded."""
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        """The sockets of all open connections of the route."""
        self._tls = ssl.create_default_context() if proxy.scheme == "https" else None
        self._names: dict[str, tuple[float, list[str]]] = {}
        self.authorization: tuple[bytes, ...] = ()
        """The header field for requests to an HTTP proxy; () without a user."""
        if proxy.username and not proxy.is_socks:
            pair = f"{proxy.username}:{proxy.password}".encode()
            self.authorization = (b"Proxy-Authorization: Basic " + base64.b64encode(pair),)

    async def to_proxy(self) -> Link:
        """A connection to the proxy.  Raises ProxyFailedError."""
        proxy, name = self.proxy, self.proxy.host if self._tls else None
        try:
            return await within(
                CONNECT_TIMEOUT, self._open(proxy.host, proxy.port, ssl=self._tls, server_hostname=name)
            )
        except OSError as error:
            raise ProxyFailedError(failures.of_connection(proxy, error)) from None

    async def to_target(self, host: str, port: int) -> Link:
        """A direct connection to the target, for ``bypass``.  Raises TargetError."""
        try:
            return await within(CONNECT_TIMEOUT, self._open(host, port))
        except (OSError, UnicodeError):
            raise TargetError from None

    async def through_socks(self, host: str, port: int) -> Link:
        """A connection to the target through the SOCKS5 proxy, which resolves the name.

        Raises ProxyFailedError or TargetError.
        """
        link = await self.to_proxy()
        try:
            await within(ANSWER_TIMEOUT, self._shake_hands(link, host, port))
        except BaseException as error:
            link.abort()
            if isinstance(error, (OSError, asyncio.IncompleteReadError)):
                why = "it closes the connection, or does not answer"
                raise ProxyFailedError(failures.of_protocol(self.proxy, why)) from None
            raise
        return link

    async def _shake_hands(self, link: Link, host: str, port: int) -> None:
        """Log in at the SOCKS5 proxy and request the target (RFC 1928; RFC 1929 for the password)."""
        proxy, read, write = self.proxy, link.reader.readexactly, link.writer.write
        method = 2 if proxy.username else 0
        write(bytes((5, 1, method)))
        version, chosen = await read(2)
        if version != 5:
            raise ProxyFailedError(failures.of_protocol(proxy, "it speaks another protocol"))
        if chosen != method:
            raise ProxyFailedError(failures.of_password(proxy))
        if method == 2:
            user, password = proxy.username.encode(), proxy.password.encode()
            write(bytes((1, len(user))) + user + bytes((len(password),)) + password)
            if (await read(2))[1] != 0:
                raise ProxyFailedError(failures.of_password(proxy))
        write(b"\x05\x01\x00" + _socks_address(host) + struct.pack("!H", port))
        _, reply, _, kind = await read(4)
        if reply == SOCKS_REFUSED:
            raise ProxyFailedError(failures.of_refusal(proxy, f"{host}:{port} is not allowed"))
        if reply != 0:
            raise TargetError
        await read(SOCKS_ADDRESS[kind] if kind in SOCKS_ADDRESS else (await read(1))[0])
        await read(2)

    async def _open(self, host: str, port: int, **options: Any) -> Link:
        loop = asyncio.get_running_loop()
        reader = Reader()
        failed: OSError | None = None
        for address in await self._addresses(host):
            try:
                transport, protocol = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader, loop=loop), address, port, **options
                )
            except OSError as error:
                failed = error
            else:
                return Link(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        raise failed or OSError("the name has no address")

    async def _addresses(self, host: str) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        known = self._names.get(host)
        if known is None or known[0] < time.monotonic():
            known = (time.monotonic() + NAME_LIFETIME, await _resolve(host))
            self._names[host] = known
        return known[1]


async def within(seconds: float, waiting: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.wait_for``, but raises the built-in TimeoutError also in Python 3.10."""
    try:
        return await asyncio.wait_for(waiting, seconds)
    except asyncio.TimeoutError:
        raise TimeoutError from None


async def _resolve(host: str) -> list[str]:
    """The addresses of a name.  Raises OSError.  Uses a daemon thread: for asyncio's own threads, a
    program waits at its end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def deliver(addresses: list[str], error: Exception | None) -> None:
        if not found.done():
            found.set_exception(error) if error else found.set_result(addresses)

    def look_up() -> None:
        addresses: list[str] = []
        failed: Exception | None = None
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as error:
            failed = error if isinstance(error, OSError) else socket.gaierror(0, "not a valid name")
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, addresses, failed)

    try:
        threading.Thread(target=look_up, name="browserkeeper-proxy-name", daemon=True).start()
    except RuntimeError as error:
        raise OSError(f"no thread to resolve a name: {error}") from None
    return await found


def _socks_address(host: str) -> bytes:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return (b"\x01" if address.version == 4 else b"\x04") + address.packed
    name = host.encode("latin-1", "replace")[:255]
    return b"\x03" + bytes((len(name),)) + name


__all__ = ["ANSWER_TIMEOUT", "Link", "ProxyFailedError", "Reader", "TargetError", "Upstream", "within"]
