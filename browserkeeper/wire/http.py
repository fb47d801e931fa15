"""Single requests over HTTP, to Grids and to our servers.  An incomplete answer is an error."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""Raised where a server cannot be reached or does not speak HTTP."""
LARGEST = 512 * 1024**2
"""Bytes of the largest answer that is read.  A downloaded file is one answer."""
PIECE = 1024**2
"""Bytes of one read."""


class FailedLooks:
    """The failed requests since the last answer, of a wait that asks again and again.

    One decides nothing: on a busy machine an answer may take longer than a request waits for it.
    """

    def __init__(self, patience: float):
        """``patience``: seconds until a server counts as one that cannot be reached.  A timeout does not
        count: a server that is busy, and one whose host drops all packets, look the same."""
        self._patience = patience
        self._since: float | None = None

    def clear(self) -> None:
        """There was an answer."""
        self._since = None

    def is_last(self, error: Exception, now: float) -> bool:
        """Note an error, one of FAILURES, at this moment of the monotonic clock.  True if the server
        could not be reached for so long that it need not be asked again."""
        if isinstance(error, TimeoutError):
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since > self._patience


@dataclasses.dataclass(frozen=True)
class Answer:
    """A WebDriver server's answer to one request."""

    status: int
    body: bytes

    @property
    def value(self) -> Any:
        """The ``value`` of a WebDriver answer; None for any other answer."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document.get("value") if isinstance(document, dict) else None

    @property
    def is_unknown_session(self) -> bool:
        """True if the server says that it has no session of this id."""
        value = self.value
        error = value.get("error") if isinstance(value, dict) else None
        return self.status == 404 and error == "invalid session id"

    @property
    def brief(self) -> str:
        """One line for messages: the status, and the WebDriver error or the beginning of the body.  It
        has only printable characters, so that a terminal can show it."""
        value = self.value
        text = value.get("message") if isinstance(value, dict) else None
        shown = str(text or self.body[:120].decode("utf-8", "replace"))
        line = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
        return f"{self.status}: {line[:160]}" if line else str(self.status)


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Read the whole answer, and decompress it.  Raises HTTPException if the answer is cut off, larger
    than :data:`LARGEST`, or compressed in an unknown way."""
    pieces, size = [], 0
    while piece := response.read(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise http.client.HTTPException(f"its answer is larger than {LARGEST} bytes")
    if response.length:  # read(n) does not raise IncompleteRead, read() alone would
        raise http.client.IncompleteRead(b"", response.length)
    body = _decompressed(b"".join(pieces), response.headers.get("Content-Encoding", ""))
    return Answer(response.status, body)


def _decompressed(body: bytes, encoding: str) -> bytes:
    """The decompressed body.  Our requests ask for no compression, but a proxy may compress an answer.
    Raises HTTPException."""
    kind = encoding.strip().lower()
    if kind in ("", "identity") or not body:
        return body
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise http.client.HTTPException("its answer has a Content-Encoding that was not asked for")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by the first bytes
    try:
        plain = unpacking.decompress(body, LARGEST)
    except zlib.error as error:
        raise http.client.HTTPException(f"its compressed answer is broken: {error}") from error
    if not unpacking.eof:
        raise http.client.HTTPException("its compressed answer is cut off or too large")
    return plain


class WholeResponse(http.client.HTTPResponse):
    """An answer with complete headers.

    http.client accepts the end of the connection as the end of the headers.  So it takes an answer that
    is cut off within its headers for a complete one without a body: a DELETE that was not executed could
    look like "200".  Here ``begin`` raises IncompleteRead for such an answer, and RemoteDisconnected if
    not a single byte has come.
    """

    def begin(self) -> None:
        lines = _WholeLines(self.fp)
        self.fp = lines  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is lines:  # type: ignore[comparison-overlap] # it is None after an answer without a body
                self.fp = lines.file  # type: ignore[unreachable]


class _WholeLines:
    """The lines of a file.  An incomplete line raises IncompleteRead, and so does the end of the file
    after the first line."""

    def __init__(self, file: BinaryIO):
        self.file, self._is_begun = file, False

    def readline(self, limit: int) -> bytes:
        line = self.file.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit and (line or self._is_begun):
            raise http.client.IncompleteRead(line)
        self._is_begun = True
        return line

    def close(self) -> None:
        self.file.close()


@contextlib.contextmanager
def cut_after(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Connect, and shut the connection down if the block takes longer than ``seconds``; then
    TimeoutError is raised.

    The timeout of a socket is no such limit: it holds for each read, and an answer may come byte by
    byte.
    """
    connection.connect()
    link = connection.sock
    was_cut = False

    def cut() -> None:
        nonlocal was_cut
        was_cut = True
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter exits
        timer.start()
    try:
        yield
    except FAILURES:
        if not was_cut:
            raise
    finally:
        timer.cancel()
    if was_cut:
        raise TimeoutError(f"no whole answer within {seconds:g} s")


__all__ = ["FAILURES", "LARGEST", "Answer", "FailedLooks", "WholeResponse", "cut_after", "read_answer"]
