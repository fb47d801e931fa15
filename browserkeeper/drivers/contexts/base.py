"""The interface between a pool and the user contexts of one browser, for both engines.

A context has cookies, storage, permissions and windows of its own, as an incognito profile has.  Each
lease of the browser gets a new one.  Most of WebDriver's classic commands act on the current window, and
thereby on its context.  Those that act on the whole browser are handled in one of four ways: they are
sent to the context instead; their effect is undone before the next lease; they are refused; or the
browser cannot have another lease (:attr:`Contexts.beyond`).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import ConfigError
from ...errors import hide_frames as __tracebackhide__  # noqa: F401
from ...guard.trees import try_to_remove
from ...options.identity import NO_IDENTITY, Identity
from ...options.storage_state import StorageState
from ..bidi import BidiConnection, ProtocolError
from ..bidi_filter import BidiFilter
from ..blocking import is_blocked
from ..identity import Applied, apply, needs_new_context
from ..proxies import new_context, route_to
from ..storage_state import VisitedOrigins, save

if TYPE_CHECKING:
    from ...proxy.relay import Route

RunCommand = Callable[[str, dict[str, Any]], Any]
"""Runs a classic WebDriver command, given its name and parameters; returns its ``value``."""


@dataclasses.dataclass
class DownloadFolders:
    """The directories for downloads: one of the user's that all contexts share, or a folder for each
    context, which is removed with the context."""

    root: Path
    is_shared: bool
    number: int = 0
    """The number of the current context; the first has 1."""
    prefix: str = ""
    """The beginning of the folders' names, before the number.  It keeps apart the folders of contexts
    that a browser has at the same time."""

    @property
    def current(self) -> Path:
        return self.root if self.is_shared else self.root / f"{self.prefix}{self.number}"

    def remove(self) -> None:
        """Remove the folder of the current context."""
        if self.number and not self.is_shared:
            try_to_remove(str(self.current))

    def next(self) -> Path:
        """Remove the folder of the current context, and make and return the folder of the next."""
        self.remove()
        self.number += 1
        self.current.mkdir(parents=True, exist_ok=True)
        return self.current


class Contexts(abc.ABC):
    """The contexts of one browser: one after another, each for one lease.

    :meth:`renew` and :meth:`close` are for the thread that looks after the browser, between two leases;
    :meth:`route` is for the threads of the lease.
    """

    engine: ClassVar[str]

    refusal = ""
    """The text by which a command that reaches beyond the context is refused; "" if such commands are
    allowed.  In a browser with several leases at a time they would reach the other leases."""

    def __init__(
        self,
        capabilities: Mapping[str, Any],
        run: RunCommand,
        folders: DownloadFolders,
        connection: BidiConnection | None = None,
    ):
        """Connect to the browser, unless ``connection`` is given.  Raises an error of the websocket."""
        self._run, self._folders = run, folders
        self._timeouts = dict(capabilities.get("timeouts", {}))
        self._undo: dict[str, None] = {}
        """The commands that undo the lease's settings of the whole WebDriver session."""
        self.context = ""
        """The id of the current user context, for BiDi; "" before the first."""
        self.window = ""
        """The handle of its first window."""
        self.beyond = ""
        """The first command that changed more than its context, "" for none.  After it, the browser must
        not have another lease."""
        self.own_identity = NO_IDENTITY
        """The identity of the pool, with which each context starts."""
        self.identity = NO_IDENTITY
        """The identity of the current context."""
        self.applied = Applied()
        """The identity's effects in the current context, to be ended with it."""
        self.proxy_route: Route | None = None
        """The way of the current context to its proxy; None without one."""
        self._loaded: StorageState | None = None
        """The storage state that was loaded into the current context."""
        self.connection = connection or BidiConnection(capabilities["webSocketUrl"])
        self._visited = VisitedOrigins(self.connection)
        self._bidi_filter: BidiFilter | None = None

    @property
    def downloads(self) -> Path:
        """The directory for downloads of the current context."""
        return self._folders.current

    def renew(self, identity: Identity | None = None) -> None:
        """Close the current context with its windows and data, and make a new one current.

        ``identity``: the identity of the new context; None for the identity of the pool.  Raises
        ProtocolError, IdentityError, or an error of the websocket or of WebDriver: then the browser must
        not be used again.
        """
        self.undo_bidi()
        self.applied.close()
        self.identity = self.own_identity if identity is None else identity
        earlier, proxy = self.proxy_route, self.identity.proxy
        self.proxy_route = None if proxy is None else route_to(proxy)
        try:
            self._renew(new_context(self.engine, self.proxy_route))
        finally:
            if earlier is not None:
                earlier.close()
        self._visited.forget()
        self._loaded = None
        self._apply()

    def take(self, identity: Identity) -> None:
        """Give the current context an identity before its first use.  Words that are None are taken from
        the pool's identity.

        If only a new context can have the identity, makes one in place of the current one.  Raises the
        errors of :meth:`renew`.
        """
        identity = identity.over(self.own_identity)
        if needs_new_context(identity, self.identity):
            self.renew(identity)
            return
        self.applied.close()
        self.identity = identity
        self._apply()

    def _apply(self) -> None:
        if self.identity:
            self.applied = apply(
                *(self.connection, self.engine, self.context, self.identity), loaded=self._loaded
            )
            self._loaded = self.identity.storage_state

    def storage_state(self, indexed_db: bool) -> dict[str, Any]:
        """The storage state of the current context.  Raises StorageStateError, or an error of the
        websocket."""
        visited, loaded = self._visited.origins, self._loaded
        return save(
            *(self.connection, self.engine, self.context, visited), indexed_db=indexed_db, state=loaded
        )

    @abc.abstractmethod
    def _renew(self, parameters: Mapping[str, Any]) -> None:
        """Close the current context and make a new one, without the identity.  ``parameters``: further
        parameters of ``browser.createUserContext``.  Raises the errors of :meth:`renew`."""

    def keep_settings(self) -> None:
        """Let all later contexts start with the session's present settings, and ignore that commands
        have reached beyond the context.  To be called after a pool's ``configure`` hook."""
        self.beyond = ""
        self._bidi_filter = None  # its effects on the whole browser are not undone
        if "setTimeouts" in self._undo:
            del self._undo["setTimeouts"]
            self._timeouts = self._run("getTimeouts", {})

    def _undo_settings(self) -> None:
        for name in self._undo:
            self._run(name, self._timeouts if name == "setTimeouts" else {})
        self._undo.clear()

    @abc.abstractmethod
    def _route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """The part of :meth:`route` that differs by engine.  May also raise ProtocolError."""

    def route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run a lease's WebDriver command so that it acts on the current context; return its response.

        Raises the errors of the command, WebDriverException if the browser refuses it, and ConfigError
        for a command that cannot work in a context.
        """
        from selenium.common.exceptions import InvalidArgumentException, WebDriverException

        if name == "bidi" and self.refusal:
            self.note_beyond("BiDi")
        if name == "bidi":  # BiDi commands pass through the filter; this one may open their connection
            return command()
        try:
            return self._route(name, params, command)
        except ProtocolError as error:
            if str(error).endswith(": Invalid parameters"):  # the same error as ChromeDriver's
                raise InvalidArgumentException("invalid argument: Invalid parameters") from None
            raise WebDriverException(str(error)) from None

    # -- BiDi of the lease

    @property
    def bidi_filter(self) -> BidiFilter:
        """The filter for the lease's BiDi commands."""
        if self._bidi_filter is None or self._bidi_filter.home != self.context:
            self._bidi_filter = BidiFilter(self)
        return self._bidi_filter

    def undo_listening(self) -> None:
        """After a hook, whose connection was closed: no request may wait for its handlers.

        Raises as :meth:`undo_bidi` does.
        """
        if self._bidi_filter is not None:
            self._bidi_filter.undo_listening()

    def undo_bidi(self) -> None:
        """Undo the lasting effects of the lease's BiDi commands.

        Raises ProtocolError if the browser does not confirm it, or an error of the websocket.
        """
        if self._bidi_filter is not None:
            self._bidi_filter.undo()
            self._bidi_filter = None

    def note_beyond(self, what: str) -> None:
        """Note that the browser must not have another lease because of this command.  To be called
        before the command is sent.  Raises ConfigError if such commands are refused."""
        if self.refusal:
            raise ConfigError(f"{what} {self.refusal}")
        self.beyond = self.beyond or what

    def note_input(self) -> None:
        """Note a command that may count as input of a person: after it, a page can use the clipboard."""
        return  # engines for which this matters override it

    def note_window(self) -> None:
        """Note that a command of the lease has set place, size or state of a window."""
        return  # engines for which this matters override it

    def is_blocked(self, params: dict[str, Any]) -> bool:
        """True if ``block=`` fails the request of this BiDi event.  Always False for Chromium, where
        requests are blocked without BiDi."""
        return self.engine == "firefox" and is_blocked(self.identity.block, params)

    def note_user_context(self, context: str) -> None:
        """Let a user context that the lease has created save its downloads to the lease's folder."""
        behavior = {"type": "allowed", "destinationFolder": str(self.downloads)}
        self.connection.command(
            "browser.setDownloadBehavior", {"downloadBehavior": behavior, "userContexts": [context]}
        )

    def new_context_words(self) -> dict[str, Any]:
        """Parameters for a user context that the lease creates: its requests use the lease's proxy,
        too."""
        return new_context(self.engine, self.proxy_route)

    def route_bidi_cdp(self, params: dict[str, Any]) -> dict[str, Any]:
        """For ``goog:cdp.sendCommand``: returns the parameters to send, and notes what it reaches."""
        self.note_beyond("goog:cdp.sendCommand")
        return params

    def remove_downloads(self) -> None:
        """Remove the folder of the current context's downloads, unless it is the user's."""
        self._folders.remove()

    def end_identity(self) -> None:
        """End the effects of the identity that outlast the context."""
        self.applied.close()

    def close(self) -> None:
        """Close the connection; the browser stays open."""
        self.connection.close()
        self.applied.close()
        if self.proxy_route is not None:
            self.proxy_route.close()


__all__ = ["Contexts", "DownloadFolders", "RunCommand"]
