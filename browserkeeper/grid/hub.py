"""Talking to a Grid: what it says of itself, and the one way to give a session back.

Facts of Selenium Grid 4.47, measured (docs/remote.md): a new session's request that is closed
while it waits leaves the queue within a second; one that is closed while its browser starts is
ended by the Grid itself; a DELETE waits behind the command in flight, for up to the Grid's session
timeout, unless that command is broken off from the side: over CDP in Chromium, over BiDi in Firefox.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .address import Address

MARKER = "se:browserkeeper"
"""The capability that names a session of ours: the Grid shows it in its status and in its queue."""
ASK_ALONE = 0.7
"""Seconds that a DELETE may take before the command that it may be waiting for is broken off."""
UNREACHABLE_PATIENCE = 2.0
"""Seconds to go on trying to reach a Grid that is gone: its sessions are gone with it, mostly."""
PAUSE = 0.1
"""Seconds between two looks."""
ATTEMPT = 2.0
"""Seconds for one look at the status or the queue."""
FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What comes of a Grid that is gone, or speaks no HTTP."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A Grid's answer to one request."""

    status: int
    body: bytes

    @property
    def value(self) -> Any:
        """The ``value`` of a WebDriver answer; None for anything else."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document.get("value") if isinstance(document, dict) else None

    @property
    def is_unknown_session(self) -> bool:
        value = self.value
        error = value.get("error") if isinstance(value, dict) else None
        return self.status == 404 and error == "invalid session id"

    @property
    def brief(self) -> str:
        """One line for people: the WebDriver error's message, else how the body begins."""
        value = self.value
        text = value.get("message") if isinstance(value, dict) else None
        words = " ".join(str(text or self.body[:120].decode("utf-8", "replace")).split())
        return f"{self.status}: {words[:160]}" if words else str(self.status)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a session on a Grid ended, by the Grid's own word; None where it said nothing about it."""

    gone: bool | None
    slot_free: bool | None
    answer: str


class Hub:
    """One Grid.  Every call takes a connection of its own, and its own ``timeout`` in seconds."""

    def __init__(self, address: Address, authorization: str = ""):
        self.address = address
        self.authorization = authorization or address.authorization

    def connect(self, timeout: float | None) -> http.client.HTTPConnection:
        """Nothing is sent yet; ``timeout`` is for each wait, None meaning none."""
        where = self.address
        if where.scheme == "https":
            return http.client.HTTPSConnection(where.host, where.port, timeout=timeout, context=_tls())
        return http.client.HTTPConnection(where.host, where.port, timeout=timeout)

    def headers(self) -> dict[str, str]:
        plain = {"Accept": "application/json"}
        return {**plain, "Authorization": self.authorization} if self.authorization else plain

    def ask(self, method: str, path: str, timeout: float) -> Answer:
        """Raises one of :data:`FAILURES`."""
        connection = self.connect(timeout)
        try:
            connection.request(method, self.address.path + path, headers=self.headers())
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def status(self, timeout: float) -> Mapping[str, Any] | None:
        """``/status`` (WebDriver 8.3, and Grid's own additions); None for what is no such answer.

        Raises one of :data:`FAILURES`.
        """
        value = self.ask("GET", "/status", timeout).value
        return value if isinstance(value, dict) and isinstance(value.get("ready"), bool) else None

    def sessions(self, timeout: float) -> dict[str, str] | None:
        """The sessions in the Grid's slots, and our marker of each ("" for strangers'); None where
        the status does not tell.  Raises one of :data:`FAILURES`."""
        nodes = (self.status(timeout) or {}).get("nodes")
        if not isinstance(nodes, list):
            return None
        try:
            running = [slot["session"] for node in nodes for slot in node["slots"] if slot["session"]]
            return {str(s["sessionId"]): str(s["capabilities"].get(MARKER, "")) for s in running}
        except (KeyError, TypeError, AttributeError):
            return None

    def is_queued(self, mark: str, timeout: float) -> bool:
        """Does a request of this mark wait for a slot?  Raises one of :data:`FAILURES`."""
        answer = self.ask("GET", "/se/grid/newsessionqueue/queue", timeout)
        return answer.status == 200 and f'"{mark}"'.encode() in answer.body.replace(b'\\"', b'"')

    # -- the end

    def give_back(self, session: str, deadline: float) -> Ending:
        """End a session and look whether it is gone, at most until ``deadline`` (monotonic)."""
        answers: list[Ending] = []
        asking = threading.Thread(
            target=lambda: answers.append(self._delete(session, deadline)), daemon=True
        )
        asking.start()
        asking.join(min(ASK_ALONE, _left(deadline)))
        if asking.is_alive():
            self.break_off(session, deadline)
            asking.join(_left(deadline))
        said = answers[0] if answers else Ending(None, None, "no answer to DELETE in time")
        return dataclasses.replace(said, **self._verify(session, said.gone, deadline))

    def _delete(self, session: str, deadline: float) -> Ending:
        """Ask again where the Grid itself failed; where it cannot be reached, for a short while."""
        said = Ending(None, None, "was not asked in time")
        give_up = min(deadline, time.monotonic() + UNREACHABLE_PATIENCE)
        while (left := _left(deadline)) > 0.01:
            try:
                answer = self.ask("DELETE", f"/session/{session}", left)
            except FAILURES as error:
                said = Ending(None, None, f"DELETE failed: {error or type(error).__name__}")
                if time.monotonic() > give_up:
                    return said
            else:
                if answer.status == 200 or answer.is_unknown_session:
                    return Ending(True, None, answer.brief)
                said = Ending(None, None, answer.brief)
                if answer.status in (401, 403):
                    return said
            time.sleep(min(PAUSE, _left(deadline)))
        return said

    def _verify(self, session: str, gone: bool | None, deadline: float) -> dict[str, Any]:
        """By the Grid's status: is the session's slot free?  It takes the Grid a moment to say so."""
        while True:
            try:
                running = self.sessions(min(ATTEMPT, max(0.2, _left(deadline))))
            except FAILURES:
                running = None
            if running is None:
                return {"slot_free": None, "gone": gone}
            if session not in running:
                return {"slot_free": True, "gone": True}
            if _left(deadline) <= 0:
                return {"slot_free": False, "gone": False}
            time.sleep(min(PAUSE, _left(deadline)))

    def break_off(self, session: str, deadline: float) -> None:
        """Make the command in flight come back, so that the DELETE behind it is heard.

        Chromium is closed over CDP; Firefox, where the session has BiDi, navigates to a blank page.
        """
        for speak in (self._close_chromium, self._navigate_away):
            with contextlib.suppress(*FAILURES):
                with self._websocket(session, _CHANNELS[speak.__name__], deadline) as channel:
                    speak(channel)
                return

    def _close_chromium(self, channel: Channel) -> None:
        channel.call("Browser.close")

    def _navigate_away(self, channel: Channel) -> None:
        tree = channel.call("browsingContext.getTree", params={})
        for context in re.findall(r'"context":"([^"]+)"', tree):
            blank = {"context": context, "url": "about:blank", "wait": "none"}
            channel.call("browsingContext.navigate", params=blank)

    @contextlib.contextmanager
    def _websocket(self, session: str, channel: str, deadline: float) -> Iterator[Channel]:
        """By the Grid's own address: the URLs in capabilities may name hosts that only it can reach."""
        connection = self.connect(max(0.1, min(ATTEMPT, _left(deadline))))
        try:
            key = base64.b64encode(os.urandom(16)).decode()
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            headers = {**self.headers(), **upgrade, "Sec-WebSocket-Key": key}
            connection.request(
                "GET", f"{self.address.path}/session/{session}/se/{channel}", headers=headers
            )
            link = connection.sock  # the response takes it away where it ends the connection
            status = connection.getresponse().status
            if status != 101 or link is None:
                raise ConnectionError(f"no websocket ({status})")
            yield Channel(link)
        finally:
            connection.close()

    def give_back_unknown(self, mark: str, deadline: float) -> Ending:
        """End whatever the Grid has under this mark, queued or running, for a request that was closed
        before its answer came.  Two looks in a row that find nothing are the proof."""
        quiet, last = 0, Ending(None, None, "the request was closed before its answer came")
        while _left(deadline) > 0:
            try:
                if self.is_queued(mark, min(ATTEMPT, _left(deadline))):
                    quiet, last = 0, Ending(False, False, "the request is still in the Grid's queue")
                    time.sleep(PAUSE)
                    continue
                running = self.sessions(min(ATTEMPT, max(0.2, _left(deadline))))
            except FAILURES as error:
                return Ending(None, None, f"{type(error).__name__}: {error}")
            if running is None:
                return Ending(None, None, "the status does not tell which sessions run")
            found = [session for session, theirs in running.items() if theirs == mark]
            if found:
                quiet, last = 0, self.give_back(found[0], deadline)
                continue
            quiet += 1
            if quiet >= QUIET_LOOKS:
                return Ending(True, True, "no session and no request of ours is left")
            time.sleep(QUIET_PAUSE)
        return last


QUIET_LOOKS = 4
"""Looks in a row that have to find nothing of a request that was closed."""
QUIET_PAUSE = 0.3
"""Seconds between them: a session whose client is gone shows for half a second."""
_CHANNELS = {"_close_chromium": "cdp", "_navigate_away": "bidi"}


class Channel:
    """As much of a websocket client (RFC 6455) as two commands need."""

    def __init__(self, link: socket.socket):
        self._link = link
        self._number = 0

    def call(self, method: str, **more: Any) -> str:
        """Send a command; what came next, whatever it is.  Raises OSError."""
        self._number += 1
        text = json.dumps({"id": self._number, "method": method, **more}).encode()
        size = len(text)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self._link.sendall(b"\x81" + length + bytes(4) + text)  # a mask of zeros masks nothing
        return self._link.recv(65536).decode("utf-8", "replace")


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


__all__ = ["FAILURES", "MARKER", "Answer", "Ending", "Hub"]
