"""HTTP/1.1 messages between a browser and a proxy: where they begin and end (RFC 9112).

Heads and bodies are passed on byte for byte, as the proxy expects them from a browser.  h11 is not used:
it parses a body into events and writes it anew, and refuses answers that browsers accept.
"""

from __future__ import annotations

import asyncio
import dataclasses

LARGEST_HEAD = 2**18
"""Bytes of a head, as in Chromium.  It is also what a connection buffers in each direction."""
BLOCK = 2**16
"""Bytes that are copied at a time."""


class MessageError(Exception):
    """The bytes are no HTTP/1.1 message, or its end cannot be determined."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The head of a message: ``start`` is its first line, ``lines`` are its fields, unchanged."""

    start: bytes
    lines: tuple[bytes, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Raises MessageError for a field without a colon."""
        start, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        if any(b":" not in line and line[:1] not in b" \t" for line in lines):
            raise MessageError("a field of the head has no colon")
        return cls(start, tuple(lines))

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name, which is in lower case."""
        pairs = (line.split(b":", 1) for line in self.lines if b":" in line)
        return [value.strip() for key, value in pairs if key.strip().lower() == name]

    def words(self, name: bytes) -> set[bytes]:
        """The words of a list such as ``Connection: keep-alive, Upgrade``, in lower case."""
        return {w.strip().lower() for value in self.values(name) for w in value.split(b",")}

    def without(self, *names: bytes) -> Head:
        """A copy without the fields of these names, which are in lower case."""
        kept = [line for line in self.lines if line.partition(b":")[0].strip().lower() not in names]
        return Head(self.start, tuple(kept))

    def to_bytes(self, *more: bytes) -> bytes:
        """The bytes of the head, with more fields at its end."""
        return b"\r\n".join((self.start, *self.lines, *more, b"", b""))

    @property
    def status(self) -> int:
        """The status of an answer.  Raises MessageError if the first line is not that of an answer."""
        version, _, rest = self.start.partition(b" ")
        code = rest[:3]
        if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
            raise MessageError("the first line is not that of an HTTP/1.1 answer")
        return int(code)

    @property
    def keeps_alive(self) -> bool:
        """False if the connection ends with this message."""
        words = self.words(b"connection") | self.words(b"proxy-connection")
        is_old = self.start.startswith(b"HTTP/1.0") or self.start.endswith(b"HTTP/1.0")
        return b"keep-alive" in words if is_old else b"close" not in words

    @property
    def size(self) -> int | None:
        """Bytes of the body; -1 for a chunked body, None if the head has no size.  Raises
        MessageError."""
        if coding := self.words(b"transfer-encoding") - {b""}:
            if b"chunked" not in coding:
                return None
            return -1
        sizes = set(self.values(b"content-length"))
        if not sizes:
            return None
        text = sizes.pop()
        if sizes or not text.isdigit() or len(text) > 18:
            raise MessageError("Content-Length is not one number")
        return int(text)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read the next head; None at the end of the connection.  Raises MessageError for an incomplete
    head."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise MessageError("the connection ended in the middle of a head") from None
        return None
    except asyncio.LimitOverrunError:
        raise MessageError("the head is too large, or has no end") from None
    return Head.parse(raw)


async def copy_body(source: asyncio.StreamReader, sink: asyncio.StreamWriter, size: int | None) -> None:
    """Copy a body of ``size`` bytes; for -1 a chunked body, for None all bytes until the end.

    Raises MessageError if the connection ends before the body.
    """
    if size == -1:
        await _copy_chunks(source, sink)
        return
    left = size
    while left is None or left > 0:
        data = await source.read(BLOCK if left is None else min(left, BLOCK))
        if not data:
            if left is None:
                return
            raise MessageError("the connection ended in the middle of a body")
        sink.write(data)
        await sink.drain()
        if left is not None:
            left -= len(data)


async def _copy_chunks(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """RFC 9112, 7.1.  The last chunk has size 0; after it come trailer fields and an empty line."""
    while True:
        line = await _copy_line(source, sink)
        digits = line.partition(b";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError:
            raise MessageError("a chunk does not begin with its size") from None
        if size == 0:
            while await _copy_line(source, sink) not in (b"\r\n", b"\n"):
                pass
            await sink.drain()
            return
        await copy_body(source, sink, size + 2)


async def _copy_line(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bytes:
    try:
        line = await source.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise MessageError("the connection ended in the middle of a chunk") from None
    sink.write(line)
    return line


__all__ = ["BLOCK", "LARGEST_HEAD", "Head", "MessageError", "copy_body", "read_head"]
