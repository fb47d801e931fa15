"""Firefox: gives all sites of one user context the permission ``geolocation``.

A permission is for one origin, and Firefox has no command for all origins (measured with 153).  So each
origin gets the permission when a window of the context begins to load a page of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .bidi import BidiConnection

EVENTS = ("browsingContext.navigationStarted", "network.beforeRequestSent")
"""The second event comes also for each redirect."""


def allow_geolocation(connection: BidiConnection, context: str) -> Callable[[], None]:
    """Give the permission to each origin from now on; returns a function that stops this.  Raises
    ProtocolError, or an error of the websocket."""
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
