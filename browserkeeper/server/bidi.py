"""A session's BiDi: a websocket of the client, joined to one of the browser through the lease's filter.

Because of the filter a client sees only the windows of its own lease, and its subscriptions, intercepts
and preload scripts end with the lease.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from websocket import WebSocket, WebSocketException

from ..drivers.websockets import open_websocket
from ..errors import BrowserkeeperError, ConfigError
from ..pool.lease import Lease

CONNECT_TIMEOUT = 30.0
"""Seconds to open the websocket to the browser."""
AT_ONCE = 64
"""How many commands may wait for their answers.  A page load that an intercept holds waits until another
command continues it."""
MOST_PENDING = 256
"""How many messages of a client may be without an answer before the next one is read."""
LARGEST_ID = 2**53 - 1

Params = dict[str, Any]


class Bridge:
    """Passes messages between one websocket of a client and a websocket to the browser.

    ``send`` gets each message for the client.  ``closed`` is called when the websocket to the browser is
    closed, or ``send`` has failed.  Both are called in threads of this object; ``send`` may block.
    """

    def __init__(self, lease: Lease[Any], send: Callable[[str], None], closed: Callable[[], None]):
        """Open the websocket to the browser.  Raises BrowserkeeperError or an error of the websocket."""
        driver: Any = lease.driver
        self._handler = driver.command_handler
        self._send, self._closed = send, closed
        self._filter = self._handler.bidi_filter
        if self._filter is not None:
            self._filter.attach()
        self._upstream: WebSocket = open_websocket(driver.caps["webSocketUrl"], CONNECT_TIMEOUT)
        self._upstream.settimeout(None)  # events may be far apart
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[Params]] = {}
        self._is_over = False
        self._pending: set[Future[None]] = set()
        """One for each message of the client that has no answer yet."""
        self._writing = threading.Lock()
        self._latest = threading.Event()
        """Set once the client's latest message has been sent to the browser, or answered."""
        self._latest.set()
        self._commands = ThreadPoolExecutor(AT_ONCE, "browserkeeper-bidi")
        self._reader = threading.Thread(target=self._read, name="browserkeeper-bidi-events", daemon=True)
        self._reader.start()

    def receive(self, text: str) -> None:
        """Take a message of the client; returns at once."""
        before, self._latest = self._latest, threading.Event()
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            done = self._commands.submit(self._handle, text, before, self._latest)
            self._pending.add(done)
            done.add_done_callback(self._pending.discard)

    @property
    def is_busy(self) -> bool:
        """True while so many messages wait that the next one should not be read yet."""
        return len(self._pending) >= MOST_PENDING and not self._is_over

    def _handle(self, text: str, before: threading.Event, sent: threading.Event) -> None:
        """Handle one message of the client, in a thread of its own: a command may get its answer only
        after a later command.

        Commands reach the browser in the order of the client's messages: this call waits for ``before``,
        and sets ``sent`` once its own message was sent or answered.
        """
        try:
            before.wait()
            self._handle_next(text, sent)
        finally:
            sent.set()

    def _handle_next(self, text: str, sent: threading.Event) -> None:
        try:
            message = json.loads(text)
            number = message["id"]
            method, params = message["method"], message.get("params", {})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._refuse(
                None, "invalid argument", "a command is a JSON object with id, method and params"
            )
            return
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if not is_number or not 0 <= number <= LARGEST_ID:
            self._refuse(None, "invalid argument", "'id' must be a whole number")
        elif not isinstance(method, str) or not isinstance(params, dict):
            self._refuse(number, "invalid argument", "'method' must be a string, and 'params' an object")
        elif method in REFUSED:
            self._refuse(number, *REFUSED[method])
        else:
            self._run(number, method, params, sent)

    def _run(self, number: int, method: str, params: Params, sent: threading.Event) -> None:
        def transmit(changed: Params) -> Params:
            return self._transmit(method, changed, sent)

        try:
            with self._handler.observe_command("bidi", {"method": method}):
                found = self._filter
                reply = transmit(params) if found is None else found.run(method, params, transmit)
        except ConfigError as error:
            self._refuse(number, "unsupported operation", str(error))
        except BrowserkeeperError as error:
            self._refuse(number, "invalid session id", str(error))
        except (OSError, WebSocketException):
            self._refuse(number, "unknown error", "the connection to the browser is closed")
        except Exception as error:  # noqa: BLE001 # of the filter, for parameters of odd types
            self._refuse(
                number, "invalid argument", f"the command is not valid ({type(error).__name__})"
            )
        else:
            self._deliver(json.dumps({**reply, "id": number}))

    def _transmit(self, method: str, params: Params, sent: threading.Event) -> Params:
        """Send a command to the browser, set ``sent``, and return the answer.  Blocks until it comes.
        Raises an error of the connection."""
        number, answer = next(self._ids), Future[Params]()
        self._waiting[number] = answer
        try:
            if self._is_over:
                raise ConnectionError
            text = json.dumps({"id": number, "method": method, "params": params})
            with self._writing:
                self._upstream.send(text)
            sent.set()
            return answer.result()
        finally:
            self._waiting.pop(number, None)

    def _refuse(self, number: int | None, code: str, text: str) -> None:
        self._deliver(json.dumps({"type": "error", "id": number, "error": code, "message": text}))

    def _deliver(self, text: str) -> None:
        try:
            self._send(text)
        except Exception:  # noqa: BLE001 # the client has gone, or takes no messages
            self.close()
            self._closed()

    def _read(self) -> None:
        try:
            while text := self._upstream.recv():
                self._take(text if isinstance(text, str) else text.decode())
        except (OSError, WebSocketException, ValueError):
            pass
        finally:
            self._is_over = True
            upstream: Any = self._upstream
            with contextlib.suppress(Exception):
                upstream.shutdown()
            for answer in list(self._waiting.values()):
                with contextlib.suppress(Exception):
                    answer.set_exception(ConnectionError("the browser has closed the connection"))
            self._closed()

    def _take(self, text: str) -> None:
        message = json.loads(text)
        if isinstance(number := message.get("id"), int):
            if (answer := self._waiting.get(number)) is not None:
                answer.set_result(message)
            return
        shown = text if self._filter is None else self._filter.event(text)
        if shown is not None:
            self._deliver(shown)

    def close(self) -> None:
        """Close the websocket to the browser, and end the threads.  Idempotent; returns at once."""
        self._is_over = True
        self._commands.shutdown(wait=False, cancel_futures=True)
        upstream: Any = self._upstream
        with contextlib.suppress(Exception):  # wakes the reader, which tells the commands that wait
            upstream.sock.shutdown(socket.SHUT_RDWR)


REFUSED = {
    "session.new": ("session not created", "this websocket belongs to a session"),
    "session.end": ("unsupported operation", "end the session with DELETE /session/ID (driver.quit())"),
    "browser.close": (
        "unsupported operation",
        "end the session with DELETE /session/ID (driver.quit())",
    ),
}
"""Commands that would end more than the lease, or begin another: code and text of the answer."""

__all__ = ["Bridge"]
