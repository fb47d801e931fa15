"""The log as lines for other programs: one event, one line, one ``write(2)``.

For programs: ``configure()`` installs the handler.  The library itself only logs to the logger
``browserkeeper``, and the application decides where that goes.  The handler only writes; a formatter
makes the line: one of ours (``log_lines.py``), one of ecs-logging or python-json-logger
(``browserkeeper[logs]``), or the program's own.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from typing import Any, Literal, get_args

from ..errors import ConfigError
from .log_fields import ContextFilter, fields
from .log_lines import JsonFormatter, TextFormatter

VARIABLE = "BROWSERKEEPER_LOG"
OURS = (JsonFormatter, TextFormatter)
"""The formatters that shorten a line to a limit."""

Format = Literal["json", "text", "ecs", "python-json-logger"]


def configure(
    format: Format | None = None,
    *,
    level: int | str = logging.INFO,
    logger: str = "browserkeeper",
    fd: int = 2,
    formatter: logging.Formatter | None = None,
) -> logging.Handler:
    """Write the log to a file descriptor, one line for each event.  Replaces the handler of an
    earlier call.

    ``format``: default ``BROWSERKEEPER_LOG``, else ``text``.  ``json`` is our own, with the names of the
    Elastic Common Schema.  ``ecs`` is ecs-logging's and ``python-json-logger`` that library's
    (``pip install 'browserkeeper[logs]'``).  ``formatter``: any other, in place of ``format``; the
    handler's ``setFormatter()`` does the same.  ``logger``: the logger's name, "" for everything that
    the program logs; records of a named logger are not passed on to its parents, so that no line is
    written twice.  ``fd``: default standard error.  A child made by fork inherits the handler; a child
    made by spawn has to call this function as well.

    Raises ConfigError for a format or a level that does not exist, for a format whose library is not
    installed, and for a format together with a formatter.
    """
    if formatter is not None and format is not None:
        raise ConfigError("format= and formatter= contradict each other; give one of them.")
    handler = LineHandler(fd, formatter or formatter_for(format or os.environ.get(VARIABLE) or "text"))
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


def formatter_for(format: str) -> logging.Formatter:
    """Raises ConfigError if the format is unknown, or its library is not installed."""
    if format == "json":
        return JsonFormatter()
    if format == "text":
        return TextFormatter()
    try:
        if format == "ecs":
            import ecs_logging

            return ecs_logging.StdlibFormatter()
        if format == "python-json-logger":
            from pythonjsonlogger.json import JsonFormatter as TheirFormatter

            return TheirFormatter("%(levelname)s %(name)s %(process)d %(message)s", timestamp=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The log format {format!r} (format= or {VARIABLE}) needs a library ({error}). Install it: "
            "pip install 'browserkeeper[logs]'."
        ) from error
    *others, last = get_args(Format)
    known = f"{', '.join(others)} or {last}"
    raise ConfigError(f"The log format {format!r} (format= or {VARIABLE}) is unknown. Use {known}.")


class LineHandler(logging.Handler):
    """Writes each line by one ``write(2)``, without a lock and without a buffer: a fork can inherit
    neither a lock that is held nor half a line.

    The kernel keeps the lines of several processes apart.  In files by the lock of a shared file
    position, or by ``O_APPEND``; in pipes because up to ``PIPE_BUF`` bytes are written in one piece
    (pipe(7)).  So our own formatters shorten a line for anything but a file to ``PIPE_BUF`` bytes.  What
    another formatter returns is written as it is: half a JSON document would be none.
    """

    def __init__(self, fd: int, formatter: logging.Formatter | None = None):
        super().__init__()
        self.fd = fd
        self.addFilter(ContextFilter())
        self.setFormatter(formatter or TextFormatter())

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
            os.write(self.fd, self._line(record))
        except OSError:
            pass  # a full disk, or a closed pipe: the line is lost, and the program goes on
        except Exception:  # noqa: BLE001 - as every handler does: a bad format string, say
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> bytes:
        if isinstance(self.formatter, OURS) and type(self.formatter) in OURS:  # no subclass
            return self.formatter.encode(record, self._limit()) + b"\n"
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _limit(self) -> int | None:
        """Bytes of a line at most, without its newline; None for a file.  Asked for each line, since
        dup2(2) may redirect ``fd``."""
        return None if stat.S_ISREG(os.fstat(self.fd).st_mode) else select.PIPE_BUF - 1


__all__ = ["ContextFilter", "JsonFormatter", "LineHandler", "TextFormatter", "configure", "fields"]
