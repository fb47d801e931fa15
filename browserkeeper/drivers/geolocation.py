"""Firefox: sites of one user context may ask for the place of the device.

A permission is for one origin, and Firefox has no command for all of them (as measured with 153).  So
each origin that a window of the context is about to open is given the permission before it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .bidi import BidiConnection

EVENTS = ("browsingContext.navigationStarted", "network.beforeRequestSent")
"""The second comes for each redirection as well."""


def allow_geolocation(connection: BidiConnection, context: str) -> Callable[[], None]:
    """Begin; returns a function that ends it.  Raises ProtocolError, or an error of the websocket."""
    allowed: set[str] = set()

    def allow(event: dict[str, Any]) -> None:
        url = str(event["url"] if "url" in event else event["request"]["url"])
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if event.get("navigation") is None or parts.scheme not in ("http", "https") or origin in allowed:
            return
        allowed.add(origin)
        permission = {"descriptor": {"name": "geolocation"}, "state": "granted"}
        connection.post(
            "permissions.setPermission", {**permission, "origin": origin, "userContext": context}
        )

    removers = [connection.on(event, allow) for event in EVENTS]
    answer = connection.command("session.subscribe", {"events": list(EVENTS), "userContexts": [context]})

    def end() -> None:
        for remove in removers:
            remove()
        connection.command("session.unsubscribe", {"subscriptions": [answer["subscription"]]})

    return end


__all__ = ["allow_geolocation"]
