"""One browser of a pool: a session, and how its leases are kept apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import BrowserkeeperError, LeaseTimeout
from ..process.identity import ProcessIdentity
from ..report import ExitReport
from ..session import BrowserSession
from .config import PoolConfig

if TYPE_CHECKING:
    from ..config import SessionConfig
    from ..drivers.contexts import Contexts
    from ..drivers.managed import CommandHandler

PING_TIMEOUT = 10.0
"""Seconds after which a browser that does not answer is ended; it answers in milliseconds, but on
a machine that is swamped it takes seconds."""
RENEW_TIMEOUT = 20.0
"""Seconds for a new context; it takes 0.1, and 1 on a machine that is busy with other things."""


class UnfitError(Exception):
    """The browser cannot have another lease; the message says why."""


class Browser(Protocol):
    """What the pool asks of a browser; the tests have one without a process."""

    @property
    def id(self) -> str: ...
    @property
    def identity(self) -> ProcessIdentity | None: ...
    @property
    def session(self) -> BrowserSession[Any]: ...
    @property
    def downloads(self) -> Path | None: ...
    def launch(self) -> None: ...
    def call_off(self) -> None: ...
    def renew(self) -> str: ...
    def ping(self) -> str: ...
    def looks_alive(self) -> bool: ...
    def set_deadline(self, seconds: float | None, reason: str) -> None: ...
    def driver_for(self, keeper: CommandHandler) -> Any: ...
    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any: ...
    def failure(self) -> BrowserkeeperError | None: ...
    def end(self, reason: str) -> ExitReport: ...


def _lease_timeout(text: str, report: ExitReport | None) -> LeaseTimeout:
    return LeaseTimeout(f"{text} It was the lease's (max_lease).", report)


class PooledBrowser:
    """A real one.  Its methods block; each belongs to the browser's worker, but for ``run``,
    ``driver_for`` and ``failure``, which are its lease's, and those that return at once."""

    def __init__(self, config: PoolConfig):
        self._config = config
        self._isolation = config.resolved_isolation
        self._contexts: Contexts | None = None
        self.session = BrowserSession[Any](config.browser)
        self.session.deadline_errors["lease-expired"] = _lease_timeout

    @property
    def id(self) -> str:
        return self.session.id

    @property
    def identity(self) -> ProcessIdentity | None:
        return self.session.identity

    @property
    def downloads(self) -> Path | None:
        """Where the present lease's downloads go; None where the user chose that."""
        if self._contexts:
            return self._contexts.downloads
        return self._config.browser.download_dir or Path(self.session.tmpdir, "downloads")

    def launch(self) -> None:
        """Start it, ready for its first lease.  What fails is taken back whole.

        Raises what ``BrowserSession.start`` raises.
        """
        if self._isolation == "context":
            self.session.config = for_contexts(self._config.browser)
        driver = self.session.start()
        if self._isolation == "context":
            try:
                self._open_contexts(driver)
            except BaseException:
                self.end("failed")
                raise

    def _open_contexts(self, driver: Any) -> None:
        from ..drivers.contexts import Contexts

        def run(name: str, params: dict[str, Any]) -> Any:
            return driver.execute(name, params)["value"]

        config = self._config.browser
        self.session.set_deadline(RENEW_TIMEOUT, "hung")
        downloads = config.download_dir or Path(self.session.tmpdir, "downloads")
        self._contexts = Contexts(
            driver.caps,
            run,
            downloads,
            keep=config.download_dir is not None,
            headless=config.headless,
        )
        self._contexts.renew()
        self.session.set_deadline(None)

    def call_off(self) -> None:
        self.session.call_off()

    def renew(self) -> str:
        """Make it ready for the next lease: "", or why it should soon be replaced.

        Raises UnfitError, a session's, a WebDriver's or a websocket's error where it cannot.
        """
        if not self.session.at_rest:
            raise UnfitError("interrupted: a command was in flight at the end of the lease")
        if self._contexts:
            if self._contexts.beyond:
                raise UnfitError(f"beyond: {self._contexts.beyond} reaches beyond its context")
            self.session.set_deadline(RENEW_TIMEOUT, "hung")
            self._contexts.renew()
            self.session.set_deadline(None)
        return self._why_replace()

    def ping(self) -> str:
        """Have a word with it: "", or why it should soon be replaced.

        Raises the session's error where the browser is dead or does not answer.
        """
        from selenium.common.exceptions import WebDriverException

        self.session.set_deadline(PING_TIMEOUT, "hung")
        try:
            _ = self.session.driver.title
        except WebDriverException:  # a complaint is an answer too
            pass
        self.session.set_deadline(None)
        return self._why_replace()

    def _why_replace(self) -> str:
        most = self._config.max_memory
        return "max_memory" if most is not None and self.session.uses_more_than(most) else ""

    def looks_alive(self) -> bool:
        return self.session.looks_alive()

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        self.session.set_deadline(seconds, reason)

    def driver_for(self, keeper: CommandHandler) -> Any:
        return self.session.driver_for(keeper)

    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """A lease's command: kept to its context, its errors typed."""
        contexts = self._contexts
        if contexts is None:
            return self.session.run_command(name, params, command)
        return self.session.run_command(name, params, lambda: contexts.route(name, params, command))

    def failure(self) -> BrowserkeeperError | None:
        return self.session.failure()

    def end(self, reason: str) -> ExitReport:
        report = self.session.end(reason)
        if self._contexts:
            self._contexts.close()
        return report


def for_contexts(config: SessionConfig) -> SessionConfig:
    """The same, with a BiDi websocket, and without the renderer that Chromium starts ahead for the
    next site: a context that serves one lease has no use for one, and it costs a fifth of the
    time of a renewal."""
    from ..drivers.chromium import user_options

    options = user_options(config)
    options.web_socket_url = True
    arguments = (*config.arguments, "--disable-features=SpareRendererForSitePerProcess")
    return dataclasses.replace(config, options=options, arguments=arguments)
