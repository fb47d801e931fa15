"""Log lines for machines and for people: one event, one line, one ``write(2)``.

``configure()`` is for programs; the library itself only says what happened, on the logger
``browserkeeper``, and leaves it to the application where that goes.  Field names are those of the
Elastic Common Schema 1.x (https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html)
where it has one; what is ours alone begins with ``browserkeeper.``: a record gets it by ``extra=``.
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

VARIABLE = "BROWSERKEEPER_LOG"
ECS_VERSION = "1.12.0"
PREFIXES = ("browserkeeper.", "event.")
"""Of the attributes of a record that become fields."""
CUT = " [cut] "
SHRINKABLE = ("error.stack_trace", "message", "error.message")
"""The fields that a line which is too long for its pipe loses the middle of, in this order."""
LEAST = 200
"""Characters that are left of such a field."""

Format = Literal["json", "text"]


def configure(
    format: Format | None = None,
    *,
    level: int | str = logging.INFO,
    logger: str = "browserkeeper",
    fd: int = 2,
) -> logging.Handler:
    """Write the log to a file descriptor, a line for each event, in place of an earlier call's.

    ``format``: default ``BROWSERKEEPER_LOG``, else ``text``.  ``logger``: "" for everything that
    the program logs; any other stops passing its records on, so that none comes twice.  ``fd``:
    standard error.  A child made by fork goes on with it; one made by spawn has to call this too.

    Raises ConfigError for a format or a level that does not exist.
    """
    chosen = format or os.environ.get(VARIABLE) or "text"
    if chosen not in ("json", "text"):
        raise ConfigError(f"{VARIABLE} or format={chosen!r}: say json or text.")
    handler = LineHandler(fd, cast(Format, chosen))
    target = logging.getLogger(logger)
    try:
        target.setLevel(level)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"level={level!r}: say DEBUG, INFO, WARNING or ERROR.") from error
    for found in [found for found in target.handlers if isinstance(found, LineHandler)]:
        target.removeHandler(found)
    target.addHandler(handler)
    target.propagate = not logger
    return handler


class LineHandler(logging.Handler):
    """Has no lock and no buffer, so a fork cannot inherit one that is held, or half a line.

    The kernel keeps lines apart: ``O_APPEND`` and the lock of a shared file position for files, and
    for pipes that up to ``PIPE_BUF`` bytes go in one piece (pipe(7)).  So a line for anything but a
    file is made to fit into that.
    """

    def __init__(self, fd: int, format: Format):
        super().__init__()
        self.fd, self.encode = fd, {"json": as_json, "text": as_text}[format]

    def createLock(self) -> None:  # noqa: N802
        """logging.NullHandler does the same: None is "no lock"."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """The standard one takes the lock that is not there (Python 3.13)."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self.fd, self.encode(fields(record), self._limit()))
        except OSError:
            pass  # a full disk, a reader that has gone: a log that cannot be written is lost
        except Exception:  # noqa: BLE001 - as every handler does: a bad format string, say
            self.handleError(record)

    def _limit(self) -> int | None:
        """Bytes; asked each time, since the descriptor may be turned elsewhere (``2>``, dup2)."""
        return None if stat.S_ISREG(os.fstat(self.fd).st_mode) else select.PIPE_BUF


# --------------------------------------------------------------------------------- a record's facts


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Its facts by their names in ECS, and ours."""
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
    """One object and a newline, of ``limit`` bytes at most."""
    if not limit or len(line := _json(facts)) <= limit:
        return _json(facts)
    shrunk = dict(facts)
    for name in filter(shrunk.__contains__, SHRINKABLE):
        text, keep = str(shrunk[name]), min(len(shrunk[name]), limit)
        while len(line) > limit and keep > LEAST:
            keep = max(LEAST, keep * 3 // 4)  # in steps: a character may take 12 bytes
            shrunk[name] = _cut(text, keep)
            line = _json(shrunk)
    return line if len(line) <= limit else _json(_bare(shrunk))


def _json(facts: Mapping[str, Any]) -> bytes:
    """ASCII, so that no byte of it can be half a character, or a terminal's command."""
    return json.dumps(facts, default=str, separators=(",", ":")).encode("ascii") + b"\n"


def _cut(text: str, keep: int) -> str:
    """Without its middle: the first words say what, the last lines of a trace say where."""
    return text[: keep // 3] + CUT + text[-(keep - keep // 3) :]


def _bare(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Where our own fields are what does not fit."""
    names = ("@timestamp", "log.level", "message", "ecs.version", "log.logger", "process.pid")
    return {name: facts[name] for name in names}


def as_text(facts: Mapping[str, Any], limit: int | None) -> bytes:
    """Time, level, pid and message; what has lines of its own, with `` | `` between them."""
    head = f"{facts['@timestamp']} {facts['log.level'].upper():7} [{facts['process.pid']}] "
    words = " | ".join(filter(None, (facts["message"], facts.get("error.stack_trace", "")))).rstrip()
    line = (head + _printable(" | ".join(words.splitlines()))).encode("utf-8", "replace")
    if limit and len(line) >= limit:
        line = line[: limit - len(CUT) - 1].decode("utf-8", "ignore").encode() + CUT.rstrip().encode()
    return line + b"\n"


def _printable(text: str) -> str:
    """Pages and processes choose some of these words: no escape sequence gets through."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


__all__ = ["LineHandler", "configure"]
