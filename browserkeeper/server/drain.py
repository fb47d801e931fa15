"""The end of the server: SIGTERM or SIGINT drains it, a second signal ends it at once."""

from __future__ import annotations

import asyncio
import logging
import signal

from .app import Server
from .errors import WireError

logger = logging.getLogger("browserkeeper")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK = 0.05
"""Seconds between two checks whether sessions are left."""


class Stop:
    """Handles the signals, in the event loop of the main thread.  ``asked`` is set by the first signal,
    ``at_once`` by the second."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.asked, self.at_once = asyncio.Event(), asyncio.Event()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if not self.asked.is_set():
            self.asked.set()
            return
        logger.info("server: %s again: the sessions are ended now", signal.Signals(number).name)
        self.at_once.set()


async def drain(server: Server, timeout: float, at_once: asyncio.Event) -> int:
    """Give no more sessions, and wait for the open ones to end.  After ``timeout`` seconds, or when
    ``at_once`` is set, end the sessions that are left.  Returns how many these were.

    Requests in the queue are refused at once.  A request that has had its turn still gets its session.
    """
    left = len(server.sessions)
    facts = {"event.action": "server-draining"}
    logger.info(
        "server: told to end: no new sessions; %d are open, and have %g s", left, timeout, extra=facts
    )
    server.refuse_new("The server is being shut down, and gives no new sessions.")
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while (len(server.sessions) or server.waiting) and loop.time() < end and not at_once.is_set():
        await asyncio.sleep(LOOK)
    cut = list(server.sessions)
    why = WireError(
        "invalid session id", "The session is over: the server was shut down before the session ended."
    )
    results = await asyncio.gather(
        *(server.sessions.end(one, why) for one in cut), return_exceptions=True
    )
    for error in results:
        if isinstance(error, BaseException):
            logger.error("server: a session did not end as it should: %s", error)
    return len(cut)


__all__ = ["Stop", "drain"]
