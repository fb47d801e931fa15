"""BiDi commands of a lease act on the lease's own context, and are undone at its end.

A BiDi session belongs to the whole browser: a command that names no context acts on the default one
or on all, and what it has made (subscriptions, intercepts, preload scripts ...) outlasts the context.
:class:`BidiFilter` changes the messages between Selenium's BiDi connection and the browser.  In answers
and events the lease's context is called ``default``, as in a browser without other contexts.

The tables below say how each command is handled.  A command that is in none of them may change more than
the context: after it, the browser must not have another lease.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ..errors import ConfigError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from .bidi import BidiConnection, ProtocolError
from .blocking import ANSWERS

DEFAULT = "default"
"""The name of a browser's first user context (w3.org/TR/webdriver-bidi, "User Contexts")."""

Params = dict[str, Any]
Reply = dict[str, Any]
"""An answer as it comes from the browser: with ``result``, or with ``error`` and ``message``."""
Transmit = Callable[[Params], Reply]
"""Sends the command with these parameters, and returns the browser's answer."""

# ------------------------------------------------------------------ the tables

PASSED = frozenset(
    """
    session.status
    browser.getClientWindows browser.getUserContexts browser.setClientWindowState
    browsingContext.activate browsingContext.captureScreenshot browsingContext.close
    browsingContext.create browsingContext.getTree browsingContext.handleUserPrompt
    browsingContext.locateNodes browsingContext.navigate browsingContext.print browsingContext.reload
    browsingContext.setBypassCSP browsingContext.setViewport browsingContext.startScreencast
    browsingContext.stopScreencast browsingContext.traverseHistory
    input.performActions input.releaseActions input.setFiles
    network.continueRequest network.continueResponse network.continueWithAuth network.disownData
    network.failRequest network.getData network.provideResponse
    permissions.setPermission
    script.callFunction script.disown script.evaluate script.getRealms
    storage.deleteCookies storage.getCookies storage.setCookie
    goog:cdp.getSession goog:cdp.resolveRealm
    """.split()
)
"""Commands whose effect ends with the context, with its windows, or with the request that they name."""

FILLED_IN = frozenset(
    """
    browser.setDownloadBehavior
    emulation.setForcedColorsModeThemeOverride emulation.setMediaFeaturesOverride
    emulation.setNetworkConditions emulation.setScrollbarTypeOverride
    emulation.setTextLayoutModeOverride emulation.setTouchOverride emulation.setUserAgentOverride
    emulation.setViewportMetaOverride userAgentClientHints.setClientHintsOverride
    """.split()
)
"""Commands that act on the whole browser where they name no context: ``userContexts`` is filled in,
and so the effect ends with the context."""

SCOPED = frozenset(
    """
    emulation.setGeolocationOverride emulation.setLocaleOverride
    emulation.setScreenOrientationOverride emulation.setScreenSettingsOverride
    emulation.setScriptingEnabled emulation.setTimezoneOverride
    """.split()
)
"""Commands that must name a context: without one the browser refuses them, also in a lease."""

RESET: Mapping[str, Params] = {
    "network.setCacheBehavior": {"cacheBehavior": "default"},
    "network.setExtraHeaders": {"headers": []},
}
"""Commands that act on the whole browser if they name no context, and the parameters that undo this.

The headers of an identity are set for its context; the browser sends those as well."""


@dataclasses.dataclass(frozen=True)
class Made:
    """For a command that makes an object of the session: how the object is removed.

    ``key``: the name of the object's id in the answer, and in the parameters of the command ``remove``.
    ``gone``: the error code of ``remove`` for an object that does not exist.
    """

    key: str
    remove: str
    gone: str
    many: bool = False
    """True if ``remove`` takes a list of ids."""

    def removal(self, name: str) -> tuple[str, Params]:
        """The command, with its parameters, that removes the object with this id."""
        return self.remove, {f"{self.key}s": [name]} if self.many else {self.key: name}


MAKERS: Mapping[str, Made] = {
    "session.subscribe": Made("subscription", "session.unsubscribe", "invalid argument", many=True),
    "network.addIntercept": Made("intercept", "network.removeIntercept", "no such intercept"),
    "network.addDataCollector": Made(
        "collector", "network.removeDataCollector", "no such network collector"
    ),
    "script.addPreloadScript": Made("script", "script.removePreloadScript", "no such script"),
    "browser.createUserContext": Made(
        "userContext", "browser.removeUserContext", "no such user context"
    ),
}
REMOVERS = {made.remove: made for made in MAKERS.values()}

OF_A_CONNECTION = frozenset(
    ["session.unsubscribe", "network.removeIntercept", "network.removeDataCollector"]
)
"""They remove what serves the connection that has made it: without that connection, an intercept holds
each request for ever."""

COPYING = frozenset(
    """
    goog:cdp.sendCommand input.performActions permissions.setPermission script.addPreloadScript
    script.callFunction script.evaluate
    """.split()
)
"""Commands after which a page may have written to the clipboard; see :mod:`.contexts`."""

KNOWN = PASSED | FILLED_IN | SCOPED | set(RESET) | set(MAKERS) | set(REMOVERS)


LASTING = MAKERS.keys() | RESET.keys()
"""Commands whose effect outlasts the context: each must have had its answer at the end of the lease."""


class Host(Protocol):
    """The interface that the filter needs of :class:`~.contexts.Contexts`."""

    context: str
    """The lease's user context."""
    connection: BidiConnection
    """browserkeeper's own connection to the same browser."""

    def note_beyond(self, what: str) -> None:
        """The browser must not have another lease, because of this command."""

    def note_input(self) -> None:
        """A page may have written to the clipboard."""

    def route_bidi_cdp(self, params: Params) -> Params:
        """For ``goog:cdp.sendCommand``: returns the parameters to send, and notes what it reaches."""

    def note_window(self) -> None:
        """A window may have another place, size or state."""

    def new_context_words(self) -> Params:
        """The parameters, such as the proxy, for a user context that the lease creates."""

    def is_blocked(self, params: Params) -> bool:
        """True if ``block=`` fails the request of this event."""

    def note_user_context(self, context: str) -> None:
        """The lease has created a user context with this id."""


class BidiFilter:
    """Filters the BiDi commands and events of one lease.  Its methods may be called in any thread."""

    def __init__(self, host: Host):
        self._host = host
        self._home = host.context
        self._made: dict[tuple[str, str], Made] = {}
        """The objects that the lease has made and not removed, by the removing command and the id."""
        self._subscribed: dict[object, tuple[list[str], bool]] = {}
        """The events of each subscription, by its id, and whether it is for all windows."""
        self._reset: dict[str, Params] = {}
        self._foreign: set[str] | None = None
        """Windows of other contexts; None until they are asked for."""
        self._failed: collections.deque[Any] = collections.deque(maxlen=1000)
        """Ids of requests that ``block=`` has failed; answers of the user's handlers to them are
        dropped."""
        self._in_flight = 0
        self._lock = threading.Lock()
        self._is_closed = False
        self.ended_error: Callable[[], Exception] = lambda: RuntimeError("the lease is over")
        """Returns the error that commands raise after the lease."""

    @property
    def home(self) -> str:
        """The lease's user context."""
        return self._home

    # -- commands

    @property
    def contexts(self) -> set[str]:
        """The ids of the lease's user context, and of those that the lease has created."""
        return {self._home, *(name for remove, name in self._made if remove == _REMOVE_CONTEXT)}

    def run(self, method: str, params: Params, transmit: Transmit) -> Reply:
        """Send one command of the lease, changed where needed, and return the answer for the user.

        Raises what ``transmit`` raises, and ConfigError for a command that cannot work in a lease.
        """
        if method.startswith("webExtension."):
            raise ConfigError(
                "An extension cannot be installed in a lease with isolation='context': it would be in "
                "the browser, but not in the lease's context. Use isolation='fresh'."
            )
        if method not in LASTING:
            if self._is_closed:
                raise self.ended_error()
            return self._run(method, params, transmit)
        # Counted before the look at _is_closed; undo() sets that first and then looks at the count.
        with self._lock:
            self._in_flight += 1
        is_settled = self._is_closed
        try:
            if self._is_closed:
                raise self.ended_error()
            reply = self._run(method, params, transmit)
            is_settled = True
            return reply
        finally:
            if is_settled:  # else the browser may have made an object whose id is not known
                with self._lock:
                    self._in_flight -= 1

    def _run(self, method: str, params: Params, transmit: Transmit) -> Reply:
        if method in ("browser.setClientWindowState", "browsingContext.setViewport"):
            self._host.note_window()
        if method in COPYING:
            self._host.note_input()
        if method == "goog:cdp.sendCommand":
            return transmit(self._host.route_bidi_cdp(params))
        if method not in KNOWN:
            self._host.note_beyond(method)
            return transmit(params)
        if method in ANSWERS and params.get("request") in self._failed:
            return {"type": "success", "result": {}}
        if refusal := self._refusal(method, params):
            return refusal
        params = self._scoped(method, params)
        if method in RESET and not params.get("contexts") and not params.get("userContexts"):
            self._reset[method] = RESET[method]
        if method == "session.subscribe":
            return self._subscribe(params, transmit)
        reply = transmit(params)
        return self._answered(method, params, reply) if isinstance(reply.get("result"), dict) else reply

    def _answered(self, method: str, params: Params, reply: Reply) -> Reply:
        """Note the objects that a successful command has made or removed; return the answer for the
        user."""
        result = reply["result"]
        if (made := MAKERS.get(method)) and isinstance(name := result.get(made.key), str):
            self._made[made.remove, name] = made
            if method == _NEW_CONTEXT:
                self._host.note_user_context(name)
            return reply
        if made := REMOVERS.get(method):
            self._forget(made, params)
        return {**reply, "result": self._shown(method, result)}

    def _subscribe(self, params: Params, transmit: Transmit) -> Reply:
        """The events are noted before the browser is asked, since some come before its answer."""
        is_global = not params.get("contexts") and not params.get("userContexts")
        events = [str(event) for event in params.get("events") or ()], is_global
        pending = object()
        self._subscribed[pending] = events
        try:
            reply = transmit(params)
            name = (reply.get("result") or {}).get("subscription")
            if isinstance(name, str):
                self._subscribed[name] = events
                made = MAKERS["session.subscribe"]
                self._made[made.remove, name] = made
            return reply
        finally:
            self._subscribed.pop(pending, None)

    def _forget(self, made: Made, params: Params) -> None:
        names = params.get(f"{made.key}s") if made.many else [params.get(made.key)]
        for one in map(str, names or ()):
            self._made.pop((made.remove, one), None)
            self._subscribed.pop(one, None)
        if made.remove == "session.unsubscribe" and (events := params.get("events")):
            # Takes the events out of the subscriptions for all windows.  Where only part of a module
            # was given back, the rest of the module stays noted, which does no harm.
            for name, (subscribed, is_global) in list(self._subscribed.items()):
                left = [event for event in subscribed if event not in events]
                if is_global and not left:
                    self._subscribed.pop(name, None)
                    self._made.pop((made.remove, str(name)), None)
                elif is_global:
                    self._subscribed[name] = left, is_global

    def note_unfiltered(self) -> None:
        """A message has gone to the browser past this filter."""
        self._host.note_beyond("a BiDi message past Selenium's commands")

    # -- what is sent

    def _scoped(self, method: str, params: Params) -> Params:
        """The parameters, with the lease's context where they name ``default`` or no context."""
        params = dict(params)
        if method == _NEW_CONTEXT:
            params = {**self._host.new_context_words(), **params}
        elif method.startswith("storage."):
            partition = dict(params.get("partition") or {"type": "storageKey"})
            if partition.get("type") == "storageKey":
                partition["userContext"] = self._real(partition.get("userContext", DEFAULT))
            params["partition"] = partition
        elif method == "permissions.setPermission" or (
            method == "browsingContext.create" and not params.get("referenceContext")
        ):
            params["userContext"] = self._real(params.get("userContext", DEFAULT))
        elif "userContext" in params and method != _REMOVE_CONTEXT:
            params["userContext"] = self._real(params["userContext"])
        elif params.get("userContexts"):
            params["userContexts"] = [self._real(name) for name in params["userContexts"]]
        elif method in FILLED_IN and not params.get("contexts"):
            params["userContexts"] = [self._home]
        return params

    def _real(self, name: Any) -> Any:
        return self._home if name == DEFAULT else name

    def _refusal(self, method: str, params: Params) -> Reply | None:
        """The error answer for a command that names a context or window that is not the lease's; None
        for other commands."""
        named = params.get("userContexts") or []
        partition, target = params.get("partition"), params.get("target")
        named = [*named, params.get("userContext"), *_within(partition, "userContext")]
        foreign = {name for name in named if isinstance(name, str)}
        foreign = foreign - self.contexts - {DEFAULT}
        if foreign:  # for a context that does not exist, the browser itself gives the error
            answer = self._host.connection.command("browser.getUserContexts")["userContexts"]
            foreign &= {each["userContext"] for each in answer}
        if foreign:
            return _error("no such user context", f"User context {foreign.pop()} not found")
        if method == _REMOVE_CONTEXT and params.get("userContext") == self._home:
            return _error("invalid argument", "the user context of the lease cannot be removed")
        windows = [params.get("context"), params.get("root"), params.get("referenceContext")]
        windows += [*(params.get("contexts") or []), *_within(partition, "context")]
        windows += _within(target, "context")
        foreign = self._foreign_windows() if any(windows) else set()
        for name in windows:
            if isinstance(name, str) and name in foreign:
                return _error("no such frame", f"Context {name} not found")
        if method == "browser.setClientWindowState":
            own_windows = {each.get("clientWindow") for each in self._tree() if self._is_own(each)}
            if (given := params.get("clientWindow")) not in own_windows:
                return _error("no such client window", f"Client window {given} not found")
        return None

    # -- what comes back

    def _shown(self, method: str, result: Params) -> Params:
        """The result without contexts, windows and realms that are not the lease's."""
        if method == "browsingContext.getTree":
            trees = [each for each in result["contexts"] if self._is_own(each)]
            for each in trees:
                for window in _flat(each):
                    self._rename(window)
            return {**result, "contexts": trees}
        if method == "browser.getUserContexts":
            found = [each for each in result["userContexts"] if self._is_own(each)]
            for each in found:
                self._rename(each)
            return {**result, "userContexts": found}
        if method == "browser.getClientWindows":
            own = {each.get("clientWindow") for each in self._tree() if self._is_own(each)}
            return {
                **result,
                "clientWindows": [w for w in result["clientWindows"] if w.get("clientWindow") in own],
            }
        if method == "script.getRealms":
            foreign = self._foreign_windows(anew=True)
            realms = [each for each in result["realms"] if each.get("context") not in foreign]
            for each in realms:
                self._rename(each)
            return {**result, "realms": realms}
        self._rename(result)
        if isinstance(key := result.get("partitionKey"), dict):
            self._rename(key)
        return result

    def _rename(self, info: Params) -> None:
        if info.get("userContext") == self._home:
            info["userContext"] = DEFAULT

    def _is_own(self, info: Mapping[str, Any]) -> bool:
        hidden = self._host.connection.own_pages
        return info.get("userContext") in self.contexts and info.get("context") not in hidden

    def _tree(self) -> list[Params]:
        found: list[Params] = list(self._host.connection.command("browsingContext.getTree")["contexts"])
        return found

    def _foreign_windows(self, anew: bool = False) -> set[str]:
        """The windows and frames of other contexts, which are idle during the lease."""
        if self._foreign is None or anew:
            foreign = [each for each in self._tree() if not self._is_own(each)]
            self._foreign = {window["context"] for each in foreign for window in _flat(each)}
        return self._foreign

    # -- events

    def event(self, text: str) -> str | None:
        """Returns the message for the user, for a message of the browser; None for an event that does
        not belong to the lease.

        Called in the thread that reads the connection; sends nothing.
        """
        message = json.loads(text)
        if not isinstance(method := message.get("method"), str) or "id" in message:
            return text
        if self._is_closed or not self._is_subscribed(method):
            return None
        params = message.get("params") or {}
        if self._host.connection.own_pages.is_about(params):
            return None
        is_changed = False
        source = params.get("source")
        for part in (params, source) if isinstance(source, dict) else (params,):
            if self._foreign and part.get("context") in self._foreign:
                return None
            user_context = part.get("userContext")
            if user_context is not None and user_context not in self.contexts:
                return None
            is_changed = is_changed or user_context == self._home
            for window in _flat(part):
                self._rename(window)
        if self._drop_foreign_intercepts(params) or is_changed:
            return json.dumps(message)
        return text

    def _drop_foreign_intercepts(self, params: Params) -> bool:
        """Remove browserkeeper's intercepts from an event: a request that only these hold is not for the
        user to continue.  Returns True if the event was changed."""
        intercepts = params.get("intercepts")
        if not intercepts:
            return False
        own = [name for name in intercepts if (_REMOVE_INTERCEPT, name) in self._made]
        if own and self._host.is_blocked(params):
            own = []
            self._failed.append(params.get("request", {}).get("request"))
        if len(own) == len(intercepts):
            return False
        params["intercepts"] = own
        if not own:
            del params["intercepts"]
            params["isBlocked"] = False
        return True

    def _is_subscribed(self, method: str) -> bool:
        """True if the lease has subscribed to this event.  Firefox sends an event to all connections,
        also to those that have not subscribed to it."""
        for events, _ in list(self._subscribed.values()):
            for event in events:
                if method == event or method.startswith(f"{event}."):
                    return True
        return False

    def attach(self) -> None:
        """To be called before the first command of a lease's connection.

        Raises ProtocolError, or an error of the websocket.
        """
        self._foreign_windows()

    # -- the end of a hook, and of the lease

    def undo_listening(self) -> None:
        """Remove what serves a connection that was closed, whereas the lease begins or goes on.

        Raises as :meth:`undo` does.
        """
        for (remove, name), made in list(self._made.items()):
            if remove in OF_A_CONNECTION:
                self._remove(made, name)
                self._made.pop((remove, name), None)
                self._subscribed.pop(name, None)

    def _remove(self, made: Made, name: str) -> None:
        try:
            self._host.connection.command(*made.removal(name))
        except ProtocolError as error:
            if error.code != made.gone:
                raise

    def close(self) -> None:
        """Raise :attr:`ended_error` for all later commands, and pass on no event."""
        self._is_closed = True

    def undo(self) -> None:
        """Remove the objects that the lease has made, and reset the commands of RESET.

        Raises ProtocolError if the browser does not confirm it, or an error of the websocket.
        """
        self.close()
        if self._in_flight:
            raise ProtocolError("a BiDi command of the lease had no answer")
        for made, name in [(made, name) for (_, name), made in self._made.items()]:
            self._remove(made, name)
        for method, params in self._reset.items():
            self._host.connection.command(method, params)
        self._made.clear()
        self._reset.clear()


_NEW_CONTEXT = "browser.createUserContext"
_REMOVE_CONTEXT = "browser.removeUserContext"
_REMOVE_INTERCEPT = "network.removeIntercept"


def _within(part: Any, key: str) -> list[Any]:
    return [part[key]] if isinstance(part, dict) and part.get(key) is not None else []


def _flat(window: Params) -> Iterator[Params]:
    """A window and all its frames."""
    yield window
    for child in window.get("children") or ():
        yield from _flat(child)


def _error(code: str, message: str) -> Reply:
    return {"type": "error", "error": code, "message": message}


__all__ = ["BidiFilter", "Host"]
