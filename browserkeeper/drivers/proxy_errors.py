"""The ProxyError that commands raise: it is also a WebDriverException, for programs that catch that."""

from __future__ import annotations

from typing import Any

from selenium.common.exceptions import WebDriverException

from .. import errors
from ..errors import hide_frames as __tracebackhide__  # noqa: F401


class ProxyError(WebDriverException, errors.ProxyError):
    __doc__ = errors.ProxyError.__doc__
    __module__ = errors.__name__  # the name in logs, spans and tracebacks
    args: tuple[Any, ...]

    def __init__(self, message: str, proxy: str = "", user: str = "", reason: str = ""):
        errors.ProxyError.__init__(self, message, proxy, user, reason)
        self.msg, self.screen, self.stacktrace = message, None, None

    @classmethod
    def of(cls, error: errors.ProxyError) -> ProxyError:
        return cls(str(error), error.proxy, error.user, error.reason)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as ``errors.ProxyError``: the program that reads the pickle may have no Selenium."""
        rebuild, (_, args, state) = errors.BrowserkeeperError.__reduce__(self)
        return rebuild, (errors.ProxyError, args, state)


__all__ = ["ProxyError"]
