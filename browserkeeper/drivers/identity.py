"""How an identity becomes part of a browser: at its launch, and by BiDi commands while it runs.

At the launch of a browser (for ``browser()`` and for a pool's own words), arguments, preferences and
environment set the words; they have their effect in the whole process.  Words that a launch cannot set,
and all words of a lease, are set by BiDi commands, for the windows, frames and workers of one user
context.  ``docs/identity.md`` has the measured table of where each word has its effect.

The words ``proxy``, ``storage_state`` and ``block`` have modules of their own, which this one calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..config import SessionConfig
from ..errors import ConfigError, IdentityError
from ..options.identity import NO_IDENTITY, Identity
from ..options.storage_state import StorageState
from .bidi import BidiConnection, ProtocolError
from .blocking import block_in_firefox
from .geolocation import allow_geolocation
from .proxies import chromium_arguments, firefox_preferences
from .storage_state import load
from .target_overrides import TargetOverrides

if TYPE_CHECKING:
    from ..proxy.relay import Route

DEFAULT_CONTEXT = "default"
"""The user context of the windows that a browser starts with (w3.org/TR/webdriver-bidi)."""

BY_BIDI: Mapping[str, frozenset[str]] = {
    "chromium": frozenset(
        {"locale", "user_agent", "geolocation", "extra_headers", "storage_state", "block"}
    ),
    "firefox": frozenset({"extra_headers", "storage_state", "block"}),
}
"""For each engine the words that a launch cannot set, or not completely.

Chromium's ``--accept-lang`` does not change ``Intl``; with ``--user-agent`` it still sends its own
client hints (Sec-CH-UA); it has no argument for a geolocation or for headers."""

BY_TARGETS = frozenset({"locale", "user_agent", "extra_headers", "block"})
"""Words that Chromium's BiDi does not set in every target; see ``target_overrides.py``."""

IN_A_NEW_CONTEXT = frozenset({"proxy"})
"""Words that only ``browser.createUserContext`` takes."""


# -- at the launch


@dataclasses.dataclass
class LaunchWords:
    """The parts of a browser's launch that set its identity."""

    arguments: list[str] = dataclasses.field(default_factory=list)
    preferences: dict[str, Any] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    """Variables that replace those of this process; the user's ``env=`` replaces them in turn."""


def launch_words(config: SessionConfig, route: Route | None = None) -> LaunchWords:
    """Returns how a launch with this configuration sets its identity.  On a Grid, ``env`` has no effect.

    ``route`` is the relay's route to the proxy; None without a proxy, and on a Grid.
    """
    words, identity = LaunchWords(), config.identity
    if identity.timezone:
        words.env["TZ"] = identity.timezone
    if config.engine == "firefox":
        _for_firefox(words, config)
        words.preferences |= firefox_preferences(config, route)
    else:
        _for_chromium(words, identity)
        words.arguments += chromium_arguments(config, route)
    return words


def _for_chromium(words: LaunchWords, identity: Identity) -> None:
    if identity.locale:
        words.arguments += [f"--lang={identity.locale}", f"--accept-lang={identity.locale}"]
    if identity.user_agent:
        words.arguments.append(f"--user-agent={identity.user_agent}")


def _for_firefox(words: LaunchWords, config: SessionConfig) -> None:
    identity = config.identity
    if identity.locale:
        words.preferences["intl.accept_languages"] = identity.locale
        if config.remote is None:  # for Intl: the locale of the system, as the environment says
            words.preferences["intl.regional_prefs.use_os_locales"] = True
            words.env["LC_ALL"] = f"{identity.locale.replace('-', '_')}.UTF-8"
    if identity.user_agent:
        words.preferences["general.useragent.override"] = identity.user_agent
    if place := identity.geolocation:
        answer = {
            "location": {"lat": place.latitude, "lng": place.longitude},
            "accuracy": place.accuracy,
        }
        words.preferences |= {
            "geo.provider.network.url": f"data:application/json,{json.dumps(answer)}",
            "geo.provider.use_geoclue": False,
            "permissions.default.geo": 1,  # allowed, as ChromeDriver has it in every new profile
        }


def needs_bidi(config: SessionConfig) -> bool:
    """True if browserkeeper needs a BiDi connection of its own for the identity of the session."""
    if not config.is_here or config.debugger_address or config.for_contexts:
        return False
    return bool(BY_BIDI[config.engine] & config.identity.words.keys())


def check(config: SessionConfig) -> None:
    """Raises ConfigError if the identity needs BiDi, and the user's options turn BiDi off."""
    capabilities = getattr(config.options, "capabilities", None) or {}
    if needs_bidi(config) and capabilities.get("webSocketUrl", True) is not True:
        words = [f"{name}=" for name in config.identity.words if name in BY_BIDI[config.engine]]
        raise ConfigError(
            f"options: the capability 'webSocketUrl' is {capabilities['webSocketUrl']!r}, and "
            f"{words[0] if words else 'the identity'} needs BiDi. Leave the capability out."
        )


def may_save_by_bidi(config: SessionConfig) -> bool:
    """True if the session needs BiDi to save its storage state.

    Firefox shows the cookies of all sites only by BiDi, which can be turned on only at the start.  It
    does not make Firefox slower; with BiDi a start of Chromium takes a third longer.
    """
    if not config.is_here or config.debugger_address or config.for_contexts:
        return False
    return config.engine == "firefox"


# -- while it runs


class Applied:
    """The parts of an identity that are in effect in one user context until :meth:`close`."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], None]] = []
        self.hidden_window = ""
        """The handle of a window that must not be shown to the user; "" for none."""

    def on_close(self, closer: Callable[[], None]) -> None:
        """Register a function that :meth:`close` calls.  Its errors are dropped: after it, either the
        context is closed, which is verified, or the connection has been closed already."""
        self._closers.append(closer)

    def close(self) -> None:
        """To be called before the context is closed, or after the connection was closed.  Idempotent."""
        while self._closers:
            with contextlib.suppress(Exception):
                self._closers.pop()()


def needs_new_context(identity: Identity, present: Identity) -> bool:
    """True if a context with the identity ``present`` cannot change to ``identity``: a new one is
    needed."""
    new, old = identity.words, present.words
    if present.storage_state is not None and present.storage_state != identity.storage_state:
        return True
    return any(new.get(name) != old.get(name) for name in IN_A_NEW_CONTEXT)


def apply(
    connection: BidiConnection,
    engine: str,
    context: str,
    identity: Identity,
    timeout: float | None = None,
    loaded: StorageState | None = None,
) -> Applied:
    """Set an identity for a user context: for its present windows, and for all later ones.

    ``context``: the id, or DEFAULT_CONTEXT.  ``timeout``: seconds for the browser to answer.
    ``loaded``: the storage state that the context has already.  Raises IdentityError if the browser
    refuses a word, and errors of the websocket.
    """
    applied = Applied()
    if identity.storage_state is not None and identity.storage_state is not loaded:
        load(connection, engine, context, identity.storage_state, timeout)
    if engine == "firefox" and identity.timezone:
        primary = _primary_zone(connection, context, identity.timezone)
        identity = dataclasses.replace(identity, timezone=primary)
    calls = _calls(engine, context, identity)
    try:
        connection.commands([(method, params) for _, method, params in calls], timeout)
        if engine == "chromium" and BY_TARGETS & identity.words.keys():
            with connection.exclusive:
                overrides = TargetOverrides(connection)
            of_cdp = _context_of_cdp(connection, context)
            overrides.add(of_cdp, identity)
            applied.hidden_window = overrides.page
            applied.on_close(functools.partial(overrides.remove, of_cdp))
        if engine == "firefox" and identity.block:
            applied.on_close(block_in_firefox(connection, context, identity.block))
        if engine == "firefox" and identity.geolocation and context != DEFAULT_CONTEXT:
            applied.on_close(allow_geolocation(connection, context))
    except ProtocolError as error:
        raise _refused(calls, error, identity) from None
    return applied


def _primary_zone(connection: BidiConnection, context: str, zone: str) -> str:
    """Firefox's name of a time zone: it refuses aliases such as ``Asia/Calcutta`` (measured with
    153)."""
    tree = connection.command("browsingContext.getTree", {"maxDepth": 0})["contexts"]
    windows = [tab["context"] for tab in tree if tab["userContext"] == context]
    if not windows:
        return zone
    script = f"Intl.DateTimeFormat('en', {{timeZone: {json.dumps(zone)}}}).resolvedOptions().timeZone"
    target = {"context": windows[0], "sandbox": "browserkeeper"}
    answer = connection.command(
        "script.evaluate", {"expression": script, "target": target, "awaitPromise": False}
    )
    return str(answer.get("result", {}).get("value") or zone)


def _context_of_cdp(connection: BidiConnection, context: str) -> str:
    """The id of a user context in Chromium's DevTools protocol: the same, unless it is the default."""
    if context != DEFAULT_CONTEXT:
        return context
    pages = [t for t in connection.cdp("Target.getTargets")["targetInfos"] if t["type"] == "page"]
    return str(pages[0]["browserContextId"])


def _calls(engine: str, context: str, identity: Identity) -> list[tuple[str, str, dict[str, Any]]]:
    """The BiDi commands that set an identity, each as (word, method, parameters)."""
    where = {"userContexts": [context]}
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def add(word: str, method: str, **params: Any) -> None:
        calls.append((word, method, {**params, **where}))

    if identity.locale:
        add("locale", "emulation.setLocaleOverride", locale=identity.locale)
    if identity.timezone:
        add("timezone", "emulation.setTimezoneOverride", timezone=identity.timezone)
    if identity.user_agent and engine != "chromium":
        add("user_agent", "emulation.setUserAgentOverride", userAgent=identity.user_agent)
    if place := identity.geolocation:
        add("geolocation", "emulation.setGeolocationOverride", coordinates=place._asdict())
    if headers := _headers(engine, identity):
        values = [{"name": n, "value": {"type": "string", "value": v}} for n, v in headers]
        add("extra_headers", "network.setExtraHeaders", headers=values)
    return calls


def _headers(engine: str, identity: Identity) -> list[tuple[str, str]]:
    """The headers to set.  On Firefox also those of ``user_agent`` and ``locale``: the requests of
    dedicated workers would not have them otherwise."""
    headers = list(identity.extra_headers or ())
    if engine == "firefox":
        headers += [("User-Agent", identity.user_agent)] if identity.user_agent else []
        headers += [("Accept-Language", identity.locale)] if identity.locale else []
    return headers


def _refused(
    calls: list[tuple[str, str, dict[str, Any]]], error: ProtocolError, identity: Identity
) -> IdentityError:
    """The error for a refused command.  It names the word; for ``extra_headers`` it has neither the
    values nor the browser's text, which may contain them."""
    text = str(error)
    word = next((word for word, method, _ in calls if text.startswith(method)), "")
    if word == "extra_headers":
        return IdentityError("The browser refuses extra_headers=: check names and values.", word)
    value = identity.words.get(word)
    what = f"{word}={value!r}" if word else "the identity"
    return IdentityError(f"The browser refuses {what}: {text.partition(': ')[2]}", word)


__all__ = [
    "DEFAULT_CONTEXT",
    "NO_IDENTITY",
    "Applied",
    "LaunchWords",
    "apply",
    "launch_words",
    "may_save_by_bidi",
    "needs_bidi",
    "needs_new_context",
]
