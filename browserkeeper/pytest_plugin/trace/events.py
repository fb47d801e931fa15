"""Console messages, requests, dialogs and screenshots of a browser, over a BiDi connection of our own.

A classic screenshot command would not do: it dismisses a dialog that is open, which the test is about to
look at.  A BiDi screenshot leaves it open.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Mapping
from typing import Any

from ...drivers.bidi import BidiConnection, ProtocolError
from ...drivers.own_pages import OwnPages
from . import words
from .recorder import Picture

MOST_MESSAGES, MOST_REQUESTS = 1000, 2000
"""The latest are kept."""
LONGEST_MESSAGE = 2000
CONNECT_TIMEOUT = 10.0
LOOK_TIMEOUT = 5.0
"""Seconds for a screenshot, which takes 0.1 on a quiet machine."""
MOST_STRIKES = 2
"""After so many screenshots without an answer no more are taken."""
FORMAT = {"type": "image/jpeg", "quality": 0.6}
PAGE = "[document.title, location.href]"
SANDBOX = "browserkeeper-trace"
DEFAULT = "default"


@dataclasses.dataclass
class Message:
    """``when``: seconds of the epoch, by the browser's clock."""

    when: float
    level: str
    text: str
    source: str


@dataclasses.dataclass
class Request:
    """``seconds`` and ``status`` are None, and ``error`` is "", until the answer comes."""

    when: float
    method: str
    url: str
    seconds: float | None = None
    status: int | None = None
    mime: str = ""
    size: int | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.error) or (self.status or 0) >= 400


class Events:
    """What one browser, or one user context of it, says of itself until :meth:`close`."""

    def __init__(self, url: str, own_pages: OwnPages, handle: str):
        """Connect and subscribe.  ``handle``: a window of the context.

        Raises OSError, WebSocketException, ProtocolError, and RuntimeError where the system gives no
        more threads.
        """
        self.messages: collections.deque[Message] = collections.deque(maxlen=MOST_MESSAGES)
        self.requests: collections.deque[Request] = collections.deque(maxlen=MOST_REQUESTS)
        self.messages_seen = self.requests_seen = 0
        self.problem = ""
        """Why there are no more screenshots; "" while there are."""
        self._own_pages, self._strikes = own_pages, 0
        self._open: dict[str, Request] = {}
        self._dialogs: dict[str, str] = {}
        self._subscriptions: list[str] = []
        self._connection = BidiConnection(url, CONNECT_TIMEOUT, own_pages)
        try:
            self._subscribe(handle)
        except BaseException:
            self._connection.close()
            raise

    def _subscribe(self, handle: str) -> None:
        on: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "log.entryAdded": self._add_message,
            "network.beforeRequestSent": self._add_request,
            "network.responseStarted": self._answer,
            "network.responseCompleted": self._complete,
            "network.fetchError": self._fail,
            "browsingContext.userPromptOpened": self._open_dialog,
            "browsingContext.userPromptClosed": self._close_dialog,
            "browsingContext.contextDestroyed": self._close_dialog,
        }
        for event, listener in on.items():
            self._connection.on(event, listener)
        (tree,) = self._connection.command("browsingContext.getTree", {"root": handle})["contexts"]
        context = tree.get("userContext", DEFAULT)
        scope = {} if context == DEFAULT else {"userContexts": [context]}
        answer = self._connection.command("session.subscribe", {"events": [*on], **scope})
        if subscription := answer.get("subscription"):
            self._subscriptions.append(subscription)

    def close(self) -> None:
        """End the subscription, which in Firefox outlasts the connection, and close.  Raises nothing."""
        if self._connection.is_lost:
            self._connection.close()
            return
        with contextlib.suppress(Exception):
            if self._subscriptions:
                ended = {"subscriptions": self._subscriptions}
                self._connection.command("session.unsubscribe", ended, LOOK_TIMEOUT)
        self._connection.close()

    # -- screenshots

    def look(self, handle: str) -> Picture:
        """A picture of a window.  Raises nothing; blocks for LOOK_TIMEOUT seconds at most."""
        from websocket import WebSocketException, WebSocketTimeoutException

        if not handle:
            return Picture("no screenshot: no window was chosen")
        if (text := self._dialogs.get(handle)) is not None:
            return Picture(f"no screenshot: a dialog is open: {text[:LONGEST_MESSAGE]}")
        if self.problem:
            return Picture(self.problem)
        wanted = {"context": handle, "format": FORMAT}
        try:
            taken = self._connection.command("browsingContext.captureScreenshot", wanted, LOOK_TIMEOUT)
        except WebSocketTimeoutException:
            self._strikes += 1
            if self._strikes >= MOST_STRIKES:
                self.problem = f"no screenshot: the browser gave none within {LOOK_TIMEOUT:g} s, twice"
            return Picture(f"no screenshot: the browser gave none within {LOOK_TIMEOUT:g} s")
        except (ProtocolError, WebSocketException, OSError) as error:
            return Picture(f"no screenshot: {str(error).partition(chr(10))[0][:LONGEST_MESSAGE]}")
        picture = Picture(kind=FORMAT["type"], data=str(taken["data"]))  # type: ignore[arg-type]
        with contextlib.suppress(ProtocolError, WebSocketException, OSError, LookupError, TypeError):
            picture.title, picture.url = self._page(handle)
        return picture

    def _page(self, handle: str) -> tuple[str, str]:
        target = {"context": handle, "sandbox": SANDBOX}
        asked = {"expression": PAGE, "target": target, "awaitPromise": False}
        answer = self._connection.command("script.evaluate", asked, LOOK_TIMEOUT)
        title, url = (str(each["value"]) for each in answer["result"]["value"])
        return title[: words.LONGEST], words.address(url)

    # -- listeners, in the connection's thread

    def _add_message(self, params: dict[str, Any]) -> None:
        context = (params.get("source") or {}).get("context", "")
        if context in self._own_pages:
            return
        frames = (params.get("stackTrace") or {}).get("callFrames") or [{}]
        place = words.address(str(frames[0].get("url", "")))
        line = frames[0].get("lineNumber")
        source = f"{place}:{line + 1}" if place and isinstance(line, int) else place
        text = str(params.get("text"))[:LONGEST_MESSAGE]
        self.messages_seen += 1
        self.messages.append(Message(_seconds(params), str(params.get("level")), text, source))

    def _add_request(self, params: dict[str, Any]) -> None:
        if self._own_pages.is_about(params):
            return
        asked = params["request"]
        made = Request(_seconds(params), str(asked["method"]), words.address(str(asked["url"])))
        self.requests_seen += 1
        self.requests.append(made)
        self._open[str(asked["request"])] = made
        if len(self._open) > MOST_REQUESTS:  # their answers never came
            del self._open[next(iter(self._open))]

    def _answer(self, params: dict[str, Any]) -> None:
        """The head of an answer has come.  Its body may never do: no script has to read it."""
        if found := self._open.get(str(params["request"]["request"])):
            answer = params["response"]
            found.status, found.mime = int(answer["status"]), str(answer.get("mimeType", ""))

    def _complete(self, params: dict[str, Any]) -> None:
        self._answer(params)
        if found := self._ended(params):
            size = params["response"].get("bytesReceived")
            found.size = size if isinstance(size, int) else None

    def _fail(self, params: dict[str, Any]) -> None:
        if found := self._ended(params):
            found.error = str(params.get("errorText"))[:LONGEST_MESSAGE]

    def _ended(self, params: dict[str, Any]) -> Request | None:
        found = self._open.pop(str(params["request"]["request"]), None)
        if found is not None:
            found.seconds = _duration(params["request"].get("timings") or {})
        return found

    def _open_dialog(self, params: dict[str, Any]) -> None:
        self._dialogs[str(params["context"])] = str(params.get("message"))

    def _close_dialog(self, params: dict[str, Any]) -> None:
        self._dialogs.pop(str(params.get("context")), None)


def _duration(timings: Mapping[str, Any]) -> float | None:
    """Seconds from the request to the end of its answer; None where the browser does not say."""
    begin, end = timings.get("requestTime") or 0, timings.get("responseEnd") or 0
    is_known = begin or timings.get("timeOrigin")  # Chromium's times are relative to it
    return (end - begin) / 1000 if is_known and begin < end else None


def _seconds(params: Mapping[str, Any]) -> float:
    """The time of an event in seconds; BiDi has milliseconds."""
    found = params.get("timestamp")
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    return found / 1000 if isinstance(found, (int, float)) else now


__all__ = ["Events", "Message", "Request"]
