"""The sessions of the server: each is a lease, with a thread of its own for its commands."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..config import check_seconds
from ..drivers.raw_commands import Answer
from ..errors import BrowserkeeperError, LeaseTimeout
from ..options.identity import Identity
from ..options.labels import check_label
from ..pool.lease import Lease
from ..report import ExitReport
from ..session.asynchronous import in_thread
from .capabilities import Wanted, identity_of
from .clients import Client, Lifetime, keeps_its_connection
from .commands import Command, LeaseCommands
from .connections import Connection
from .errors import WireError, of_command
from .files import COMMANDS as FILE_COMMANDS
from .files import SessionFiles
from .worker import Worker

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

REPORT_TIMEOUT, REPORT_PAUSE = 5.0, 0.01
"""Seconds to wait for the report of a browser that ends with its lease, which takes 0.2 s; and seconds
between two checks for that report."""
REMEMBERED = 500
"""For how many ended sessions the server keeps the reason of the end."""


class Session:
    """One session.  For the event loop's thread, except where a method says otherwise."""

    def __init__(self, lease: Lease[Any], wanted: Wanted, client: Client, on_end: Callable[[], None]):
        self.id = secrets.token_hex(16)
        self.lease, self.wanted, self.client = lease, wanted, client
        self._on_end = on_end
        self.created_at = time.time()
        self.used_at = time.monotonic()
        """When the latest command began or ended, on the monotonic clock."""
        self.in_flight = 0
        """How many commands run or wait."""
        self.capabilities: dict[str, Any] = {}
        self.lifetime: Lifetime | None = None
        """Ends the session when its client is gone or idle; None before the session is in the table."""
        self.over: WireError | None = None
        """The answer to commands after the end; None while the session lasts."""
        self.files = SessionFiles(lease, downloads=wanted.downloads)
        self.bidi_secret = secrets.token_urlsafe(24) if wanted.bidi else ""
        """A part of the address of the session's BiDi websocket, where clients send no token; "" without
        BiDi."""
        self.on_close: set[Callable[[], None]] = set()
        """Functions that close the session's websockets.  Called in any thread, when the session
        ends."""
        self._commands: LeaseCommands | None = None
        self._worker = Worker(f"browserkeeper-{self.id[:8]}", self._note_done)

    @property
    def engine(self) -> str:
        return self.wanted.launch.engine

    async def begin(self) -> None:
        """Make the session ready for its first command.  Raises BrowserkeeperError."""

        def begin() -> dict[str, Any]:
            commands = self._commands = LeaseCommands(self.lease, self.engine)
            if self.wanted.max_lease is not None:
                self.lease.session.set_deadline(self.wanted.max_lease)
            if self.wanted.timeouts:
                commands.execute("setTimeouts", dict(self.wanted.timeouts))
                return {**commands.capabilities, "timeouts": commands.execute("getTimeouts", {})}
            return commands.capabilities

        self.capabilities = await self.in_thread(begin)

    def use(
        self, connection: Connection | None, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[None]:
        """For a block that handles a request of the client for this session.  The session is not idle
        during the block."""
        if self.lifetime is None:
            return contextlib.nullcontext()
        return self.lifetime.command(connection, keeps_its_connection(headers))

    async def begin_lease(self, body: Mapping[str, Any]) -> None:
        """Give the session an identity, a label and a deadline, before its first command.  Pools of our
        own clients ask for this, since their sessions begin before their leases.  Raises WireError."""
        label, seconds = body.get("label") or "", body.get("maxLease")

        def begin() -> None:
            try:
                check_label("label", label) if label else None
                if seconds is not None:
                    check_seconds("maxLease", seconds)
                self.lease.begin_again(Identity.build(identity_of(body.get("identity") or {})), label)
            except BrowserkeeperError as error:
                raise of_command(error) from None
            if seconds is not None:
                self.lease.session.set_deadline(seconds)

        await self.in_thread(begin)
        self.wanted = dataclasses.replace(self.wanted, label=label or None)

    async def run(self, command: Command) -> Answer:
        """Run a command after those before it; see :meth:`LeaseCommands.run`."""
        return await self.in_thread(lambda: self._run(command))

    def _run(self, command: Command) -> Answer:
        """:meth:`run`, in the session's thread."""
        if self.over is not None:
            raise self.over.again()
        if command.name in FILE_COMMANDS:
            value = self.files.run(command.name, command.params)
            return Answer(200, json.dumps({"value": value}).encode())
        assert self._commands is not None
        return self._commands.run(command)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call the function in the session's thread, after the commands before it."""
        self.in_flight += 1
        self.used_at = time.monotonic()
        try:
            future: asyncio.Future[T] = self._worker.call(function)
        except RuntimeError:  # the thread has been told to end
            self.in_flight -= 1
            raise self._over() from None
        # The command goes on also if its client has gone: the driver has it already.
        return await future

    def _over(self) -> WireError:
        if self.over is None:
            return WireError("invalid session id", "The session is over.")
        return self.over.again()

    def _note_done(self) -> None:
        self.in_flight -= 1
        self.used_at = time.monotonic()

    def failure(self) -> BrowserkeeperError | None:
        """The error that commands raise since the browser has ended; None if it has not.  May block."""
        return self.lease.failure()

    async def end(self, why: WireError) -> ExitReport | None:
        """End the lease; a command in flight is cut off.  ``why`` is the answer to later commands.
        Idempotent.  Returns the report of the browser, if that has ended with the lease."""
        if self.over is not None:
            return self.lease.session.report
        self.over = why
        if self.lifetime is not None:
            self.lifetime.close()
        self._worker.close(self._over)
        try:
            await in_thread(self._release)
            await self._wait_for_report()
        finally:
            self._on_end()
        return self.lease.session.report

    async def _wait_for_report(self) -> None:
        """Wait for the report of a browser that ends with its lease, for REPORT_TIMEOUT seconds at most.
        Only for our own clients, whose reports contain it."""
        until = time.monotonic() + REPORT_TIMEOUT
        is_ending = bool(self.wanted.client) and self.lease.ends_its_browser
        while is_ending and self.lease.session.report is None and time.monotonic() < until:
            await asyncio.sleep(REPORT_PAUSE)

    def _release(self) -> None:
        try:
            for close in list(self.on_close):
                close()
            with contextlib.suppress(LeaseTimeout):
                self.lease.release()
        except BaseException:
            self.lease.cut_off("interrupted: an exception came while the lease was released")
            raise
        finally:
            if self._commands is not None:
                self._commands.close()
            self.files.close()

    def describe(self) -> dict[str, Any]:
        """For ``GET /browserkeeper/sessions``."""
        return {
            "id": self.id,
            "browser": self.lease.browser_id,
            "browserName": self.capabilities.get("browserName", ""),
            "label": self.wanted.label or "",
            "client": self.client.name,
            "request": self.wanted.client,
            "created": self.created_at,
            "age": time.time() - self.created_at,
            "idle": 0.0 if self.in_flight else time.monotonic() - self.used_at,
        }


class Sessions:
    """The open sessions by their ids, and the reasons of the last REMEMBERED sessions that ended."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self._sessions: dict[str, Session] = {}
        self._ended: collections.OrderedDict[str, WireError] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def add(self, session: Session) -> None:
        self._sessions[session.id] = session

    def find(self, session_id: str) -> Session:
        """Raises WireError for an id of a session that has ended, or that this server does not know."""
        if (session := self._sessions.get(session_id)) is not None:
            return session
        if (why := self._ended.get(session_id)) is not None:
            raise why.again()
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started_at))
        raise WireError(
            "invalid session id",
            f"Session {session_id[:64]} is unknown to this server (it was started at {started}): "
            "sessions end with the server that they began at.",
        )

    async def end(self, session: Session, why: WireError) -> ExitReport | None:
        """End a session, and keep ``why`` as the answer to later requests; see :meth:`Session.end`."""
        if self._sessions.pop(session.id, None) is not None:
            self._ended[session.id] = why
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return await session.end(why)

    async def end_dead(self) -> None:
        """End the sessions whose browsers have ended, or whose leases the pool has taken back.

        They end at the same time, since the end of one may take seconds.  When all have ended, the first
        error is raised.
        """
        dead = [one for one in self if not one.lease.is_open or one.lease.session.report is not None]
        found = await asyncio.gather(*map(self._end_dead, dead), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error

    async def _end_dead(self, session: Session) -> None:
        error = await in_thread(session.failure)
        why = of_command(error) if error else WireError("invalid session id", "Its browser has ended.")
        await self.end(session, why)

    def describe(self) -> list[Mapping[str, Any]]:
        return [session.describe() for session in self]


__all__ = ["Session", "Sessions"]
