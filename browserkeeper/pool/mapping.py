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
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import LaunchError, PoolClosed, PoolUnavailable, refuse_to_pickle
from .backoff import random_pause
from .lease import Lease, Request
from .logs import log
from .threads import start_thread, wait_for_end

T = TypeVar("T")
R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts for an item, for :func:`random_pause`."""
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
        return self.error is None

    def result(self) -> R:
        """Returns the value, or raises the error (as ``concurrent.futures`` does)."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value] # R may itself be Optional


@dataclasses.dataclass
class Work(Generic[T, R]):
    """The arguments of one call of ``map``; ``lease`` takes a lease from the pool."""

    lease: Callable[[Request], Lease[Any]]
    function: Callable[[Any, T], R]
    items: Iterator[T]
    attempts: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    workers: int


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
        self.feed = _Feed(work.items)
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
            self.feed.demand.put(None)
            return outcome
        if self.feed.error is not None and not self._error_raised and not self.is_stopped():
            self._error_raised = True
            raise self.feed.error
        raise StopIteration

    def is_stopped(self) -> bool:
        return self.feed.is_stopped()

    def _start(self) -> None:
        """Start the threads; fewer workers where the system gives no more.  Raises PoolUnavailable where
        it gives too few for any work."""
        self._workers = [_MapWorker(self) for _ in range(self.work.workers)]
        try:
            start_thread(self._feeder)
            for worker in self._workers:
                start_thread(worker)
                self._running += 1
                self.feed.demand.put(None)
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
        wait_for_end(self._feeder, 0.1)


class _Feed(Generic[T]):
    """Takes items from the iterable in a thread of its own, one for each demand.

    Only this thread can be blocked in the iterable.  It has no reference to the pool.
    """

    def __init__(self, items: Iterator[T]):
        self._items: Iterator[T] | None = items
        self._stopped = False
        self.demand: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One entry for each item that is wanted."""
        self._ready: queue.SimpleQueue[tuple[int, T] | None] = queue.SimpleQueue()
        """Numbered items; None at the end, for all workers."""
        self.unfinished: dict[int, T] = {}
        """The items without an outcome that was delivered, by their numbers."""
        self.error: BaseException | None = None
        """What the iterable has raised."""

    def take(self) -> tuple[int, T] | None:
        """Block until there is an item; None when there are no more, or none is wanted."""
        found = self._ready.get()
        if found is None or self.is_stopped():
            self._ready.put(None)  # for the next worker
            return None
        return found

    def is_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        self._stopped = True
        self.demand.put(None)
        self._ready.put(None)

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
                self._ready.put((number, item))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 # raised in the consumer's thread
            self.error = error
        finally:
            self._items = None
            self._ready.put(None)


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
            while (taken := run.feed.take()) is not None:
                number, item = taken
                run.results.put((number, self._outcome_of(item)))
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

    def _outcome_of(self, item: Any) -> Outcome[Any, Any]:
        """Call the function for the item, again after an error as often as ``retries`` allows."""
        run, work = self._map_run, self._map_run.work
        attempts = 0
        while True:
            attempts += 1
            outcome = self._attempt(item, attempts)
            error = outcome.error
            retryable = isinstance(error, work.retry_on) and not isinstance(error, PoolClosed)
            if not retryable or attempts >= work.attempts or run.is_stopped():
                return outcome
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=random_pause(attempts, FIRST_PAUSE, LONGEST_PAUSE))

    def _attempt(self, item: Any, number: int) -> Outcome[Any, Any]:
        run = self._map_run
        began = time.monotonic()
        try:
            self._request = Request()
            with run.work.lease(self._request) as self._lease:
                began = time.monotonic()
                if run.is_stopped():  # then stop() may not have seen this lease
                    raise PoolClosed("The outcomes of this map() are no longer wanted.")
                value = run.work.function(self._lease.driver, item)
        except BaseException as error:  # noqa: BLE001 # any error is the item's outcome
            return Outcome(item, None, error, number, time.monotonic() - began)
        finally:
            self._request = self._lease = None
        return Outcome(item, value, None, number, time.monotonic() - began)
