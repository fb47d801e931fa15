"""Log records as lines of JSON or text: one event, one line, one ``write(2)``.

For programs: ``configure()`` installs the handler.  The library itself only logs to the logger
``browserkeeper``, and the application decides where that goes.  Field names are those of the Elastic
Common Schema 1.x (https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html); our own fields
begin with ``browserkeeper.``, and are attributes of the record (``extra=``).
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import select
import stat
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from ..errors import ConfigError
from ..status.text import printable

VARIABLE = "BROWSERKEEPER_LOG"
ECS_VERSION = "1.12.0"
PREFIXES = ("browserkeeper.", "event.")
"""Attributes of a record that begin so become fields."""
CUT = " [cut] "
"""Stands where the middle of a text was removed."""
SHRINKABLE = ("error.stack_trace", "message", "error.message")
"""Fields that are shortened, in this order, when a line is too long for a pipe."""
DROPPABLE = "browserkeeper.commands"
"""The field that is left out where a line is still too long then; the report has it."""
LEAST = 200
"""Characters that such a field keeps at least."""

Format = Literal["json", "text"]


def configure(
    format: Format | None = None,
    *,
    level: int | str = logging.INFO,
    logger: str = "browserkeeper",
    fd: int = 2,
) -> logging.Handler:
    """Write the log to a file descriptor, one line for each event.  Replaces the handler of an
    earlier call.

    ``format``: default ``BROWSERKEEPER_LOG``, else ``text``.  ``logger``: the logger's name, "" for
    everything that the program logs; records of a named logger are not passed on to its parents, so
    that no line is written twice.  ``fd``: default standard error.  A child made by fork inherits
    the handler; a child made by spawn has to call this function as well.

    Raises ConfigError for a format or a level that does not exist.
    """
    chosen = format or os.environ.get(VARIABLE) or "text"
    if chosen not in ("json", "text"):
        raise ConfigError(
            f"The log format {chosen!r} (format= or {VARIABLE}) is unknown. Use json or text."
        )
    handler = LineHandler(fd, cast(Format, chosen))
    target = logging.getLogger(logger)
    try:
        target.setLevel(level)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The log level {level!r} is unknown. Use DEBUG, INFO, WARNING or ERROR."
        ) from error
    for found in [found for found in target.handlers if isinstance(found, LineHandler)]:
        target.removeHandler(found)
    target.addHandler(handler)
    target.propagate = not logger
    return handler


class LineHandler(logging.Handler):
    """Writes each line by one ``write(2)``, without a lock and without a buffer: a fork can inherit
    neither a lock that is held nor half a line.

    The kernel keeps the lines of several processes apart.  In files by the lock of a shared file
    position, or by ``O_APPEND``; in pipes because up to ``PIPE_BUF`` bytes are written in one piece
    (pipe(7)).  So a line for anything but a file is shortened to ``PIPE_BUF`` bytes.
    """

    def __init__(self, fd: int, format: Format):
        super().__init__()
        self.fd, self.encode = fd, {"json": as_json, "text": as_text}[format]

    def createLock(self) -> None:  # noqa: N802
        """None means "no lock", as in logging.NullHandler."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """logging.Handler.handle() would use the lock, which is None here (Python 3.13)."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self.fd, self.encode(fields(record), self._limit()))
        except OSError:
            pass  # a full disk, or a closed pipe: the line is lost, and the program goes on
        except Exception:  # noqa: BLE001 - as every handler does: a bad format string, say
            self.handleError(record)

    def _limit(self) -> int | None:
        """Bytes of a line at most; None for a file.  Asked for each line, since dup2(2) may
        redirect ``fd``."""
        return None if stat.S_ISREG(os.fstat(self.fd).st_mode) else select.PIPE_BUF


# ------------------------------------------------------------------------------ a record's fields


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The record's fields by name."""
    when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    return {
        "@timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "log.level": record.levelname.lower(),
        "message": record.getMessage(),
        "ecs.version": ECS_VERSION,
        "log.logger": record.name,
        "log.origin.file.name": record.filename,
        "log.origin.file.line": record.lineno,
        "log.origin.function": record.funcName,
        "process.pid": record.process,
        "process.name": record.processName,
        "process.thread.name": record.threadName,
        "host.name": os.uname().nodename,
        **dict(_error(record)),
        **{name: value for name, value in vars(record).items() if name.startswith(PREFIXES)},
    }


def _error(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if not record.exc_info or record.exc_info[1] is None:
        return
    kind, error, trace = record.exc_info
    yield "error.type", f"{type(error).__module__}.{type(error).__qualname__}"
    yield "error.message", str(error)
    yield "error.stack_trace", "".join(traceback.format_exception(kind, error, trace))


# ----------------------------------------------------------------------------------------- lines


def as_json(facts: Mapping[str, Any], limit: int | None) -> bytes:
    """A JSON object and a newline, together ``limit`` bytes at most."""
    if not limit or len(line := _json(facts)) <= limit:
        return _json(facts)
    shrunk = dict(facts)
    for name in filter(shrunk.__contains__, SHRINKABLE):
        text, keep = str(shrunk[name]), min(len(shrunk[name]), limit)
        while len(line) > limit and keep > LEAST:
            keep = max(LEAST, keep * 3 // 4)  # in steps: a character may take 12 bytes
            shrunk[name] = _cut(text, keep)
            line = _json(shrunk)
    if len(line) > limit and shrunk.pop(DROPPABLE, None):  # a long label beside it, say
        line = _json(shrunk)
    return line if len(line) <= limit else _json(_bare(shrunk))


def _json(facts: Mapping[str, Any]) -> bytes:
    """In ASCII: no character is split, and no escape sequence reaches a terminal."""
    return json.dumps(facts, default=str, separators=(",", ":")).encode("ascii") + b"\n"


def _cut(text: str, keep: int) -> str:
    """Removes the middle: the beginning says what happened, the end of a stack trace says where."""
    return text[: keep // 3] + CUT + text[-(keep - keep // 3) :]


def _bare(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every line has; for a record whose other fields are too long."""
    names = ("@timestamp", "log.level", "message", "ecs.version", "log.logger", "process.pid")
    return {name: facts[name] for name in names}


def as_text(facts: Mapping[str, Any], limit: int | None) -> bytes:
    """Time, level, pid, message and stack trace, whose lines are joined by `` | ``; ``limit`` bytes at
    most."""
    head = f"{facts['@timestamp']} {facts['log.level'].upper():7} [{facts['process.pid']}] "
    text = " | ".join(filter(None, (facts["message"], facts.get("error.stack_trace", "")))).rstrip()
    line = (head + printable(" | ".join(text.splitlines()))).encode("utf-8", "replace")
    if limit and len(line) >= limit:
        line = line[: limit - len(CUT) - 1].decode("utf-8", "ignore").encode() + CUT.rstrip().encode()
    return line + b"\n"


__all__ = ["LineHandler", "configure"]
