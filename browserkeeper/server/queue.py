"""The queue of requests for a session: first come first served, with a deadline and a share per client.

A turn is the right to have a session.  A request that has its turn asks a pool for a lease.  That takes
no longer than the start of a browser, since the queue gives only as many turns as sessions may exist.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable

from ..errors import PoolClosed, PoolTimeout, TooManyWaiting
from .clients import Client, Key


@dataclasses.dataclass(eq=False)
class _Waiter:
    client: Client
    weight: int
    answer: asyncio.Future[Turn]
    since: float


class Turn:
    """The right to have a session, until :meth:`release`.  ``waited``: seconds in the queue."""

    def __init__(self, client: Client, weight: int, waited: float, take_back: Callable[[Turn], None]):
        self.client, self.weight, self.waited = client, weight, waited
        self._take_back, self._is_released = take_back, False

    def release(self) -> None:
        """Give the turn back, after the end of the session.  Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._take_back(self)


class Queue:
    """The queue.  For the event loop's thread only.

    ``seats``: how many sessions there may be.  ``max_per_client``: how many sessions one client may have
    (None: all); further requests of that client wait, and do not delay those of others.
    ``max_waiting``: how many requests may wait.
    """

    def __init__(self, seats: int, *, max_per_client: int | None = None, max_waiting: int = 1000):
        self.seats, self.max_per_client, self.max_waiting = seats, max_per_client, max_waiting
        self.taken = 0
        """Seats of all turns that were given and not released."""
        self.closed_because = ""
        self._waiting: collections.deque[_Waiter] = collections.deque()
        self._turns: collections.Counter[Key] = collections.Counter()
        self.granted = self.timed_out = self.refused = 0
        """Requests, since the start."""
        self.waited_seconds = 0.0
        """The sum over all granted requests."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def turn(self, client: Client, timeout: float, *, weight: int = 1) -> Turn:
        """Wait for a turn.  ``weight``: how many seats the session needs; a session that does not share
        its browser needs all seats of that browser.

        Raises PoolTimeout after ``timeout`` seconds, TooManyWaiting at once if the queue is full, and
        PoolClosed if the server takes no new sessions.  A task that is cancelled leaves the queue.
        """
        if self.closed_because:
            self.refused += 1
            raise PoolClosed(self.closed_because)
        loop = asyncio.get_running_loop()
        weight = min(weight, self.seats)
        waiter = _Waiter(client, weight, loop.create_future(), loop.time())
        self._waiting.append(waiter)
        self._grant()
        if not waiter.answer.done() and len(self._waiting) > self.max_waiting:
            self._waiting.remove(waiter)
            self.refused += 1
            raise TooManyWaiting(
                f"{self.max_waiting} requests for a session wait already. {self._why(client)}"
            )
        timer = loop.call_later(timeout, self._expire, waiter, timeout)
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        finally:
            timer.cancel()

    def _leave(self, waiter: _Waiter) -> None:
        """Take a cancelled request out of the queue.  If it has got its turn in the same moment, release
        the turn."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._grant()  # those behind it may have been waiting for it
        elif waiter.answer.done() and not waiter.answer.cancelled() and not waiter.answer.exception():
            waiter.answer.result().release()

    def _expire(self, waiter: _Waiter, timeout: float) -> None:
        if waiter.answer.done():
            return
        before = sum(1 for _ in self._before(waiter))
        self._waiting.remove(waiter)
        self.timed_out += 1
        ahead = f" {before} requests were before this one." if before else ""
        waiter.answer.set_exception(
            PoolTimeout(
                f"No browser came free within {timeout:g} s (--queue-timeout, or the capability "
                f"browserkeeper:timeout).{ahead} {self._why(waiter.client)}"
            )
        )
        self._grant()

    def _before(self, waiter: _Waiter) -> list[_Waiter]:
        return [one for one in self._waiting if one.since <= waiter.since and one is not waiter]

    def _why(self, client: Client) -> str:
        if self._has_share(client):
            return (
                f"The client, {client}, has {self._turns[client.key]} sessions, which is its share "
                f"(--max-per-client {self.max_per_client}): end one of them, or raise the share."
            )
        return (
            f"{self.taken} of {self.seats} sessions are in use: end one of them, or raise --max or "
            "--leases-per-browser."
        )

    def _has_share(self, client: Client) -> bool:
        return self.max_per_client is not None and self._turns[client.key] >= self.max_per_client

    def _grant(self) -> None:
        """Give turns to waiters for whom there are free seats, the oldest first.

        A waiter that needs more seats than are free stops those behind it, since otherwise smaller
        requests could overtake it for ever.  A waiter whose client has its share stops none.
        """
        for waiter in list(self._waiting):
            if waiter.answer.done() or self._has_share(waiter.client):
                continue
            if self.taken + waiter.weight > self.seats:
                break
            self._waiting.remove(waiter)
            waited = asyncio.get_running_loop().time() - waiter.since
            self.taken += waiter.weight
            self._turns[waiter.client.key] += 1
            self.granted += 1
            self.waited_seconds += waited
            turn = Turn(waiter.client, waiter.weight, waited, self._take_back)
            waiter.answer.set_result(turn)

    def _take_back(self, turn: Turn) -> None:
        self.taken -= turn.weight
        self._turns[turn.client.key] -= 1
        if not self._turns[turn.client.key]:
            del self._turns[turn.client.key]
        if self._waiting:
            self._grant()

    def close(self, because: str) -> None:
        """Give no more turns.  Requests that wait, and later ones, get PoolClosed with this text."""
        self.closed_because = because
        waiting, self._waiting = list(self._waiting), collections.deque()
        for waiter in waiting:
            if not waiter.answer.done():
                self.refused += 1
                waiter.answer.set_exception(PoolClosed(because))


__all__ = ["Queue", "Turn"]
