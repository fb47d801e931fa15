"""JSON that clients have sent: read in bounded time and memory, with the event loop free for others."""

from __future__ import annotations

import json
from typing import Any

from ..session.asynchronous import in_thread
from .errors import WireError

DEEPEST = 200
"""Levels of JSON, as in Chromium's own reader."""
MOST_VALUES = 1_000_000
"""Values in one body.  Python takes up to 200 bytes for each, and 16 MiB can have eight million."""
LARGE = 128 * 1024
"""Bytes: bodies above this are read in a thread."""
BLOCK = 64 * 1024
"""Bytes that are looked at at a time."""
OPENING, CLOSING = b"[{", b"]}"
NO_BRACKETS = bytes(set(range(256)) - {*OPENING, *CLOSING})


async def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.  Raises WireError for any other body."""
    try:
        found = _parse(body) if len(body) <= LARGE else await in_thread(lambda: _parse(body))
    except (ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise WireError("invalid argument", f"invalid argument: the body is no JSON ({kind})") from None
    if not isinstance(found, dict):
        raise WireError("invalid argument", "invalid argument: the body must be a JSON object")
    return found


def _parse(body: bytes) -> Any:
    """The JSON value in a body.  Raises ValueError and RecursionError, and WireError for too many
    values."""
    if body.count(b"[") + body.count(b"{") > DEEPEST or body.count(b",") > MOST_VALUES:
        _check_structure(body)
    # Not json.loads(bytes), which takes UTF-16 as well: _check_structure() cannot look into that.
    return json.loads(body.decode())


def _check_structure(body: bytes) -> None:
    """Raises ValueError for JSON that is nested too deeply, and WireError for too many values.

    Brackets and commas within strings do not count.  Methods of ``bytes`` handle whole blocks, since a
    loop over 16 MiB would take seconds.
    """
    # In JSON a backslash is always within a string.  Without escapes, each quote begins or ends one.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    depth = values = in_string = 0
    for start in range(0, len(plain), BLOCK):
        parts = plain[start : start + BLOCK].split(b'"')
        outside = b"".join(parts[in_string::2])
        in_string = (in_string + len(parts) - 1) % 2
        brackets = outside.translate(None, NO_BRACKETS)
        values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if values > MOST_VALUES:
            text = f"invalid argument: the body has more than {MOST_VALUES:,} values"
            raise WireError("invalid argument", text)
        for byte in brackets:
            depth += 1 if byte in OPENING else -1
            if not 0 <= depth <= DEEPEST:
                raise ValueError


__all__ = ["read_object"]
