"""Every exception that browserkeeper raises.

Each class also derives from a built-in exception that callers may catch already, has its facts as
attributes, can be pickled (Celery and multiprocessing send exceptions between processes), and has a
message that names the cause, the place and the remedy.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

    from .report import ExitReport

__all__ = [
    "BrowserDied",
    "BrowserkeeperError",
    "CommandTimeout",
    "ConfigError",
    "ContainmentError",
    "DockerError",
    "DownloadError",
    "DownloadFailed",
    "DownloadTimeout",
    "DownloadTooLarge",
    "ForkedSessionError",
    "GridError",
    "HookError",
    "HostBusy",
    "IdentityError",
    "LaunchError",
    "LeakError",
    "LeaseEnded",
    "LeaseTimeout",
    "LedgerError",
    "LimitError",
    "NoSuchSession",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "PoolUnavailable",
    "ProfileError",
    "ProxyError",
    "ResolveError",
    "SeleniumVersionError",
    "ServerError",
    "SessionClosed",
    "SessionTimeout",
    "StorageStateError",
    "TooManyWaiting",
    "VersionMismatch",
]


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def refuse_to_pickle(self: object, protocol: object = None) -> NoReturn:
    """The ``__reduce_ex__`` of objects that belong to the process that has made them: pickle, copy and
    multiprocessing raise this TypeError."""
    raise TypeError(
        f"A {type(self).__name__} cannot be pickled or copied: it belongs to the process that has made "
        "it. Open one in the child itself: send it the arguments of browser() or BrowserPool()."
    )


def hide_frames(excinfo: Any) -> bool:
    """Have pytest leave the frames of a module out of its tracebacks, unless ``--full-trace`` is given.

    A module imports it as ``__tracebackhide__``; pytest calls it with its ``ExceptionInfo``.  Frames
    stay for errors that look like our own mistakes: raised by a line of this package, or by the standard
    library that it has called, and of none of its exception classes.
    """
    error = None if excinfo is None else excinfo.value
    if error is None or isinstance(error, BrowserkeeperError) or error.__traceback__ is None:
        return True
    file = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not _is_of_the_library(name):
            file = name
        trace = trace.tb_next
    return not file.startswith(_PACKAGE)


def _is_of_the_library(file: str) -> bool:
    """True for a module of the standard library; frozen ones, such as importlib's, have a name in <>."""
    if file.startswith("<frozen "):
        return True
    return file.startswith(_LIBRARY) and not any(part in file for part in _INSTALLED)


def add_detail(error: BrowserkeeperError, text: str) -> None:
    """Add what a reader seldom needs below the error's text: a note, or before Python 3.11 more text."""
    if sys.version_info >= (3, 11):
        error.add_note(text)
    else:
        error.args = (f"{error.args[0]}\n{text}", *error.args[1:])


# The name of this function is in every pickle, so that it cannot change.
def _rebuild(kind: type[BrowserkeeperError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BrowserkeeperError(Exception):
    """The base class of all exceptions of browserkeeper."""

    # Exception.__reduce__ would call __init__ with the message only.
    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigError(BrowserkeeperError, ValueError):
    """An argument or a setting is invalid.  Raised before anything is started."""


class ProfileError(ConfigError):
    """The profile directory is in use by another browser, or cannot be written."""


class ContainmentError(BrowserkeeperError, OSError):
    """The requested containment is not available on this machine, or ``/proc`` does not show the
    processes of this process's pid namespace."""


class DockerError(BrowserkeeperError, ConnectionError):
    """The Docker daemon cannot be reached, or the answer is not one of a Docker daemon."""


class LedgerError(BrowserkeeperError, OSError):
    """The state directory or a record in it cannot be used."""


class NoSuchSession(BrowserkeeperError, LookupError):
    """No session has this id or label, or several begin with it; ``candidates`` has their ids."""

    def __init__(self, message: str, candidates: tuple[str, ...] = ()):
        super().__init__(message)
        self.candidates = candidates


class LimitError(BrowserkeeperError, OSError, RuntimeError):
    """A limit of the system (open files, threads, memory, space) leaves no room for what was asked.

    The message names the limit, its value and what raises it.  Nothing was ended; the same call works
    once there is room.  A launch raises LaunchError instead, and a pool PoolUnavailable.
    """


class ResolveError(BrowserkeeperError, FileNotFoundError):
    """No usable browser or driver was found.  ``tried`` lists each place with the reason why it
    failed."""

    def __init__(self, message: str, tried: tuple[tuple[str, str], ...] = ()):
        lines = [f"  {place}: {reason}" for place, reason in tried]
        super().__init__("\n".join([message, *lines]))
        self.tried = tried

    def __str__(self) -> str:  # FileNotFoundError would print errno and file name
        return str(self.args[0])


class VersionMismatch(ResolveError):
    """The driver does not support the browser's version; see ``browser_version`` and
    ``driver_version``."""

    def __init__(self, message: str, browser_version: str, driver_version: str):
        super().__init__(message)
        self.browser_version, self.driver_version = browser_version, driver_version


class SeleniumVersionError(BrowserkeeperError, ImportError):
    """The installed Selenium is too old, or lacks a name that browserkeeper uses.

    Raised by what first imports Selenium, such as the start of a session.  ``installed`` is its version,
    ``missing`` has the names as text, and ``known`` the oldest and the newest version that were run.
    """

    def __init__(
        self,
        message: str,
        installed: str = "",
        missing: tuple[str, ...] = (),
        known: tuple[str, str] = ("", ""),
    ):
        super().__init__(message)
        self.installed, self.missing, self.known = installed, missing, known


class LaunchError(BrowserkeeperError, RuntimeError):
    """The browser did not start.  All processes of the attempt were ended; ``report`` is the exit
    report.

    ``log_tail`` has the last lines of the driver's log; ``retryable`` says whether a new attempt may
    succeed.
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


class Claimant(NamedTuple):
    """One holder of a slot of the host, or one that waits for a slot.

    ``program`` and ``pid`` are those of the process that has asked for it.  ``label`` is the session's
    label, or "".  ``since`` is when it got the slot, or began to wait, in seconds since the epoch.
    ``kind`` is ``browser``, ``grid`` or ``adopted``.  ``session`` is the session's id, "" where there is
    none yet.
    """

    pid: int
    program: str
    label: str = ""
    since: float = 0.0
    kind: str = "browser"
    session: str = ""


class HostBusy(BrowserkeeperError, TimeoutError):
    """No browser may be started now: the host's limit is reached, its memory is short, or it is drained.

    ``reason`` is ``full``, ``memory``, ``draining`` or ``limits`` (the limits file is not valid).
    ``limit`` is the limit on sessions, None without one, and ``limit_source`` is where it was set.
    ``holders`` are those of the slots that count for it, and ``waiting`` the other starts that wait,
    both oldest first.  ``waited``: for how many seconds this start has waited.  Nothing was started.
    """

    def __init__(
        self,
        message: str,
        reason: str = "full",
        *,
        limit: int | None = None,
        limit_source: str = "",
        holders: tuple[Claimant, ...] = (),
        waiting: tuple[Claimant, ...] = (),
        waited: float = 0.0,
    ):
        super().__init__(message)
        self.reason, self.limit, self.limit_source = reason, limit, limit_source
        self.holders, self.waiting, self.waited = holders, waiting, waited

    def __str__(self) -> str:  # TimeoutError would print errno and file name
        return str(self.args[0])


class IdentityError(BrowserkeeperError, RuntimeError):
    """The browser refuses a word of an identity, such as ``timezone``, or its connection broke
    meanwhile.

    ``word`` is the name of the word, "" if it is not known.  The session, or the lease, has not begun;
    the pool replaces the browser of such a lease.
    """

    def __init__(self, message: str, word: str = ""):
        super().__init__(message)
        self.word = word


class StorageStateError(BrowserkeeperError, RuntimeError):
    """The storage state could not be read from the browser, or could not be written to its file.

    The session goes on, and an existing file is unchanged.
    """


class GridError(LaunchError):
    """The Selenium Grid cannot be reached, is full, refuses the session, or gives an invalid answer.

    ``report.remote`` says what the Grid answered about our session and our request in its queue.
    """


class ServerError(LaunchError):
    """The server of ``server=`` cannot be reached, refuses this client, is of another version, or gives
    an invalid answer.

    ``reason`` is one of ``absent`` (no server listens there), ``unreachable`` (no connection),
    ``permission`` (this user may not use the socket), ``token`` (refused or missing), ``full`` (no
    session in time), ``version`` (of the server), ``refused`` (the server refuses the request or the
    client) and ``answer`` (not the answer of such a server).
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        *,
        log_tail: str = "",
        retryable: bool = False,
        report: ExitReport | None = None,
    ):
        super().__init__(message, log_tail=log_tail, retryable=retryable, report=report)
        self.reason = reason


class _SessionEnded(BrowserkeeperError):
    """The session has ended.  ``report`` is its exit report, or None if it is not known yet."""

    def __init__(self, message: str, report: ExitReport | None = None):
        super().__init__(message)
        self.report = report


class SessionTimeout(_SessionEnded, TimeoutError):
    """The session reached its ``timeout``.  The guard ended it, and any running command with it."""


class CommandTimeout(SessionTimeout):
    """One WebDriver command took longer than ``command_timeout``; the session was ended."""


class BrowserDied(_SessionEnded, ConnectionError):
    """The browser, its driver or its guard ended or was killed while the session was open."""


class SessionClosed(_SessionEnded, RuntimeError):
    """A command was sent to a session that is closed."""


class ForkedSessionError(BrowserkeeperError, RuntimeError):
    """A child process used a session, or tried to end one, that it inherited by fork from its owner."""


class LeakError(_SessionEnded, RuntimeError):
    """A process or a file of the session is left, or may be; see ``report.survivors`` and
    ``report.problems``."""


class ProxyError(BrowserkeeperError, ConnectionError):
    """The proxy of a session or a lease cannot be used; the session goes on.

    ``proxy`` is its URL without user and password; ``user`` is the user, or "".  ``reason`` is one of
    ``unresolvable`` (the proxy's name has no address), ``unreachable`` (no connection), ``password``
    (refused, or missing), ``forbidden`` (the proxy refuses the request), ``certificate`` (of an
    ``https://`` proxy), ``protocol`` (the answer is not one of such a proxy), or ``relay`` (the relay's
    thread in this program has died).
    """

    def __init__(self, message: str, proxy: str = "", user: str = "", reason: str = ""):
        super().__init__(message)
        self.proxy, self.user, self.reason = proxy, user, reason

    def __str__(self) -> str:  # OSError would print errno and file name
        return str(self.args[0])


class DownloadError(BrowserkeeperError):
    """A download did not arrive.  The subclasses say why.

    ``name``, ``url`` and ``size`` (bytes that have arrived) are those of the download; "" and 0 if none
    began.  ``report`` is the exit report if the session was ended because of the download, else None.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        url: str = "",
        size: int = 0,
        report: ExitReport | None = None,
    ):
        super().__init__(message)
        self.name, self.url, self.size, self.report = name, url, size, report

    def __str__(self) -> str:  # TimeoutError and OSError would print errno and file name
        return str(self.args[0])


class DownloadTimeout(DownloadError, TimeoutError):
    """No download began within the timeout, or no further byte of it arrived within the timeout."""


class DownloadFailed(DownloadError, OSError):
    """The browser gave a download up, or its file is gone."""


class DownloadTooLarge(DownloadFailed):
    """The downloads of a session, or of a lease, passed ``max_download=``."""


class LeaseEnded(SessionClosed):
    """A driver was used after its lease ended: it was given back, or the pool took it back."""


class LeaseTimeout(SessionTimeout):
    """The lease reached the pool's ``max_lease``.  The pool ended its browser, and any running command
    with it."""


class PoolError(BrowserkeeperError):
    """The pool cannot give a lease.  The subclasses name the reason."""


class PoolTimeout(PoolError, TimeoutError):
    """No browser became free within the timeout."""


class PoolClosed(PoolError, RuntimeError):
    """The pool is not open: it was not opened yet, or it was closed."""


class TooManyWaiting(PoolError, RuntimeError):
    """``max_waiting`` requests already wait for a browser."""


class HookError(PoolError, RuntimeError):
    """A hook of a pool failed, and so its browser is replaced.

    ``hook`` is its name: configure, check or reset.  ``__cause__`` is the exception of the hook, if it
    raised one.  Users see a HookError as the ``cause`` of a PoolUnavailable (for ``check``), or as the
    ``__cause__`` of the LaunchError that is its ``cause`` (for ``configure``).
    """

    retryable = True

    def __init__(self, message: str, hook: str = ""):
        super().__init__(message)
        self.hook = hook


class PoolUnavailable(PoolError, ConnectionError):
    """The pool cannot start browsers, or none passes its ``check``.  ``cause`` is the error of the last
    launch or check."""

    def __init__(self, message: str, cause: Exception | None = None):
        super().__init__(message)
        self.cause = cause
