"""What commands raise once the session is over: our errors, which Selenium's users can catch as well.

A plain driver raises InvalidSessionIdException once its browser is gone, so code for plain drivers
catches that class, or WebDriverException.  The classes here are both.
"""

from __future__ import annotations

from typing import Any

from selenium.common.exceptions import InvalidSessionIdException

from .. import errors
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..report import ExitReport


class _Lost(InvalidSessionIdException):
    """Has the text, the attributes and the pickled form of our class, which is the other base class."""

    ours: type[errors.BrowserDied | errors.SessionClosed]
    args: tuple[Any, ...]

    def __init__(self, message: str, report: ExitReport | None = None):
        self.ours.__init__(self, message, report)  # type: ignore[arg-type]
        self.msg, self.screen, self.stacktrace = message, None, None

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """The reader of a pickle may have no Selenium, as a Celery client."""
        rebuild, (_, args, state) = errors.BrowserkeeperError.__reduce__(self)  # type: ignore[arg-type]
        return rebuild, (self.ours, args, state)


class BrowserDied(_Lost, errors.BrowserDied):
    __doc__ = errors.BrowserDied.__doc__
    __module__ = errors.__name__  # the name in logs, spans and tracebacks
    ours = errors.BrowserDied


class SessionClosed(_Lost, errors.SessionClosed):
    __doc__ = errors.SessionClosed.__doc__
    __module__ = errors.__name__
    ours = errors.SessionClosed
