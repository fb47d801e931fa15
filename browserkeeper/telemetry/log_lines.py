"""Fields of a log record as one line of bytes, of JSON or of text."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..status.text import printable
from .log_fields import fields

CUT = " [cut] "
"""Stands where the middle of a text was removed."""
SHRINKABLE = ("error.stack_trace", "message", "error.message")
"""Fields that are shortened, in this order, when a line is too long for a pipe."""
DROPPABLE = "browserkeeper.commands"
"""The first field that is left out where a line is still too long then; the report has it."""
LEFT_OUT = "browserkeeper.left_out"
"""The names of the program's own fields that were left out of a line that was too long."""
LEAST = 200
"""Characters that such a field keeps at least."""
ALWAYS = ("@timestamp", "log.level", "message", "ecs.version", "log.logger", "process.pid")
"""The fields that every line has."""
SHORTENED_LAST = ("trace.id", "span.id", "event.action", "browserkeeper.session.id")
"""The last of the others that are left out: they say what the line belongs to."""


class JsonFormatter(logging.Formatter):
    """The record as one line of JSON with the names of the Elastic Common Schema."""

    def format(self, record: logging.LogRecord) -> str:
        return self.encode(record, None).decode()

    def encode(self, record: logging.LogRecord, limit: int | None) -> bytes:
        """Without a newline; ``limit`` bytes at most, None for no limit."""
        return as_json(fields(record), limit)


class TextFormatter(logging.Formatter):
    """Time, level, pid, message and stack trace, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return self.encode(record, None).decode("utf-8", "replace")

    def encode(self, record: logging.LogRecord, limit: int | None) -> bytes:
        """Without a newline; ``limit`` bytes at most, None for no limit."""
        return as_text(fields(record), limit)


def as_json(facts: Mapping[str, Any], limit: int | None) -> bytes:
    """A JSON object, of ``limit`` bytes at most."""
    line = _json(facts)
    if not limit or len(line) <= limit:
        return line
    shrunk = dict(facts)
    for name in filter(shrunk.__contains__, SHRINKABLE):
        text = str(shrunk[name])
        keep = min(len(text), limit)
        while len(line) > limit and keep > LEAST:
            keep = max(LEAST, keep * 3 // 4)  # in steps: a character may take 12 bytes
            shrunk[name] = _cut(text, keep)
            line = _json(shrunk)
    if len(line) > limit and shrunk.pop(DROPPABLE, None):  # a long label beside it, say
        line = _json(shrunk)
    return line if len(line) <= limit else _without_the_longest(shrunk, limit)


def _without_the_longest(facts: dict[str, Any], limit: int) -> bytes:
    """Leaves fields out, the longest first, until the line fits; LEFT_OUT has their names, as far as
    these fit."""
    sizes = {name: len(_json({name: value})) for name, value in facts.items() if name not in ALWAYS}
    by_size = sorted(sizes, key=lambda name: (name in SHORTENED_LAST, -sizes[name]))
    left, names = dict(facts), []
    for name in by_size:
        del left[name]
        names.append(name[:LEAST])
        line = _json({**left, LEFT_OUT: names})
        if len(line) <= limit:
            return line
    return _json({name: left[name] for name in ALWAYS})


def _json(facts: Mapping[str, Any]) -> bytes:
    """In ASCII: no character is split, and no escape sequence reaches a terminal.  A value that JSON
    does not have, such as NaN or a key that is a tuple, becomes text: a line is not lost for it."""
    try:
        text = json.dumps(facts, default=str, separators=(",", ":"), allow_nan=False)
    except Exception:  # noqa: BLE001 # the __str__ of a program's object may raise anything
        text = json.dumps({name: _value(value) for name, value in facts.items()}, separators=(",", ":"))
    return text.encode("ascii")


def _value(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except Exception:  # noqa: BLE001 # as above
        try:
            return repr(value)
        except Exception:  # noqa: BLE001
            return f"<{type(value).__name__}>"


def _cut(text: str, keep: int) -> str:
    """Removes the middle: the beginning says what happened, the end of a stack trace says where."""
    return text[: keep // 3] + CUT + text[-(keep - keep // 3) :]


def as_text(facts: Mapping[str, Any], limit: int | None) -> bytes:
    """Time, level, pid, message and stack trace, whose lines are joined by `` | ``; ``limit`` bytes at
    most."""
    head = f"{facts['@timestamp']} {facts['log.level'].upper():7} [{facts['process.pid']}] "
    text = " | ".join(filter(None, (facts["message"], facts.get("error.stack_trace", "")))).rstrip()
    line = (head + printable(" | ".join(text.splitlines()))).encode("utf-8", "replace")
    if limit and len(line) > limit:
        line = line[: limit - len(CUT)].decode("utf-8", "ignore").encode() + CUT.rstrip().encode()
    return line


__all__ = ["JsonFormatter", "TextFormatter", "as_json", "as_text"]
