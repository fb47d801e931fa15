"""A server in a thread of the test, and raw HTTP to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from types import TracebackType
from typing import Any, NamedTuple

from aiohttp import web
from selenium import webdriver

from browserkeeper.server.app import SERVER, Server, create_app
from browserkeeper.server.connections import Listener
from browserkeeper.server.gatekeeper import Gatekeeper
from browserkeeper.server.service import DISCARD_TIME, make_runner
from browserkeeper.server.settings import ServerSettings

LIMIT = 300.0
"""Seconds that end a failing test only."""


class Answer(NamedTuple):
    status: int
    value: Any

    @property
    def error(self) -> str:
        """The code of an error answer; "" for any other."""
        found = self.value.get("error", "") if isinstance(self.value, dict) else ""
        assert not found or {"message", "stacktrace"} <= set(self.value)
        return str(found)

    @property
    def message(self) -> str:
        return str(self.value["message"])


class Serving:
    """A server on a free port of 127.0.0.1, from ``with`` to the end of the block.

    ``last_answers``: seconds for which its end waits for answers.  ``discard_time``: seconds for which
    the rest of a refused body is read; a client that is slower, on a busy machine, has no answer.
    """

    def __init__(self, *, last_answers: float = 1, discard_time: float = DISCARD_TIME, **settings: Any):
        given = {"max_browsers": 1, "queue_timeout": LIMIT, "start_timeout": LIMIT, **settings}
        self.settings = ServerSettings(**given)
        self._times = {"last_answers": last_answers, "discard_time": discard_time}
        self.port = 0
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server")
        self._drivers: list[Any] = []

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = create_app(self.settings)
        self.server: Server = app[SERVER]
        Gatekeeper(None, self.server).add_to(app)
        runner = make_runner(app, **self._times)
        await runner.setup()
        try:
            listener = Listener(socket.AF_INET, socket.SOCK_STREAM)
            listener.bind(("127.0.0.1", 0))
            listener.connections = self.server.connections
            await web.SockSite(runner, listener).start()
            self.port = listener.getsockname()[1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def __enter__(self) -> Serving:
        self._thread.start()
        assert self._ready.wait(LIMIT)
        if self.error is not None:
            raise self.error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)
        for driver in self._drivers:
            driver.command_executor.close()
        assert not self._thread.is_alive()
        if self.error is not None and error is None:
            raise self.error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def remote(self, options: Any = None, **capabilities: Any) -> webdriver.Remote:
        """Selenium's own client, unchanged."""
        options = options or webdriver.ChromeOptions()
        for name, value in capabilities.items():
            options.set_capability(name.replace("__", ":"), value)
        driver = webdriver.Remote(self.url, options=options)
        self._drivers.append(driver)
        return driver

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request by raw HTTP.  ``body``: an object, or bytes that are sent as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read())["value"])
        finally:
            connection.close()

    def new_session(self, **capabilities: Any) -> str:
        """By raw HTTP; returns the session's id."""
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        assert answer.status == 200, answer
        return str(answer.value["sessionId"])
