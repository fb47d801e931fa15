"""Every error that browserkeeper raises.  A leaf: imports nothing of the package.

Each one subclasses the builtin that users already catch, carries its facts as attributes,
survives pickling (Celery and multiprocessing send errors between processes), and says in its
message what was wrong, where, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import ExitReport

__all__ = [
    "BrowserDied",
    "BrowserkeeperError",
    "CommandTimeout",
    "ConfigError",
    "ContainmentError",
    "DockerError",
    "ForkedSessionError",
    "GridError",
    "LaunchError",
    "LeakError",
    "LeaseEnded",
    "LeaseTimeout",
    "LedgerError",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "PoolUnavailable",
    "ProfileError",
    "ResolveError",
    "SessionClosed",
    "SessionTimeout",
    "TooManyWaiting",
    "VersionMismatch",
]


def _rebuild(kind: type[BrowserkeeperError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BrowserkeeperError(Exception):
    """The base of them all."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigError(BrowserkeeperError, ValueError):
    """An argument makes no sense; raised before anything is started."""


class ProfileError(ConfigError):
    """The profile directory is locked by another browser, or cannot be written."""


class ContainmentError(BrowserkeeperError, OSError):
    """The containment that was asked for by name cannot be had on this machine."""


class DockerError(BrowserkeeperError, ConnectionError):
    """The Docker daemon does not answer, or what answers is none."""


class LedgerError(BrowserkeeperError, OSError):
    """The state directory or a record in it cannot be used."""


class ResolveError(BrowserkeeperError, FileNotFoundError):
    """No usable browser or driver; ``tried`` lists each place with the reason it failed."""

    def __init__(self, message: str, tried: tuple[tuple[str, str], ...] = ()):
        lines = [f"  {place}: {reason}" for place, reason in tried]
        super().__init__("\n".join([message, *lines]))
        self.tried = tried

    def __str__(self) -> str:  # FileNotFoundError would print errno and file name
        return str(self.args[0])


class VersionMismatch(ResolveError):
    """The driver does not fit the browser; ``browser_version`` and ``driver_version`` say how."""

    def __init__(self, message: str, browser_version: str, driver_version: str):
        super().__init__(message)
        self.browser_version, self.driver_version = browser_version, driver_version


class LaunchError(BrowserkeeperError, RuntimeError):
    """The browser did not start.  What had been started is gone: ``report`` proves it.

    ``log_tail`` holds the driver's last lines; ``retryable`` says whether a new attempt may help.
    """

    def __init__(
        self,
        message: str,
        *,
        log_tail: str = "",
        retryable: bool = True,
        report: ExitReport | None = None,
    ):
        tail = f"\nThe driver's last lines:\n{log_tail}" if log_tail else ""
        super().__init__(message + tail)
        self.log_tail, self.retryable, self.report = log_tail, retryable, report


class GridError(LaunchError):
    """The Selenium Grid cannot be reached, is full, refuses, or answers nonsense.

    ``report.remote`` has its word on what may be left of ours in its slots and its queue.
    """


class _SessionEnded(BrowserkeeperError):
    """A session that is over; ``report`` is its exit report where one is known yet."""

    def __init__(self, message: str, report: ExitReport | None = None):
        super().__init__(message)
        self.report = report


class SessionTimeout(_SessionEnded, TimeoutError):
    """The session passed its ``timeout``; the guard ended it, whatever was in flight."""


class CommandTimeout(SessionTimeout):
    """One WebDriver command took longer than ``command_timeout``; the session was ended."""


class BrowserDied(_SessionEnded, ConnectionError):
    """The browser, its driver or its guard died or was killed while the session was open."""


class SessionClosed(_SessionEnded, RuntimeError):
    """A command was sent to a session that had been closed."""


class ForkedSessionError(BrowserkeeperError, RuntimeError):
    """A process that inherited a session by fork tried to use or to end it."""


class LeakError(_SessionEnded, RuntimeError):
    """Something of the session survives; ``report.survivors`` and ``report.problems`` say what."""


class LeaseEnded(SessionClosed):
    """A driver was used after its lease had been given back to the pool, or taken back by it."""


class LeaseTimeout(SessionTimeout):
    """The lease passed the pool's ``max_lease``; its browser was ended, whatever was in flight."""


class PoolError(BrowserkeeperError):
    """No lease can be had; the base of the reasons why."""


class PoolTimeout(PoolError, TimeoutError):
    """No browser became free in time."""


class PoolClosed(PoolError, RuntimeError):
    """The pool is not open (yet, or any more)."""


class TooManyWaiting(PoolError, RuntimeError):
    """More than ``max_waiting`` wait for a browser already."""


class PoolUnavailable(PoolError, ConnectionError):
    """Browsers cannot be started; ``cause`` is the last launch's error."""

    def __init__(self, message: str, cause: Exception | None = None):
        super().__init__(message)
        self.cause = cause
