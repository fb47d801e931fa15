"""``block=`` in Firefox: each request of a context waits until browserkeeper has continued or failed it
(BiDi ``network.addIntercept``).

``target_overrides.py`` blocks requests in Chromium: ChromeDriver sends no BiDi command while a classic
command is running (measured with 156), so that a page load would wait for an answer that cannot come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..options.blocking import Blocking
from .bidi import BidiConnection, ProtocolError

EVENT = "network.beforeRequestSent"

ANSWERS = frozenset({"network.continueRequest", "network.failRequest", "network.provideResponse"})
"""Commands that a handler may send for a request that an intercept holds."""

CHROMIUM_TYPES = {
    "image": "Image",
    "media": "Media",
    "font": "Font",
    "stylesheet": "Stylesheet",
    "script": "Script",
}
"""The names of the types in the DevTools protocol (``Network.ResourceType``)."""


def chromium_patterns(blocking: Blocking | None) -> list[dict[str, str]]:
    """The parameter ``patterns`` of ``Fetch.enable``, in which ``*`` and ``?`` are wildcards."""
    if blocking is None:
        return []
    found = [{"urlPattern": "*", "resourceType": CHROMIUM_TYPES[name]} for name in blocking.types]
    for pattern in blocking.patterns:
        found.append({"urlPattern": pattern.replace("?", r"\?")})
        if "?" not in pattern:
            found.append({"urlPattern": pattern + r"\?*"})
    return found


def is_blocked(blocking: Blocking | None, params: dict[str, Any]) -> bool:
    """True if the request of this event of Firefox is to be blocked."""
    if blocking is None:
        return False
    request = params.get("request") or {}
    url = str(request.get("url", "")).partition("#")[0]
    return blocking.blocks(url, str(request.get("destination") or ""))


def block_in_firefox(connection: BidiConnection, context: str, blocking: Blocking) -> Callable[[], None]:
    """Block requests of a user context.  Returns a function that ends the blocking.

    That function raises ProtocolError if the browser does not confirm the end; it does nothing after the
    browser's end.  Raises ProtocolError, or an error of the websocket.
    """
    intercept = ""

    def decide(params: dict[str, Any]) -> None:
        """Continue or fail a request.  If an intercept of the user holds it as well, the user continues
        it."""
        intercepts = params.get("intercepts") or ()
        is_held = params.get("isBlocked") and intercept in intercepts
        if not is_held or params.get("context") in connection.own_pages:  # OwnPage answers it
            return
        name = {"request": params["request"]["request"]}
        if is_blocked(blocking, params):
            connection.post("network.failRequest", name)
        elif len(intercepts) == 1:
            connection.post("network.continueRequest", name)

    intercept = connection.command("network.addIntercept", {"phases": ["beforeRequestSent"]})[
        "intercept"
    ]
    remove = connection.on(EVENT, decide)
    where = {"events": [EVENT], "userContexts": [context]}
    try:
        subscription = connection.command("session.subscribe", where)["subscription"]
    except BaseException:
        remove()
        with contextlib.suppress(Exception):
            connection.command("network.removeIntercept", {"intercept": intercept})
        raise

    def end() -> None:
        from websocket import WebSocketException

        with contextlib.suppress(WebSocketException, OSError):  # of a browser that has ended
            for method, params in (
                ("network.removeIntercept", {"intercept": intercept}),
                ("session.unsubscribe", {"subscriptions": [subscription]}),
            ):
                try:
                    connection.command(method, params)
                except ProtocolError as error:
                    if error.code not in ("no such intercept", "invalid argument"):
                        raise
        remove()

    return end


__all__ = ["ANSWERS", "EVENT", "block_in_firefox", "chromium_patterns", "is_blocked"]
