"""The aiohttp application: WebDriver's endpoint over the server's pools."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn

from aiohttp import WSCloseCode, WSMsgType, web
from websocket import WebSocketException

from .._version import __version__
from ..errors import BrowserkeeperError, ConfigError
from ..wire.words import BEGIN_LEASE, REPORT
from ..wire.words import SERVER as SERVER_FACTS
from .bidi import Bridge
from .bodies import BodyBudget, read_body, release_body
from .browsers import Browsers
from .capabilities import Request, Wanted, read
from .clients import Client, ClientGoneError, Clients, Lifetime, while_connected
from .commands import Command
from .connections import Connection, Connections
from .documents import read_object
from .errors import WireError, of_command, of_new_session
from .pools import Pools
from .protocol import SESSION_ID, CommandTable
from .queue import Queue
from .sessions import Session, Sessions
from .settings import MAX_COMMAND, MAX_NEW_SESSION, ServerSettings

logger = logging.getLogger("browserkeeper")

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
SEND_TIMEOUT = 60.0
"""Seconds for a client to take a message of its BiDi connection; after that the connection is closed."""
BUSY_PAUSE = 0.02
"""Seconds between two looks whether a BiDi connection can take another message."""
LOOK_AT_SESSIONS = 0.5
"""Seconds between two looks for sessions whose browsers have ended."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The state behind the application.  For the event loop's thread only."""

    def __init__(self, settings: ServerSettings):
        self.settings = settings
        self.queue = Queue(
            settings.max_sessions,
            max_per_client=settings.max_per_client,
            max_waiting=settings.max_waiting,
        )
        self.pools, self.sessions, self.browsers = Pools(settings), Sessions(), Browsers()
        self.connections = Connections()
        """For the listening sockets (``Listener.connections``)."""
        self.bodies = BodyBudget()
        self.websockets_at = ""
        """The address for websockets of clients that have asked over the unix socket; "" without TCP."""
        self._clients: Clients | None = None
        self.refuses = ""
        """Why the server gives no new sessions, such as "the server is being shut down"; "" if it gives
        them."""
        self.waiting = 0
        """How many requests wait for a session."""
        self.ended_for_client = 0
        """Sessions that were ended because their clients are gone, or did not use them."""
        self._endings: set[asyncio.Task[Any]] = set()
        self._tables = {engine: CommandTable(engine) for engine in ("chromium", "firefox")}

    # -- its life

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Open the pools, and close them with the application (aiohttp's ``cleanup_ctx``)."""
        self._clients = Clients(asyncio.get_running_loop())
        self.pools.open_first()
        looks = asyncio.create_task(self._look_for_dead_sessions())
        try:
            yield
        finally:
            looks.cancel()
            await self.end_sessions(app)
            await self.pools.close()
            self._clients.close()

    async def end_sessions(self, app: web.Application) -> None:
        """Refuse new sessions, and end the open ones.  aiohttp calls this as ``on_shutdown``, while
        clients can still get answers."""
        self.refuse_new(self.refuses or "The server is being shut down.")
        why = WireError("invalid session id", "The server was shut down, and the session with it.")
        await asyncio.gather(*(self.sessions.end(one, why) for one in self.sessions))

    def refuse_new(self, why: str) -> None:
        """Give no more sessions.  ``why`` is the answer to the requests that wait, and to later ones."""
        self.refuses = why
        self.queue.close(why)

    async def _look_for_dead_sessions(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AT_SESSIONS)
            try:
                self.pools.close_unused()
                await self.sessions.end_dead()
            except Exception:
                logger.exception("server: the look for sessions that have ended failed")

    # -- requests

    def connection_of(self, request: web.BaseRequest) -> Connection | None:
        """The connection of a request.  None where the client is gone, or its connection was not
        accepted by a ``Listener``."""
        sock = request.transport and request.transport.get_extra_info("socket")
        return self.connections.find(sock.fileno()) if sock else None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of WebDriver."""
        try:
            return await self._handle(request)
        except WireError as error:
            return web.Response(body=error.body(), status=error.status, headers=JSON_HEADERS)
        except web.HTTPRequestEntityTooLarge as error:
            too_large = WireError("invalid argument", f"invalid argument: {error.text}")
            return web.Response(body=too_large.body(), status=too_large.status, headers=JSON_HEADERS)
        except web.RequestPayloadError:  # its text may have what the client has sent
            not_read = WireError("invalid argument", "invalid argument: the body cannot be read")
            return web.Response(body=not_read.body(), status=not_read.status, headers=JSON_HEADERS)
        except ConnectionResetError:  # there is no client to answer any more
            return web.Response(status=400)
        except web.HTTPException:
            raise
        except Exception as error:
            logger.exception("server: a request failed")
            text = f"The server could not handle the request: {type(error).__name__}. Its log says more."
            failed = WireError("unknown error", text)
            return web.Response(body=failed.body(), status=failed.status, headers=JSON_HEADERS)
        finally:
            release_body(request)

    async def _body(self, request: web.Request, limit: int) -> bytes:
        """The body of a request; see :func:`~.bodies.read_body`.  ``limit`` is in bytes."""
        return await read_body(request, self.connection_of(request), self.bodies, limit)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.rel_url.raw_path.split("/")[1:]
        if parts[:2] == ["wd", "hub"]:  # as of Selenium 3 and older Grids
            parts = parts[2:]
        if parts and not parts[-1]:
            parts.pop()
        if len(parts) >= 3 and parts[0] == "session":
            return await self._command(request, parts)
        routes: dict[tuple[str, ...], dict[str, Handler]] = {
            ("status",): {"GET": self._status},
            ("session",): {"POST": self._new_session},
            ("browserkeeper", "sessions"): {"GET": self._list},
        }
        route = routes.get(tuple(parts))
        if route is None and len(parts) == 2 and parts[0] == "session":
            route = {"DELETE": self._delete}
        if route is None:
            _raise_unknown(request)
        handler = route.get(request.method)
        if handler is None:
            methods = " or ".join(route)
            raise WireError(
                "unknown method", f"{request.path[:200]} takes {methods}, not {request.method}."
            )
        return await handler(request)

    async def _command(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        session = self._session(parts[1])
        if parts[2:4] == ["se", "bidi"] and len(parts) == 5:
            return await self._bidi(request, session, parts[4])
        if "/".join(parts[2:]) == BEGIN_LEASE and request.method == "POST":
            words = await read_object(await self._body(request, MAX_NEW_SESSION))
            with session.use(self.connection_of(request), request.headers):
                await session.begin_lease(words)
            return _json({"value": None})
        name, of_path = self._tables[session.engine].find(request.method, parts[2:])
        params, body = {}, None
        if request.method == "POST":
            limit = self.settings.max_upload if name == "uploadFile" else MAX_COMMAND
            body = await self._body(request, limit)
            params = await read_object(body)
        path = "/" + "/".join(parts[2:])
        command = Command(name, request.method, path, {**params, **of_path}, body)
        try:
            with session.use(self.connection_of(request), request.headers):
                answer = await session.run(command)
        except WireError as error:
            if error.code == "invalid session id":
                await self.sessions.end(session, error)
            raise
        return web.Response(body=answer.body, status=answer.status, headers=JSON_HEADERS)

    async def _bidi(self, request: web.Request, session: Session, secret: str) -> web.StreamResponse:
        """Serve the websocket of ``webSocketUrl`` until it is closed, or the session ends.  Raises
        WireError for a wrong secret, and for a request that asks for no websocket."""
        known = session.bidi_secret
        if not known or not hmac.compare_digest(known.encode(), secret.encode(errors="surrogateescape")):
            raise WireError("unknown command", "This session has no BiDi connection of this address.")
        socket = web.WebSocketResponse(max_msg_size=MAX_COMMAND)
        if not socket.can_prepare(request):
            raise WireError("unknown method", "The address of a BiDi connection takes websockets only.")
        loop = asyncio.get_running_loop()

        def send(text: str) -> None:
            asyncio.run_coroutine_threadsafe(socket.send_str(text), loop).result(SEND_TIMEOUT)

        def closed() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: loop.create_task(socket.close()))

        await socket.prepare(request)
        try:
            bridge = await session.in_thread(lambda: Bridge(session.lease, send, closed))
        except (WireError, BrowserkeeperError, OSError, WebSocketException) as error:
            logger.warning("server: no BiDi connection for session %s: %s", session.id, error)
            await socket.close(code=WSCloseCode.INTERNAL_ERROR)
            return socket
        session.on_close.add(bridge.close)
        try:
            # The session is not idle, as long as the client is connected.
            with session.use(self.connection_of(request), request.headers):
                while session.over is None:
                    message = await socket.receive()
                    if message.type != WSMsgType.TEXT:
                        break
                    bridge.receive(message.data)
                    while bridge.is_busy:
                        await asyncio.sleep(BUSY_PAUSE)
        finally:
            session.on_close.discard(bridge.close)
            bridge.close()
        return socket

    def _session(self, session_id: str) -> Session:
        if not SESSION_ID.fullmatch(session_id):
            raise WireError("invalid session id", "This is no session id.")
        return self.sessions.find(session_id)

    # -- the ends of a session

    async def _new_session(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(await self._body(request, MAX_NEW_SESSION))
        wanted = read(body, headless=self.settings.headless)
        if self.refuses:
            raise WireError("session not created", self.refuses)
        connection = self.connection_of(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        assert self._clients is not None
        client = self._clients.of(connection)
        self.waiting += 1
        try:
            session = await while_connected(client, connection, self._open(wanted, client))
        except ClientGoneError as error:
            raise ConnectionResetError(str(error)) from None
        finally:
            self.waiting -= 1
        place = f"ws://{request.host}"
        is_unix = connection is not None and connection.is_unix
        if is_unix and not session.wanted.client:  # our own client uses the path alone, over the socket
            place = self.websockets_at or place
        found = self._capabilities_of(session, place)
        value = {"sessionId": session.id, "capabilities": found}
        response = web.Response(body=json.dumps({"value": value}).encode(), headers=JSON_HEADERS)
        try:
            with session.use(connection, request.headers):
                await response.prepare(request)
                await response.write_eof()
            if request.transport is None:
                raise ConnectionResetError
        except BaseException:
            await self._end(session, "Its client had gone before the session was ready.")
            raise
        return response

    async def _open(self, request: Request, client: Client) -> Session:
        """Open a session for the first alternative that can be had.  Blocks in the queue.  Raises
        WireError."""
        for wanted in request.accepted:
            try:
                return await self._open_one(wanted, client)
            except ConfigError as error:
                request.refused.append(str(error))
            except BrowserkeeperError as error:
                raise of_new_session(error) from None
        raise request.refusal()

    async def _open_one(self, wanted: Wanted, client: Client) -> Session:
        """Open a session for one alternative, after its turn in the queue.  Raises BrowserkeeperError or
        WireError."""
        limit = min(wanted.queue_timeout or self.settings.queue_timeout, self.settings.queue_timeout)
        until = time.monotonic() + limit
        await self.browsers.check(wanted.launch.name, wanted.version)
        weight = self.pools.weight(wanted.launch, bidi=wanted.bidi)
        turn = await self.queue.turn(client, limit, weight=weight)
        try:
            with self.pools.use(wanted.launch, bidi=wanted.bidi) as use:
                pool = await use.pool(max(0.01, until - time.monotonic()))
                left = max(0.01, until - time.monotonic())
                identity = wanted.identity or None
                # Released by the session, in whose thread it is used.
                lease = await pool.alease(left, label=wanted.label, identity=identity).__aenter__()
        except BaseException:
            turn.release()
            raise

        def ended() -> None:
            use.end()
            turn.release()

        session = Session(lease, wanted, client, ended)
        try:
            await session.begin()
        except BaseException:
            await session.end(WireError("invalid session id", "The session did not begin."))
            raise
        self.sessions.add(session)
        session.lifetime = Lifetime(
            client,
            functools.partial(self._end_for_client, session),
            idle_timeout=self.settings.idle_timeout,
            loop=asyncio.get_running_loop(),
        )
        return session

    def _end_for_client(self, session: Session, reason: str) -> None:
        """The client is gone, or has not used its session for too long."""
        self.ended_for_client += 1
        facts = {
            "event.action": "server-session-ended",
            "browserkeeper.label": session.wanted.label or "",
        }
        logger.info("server: session %s is ended: %s", session.id, reason, extra=facts)
        task = asyncio.ensure_future(self._end(session, f"It was ended: {reason}."))
        self._endings.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("server: a session did not end as it should: %s", error)

    def _capabilities_of(self, session: Session, place: str) -> dict[str, Any]:
        """``place``: the address of this server, for websockets."""
        lease, found = session.lease, dict(session.capabilities)
        found.pop("webSocketUrl", None)
        if session.bidi_secret:
            found["webSocketUrl"] = f"{place}/session/{session.id}/se/bidi/{session.bidi_secret}"
        if "goog:chromeOptions" in found:
            found["goog:chromeOptions"] = {}
        if session.wanted.downloads:
            found["se:downloadsEnabled"] = True
        found[SERVER_FACTS] = {
            "version": __version__,
            "pid": os.getpid(),
            "browser": lease.browser_id,
        }
        return found

    async def _delete(self, request: web.Request) -> web.Response:
        session = self._session(request.rel_url.raw_path.rstrip("/").rpartition("/")[2])
        report = await self._end(session, "Its client has ended it.")
        value = None
        if session.wanted.client:
            value = {REPORT: None if report is None else report.to_dict()}
        return _json({"value": value})

    async def _end(self, session: Session, why: str) -> Any:
        text = f"Session {session.id} is over. {why}"
        try:
            return await self.sessions.end(session, WireError("invalid session id", text))
        except BrowserkeeperError as error:
            raise of_command(error) from None

    # -- the state of the server

    async def _status(self, request: web.Request) -> web.Response:
        """Answer as a Grid does: ``ready``, ``message`` and one node with its sessions."""
        taken, most = len(self.sessions), self.settings.max_sessions
        message = self.refuses or ("ready" if taken < most else f"all {most} sessions are taken")
        node_id = f"browserkeeper-{os.getpid()}"
        given = [
            {
                "sessionId": one.id,
                "start": _iso(one.created_at),
                "capabilities": {"browserName": one.capabilities.get("browserName", "")},
            }
            for one in self.sessions
        ]
        node = {
            "id": node_id,
            "uri": f"http://{request.host}",
            "availability": "DRAINING" if self.refuses else "UP",
            "maxSessions": most,
            "sessionCount": taken,
            "version": f"browserkeeper {__version__}",
            "osInfo": {"name": sys.platform},
            # As a Grid does: a slot for each possible session, with None as the session of a free slot.
            "slots": [
                {"id": {"hostId": node_id, "id": str(number)}, "session": session}
                for number, session in enumerate([*given, *[None] * (most - taken)])
            ],
        }
        value = {
            "ready": not self.refuses and taken < most,
            "message": message,
            "queue": self.waiting,
            "nodes": [node],
        }
        return _json({"value": value})

    async def _list(self, request: web.Request) -> web.Response:
        return _json({"value": self.sessions.describe()})


SERVER = web.AppKey("server", Server)


def create_app(settings: ServerSettings) -> web.Application:
    """The application.  Its pools are opened when it starts, and closed when it ends."""
    app = web.Application(client_max_size=max(settings.max_upload, MAX_COMMAND))
    server = app[SERVER] = Server(settings)
    app.router.add_route("*", "/{path:(?s:.*)}", server.handle)
    app.cleanup_ctx.append(server.run)
    app.on_shutdown.append(server.end_sessions)
    return app


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), headers=JSON_HEADERS)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _raise_unknown(request: web.Request) -> NoReturn:
    raise WireError("unknown command", f"Unrecognized command: {request.method} {request.path[:200]}")


__all__ = ["JSON_HEADERS", "SERVER", "Server", "create_app"]
