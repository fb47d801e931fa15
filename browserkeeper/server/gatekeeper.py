"""The middleware before all handlers: it refuses requests without access, and cuts slow connections."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from .access import Access, Refusal
from .app import JSON_HEADERS, Server
from .connections import Connection

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

logger = logging.getLogger("browserkeeper")

HEAD_PATIENCE = 15.0
"""Seconds for the head of a request, from its first byte on."""
IDLE_PATIENCE = 120.0
"""Seconds for which a connection without a session may be idle."""
LOOK = 1.0
"""Seconds between two checks for slow connections."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gatekeeper:
    """The middleware of one application; :meth:`add_to` adds it.

    ``access``: None if every request may go on.
    """

    def __init__(self, access: Access | None, server: Server):
        self.access, self._server = access, server
        self.refused = 0
        """Requests without access."""

    def add_to(self, app: web.Application) -> None:
        """Add the middleware to the application.  To be called before the application starts."""
        app.middlewares.append(self._middleware)
        app.cleanup_ctx.insert(0, self._run)

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        """Cut slow connections as long as the application runs (aiohttp's ``cleanup_ctx``)."""
        task = asyncio.create_task(self._look_for_slow_clients())
        try:
            yield
        finally:
            task.cancel()

    async def _look_for_slow_clients(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if number := self._server.connections.cut_slow(HEAD_PATIENCE, IDLE_PATIENCE):
                logger.debug("server: cut %d connections that were slow or idle", number)

    @property
    def _middleware(self) -> Middleware:
        @web.middleware
        async def keep_the_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._server.connection_of(request)
            if connection is None:  # it was closed while the request was parsed
                raise ConnectionResetError("the client has gone")
            if request.transport is not None:
                connection.abort = request.transport.abort
            connection.begin_request()
            try:
                return await self._admit(request, connection, handler)
            finally:
                connection.end_request()

        return keep_the_gate

    async def _admit(
        self, request: web.Request, connection: Connection, handler: Handler
    ) -> web.StreamResponse:
        refusal = None
        if self.access is not None:
            path, headers = request.rel_url.raw_path, request.headers
            refusal = self.access.refusal(path, headers, is_unix=connection.is_unix)
        if refusal is not None:
            self.refused += 1
            logger.debug("server: refused a request of %s: %s", connection.origin, refusal.status)
            return _answer_to(request, refusal)
        return await handler(request)


def _answer_to(request: web.Request, refusal: Refusal) -> web.Response:
    """An error answer that Selenium's clients understand."""
    code = "session not created" if request.path.endswith("/session") else "unknown error"
    value = {"error": code, "message": refusal.text, "stacktrace": ""}
    headers = dict(JSON_HEADERS)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="browserkeeper"'
    body = json.dumps({"value": value}).encode()
    response = web.Response(body=body, status=refusal.status, headers=headers)
    response.force_close()
    return response


class QuietHttpErrors(logging.Filter):
    """A filter for aiohttp's log: it replaces the message of an error about a request, which may contain
    what the client has sent, such as the token."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error).__module__.startswith("aiohttp."):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            record.msg, record.args = "server: a request is not valid HTTP (%s)", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            return logging.getLogger("browserkeeper").isEnabledFor(logging.DEBUG)
        return True


__all__ = ["Gatekeeper", "QuietHttpErrors"]
