"""One seat's part of a browser's BiDi connection, where several leases share the browser.

A Chromium has one BiDi session, that of the WebDriver session which has started the browser.  The seats
share its websocket.  Each seat has a connection object of its own, which notes the contexts and
subscriptions of the seat, and removes them at its end (:meth:`SeatConnection.leave`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .bidi import BidiConnection, Listener, ProtocolError

NEW_CONTEXT, CDP = "browser.createUserContext", "goog:cdp.sendCommand"
END_CONTEXT = "Target.disposeBrowserContext"
SUBSCRIBE = "session.subscribe"
PAUSE = 0.02
"""Seconds between two checks whether a target is gone: Chromium ends the targets of a context after its
answer to END_CONTEXT."""


class NotLeftError(Exception):
    """The browser did not confirm in time that a seat's contexts are gone.  The message says why."""


class SeatConnection(BidiConnection):
    """The methods of :class:`BidiConnection`, over the websocket of another one.

    It is a subclass only for the type checker, and uses no inherited code that has a websocket of its
    own.  :meth:`close` leaves the shared websocket open.
    """

    def __init__(self, connection: BidiConnection):
        self.own_pages, self.exclusive = connection.own_pages, connection.exclusive
        self._connection = connection
        self._removers: list[Callable[[], None]] = []
        self._contexts: dict[str, None] = {}
        """The user contexts that were made over this connection and not ended."""
        self._ended: dict[str, None] = {}
        """The user context that was ended last."""
        self._subscriptions: list[str] = []
        self._may_have_made = False
        """True if a context may have been made whose id is not known."""
        self._changed = threading.Condition()
        self._in_flight = 0
        self._is_closed = False

    def commands(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        calls = list(calls)
        with self._entered():
            self._may_have_made = self._may_have_made or any(name == NEW_CONTEXT for name, _ in calls)
            results = self._connection.commands(calls, timeout)
            for (method, params), result in zip(calls, results, strict=True):
                self._note(method, params, result)
            return results

    def _note(self, method: str, params: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        if method == NEW_CONTEXT:
            self._contexts[result["userContext"]] = None
            self._may_have_made = False
        elif method == SUBSCRIBE and "subscription" in result:
            self._subscriptions.append(result["subscription"])
        elif method == CDP and params.get("method") == END_CONTEXT:
            context = params["params"]["browserContextId"]
            self._contexts.pop(context, None)
            self._ended = {context: None}

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """For a block that uses the websocket; :meth:`leave` waits until it has ended.  Raises
        WebSocketConnectionClosedException after :meth:`close`."""
        from websocket import WebSocketConnectionClosedException

        with self._changed:
            if self._is_closed:
                raise WebSocketConnectionClosedException("this lease of the browser is over")
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def post(self, method: str, params: Mapping[str, Any]) -> None:
        with self._entered():
            self._connection.post(method, params)

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        remove = self._connection.on(event, listener)
        self._removers.append(remove)
        return remove

    @property
    def is_lost(self) -> bool:
        return self._is_closed or self._connection.is_lost

    def close(self) -> None:
        """Refuse all later commands, and pass on no event.  Idempotent."""
        with self._changed:
            self._is_closed = True
        while self._removers:
            self._removers.pop()()

    # -- the end

    @property
    def contexts(self) -> set[str]:
        """The user contexts that were made over this connection and not ended."""
        return set(self._contexts)

    @property
    def ended(self) -> set[str]:
        """The user context that was ended last, of which no target may be left."""
        return set(self._ended)

    def leave(self, timeout: float) -> None:
        """Close this connection, and end its contexts with all of their pages and workers.  Blocks.

        Raises NotLeftError unless the browser confirms the end within ``timeout`` seconds.
        """
        from websocket import WebSocketException

        end = time.monotonic() + timeout
        self.close()
        try:
            ended = self._end_contexts(end)  # this also ends commands that wait for one of their pages
            with self._changed:
                if not self._changed.wait_for(lambda: not self._in_flight, end - time.monotonic()):
                    raise NotLeftError("a command to the browser has no answer yet")
            ended |= self._end_contexts(end)
            if self._may_have_made:
                raise NotLeftError("it is not known whether the browser has made another context")
            if self._subscriptions:
                given = {"subscriptions": self._subscriptions}
                self._connection.command("session.unsubscribe", given, end - time.monotonic())
            self._wait_until_gone(ended, end)
        except (ProtocolError, WebSocketException, OSError) as error:
            raise NotLeftError(str(error)) from None

    def _end_contexts(self, end: float) -> set[str]:
        ended = set(self._contexts)
        for context in ended:
            params = {"method": END_CONTEXT, "params": {"browserContextId": context}}
            self._connection.command(CDP, params, max(0.01, end - time.monotonic()))
            self._contexts.pop(context, None)
        return ended | self.ended

    def _wait_until_gone(self, contexts: set[str], end: float) -> None:
        while True:
            params = {"method": "Target.getTargets", "params": {}}
            answer = self._connection.command(CDP, params, max(0.01, end - time.monotonic()))
            targets = answer["result"]["targetInfos"]
            left = [one["type"] for one in targets if one.get("browserContextId") in contexts]
            if not left:
                return
            if time.monotonic() >= end:
                raise NotLeftError(f"a {left[0]} of the lease is still there")
            time.sleep(PAUSE)


__all__ = ["NotLeftError", "SeatConnection"]
