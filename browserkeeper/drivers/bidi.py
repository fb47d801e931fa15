"""browserkeeper's own WebDriver BiDi connection to a browser, besides Selenium's
(w3.org/TR/webdriver-bidi).

Measured with chromium 156 and Firefox 153: a session accepts several websockets.  Chromium sends an
event only to the websockets that have subscribed to it; Firefox sends it to all websockets of the
session as soon as one of them has subscribed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from .own_pages import OwnPages

ANSWER_TIMEOUT = 20.0
"""Seconds for one answer of the browser; it takes 1 to 100 ms."""
CLOSE_TIMEOUT = 2.0
"""Seconds for the reader thread to end once its socket was shut; it takes milliseconds."""

Listener = Callable[[dict[str, Any]], None]
"""Called with the ``params`` of an event, in the connection's thread."""

logger = logging.getLogger("browserkeeper")


class ProtocolError(Exception):
    """The browser refused a command, or gave an answer that does not fit it.

    ``code`` is the ``error`` of the answer, such as "no such user context"; "" without one.
    """

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class BidiConnection:
    """One websocket and the thread that reads it.  Its methods may be called from any thread."""

    def __init__(self, url: str, timeout: float = ANSWER_TIMEOUT, own_pages: OwnPages | None = None):
        """Connect.  ``timeout``: seconds to connect, and for each answer.  ``own_pages``: those of the
        browser, if it has another connection of browserkeeper.

        Raises OSError or WebSocketException, and RuntimeError where the system gives no more threads.
        """
        from .websockets import open_websocket

        self.own_pages = own_pages or OwnPages()
        """The tabs that were opened over this connection."""
        self.exclusive = threading.RLock()
        """Held while code looks for an object in the browser, and makes it if it is missing, so that two
        threads do not make it twice."""
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        """For each command in flight, by its number: takes the answer, or None when the connection is
        lost."""
        self._listeners: dict[str, list[Listener]] = {}
        self._is_lost = False
        self._socket = open_websocket(url, timeout)
        self._socket.settimeout(None)  # events may be far apart
        self._thread = threading.Thread(target=self._read, name="browserkeeper-bidi", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._shut()
            raise

    # -- commands

    def command(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Send one command, and return its ``result``.

        Raises ProtocolError for an error of the browser, WebSocketTimeoutException without an answer
        within ``timeout`` seconds, and another WebSocketException or OSError where the connection is
        lost.  Never call it in a listener, whose thread reads the answer; :meth:`post` may be called
        there.
        """
        return self.commands([(method, params or {})], timeout)[0]

    def commands(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Send several commands at once, and return their results in the same order.

        All are sent, and all answers awaited, before the first error is raised; ``timeout`` is for all
        of them together.
        """
        calls, numbers, waits = list(calls), [], []
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            for method, params in calls:
                number, waiting = self._send(method, params)
                numbers.append(number)
                waits.append(waiting)
            answers = [self._answer(call[0], wait, end) for call, wait in zip(calls, waits, strict=True)]
        finally:
            for number in numbers:
                self._answers.pop(number, None)
        for (method, params), answer in zip(calls, answers, strict=True):
            if answer.get("type") != "success":
                what = f"{method} {params.get('method', '')}".strip()
                raise ProtocolError(f"{what}: {answer.get('message')}", str(answer.get("error", "")))
        return [cast("dict[str, Any]", answer["result"]) for answer in answers]

    def post(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one command without waiting for its answer, which is dropped.  For listeners."""
        number, _ = self._send(method, params)
        self._answers.pop(number, None)

    def cdp(self, command: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol to a Chromium, and return its result."""
        answer = self.command("goog:cdp.sendCommand", {"method": command, "params": params})
        return cast("dict[str, Any]", answer["result"])

    def _send(
        self, method: str, params: Mapping[str, Any]
    ) -> tuple[int, queue.SimpleQueue[dict[str, Any] | None]]:
        number = next(self._numbers)
        waiting = self._answers[number] = queue.SimpleQueue()
        try:
            if self._is_lost:  # after the entry was made: the reader sees one of the two
                waiting.put(None)
            else:
                message = {"id": number, "method": method, "params": params}
                self._socket.send(json.dumps(message, separators=(",", ":")))
        except BaseException:
            self._answers.pop(number, None)
            raise
        return number, waiting

    def _answer(
        self, method: str, waiting: queue.SimpleQueue[dict[str, Any] | None], end: float
    ) -> dict[str, Any]:
        from websocket import WebSocketConnectionClosedException, WebSocketTimeoutException

        try:
            answer = waiting.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            raise WebSocketTimeoutException(f"{method}: the browser does not answer") from None
        if answer is None:
            raise WebSocketConnectionClosedException(f"{method}: the connection to the browser is lost")
        return answer

    # -- events

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        """Have the listener called for each event of this name; returns a function that ends that.

        Does not subscribe.  Call it before ``session.subscribe``, to miss no event.
        """
        listeners = self._listeners.setdefault(event, [])
        listeners.append(listener)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                listeners.remove(listener)

        return remove

    # -- the connection

    @property
    def is_lost(self) -> bool:
        """True once the browser, or :meth:`close`, has closed the connection."""
        return self._is_lost

    def close(self) -> None:
        """Close the connection; the browser stays open.  Commands in flight raise.  Idempotent."""
        self._shut()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT)

    def _shut(self) -> None:
        # Closing the descriptor alone does not wake a thread that waits in recv(2) on it.
        with contextlib.suppress(Exception):
            self._socket.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr] # None once closed
        with contextlib.suppress(Exception):
            self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _read(self) -> None:
        """The thread: hands answers to the commands, and events to the listeners."""
        try:
            while text := self._socket.recv():
                message = json.loads(text)
                if (number := message.get("id")) is not None:
                    if (waiting := self._answers.get(number)) is not None:
                        waiting.put(message)
                elif listeners := self._listeners.get(message.get("method", "")):
                    self._call(listeners, message)
        except Exception as error:  # noqa: BLE001 # the end of the connection, in whatever way
            logger.debug("a BiDi connection has ended: %r", error)
        finally:
            self._is_lost = True
            for waiting in list(self._answers.values()):
                waiting.put(None)

    def _call(self, listeners: list[Listener], message: Mapping[str, Any]) -> None:
        for listener in list(listeners):
            try:
                listener(message.get("params", {}))
            except Exception:  # the other listeners still get their events
                logger.exception("a listener for %s failed", message.get("method"))


__all__ = ["ANSWER_TIMEOUT", "BidiConnection", "Listener", "ProtocolError"]
