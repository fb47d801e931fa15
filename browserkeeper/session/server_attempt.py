"""One start of a session that is a lease of a server: the counterpart of ``launch.py``."""

from __future__ import annotations

import contextlib
import errno
import http.client
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..config import SessionConfig
from ..drivers.browser_handle import BrowserHandle, RemoteBrowserHandle
from ..drivers.own_pages import OwnPages
from ..errors import (
    BrowserDied,
    BrowserkeeperError,
    ConfigError,
    LaunchError,
    ServerError,
    SessionClosed,
    SessionTimeout,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.identity import Identity
from ..process.identity import ProcessFacts, ProcessIdentity
from ..report import ExitReport
from ..report.last_command import commands_as_text
from ..state.records import new_id
from ..wire.requests import not_a_server, unreachable
from ..wire.words import SERVER
from .ending import DeadlineError, Ending
from .launch import WRONG_OPTIONS, StartRefusedError
from .server_lease import LeaseEnd, LeaseGuard

if TYPE_CHECKING:
    from ..drivers.bidi import BidiConnection
    from ..drivers.managed import CommandHandler
    from ..proxy.relay import Route

ENDED = (SessionTimeout, BrowserDied, SessionClosed)
"""Errors by which a server says that a session is over."""


NO_CONNECTION = (
    *(errno.ENOENT, errno.ECONNREFUSED, errno.EACCES, errno.EPERM, errno.ENOTSOCK, errno.ENOTDIR),
    *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE),
)
"""Error numbers of connect(2) and socket(2), after which nothing was sent."""


class ServerAttempt:
    """One request for a lease, and then the lease.  Has the attributes and methods of an ``Attempt``
    that a session uses."""

    bidi: BidiConnection | None = None
    driver_process: ProcessIdentity | None = None
    tmpdir = ""
    display = ""
    containment = "server"
    route: Route | None = None
    visited: tuple[str, ...] = ()

    def __init__(self, config: SessionConfig, began: float, deadline: float | None):
        """``began``: when the start began.  ``deadline``: when the server's answer must have come, None
        for no limit.  Both are times of ``time.monotonic()``."""
        assert config.server is not None
        self.config, self.id, self._deadline = config, new_id(), deadline
        self.guard = LeaseGuard(config.server, self.id, config.close_timeout)
        end = LeaseEnd(self.guard, self.id, config.name, config.close_timeout)
        self.ending = Ending(end, config.close_timeout, config.label)
        self.browser: BrowserHandle = RemoteBrowserHandle()
        self.own_pages = OwnPages()
        self._driver: Callable[[], Any] = lambda: None
        if config.timeout is not None:
            self.guard.set_deadline(max(0.001, began + config.timeout - time.monotonic()), "timeout")

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.config.name} session {self.id}"

    @property
    def report(self) -> ExitReport | None:
        return self.ending.report

    def processes(self) -> list[ProcessFacts]:
        """Always empty: the processes belong to the server."""
        return []

    @property
    def driver(self) -> Any:
        """See ``Attempt.driver``."""
        return self._driver() if self.report is None else None

    def connect(self, handler: CommandHandler) -> Any:
        """Lease a session, and return Selenium's driver object, whose commands go through ``handler``.

        Waits in the server's queue.  Raises the errors that the server has sent, ServerError,
        StartRefusedError, and ConfigError for options that do not fit the browser.
        """
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        try:
            driver = self._lease(handler)
        except BrowserkeeperError as error:
            self.guard.was_refused = True  # the server has answered, or the request was not sent
            if isinstance(error, (ServerError, ConfigError)) or self.guard.session:
                raise
            raise self._of_server(error) from None
        except (
            WebDriverException,
            HTTPError,
            http.client.HTTPException,
            OSError,
            *WRONG_OPTIONS,
        ) as error:
            self.guard.was_refused = isinstance(error, WebDriverException) or _was_not_sent(error)
            raise StartRefusedError from error
        self._driver = weakref.ref(driver)
        return driver

    def _lease(self, handler: CommandHandler) -> Any:
        from ..drivers import managed, server
        from ..drivers.driver_service import DriverProcess, make_service

        config, guard = self.config, self.guard
        options = server.build_options(config)
        limit = None
        if self._deadline is not None:
            limit = max(0.1, self._deadline - time.monotonic())
        process: Any = _NoProcess(guard)
        port = guard.address.port or 4444
        service = make_service(
            DriverProcess(config.name, (str(guard.address),), port, process, {}), handler.quit_driver
        )
        plan = managed.ServerPlan(guard.address, server.capabilities(config, self.id), guard.links)
        driver: Any = managed.connect_to_server(config.name, handler, service, options, limit, plan)
        facts = driver.caps.get(SERVER)
        guard.began(driver.session_id, facts.get("pid", 0) if isinstance(facts, Mapping) else 0)
        if not isinstance(facts, Mapping):
            raise not_a_server(guard.address, f"its new session has no {SERVER}")
        _check_version(str(guard.address), str(facts.get("version", "")))
        if guard.event("ending"):
            raise SessionClosed("The session was ended during its start.")
        managed.set_command_timeout(driver, config.command_timeout)
        return driver

    def _of_server(self, error: BrowserkeeperError) -> BrowserkeeperError:
        """The error by which the server has refused the session, with the server's address in its text.
        Its report is replaced by that of this attempt; the server's own report is in
        ``report.remote``."""
        error.args = (f"The server {self.guard.address}: {error.args[0]}", *error.args[1:])
        fields: Any = vars(error)
        if isinstance(fields.get("report"), ExitReport):
            self.guard.refusal = fields["report"]
            fields["report"] = self.ending.run("failed", self.disconnect)
        return error

    # -- commands

    def wrapped(self, name: str, command: Callable[[], Any]) -> Callable[[], Any]:
        """The command, changed so that an error by which the server says that the session is over is
        noted."""
        from selenium.common.exceptions import WebDriverException

        guard = self.guard

        def run() -> Any:
            try:
                return command()
            except ENDED as error:
                guard.note_end(error)
            raise WebDriverException(str(guard.told or "the server has ended the session"))

        return run

    def tell(self, identity: Identity, label: str, max_lease: float | None) -> None:
        """Give the lease an identity, a label and a deadline of its own, before its first command.

        For pools, whose sessions begin before their leases.  Raises what a command raises.
        """
        from ..drivers.server import MAX_LEASE_MARGIN

        body: dict[str, Any] = {"label": label}
        if identity:
            body["identity"] = identity.to_json()
        if max_lease is not None:
            body["maxLease"] = max_lease + MAX_LEASE_MARGIN
        self.driver.tell_lease(body)

    def looks_alive(self) -> bool:
        """False once the session is being ended.  Sends nothing, so it does not notice the death of
        server or browser."""
        return self.guard.event("ending") is None

    def is_quitting(self) -> bool:
        """False: no browser of a server has a profile that is kept."""
        return False

    def let_the_browser_quit(self) -> None:
        """Does nothing: no profile is kept."""

    # -- the end

    def disconnect_bidi(self) -> None:
        """Close what the driver holds open besides its connection to the server."""
        driver = self.driver
        if driver is not None:
            driver.disconnect()

    def disconnect(self) -> None:
        """Close what the driver object holds open in this process."""
        driver = self._driver()
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.disconnect()
            with contextlib.suppress(Exception):
                driver.command_executor.close()

    def causes_of_death(self) -> str:
        """ "": the limits of the server's machine are not known here."""
        return ""

    def error_of_end(self, when: str) -> BrowserkeeperError | None:
        """The error that says why the session is over, if the server has said so or the connection
        broke; None if the session's own report says why."""
        told, report = self.guard.told, self.report
        head = self.name
        when = f" {when}" if when else ""
        doing = commands_as_text(report.commands) if report is not None else ""
        kind: Any = type(told)
        # Only the first line: the others list the last commands, and our own list follows.
        text = f"{head}{when}: {str(told).partition(chr(10))[0]}"
        if told is None:
            if report is None or report.reason != "connection-lost":
                return None
            kind = BrowserDied
            text = f"{head}: the connection to the server {self.guard.address} broke{when}"
            text += ". The server has ended, or is being restarted."
        return kind(f"{text}\n{doing}".rstrip(), report)  # type: ignore[no-any-return]

    def explain(
        self,
        error: LaunchError | StartRefusedError,
        event: Mapping[str, Any] | None,
        deadline_errors: Mapping[str, DeadlineError],
        user_deadline: float | None = None,
        *,
        is_late: bool = False,
    ) -> BrowserkeeperError:
        """Returns the error to raise for a start that failed; see ``Attempt.explain``.  ``is_late`` is
        ignored: the text of ``error`` says whether the answer was late."""
        config, report = self.config, self.report
        reason = event["reason"] if event else ""
        if user_deadline is not None:
            limit = f"the deadline of {user_deadline:g} s that set_deadline() had set"
            return SessionTimeout(f"{config.name} did not start within {limit}.", report)
        if reason == "timeout":
            text = f"{config.name} did not start within the session's timeout of {config.timeout:g} s."
            return deadline_errors.get("timeout", SessionTimeout)(text, report)
        if isinstance(error, LaunchError):
            error.report = error.report or report
            return error
        cause = error.__cause__ or error
        return self._explain_cause(cause)

    def _explain_cause(self, cause: BaseException) -> ServerError:
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError
        from urllib3.exceptions import TimeoutError as Late

        address, report = self.guard.address, self.report
        if isinstance(cause, (Late, TimeoutError)) and not _was_not_sent(cause):
            text = (
                f"The server {address} gave no session within wait= and start_timeout="
                f"{self.config.start_timeout:g} s. It is overloaded, or hangs."
            )
            return ServerError(text, "full", report=report)
        if isinstance(cause, (HTTPError, OSError, http.client.HTTPException)):
            found = unreachable(address, _root_of(cause))
            found.report = report
            return found
        line = str(getattr(cause, "msg", None) or cause).partition("\n")[0]
        if isinstance(cause, WebDriverException):
            return ServerError(f"The server {address} gave no session: {line}", "refused", report=report)
        text = f"{self.config.name} did not start: {line or type(cause).__name__}"
        return ServerError(text, "refused", report=report)


class _NoProcess:
    """``driver.service.process`` of a lease, whose driver is no process of this program."""

    pid = None

    def __init__(self, guard: LeaseGuard):
        self._guard = guard

    def poll(self) -> int | None:
        """None while the session lasts, then 0."""
        return None if self._guard.event("ended") is None else 0


def _was_not_sent(error: BaseException) -> bool:
    """True if there was no connection over which the request could have been sent."""
    return getattr(_root_of(error), "errno", None) in NO_CONNECTION


def _root_of(error: BaseException) -> BaseException:
    """The OSError that an error of urllib3 wraps; else the error itself."""
    for one in (error, *getattr(error, "args", ()), error.__cause__, error.__context__):
        if isinstance(one, OSError):
            return one
    return error


def _check_version(address: str, version: str) -> None:
    """Raises ServerError for a server of another minor version: the protocol between our clients and
    servers is the same only within one minor version."""
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise ServerError(
            f"The server {address} is browserkeeper {version or '?'}, and this is {__version__}: "
            "install the same version on both sides. Selenium's webdriver.Remote works with any.",
            "version",
        )


__all__ = ["ServerAttempt"]
