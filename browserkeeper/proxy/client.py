"""One connection of a browser to the relay: passes on one request after another.

If a request fails at the proxy, the browser must not show an answer as a page: so its connection is
reset, or CONNECT is answered with 502.  The command that waits for the page then fails, and raises
ProxyError. An answer 407 is never passed on: the browser would open a dialog.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from . import failures
from .messages import BLOCK, Head, MessageError, copy_body, read_head
from .upstream import (
    ANSWER_TIMEOUT,
    Link,
    ProxyFailedError,
    Reader,
    TargetError,
    Upstream,
    within,
)

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = "HTTP/1.1 {} browserkeeper\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_AUTHORITY = re.compile(rb"(?:[^@/?#]*@)?(\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]]+)(?::(\d{1,5}))?")
_URL = re.compile(rb"(?i:http)://([^/?#]*)([^#]*)")

Way = tuple[str, str, int]
"""How a request is sent: ``proxy``, ``socks`` or ``direct``; then the target's host and port, "" and 0
for ``proxy``."""


class Client:
    """Serves one connection of a browser until it ends."""

    def __init__(self, upstream: Upstream, own: Link):
        self._upstream, self._own = upstream, own
        self._link: Link | None = None
        """The present connection to the proxy or the target."""
        self._way: Way | None = None
        self._was_answered = False
        """True once a request was refused."""
        self._may_pass_end = False
        """True after a request was sent completely, until its answer has come."""

    async def serve(self) -> None:
        """Serve the connection until its end.  Raises only CancelledError."""
        watch = asyncio.ensure_future(self._pass_on_the_end())
        try:
            while (head := await self._next_head()) is not None and await self._serve(head):
                pass
        except ProxyFailedError as failed:
            # If the browser itself has closed its connection, the proxy closes its own: no failure.
            if failed.error is not None and not self._own.reader.ended.is_set():
                self._upstream.failure = failed.error
            if not self._was_answered:
                self._own.reset()
        except (MessageError, TargetError, OSError, EOFError):
            pass
        finally:
            watch.cancel()
            self._drop_link()
            self._own.close()

    async def _next_head(self) -> Head | None:
        """The browser's next request; None at its end, or when the proxy has closed its connection."""
        link = self._link
        if link is None:
            return await read_head(self._own.reader)
        reading = asyncio.ensure_future(read_head(self._own.reader))
        ended = asyncio.ensure_future(link.reader.ended.wait())
        try:
            await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            ended.cancel()

    async def _serve(self, head: Head) -> bool:
        """One request; returns whether the browser's connection can be used for another one."""
        words = head.start.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return self._refuse(400)
        method, target, version = words
        if method == b"CONNECT":
            return await self._connect(head, target)
        match = _URL.fullmatch(target)
        place = _place_of(match[1], 80) if match else None
        if match is None or place is None:  # a request to the relay's own port, as a page could send
            return self._refuse(400)
        if b"chunked" in head.words(b"transfer-encoding") and head.values(b"content-length"):
            return self._refuse(400)
        way = self._way_to(*place)
        link = await self._link_by(way)
        request = head.without(b"proxy-authorization")
        if way[0] == "proxy":
            data = request.to_bytes(*self._upstream.authorization)
        else:
            path = match[2] if match[2].startswith(b"/") else b"/" + match[2]
            start = b" ".join((method, path, version))
            data = Head(start, request.without(b"proxy-connection").lines).to_bytes()
        return await self._exchange(link, head, data, method)

    def _way_to(self, host: str, port: int) -> Way:
        proxy = self._upstream.proxy
        if proxy.bypasses(host, port):
            return "direct", host, port
        return ("socks", host, port) if proxy.is_socks else ("proxy", "", 0)

    async def _link_by(self, way: Way) -> Link:
        """The present connection to the proxy or target, if it goes this way and is open; else a new
        one."""
        if self._link is not None and (self._way != way or self._link.reader.ended.is_set()):
            self._drop_link()
        if self._link is None:
            kind, host, port = way
            upstream = self._upstream
            if kind == "proxy":
                link = await upstream.to_proxy()
            elif kind == "socks":
                link = await upstream.through_socks(host, port)
                self._upstream.failure = None
            else:
                link = await upstream.to_target(host, port)
            self._upstream.sockets.add(link.sock)
            self._link, self._way = link, way
        return self._link

    # -- a request that is no tunnel

    async def _exchange(self, link: Link, request: Head, data: bytes, method: bytes) -> bool:
        """Send the request while its answer comes: a server may answer before it has read the body."""
        link.writer.write(data)
        upload = asyncio.ensure_future(self._upload(link, request))
        try:
            keeps = await self._answer(link, method)
            self._may_pass_end = False
            if not upload.done() or upload.exception() is not None:
                return False
            return keeps and request.keeps_alive
        finally:
            upload.cancel()

    async def _upload(self, link: Link, request: Head) -> None:
        try:
            self._may_pass_end = False
            await copy_body(self._own.reader, link.writer, request.size or 0)
            await link.writer.drain()
        except BaseException:
            link.abort()
            raise
        self._may_pass_end = True
        if self._own.reader.at_eof():
            link.end_writing()

    async def _answer(self, link: Link, method: bytes) -> bool:
        """Copy the answer; returns whether the connections can be used for another request."""
        own = self._own.writer
        by_proxy = self._way is not None and self._way[0] == "proxy"
        while True:
            head = await (self._answer_of_proxy(link) if by_proxy else read_head(link.reader))
            if head is None or head.status == 407:
                return False
            status = head.status
            own.write(head.to_bytes())
            if status == 101:
                self._may_pass_end = False
                await _tunnel(self._own, link)
                return False
            if status >= 200:
                break
        size = 0 if method == b"HEAD" or status in (204, 304) else head.size
        await copy_body(link.reader, own, size)
        await own.drain()
        return size is not None and head.keeps_alive

    async def _answer_of_proxy(self, link: Link) -> Head | None:
        """The head of an answer of the proxy, or of the target behind it.

        Returns None if the proxy has closed a connection that was used before, as it may do: the browser
        then sends the request again.  Raises ProxyFailedError.
        """
        proxy = self._upstream.proxy
        try:
            head = await read_head(link.reader)
            status = head.status if head is not None else 0
        except (MessageError, OSError) as error:
            raise ProxyFailedError(failures.of_protocol(proxy, _why(error))) from None
        if head is None:
            if link.is_used:
                return None
            why = "it closes the connection without an answer"
            raise ProxyFailedError(failures.of_protocol(proxy, why))
        if status == 407:
            raise ProxyFailedError(failures.of_password(proxy, head.values(b"proxy-authenticate")))
        link.is_used = True
        self._upstream.failure = None
        return head

    # -- tunnels

    async def _connect(self, head: Head, target: bytes) -> bool:
        place = _place_of(target, None)
        if place is None:
            return self._refuse(400)
        self._drop_link()
        try:
            link = await self._link_by(self._way_to(*place))
            if self._way is not None and self._way[0] == "proxy":
                await within(ANSWER_TIMEOUT, self._ask_for_tunnel(link, head, target))
        except TargetError:
            return self._refuse(502)
        except TimeoutError:
            error = failures.of_protocol(self._upstream.proxy, "no answer to CONNECT")
            self._refuse(502)
            raise ProxyFailedError(error) from None
        except ProxyFailedError:
            self._refuse(502)
            raise
        self._own.writer.write(ESTABLISHED)
        await _tunnel(self._own, link)
        return False

    async def _ask_for_tunnel(self, link: Link, head: Head, target: bytes) -> None:
        """Send CONNECT to the proxy.  Raises ProxyFailedError, or TargetError if the proxy cannot reach
        the target."""
        proxy = self._upstream.proxy
        request = head.without(b"proxy-authorization")
        link.writer.write(request.to_bytes(*self._upstream.authorization))
        answer = await self._answer_of_proxy(link)
        status = answer.status if answer is not None else 0
        if 400 <= status < 500:
            named = target.decode("ascii", "replace")
            raise ProxyFailedError(failures.of_refusal(proxy, f"HTTP {status} to CONNECT {named}"))
        if not 200 <= status < 300:
            raise TargetError

    # -- ends

    async def _pass_on_the_end(self) -> None:
        """Pass on the end of the browser's connection: a browser may close its half of it after a
        request, or all of it at any time."""
        await self._own.reader.ended.wait()
        link = self._link
        if link is None:
            return
        if self._own.reader.exception() is not None:
            link.abort()
        elif self._may_pass_end and self._own.reader.at_eof():
            link.end_writing()

    def _refuse(self, status: int) -> bool:
        """Answer with this status and no body.  Returns False: the connection ends."""
        self._was_answered = True
        with contextlib.suppress(OSError):
            self._own.writer.write(REFUSED.format(status).encode())
        return False

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = self._way = None


async def _tunnel(own: Link, link: Link) -> None:
    """Copy in both directions until both have ended.  The end of one direction is passed on while the
    other goes on."""

    async def copy(source: Reader, sink: Link) -> None:
        while data := await source.read(BLOCK):
            sink.writer.write(data)
            await sink.writer.drain()
        sink.end_writing()

    both = [asyncio.ensure_future(copy(own.reader, link)), asyncio.ensure_future(copy(link.reader, own))]
    try:
        await asyncio.gather(*both)
    except OSError:
        own.abort()
        link.abort()
    finally:
        for one in both:
            one.cancel()


def _place_of(authority: bytes, port: int | None) -> tuple[str, int] | None:
    """Host, without brackets, and port of ``HOST:PORT``; None for anything else."""
    match = _AUTHORITY.fullmatch(authority)
    number = int(match[2]) if match is not None and match[2] else port
    if match is None or number is None or not 1 <= number <= 65535:
        return None
    return match[1].decode("latin-1").strip("[]"), number


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, MessageError) else "it breaks the connection"


__all__ = ["Client"]
