"""One browser of a pool: a session, and the isolation between its leases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..admission.gate import SlotRequest
from ..drivers.context_limits import download_dir_of
from ..drivers.downloads import directory_of_user
from ..drivers.proxies import run_explained
from ..errors import BrowserkeeperError, IdentityError, LaunchError, LeaseTimeout
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.identity import Identity
from ..process.identity import ProcessIdentity
from ..report import ExitReport
from ..session import BrowserSession, control_of
from ..session.storage import STORAGE_STATE
from .config import PoolConfig
from .logs import log_error
from .shared_browser import Browsers, Place, SharedBrowser

if TYPE_CHECKING:
    from ..drivers.bidi_filter import BidiFilter
    from ..drivers.contexts import Contexts
    from ..drivers.managed import CommandHandler
    from ..proxy.relay import Route

PING_TIMEOUT = 10.0
"""Seconds after which a browser that does not answer a ping is ended.  It answers in milliseconds,
on an overloaded machine in seconds."""
RENEW_TIMEOUT = 20.0
"""Seconds for a new context.  It takes 0.1 s, and 1 s on a busy machine."""


class NotReusableError(Exception):
    """The browser must not be leased again; the message is the reason to retire it."""


class Browser(Protocol):
    """What the pool needs of a browser.  :class:`PooledBrowser` documents the methods; tests use a
    browser without a process."""

    @property
    def id(self) -> str: ...
    @property
    def identity(self) -> ProcessIdentity | None: ...
    @property
    def session(self) -> BrowserSession[Any]: ...
    @property
    def downloads(self) -> Path | None: ...
    @property
    def slot(self) -> SlotRequest: ...
    def launch(self) -> None: ...
    def call_off(self) -> None: ...
    def renew(self) -> str: ...
    def ping(self) -> str: ...
    @property
    def at_rest(self) -> bool: ...
    def after_hook(self, name: str) -> None: ...
    def looks_alive(self) -> bool: ...
    def set_deadline(self, seconds: float | None, reason: str) -> None: ...
    def name_lease(self, label: str) -> None: ...
    def driver_for(self, handler: CommandHandler, reused: Any = None) -> Any: ...
    @property
    def must_take(self) -> bool: ...
    def take(self, identity: Identity) -> None: ...
    @property
    def bidi_filter(self) -> BidiFilter | None: ...
    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any: ...
    def read_storage_state(self, indexed_db: bool) -> dict[str, Any]: ...
    @property
    def proxy_route(self) -> Route | None: ...
    def failure(self) -> BrowserkeeperError | None: ...
    def end(self, reason: str) -> ExitReport | None: ...
    @property
    def shared_browser(self) -> SharedBrowser | None: ...
    def when_over(self, call: Callable[[], None]) -> None: ...


class PooledBrowser:
    """A browser with its processes, or a place in a browser that has several.

    ``launch``, ``renew``, ``ping``, ``after_hook`` and ``end`` block, and are called in the browser's
    worker thread.  ``take``, ``run``, ``driver_for`` and ``failure`` may block, and are called in the
    thread of a lease.  All others return at once.
    """

    def __init__(self, config: PoolConfig, browsers: Browsers | None = None):
        """``browsers``: the browsers with places, in one of which this is a place; None for a browser of
        its own."""
        self._config = config
        self._isolation = config.resolved_isolation
        self._contexts: Contexts | None = None
        self._lease_label = ""
        self.session = BrowserSession[Any](config.browser)
        self._control = control_of(self.session)
        self._control.deadline_errors["lease-expired"] = _lease_timeout
        self._control.downloads.is_pooled = True
        self._control.downloads.is_in_contexts = self._isolation == "context"
        self._place = Place(browsers, self._control.admission.request) if browsers else None
        self._driver: Any = None

    @property
    def id(self) -> str:
        return self.session.id

    @property
    def identity(self) -> ProcessIdentity | None:
        return self._control.identity

    @property
    def downloads(self) -> Path | None:
        """The directory of the present lease's downloads; None at a server."""
        if self._contexts:
            return self._contexts.downloads
        if self._config.browser.place == "server":
            return None
        return self._user_downloads or Path(self.session.tmpdir, "downloads")

    @property
    def _user_downloads(self) -> Path | None:
        """The user's own directory for downloads; None without one."""
        config = self._config.browser
        if config.engine == "chromium":
            return download_dir_of(config)
        named = directory_of_user(config)
        return Path(named) if named else None

    # -- its life

    @property
    def slot(self) -> SlotRequest:
        """What its launch asks the host for, and the hand on that request while it waits."""
        return self._control.admission.request

    def launch(self) -> None:
        """Take a slot of the host, start the browser, and make it ready for its first lease.

        Waits for the slot without a time limit.  Raises what ``BrowserSession.start`` raises; nothing is
        left of a launch that failed.
        """
        if self._isolation != "context":
            self.session.start()
            if self._config.browser.place == "server":
                self.slot.on_admitted()  # until then the launch waits in the server's queue
            return
        from ..drivers.contexts import for_contexts

        if self._place is not None:
            # No browser is started here: a WebDriver session is attached to the browser of the place.
            driver = self._driver = self._occupy(self._place)
        else:
            self._control.config = for_contexts(self._config.browser)
            driver = self.session.start()
        try:
            self._open_contexts(driver)
        except BaseException:
            self.end("failed")
            raise

    def _occupy(self, place: Place) -> Any:
        """Take the place, and return the driver of its session.  The place is free after an error."""
        try:
            return place.occupy(self._control)
        except BaseException as error:
            report = place.leave("failed")
            if isinstance(error, LaunchError):
                error.report = error.report or report
            raise

    def _open_contexts(self, driver: Any) -> None:
        from ..drivers.contexts import DownloadFolders, open_contexts

        def run(name: str, params: dict[str, Any]) -> Any:
            return driver.execute(name, params)["value"]

        self._control.set_deadline(RENEW_TIMEOUT, "hung")
        kept = self._user_downloads
        folders = DownloadFolders(kept or Path(self.session.tmpdir, "downloads"), kept is not None)
        if self._place is not None:
            folders.prefix = f"{self._place.number}-"
            self._contexts = self._place.open_contexts(driver.caps, run, folders)
        else:
            self._contexts = open_contexts(self._config.browser, driver.caps, run, folders)
        self._control.downloads.open(
            self._config.browser, driver.caps, self.session.tmpdir, self._contexts.connection
        )
        self._begin_downloads()
        self._control.set_deadline(None, "hung")
        self._control.forget_commands()
        if self._config.configure is None:
            self._begin_to_refuse()

    def _begin_to_refuse(self) -> None:
        """In a browser with other leases: refuse commands that would reach them.  Not before the user's
        ``configure``, whose settings are for all leases."""
        if self._place is not None and self._contexts is not None:
            from ..drivers.contexts.chromium import SHARED_REFUSAL

            self._contexts.refusal = SHARED_REFUSAL

    def call_off(self) -> None:
        """Cancel the launch; the worker's call of ``launch`` then raises SessionClosed."""
        self._control.call_off()
        if self._place is not None:
            self._place.call_off()

    def renew(self) -> str:
        """Make the browser fresh for its next lease.

        Returns why the browser should soon be replaced, "" if it need not be.  Raises
        NotReusableError, or an error of the session, of WebDriver or of the websocket.
        """
        if not self._control.at_rest:
            raise NotReusableError("interrupted: a command was in flight at the end of the lease")
        self._control.take_back_deadlines()  # those that the user of the lease has set
        self._control.forget_commands()
        self._refuse_unfinished()
        if self._contexts:
            if self._contexts.beyond:
                raise NotReusableError(f"beyond: {self._contexts.beyond} reaches beyond its context")
            self._control.set_deadline(RENEW_TIMEOUT, "hung")
            self._contexts.renew()
            self._control.set_deadline(None, "hung")
            self._control.forget_commands()
        self._begin_downloads()
        self.name_lease("")  # a browser that cannot be renewed keeps the name of the lease
        return self._reason_to_replace()

    def _refuse_unfinished(self) -> None:
        """Raises NotReusableError for an unfinished download: Firefox continues it after the end of its
        context."""
        firefox = self._config.browser.engine == "firefox"
        if firefox and self._isolation != "none" and (left := self._control.downloads.unfinished):
            raise NotReusableError(f"download: {left[0].name!r} was under way at the end of the lease")

    def _begin_downloads(self) -> None:
        """Let ``lease.downloads`` begin anew, for the next lease."""
        contexts = self._contexts
        if contexts is not None:
            self._control.downloads.begin_lease(contexts.context, contexts.downloads)
        else:
            self._control.downloads.begin_lease()

    def ping(self) -> str:
        """Send a command, and wait for any answer.

        Returns why the browser should soon be replaced, "" if it need not be.  Raises the session's
        error if the browser is dead or does not answer.
        """
        from selenium.common.exceptions import WebDriverException

        self._control.set_deadline(PING_TIMEOUT, "hung")
        try:
            _ = self.session.driver.title
        except BrowserkeeperError:  # some are Selenium's too
            raise
        except WebDriverException:  # an error from the browser is an answer too
            pass
        self._control.set_deadline(None, "hung")
        self._control.forget_commands()
        return self._reason_to_replace()

    @property
    def at_rest(self) -> bool:
        """True if no command is in flight, and none was interrupted before its answer came."""
        return self._control.at_rest

    def after_hook(self, name: str) -> None:
        """To be called after a user's hook.  After ``configure``, blocks until a new context is made.

        The context in which ``configure`` ran is closed, so that all leases start alike; its settings of
        the WebDriver session and of the whole browser stay.  Deadlines that a hook has set are removed,
        and its commands are in no report of a lease.  In a context, its handlers of BiDi events and its
        intercepts are removed: requests would wait for their answers.
        """
        self._control.take_back_deadlines()
        self._control.forget_commands()
        if self._contexts:
            self._contexts.undo_listening()
        if name == "configure":
            if self._contexts:
                self._contexts.keep_settings()
            self._begin_to_refuse()
            self.renew()

    def _reason_to_replace(self) -> str:
        limit = self._config.max_memory
        return "max_memory" if limit is not None and self._control.uses_more_than(limit) else ""

    def end(self, reason: str) -> ExitReport | None:
        """End the browser, and return the verified report.

        For a place in a browser with several: end the lease.  The browser ends with its last place;
        returns None if the browser goes on.
        """
        report: ExitReport | None = self._control.end(reason)
        if self._contexts:
            try:
                self._contexts.close()
            except Exception:  # noqa: BLE001 # our end of a websocket; the browser's end is verified
                log_error("browser %s: its websocket could not be closed", self.id)
        if self._place is not None:
            if self._contexts:
                self._contexts.remove_downloads()
            report = self._place.leave(reason)
        return report

    @property
    def shared_browser(self) -> SharedBrowser | None:
        """The browser that this is a place of; None for a browser of its own, and before the launch."""
        return self._place.browser if self._place is not None else None

    def when_over(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, in any thread, when the lease of a place is over while its browser goes
        on, because of a deadline or because the user has ended it.  Does nothing for a browser of its
        own, whose end the pool sees by its process."""
        if self._place is not None:
            self._place.on_over = call

    # -- its leases

    def looks_alive(self) -> bool:
        """False if driver or browser has exited, or is stopped or a zombie; no command is sent."""
        return self._control.looks_alive()

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        """Have the guard end the browser in so many seconds; None takes the deadline back."""
        self._control.set_deadline(seconds, reason)

    def name_lease(self, label: str) -> None:
        """If the browser ends in this lease, have its report name the lease; "" for no name."""
        if label != self._lease_label:
            self._lease_label = label
            self._control.name_lease(label)

    def driver_for(self, handler: CommandHandler, reused: Any = None) -> Any:
        """Returns a Selenium driver whose commands go through ``handler``.  ``reused``: a driver of an
        ended lease of the pool, which becomes that driver; None for a new one."""
        return self._control.driver_for(handler, reused)

    @property
    def proxy_route(self) -> Route | None:
        """The relay's route to the proxy of the present lease, or of the browser; None without a
        proxy."""
        return self._contexts.proxy_route if self._contexts else self._control.proxy_route

    @property
    def must_take(self) -> bool:
        """True if :meth:`take` has to be called also without an identity: the server has to be told the
        label and the deadline of the lease."""
        if self._config.browser.place != "server":
            return False
        return bool(self._lease_label or self._config.max_lease)

    def take(self, identity: Identity) -> None:
        """Give the lease's context an identity, before the lease's first command.

        Blocks for RENEW_TIMEOUT at most, after which the guard ends the browser.  Raises IdentityError
        if the browser refuses a word, or the session's error if the browser has ended; then the browser
        must not be used again.
        """
        from selenium.common.exceptions import WebDriverException
        from websocket import WebSocketException

        from ..drivers.bidi import ProtocolError

        def take() -> None:
            if self._config.browser.place == "server":
                self._control.tell_lease(identity, self._lease_label, self._config.max_lease)
                return
            if self._contexts is not None:
                before = self._contexts.context
                self._contexts.take(identity)
                if self._contexts.context != before:
                    self._begin_downloads()
                return
            self._config.check_lease_identity(identity)  # asked for when the pool still had contexts
            if identity.storage_state is not None:
                self._control.load_storage_state(identity.storage_state)

        try:
            self._control.set_deadline(RENEW_TIMEOUT, "hung")
            self._control.run_command("bidi", {}, take)  # raises the error of a browser that has ended
            self._control.set_deadline(None, "hung")
            self._control.forget_commands()
        except (
            *(ProtocolError, WebDriverException, WebSocketException, OSError),
            RuntimeError,  # the system gives no more threads
        ) as error:
            if isinstance(error, BrowserkeeperError):
                raise
            text = f"Browser {self.id} did not take the identity: {type(error).__name__}: {error}"
            raise IdentityError(text) from error

    @property
    def bidi_filter(self) -> BidiFilter | None:
        """The filter for BiDi commands of the present lease; None without contexts."""
        return self._contexts.bidi_filter if self._contexts else None

    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run a lease's command within the lease's context.  Raises browserkeeper's typed errors."""
        contexts = self._contexts
        if contexts is None or name == STORAGE_STATE:
            return self._control.run_command(name, params, command)
        return run_explained(
            contexts.proxy_route,
            name,
            lambda: self._control.run_command(
                name, params, lambda: contexts.route(name, params, command)
            ),
        )

    def read_storage_state(self, indexed_db: bool) -> dict[str, Any]:
        """The storage state of the lease.  Must be called as a command of :meth:`run`.

        Raises StorageStateError, and errors of the connection, of Selenium, or of the session.
        """
        if self._contexts is not None:
            return self._contexts.storage_state(indexed_db)
        return self._control.read_storage_state(indexed_db)

    def failure(self) -> BrowserkeeperError | None:
        """The error that a command would raise because the session has ended; None if it has not."""
        return self._control.failure()


def _lease_timeout(text: str, report: ExitReport | None) -> LeaseTimeout:
    return LeaseTimeout(f"{text} It was the lease's (max_lease).", report)
