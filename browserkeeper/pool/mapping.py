"""``pool.map``: calls a function for many items, each call in a lease of its own, in threads."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import queue
import reprlib
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import LaunchError, PoolClosed, PoolUnavailable, refuse_to_pickle
from .backoff import random_pause
from .lease import Lease, Request
from .logs import log
from .pacing import Claim, Pace, Turns, turn_of
from .threads import start_thread, wait_for_end

T = TypeVar("T")
R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts for an item, for :func:`random_pause`."""
TAKEN_AHEAD = 1000
"""How many items may wait for their turn, besides those that the workers have."""
LONGEST_WAIT = 3600.0
"""Seconds after which the turns are checked again: much longer waits overflow the kernel's clock."""
PATIENCE = 30.0
"""Seconds for the running calls to end, after their browsers were taken from them."""


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """The result for one item: its ``value``, or the last ``error`` if all attempts failed.

    ``seconds`` is the time of the last attempt, without the wait for a browser.
    """

    item: T
    value: R | None
    error: BaseException | None
    attempts: int
    seconds: float

    @property
    def ok(self) -> bool:
        """True if the function returned a value for this item."""
        return self.error is None

    def result(self) -> R:
        """Returns the value, or raises the error (as ``concurrent.futures`` does)."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value] # R may itself be Optional


@dataclasses.dataclass
class Work(Generic[T, R]):
    """The arguments of one call of ``map``; ``lease`` takes a lease from the pool.

    ``request`` makes the request for an item, with its label and identity; it may raise the exceptions
    of the user's functions.
    """

    lease: Callable[[Request], Lease[Any]]
    request: Callable[[T], Request]
    function: Callable[[Any, T], R]
    items: Iterator[T]
    attempts: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    workers: int
    pace: tuple[Pace, Turns] | None = None


@dataclasses.dataclass
class Turn(Generic[T]):
    """An item whose call is due, or that waits until its call is due."""

    number: int
    """The item's number, in the order of the iterable."""
    item: T
    attempts: int = 0
    """How many calls were made for the item."""
    paced: tuple[Hashable, float] | None = None
    """The key and the seconds that ``pace`` has returned; None if the item does not wait."""
    not_before: float = 0.0
    """The end of the pause after a failed call, on the monotonic clock."""
    claim: Claim | None = None
    """The claimed turn of the item's key."""
    error: BaseException | None = None
    """The exception of ``pace``, or of the comparison of its key."""


class Outcomes(Iterator[Outcome[T, R]]):
    """What ``pool.map`` returns: the outcomes, in the order in which they are ready.

    The threads start with the first ``next()``.  An exception that leaves ``next()`` (Ctrl-C, a time
    limit) closes this iterator, and so does its garbage collection.
    """

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, work: Work[T, R]):
        self._run = _MapRun(work)
        self._finalizer = weakref.finalize(self, self._run.stop)
        self._finalizer.atexit = False

    def __next__(self) -> Outcome[T, R]:
        try:
            return self._run.next_outcome()
        except BaseException:  # the end, an error of the iterable, or an exception of a signal handler
            self.close()
            raise

    def close(self) -> None:
        """End the browsers of the calls that still run, and wait up to 30 seconds until the calls have
        ended.  A thread that is blocked in the iterable's ``next()`` is not waited for."""
        self._run.stop()
        self._run.join()

    @property
    def unfinished(self) -> list[T]:
        """The items that were taken from the iterable, and whose outcome you have not got.

        After :meth:`close` these are the items of calls that were cut off.  If the iterable was blocked
        in its ``next()``, the item that it gives later is here as well: no call is made for it.
        """
        return list(self._run.feed.unfinished.values())


class _MapRun(Generic[T, R]):
    """One call of ``map`` while it runs: what its threads share."""

    def __init__(self, work: Work[T, R]):
        self.work = work
        self.pacer = _Pacer(*work.pace) if work.pace is not None else None
        self.feed: _Feed[T] = _Feed(work.items, self.pacer.inbox if self.pacer else None)
        self._pacing = threading.Thread(
            target=_pace, args=(self.pacer, self.feed), name=f"browserkeeper-map-pace-{id(self):x}"
        )
        self._pacing.daemon = True
        self.results: queue.SimpleQueue[tuple[int, Outcome[T, R]] | None] = queue.SimpleQueue()
        """Outcomes with the numbers of their items; None when a thread ends."""
        self._feeder = threading.Thread(
            target=self.feed.run, name=f"browserkeeper-map-items-{id(self):x}", daemon=True
        )
        self._workers: list[_MapWorker] = []
        self._running = 0
        self._error_raised = False

    def next_outcome(self) -> Outcome[T, R]:
        if not self._workers and not self.is_stopped():
            self._start()
        while self._running and not self.is_stopped():
            result = self.results.get()
            if result is None:
                self._running -= 1
                continue
            if self.is_stopped():  # by another thread, meanwhile
                break
            number, outcome = result
            self.feed.unfinished.pop(number, None)
            self._want_one()
            return outcome
        if self.feed.error is not None and not self._error_raised and not self.is_stopped():
            self._error_raised = True
            raise self.feed.error
        raise StopIteration

    def is_stopped(self) -> bool:
        return self.feed.is_stopped()

    def _want_one(self) -> None:
        """Allow the workers one more item."""
        if self.pacer is None:
            self.feed.demand.put(None)
        else:
            self.pacer.inbox.put(_WANTED)

    def take(self) -> Turn[T] | None:
        """Block until an item's call is due, and return the item; None if there are no more items, or
        the map is stopped."""
        ready = self.feed.ready if self.pacer is None else self.pacer.ready
        found = ready.get()
        if found is None or self.is_stopped():
            ready.put(None)  # for the next worker
            return None
        return found

    def _start(self) -> None:
        """Start the threads; fewer workers where the system gives no more.  Raises PoolUnavailable where
        it gives too few for any work."""
        self._workers = [_MapWorker(self) for _ in range(self.work.workers)]
        try:
            start_thread(self._feeder)
            if self.pacer is not None:
                start_thread(self._pacing)
            for worker in self._workers:
                start_thread(worker)
                self._running += 1
                self._want_one()
        except LaunchError as error:
            if not self._running:
                raise PoolUnavailable(f"map() cannot start. {error}", error) from None
            text = "pool.map: works with %d threads instead of %d. %s"
            log(logging.WARNING, text, self._running, self.work.workers, error)

    def stop(self) -> None:
        """Take the leases from the running calls, and let all threads end; returns at once.

        Idempotent; safe in destructors and signal handlers.
        """
        self.feed.stop()  # first: a worker that gets a lease from now on gives it back
        for worker in self._workers:
            worker.stop()

    def join(self) -> None:
        """Wait until the calls have ended, for up to PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        others = [worker for worker in self._workers if worker is not threading.current_thread()]
        ended = [wait_for_end(worker, deadline - time.monotonic()) for worker in others]
        if not all(ended):
            text = "pool.map: calls of %r still run %g s after their browsers were taken from them"
            log(logging.WARNING, text, self.work.function, PATIENCE)
        wait_for_end(self._pacing, 0.1)
        wait_for_end(self._feeder, 0.1)


class _Feed(Generic[T]):
    """Takes items from the iterable in a thread of its own, one for each demand.

    Only this thread can be blocked in the iterable.  It has no reference to the pool.
    """

    def __init__(self, items: Iterator[T], ready: queue.SimpleQueue[Any] | None = None):
        """``ready``: the queue for the items, and for None at the end; without it, the workers read
        :attr:`ready`."""
        self._items: Iterator[T] | None = items
        self._stopped = False
        self.demand: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One entry for each item that is wanted."""
        self.ready: queue.SimpleQueue[Turn[T] | None] = ready or queue.SimpleQueue()
        """None at the end."""
        self.unfinished: dict[int, T] = {}
        """The items without an outcome that was delivered, by their numbers."""
        self.error: BaseException | None = None
        """What the iterable has raised."""

    def is_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        self._stopped = True
        self.demand.put(None)
        self.ready.put(None)

    def run(self) -> None:
        """The thread: ends with the iterable, or when it was stopped."""
        try:
            for number in itertools.count():
                self.demand.get()
                if self.is_stopped() or self._items is None:
                    return
                item = self.unfinished[number] = next(self._items)
                if self.is_stopped():
                    text = "pool.map: an item came after its iterator was closed; no call is made: %s"
                    log(logging.WARNING, text, reprlib.repr(item))
                    return
                self.ready.put(Turn(number, item))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 # raised in the consumer's thread
            self.error = error
        finally:
            self._items = None
            self.ready.put(None)


_WANTED, _LOOK = "wanted", "look"
"""Messages to a pacer: the workers may have one more item; a turn may be free."""


class _Pacer:
    """Takes items from the feed, and gives each to the workers when its turn has come.

    No worker has a waiting item, and so no browser waits.  Meanwhile other items are taken from the
    iterable.  This object has no reference to the pool.
    """

    def __init__(self, pace: Pace, turns: Turns):
        self._paced, self._turns = pace, turns
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Gets: turns of new items, and of items whose call is to be repeated; the numbers of items that
        are done; None, if there are no more items; and the two messages above."""
        self.ready: queue.SimpleQueue[Turn[Any] | None] = queue.SimpleQueue()
        """The queue of turns for the workers; None at the end."""
        self._waiting: list[Turn[Any]] = []
        self._out: dict[int, Turn[Any]] = {}
        """The items that workers have, or are about to take."""
        self._wanted = 0
        """How many more items the workers may have."""
        self._is_exhausted = self._is_asked = False

    def run(self, feed: _Feed[Any]) -> None:
        """Ends when all items are done, or the feed was stopped."""
        try:
            while not feed.is_stopped():
                pause = self._hand_on()
                if self._is_exhausted and not self._waiting and not self._out:
                    return
                room = self._wanted > 0 and len(self._waiting) < TAKEN_AHEAD
                if room and not self._is_exhausted and not self._is_asked:
                    self._is_asked = True
                    feed.demand.put(None)
                self._receive(pause)
        except BaseException as error:  # no item may be left out without an error
            feed.error = error
            raise
        finally:
            for turn in self._out.values():
                if (claim := turn.claim) is not None:
                    claim.release()  # does nothing if the call has begun
            self.ready.put(None)

    def _hand_on(self) -> float | None:
        """Give the workers the items whose turn has come, the oldest first.  Returns the seconds until
        the next turn; None if it is not known."""
        now, pauses, asked = time.monotonic(), list[float](), set[Hashable]()
        for turn in self._waiting.copy():
            if self._wanted <= 0:
                return None
            if turn.not_before > now:
                pauses.append(turn.not_before - now)
                continue
            if turn.paced is not None:
                key, seconds = turn.paced
                try:
                    if key in asked:
                        continue
                    asked.add(key)
                    claimed = self._turns.claim(key, seconds)
                except Exception as error:  # noqa: BLE001 # of a key that cannot be compared
                    turn.error, turn.paced = error, None
                    claimed = None
                if isinstance(claimed, float):
                    pauses.append(claimed)
                    continue
                turn.claim = claimed
            self._waiting.remove(turn)
            self._out[turn.number] = turn
            self._wanted -= 1
            self.ready.put(turn)
        return min(pauses, default=None)

    def _receive(self, pause: float | None) -> None:
        """Wait for messages for ``pause`` seconds at the most (None: no limit), and handle all of
        them."""
        with contextlib.suppress(queue.Empty):
            message = self.inbox.get(timeout=None if pause is None else min(pause, LONGEST_WAIT))
            while True:
                self._note(message)
                message = self.inbox.get_nowait()

    def _note(self, message: Any) -> None:
        if message is None:
            self._is_exhausted = True
        elif message is _WANTED:
            self._wanted += 1
        elif isinstance(message, int):
            self._out.pop(message, None)
        elif isinstance(message, Turn):
            if self._out.pop(message.number, None):  # to be repeated
                self._wanted += 1
            else:
                self._is_asked = False
                self._ask_pace(message)
            self._waiting.append(message)
            self._waiting.sort(key=lambda turn: turn.number)

    def _ask_pace(self, turn: Turn[Any]) -> None:
        try:
            turn.paced = turn_of(self._paced, turn.item)
        except BaseException as error:  # noqa: BLE001 # it is the item's outcome
            turn.error = error


def _pace(pacer: _Pacer, feed: _Feed[Any]) -> None:
    """The thread of a pacer."""
    pacer.run(feed)


class _MapWorker(threading.Thread):
    """Takes items and puts out their outcomes, one after another, until there are no more items."""

    def __init__(self, run: _MapRun[Any, Any]):
        super().__init__(name=f"browserkeeper-map-{id(run):x}", daemon=True)
        self._map_run = run
        self._request: Request | None = None
        self._lease: Lease[Any] | None = None
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        run = self._map_run
        try:
            while (turn := run.take()) is not None:
                outcome = self._outcome_of(turn)
                if outcome is not None:
                    run.results.put((turn.number, outcome))
                    if run.pacer is not None:
                        run.pacer.inbox.put(turn.number)
        finally:
            run.results.put(None)

    def stop(self) -> None:
        """End this worker's lease, or its wait for one or for the next attempt; returns at once."""
        request, lease = self._request, self._lease
        if lease is not None:
            lease.cut_off("interrupted: the outcomes of map() are no longer wanted")
        elif request is not None:
            request.cancel()
        self._wake.put(None)

    def _outcome_of(self, turn: Turn[Any]) -> Outcome[Any, Any] | None:
        """Call the function for the item, again after an error as often as ``retries`` allows.

        Returns None if the item needs another turn of the pacer before the next call.
        """
        run, work = self._map_run, self._map_run.work
        if turn.error is not None:
            return Outcome(turn.item, None, turn.error, 0, 0.0)
        while True:
            turn.attempts += 1
            outcome = self._attempt(turn)
            error = outcome.error
            retryable = isinstance(error, work.retry_on) and not isinstance(error, PoolClosed)
            if not retryable or turn.attempts >= work.attempts or run.is_stopped():
                return outcome
            pause = random_pause(turn.attempts, FIRST_PAUSE, LONGEST_PAUSE)
            if run.pacer is not None:
                turn.not_before = time.monotonic() + pause
                run.pacer.inbox.put(turn)
                return None
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=pause)

    def _attempt(self, turn: Turn[Any]) -> Outcome[Any, Any]:
        run, item, number = self._map_run, turn.item, turn.attempts
        began = time.monotonic()
        try:
            self._request = run.work.request(item)
            with run.work.lease(self._request) as self._lease:
                began = time.monotonic()
                if run.is_stopped():  # then stop() may not have seen this lease
                    raise PoolClosed("The outcomes of this map() are no longer wanted.")
                self._use_turn(turn, has_begun=True)
                value = run.work.function(self._lease.driver, item)
        except BaseException as error:  # noqa: BLE001 # any error is the item's outcome
            return Outcome(item, None, error, number, time.monotonic() - began)
        finally:
            self._request = self._lease = None
            self._use_turn(turn, has_begun=False)
        return Outcome(item, value, None, number, time.monotonic() - began)

    def _use_turn(self, turn: Turn[Any], *, has_begun: bool) -> None:
        """Use the item's claim if the call has begun: the next call of its key has to wait.  Otherwise
        give the claim back."""
        claim, turn.claim = turn.claim, None
        if claim is not None:
            claim.start() if has_begun else claim.release()
            assert self._map_run.pacer is not None
            self._map_run.pacer.inbox.put(_LOOK)
