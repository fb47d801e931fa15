"""The filter for BiDi commands and events of a session's own driver.

For a lease with a context of its own, ``bidi_filter.py`` has the filter.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from typing import Any

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.blocking import Blocking
from .blocking import ANSWERS, EVENT, is_blocked
from .own_pages import OwnPages


class SessionFilter:
    """Hides browserkeeper's own tabs, and lets no handler of the user undo ``block=`` in Firefox.

    A handler gets the event of a blocked request; its answer has no effect, and gets no error.  A
    request that only browserkeeper's intercept holds is shown as one that is not held.
    """

    def __init__(self, own_pages: OwnPages, blocking: Blocking | None):
        """``blocking``: None if requests are blocked without BiDi (Chromium), or not at all."""
        self._own_pages, self._blocking = own_pages, blocking
        self._intercepts: set[Any] = set()
        """Ids of the user's intercepts."""
        self._failed: collections.deque[Any] = collections.deque(maxlen=1000)

    def attach(self) -> None:
        """Does nothing: this filter needs to know nothing before the first command."""

    def note_unfiltered(self) -> None:
        """Does nothing: the browser of a session has no later lease to protect."""

    def run(
        self,
        method: str,
        params: dict[str, Any],
        transmit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> dict[str, Any]:
        """Send a command with ``transmit(params)``, and return the answer for the user."""
        if method in ANSWERS and params.get("request") in self._failed:
            return {"type": "success", "result": {}}
        reply = transmit(params)
        result = reply.get("result")
        if isinstance(result, dict) and method == "network.addIntercept":
            self._intercepts.add(result.get("intercept"))
        elif isinstance(result, dict) and method == "browsingContext.getTree":
            shown = [each for each in result["contexts"] if each["context"] not in self._own_pages]
            return {**reply, "result": {**result, "contexts": shown}}
        return reply

    def event(self, text: str) -> str | None:
        """The message for the user, for a message of the browser; None to drop it."""
        if self._blocking is None and self._own_pages.is_unused:
            return text
        message = json.loads(text)
        if "method" not in message:
            return text
        params = message.get("params") or {}
        if self._own_pages.is_about(params):
            return None
        intercepts = params.get("intercepts")
        if not intercepts or self._blocking is None:
            return text
        own = [name for name in intercepts if name in self._intercepts]
        if own and message["method"] == EVENT and is_blocked(self._blocking, params):
            own = []
            self._failed.append(params["request"]["request"])
        if len(own) == len(intercepts):
            return text
        params["intercepts"], params["isBlocked"] = own, bool(own)
        if not own:
            del params["intercepts"]
        return json.dumps(message)


__all__ = ["SessionFilter"]
