"""The bodies of requests: how much memory they may take together, and how they are read."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

from aiohttp import web

from .connections import Connection
from .errors import WireError

BODY_PATIENCE = 30.0
"""Seconds for the body of a request, from the moment at which there is room for it, and one more for
each BODY_RATE bytes."""
BODY_RATE = 256 * 1024
SMALL = 64 * 1024
"""Bytes: bodies up to this size are not counted for MOST_BODIES."""
MOST_BODIES = 256 * 2**20
"""Bytes of all bodies that are in memory at a time; requests with more wait, and are not read."""


@dataclasses.dataclass(eq=False)
class Reservation:
    """Room for ``size`` bytes of a body.  ``origin``: see :class:`~.connections.Connection`."""

    budget: BodyBudget
    origin: object
    size: int

    def shrink(self, size: int) -> None:
        """Give back what is above ``size`` bytes."""
        if size < self.size:
            self.budget.give_back(self.origin, self.size - size)
            self.size = size

    def give_back(self) -> None:
        """Give back all of it.  Idempotent."""
        self.shrink(0)


RESERVATION = web.RequestKey("browserkeeper.reservation", Reservation)


class BodyBudget:
    """A bound for the memory that the bodies of requests take together.

    Requests get room in the order in which they came.  One origin gets at most half of the room, so that
    a client whose bodies arrive slowly does not stop all others.  For the event loop's thread only.
    """

    def __init__(self, most: int = MOST_BODIES):
        self.most, self.most_of_one, self.taken = most, most // 2, 0
        self._of_origin: collections.Counter[object] = collections.Counter()
        self._waiting: list[tuple[Reservation, asyncio.Future[None]]] = []

    async def take(self, size: int, origin: object = None) -> Reservation:
        """Wait until there is room for ``size`` bytes, and return the reservation.  Of a size above the
        share of one origin only that share is reserved."""
        turn = Reservation(self, origin, min(size, self.most_of_one))
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, answer))
        self._grant()
        try:
            await answer
        except asyncio.CancelledError:
            if (turn, answer) in self._waiting:
                self._waiting.remove((turn, answer))
                self._grant()  # those behind it may have been waiting for it
            else:
                turn.give_back()
            raise
        return turn

    def give_back(self, origin: object, size: int) -> None:
        """Free ``size`` bytes of an origin.  Called by :class:`Reservation`."""
        self.taken -= size
        self._of_origin[origin] -= size
        if not self._of_origin[origin]:
            del self._of_origin[origin]
        self._grant()

    def _grant(self) -> None:
        """Give room to requests that wait, the oldest first.

        A request that needs more room than is free stops those behind it, since otherwise smaller ones
        could overtake it for ever.  A request whose origin has its half stops none.
        """
        for turn, answer in list(self._waiting):
            if answer.done():  # its task was cancelled, and has not run yet
                continue
            if self._of_origin[turn.origin] + turn.size > self.most_of_one:
                continue
            if self.taken + turn.size > self.most:
                break
            self._waiting.remove((turn, answer))
            self.taken += turn.size
            self._of_origin[turn.origin] += turn.size
            answer.set_result(None)


async def read_body(
    request: web.Request, connection: Connection | None, budget: BodyBudget, limit: int
) -> bytes:
    """Read the body of a request, and return it.  Waits for room in ``budget``, which is kept until
    :func:`release_body`.

    Raises WireError for a body of more than ``limit`` bytes, and for a compressed one: unpacked it could
    take any amount of memory, and no client of WebDriver compresses bodies.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WireError("invalid argument", "invalid argument: the body must not be compressed")
    too_large = WireError("invalid argument", f"invalid argument: the body is larger than {limit} bytes")
    size = limit if request.content_length is None else request.content_length
    if size > limit:
        raise too_large
    reservation = None
    if size > SMALL:
        origin = connection.origin if connection is not None else None
        reservation = request[RESERVATION] = await budget.take(size, origin)
    if connection is not None and not request.content.is_eof():
        connection.expect_body(request.content.is_eof, BODY_PATIENCE + size / BODY_RATE)
    found = bytearray()
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > limit:
            raise too_large
    if reservation is not None:
        reservation.shrink(len(found))
    return bytes(found)


def release_body(request: web.Request) -> None:
    """Give the room of the request's body back, once the request was handled.  Idempotent."""
    if (reservation := request.get(RESERVATION)) is not None:
        reservation.give_back()


__all__ = ["BodyBudget", "Reservation", "read_body", "release_body"]
