"""``pool.map``: calls a function for many items, each call in a lease of its own, in threads."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import PoolClosed
from .backoff import random_pause
from .latch import Latch
from .lease import Lease

T = TypeVar("T")
R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts for an item, for :func:`random_pause`."""


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

    lease: Callable[[], Lease[Any]]
    function: Callable[[Any, T], R]
    items: Iterator[T]
    attempts: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    workers: int


def run_map(work: Work[T, R]) -> Iterator[Outcome[T, R]]:
    """Yields the outcomes in the order in which they are ready."""
    return _MapRun(work).outcomes()


class _MapRun(Generic[T, R]):
    """One call of ``map`` while it runs: what its threads share."""

    def __init__(self, work: Work[T, R]):
        self.work = work
        self.stopped = Latch()
        self.error: BaseException | None = None
        """Why there are no more items; StopIteration at the normal end."""
        self.results: queue.SimpleQueue[tuple[Outcome[T, R], Latch] | None] = queue.SimpleQueue()
        """Outcomes, each with a latch to set when the outcome was taken; None when a thread ends."""
        self._lock = threading.Lock()

    def next_item(self) -> tuple[T] | None:
        """Returns the next item, in a tuple since it may be None; or None at the end."""
        with self._lock:
            if self.stopped.is_set() or self.error is not None:
                return None
            try:
                return (next(self.work.items),)
            except BaseException as error:  # noqa: BLE001 # outcomes() raises it in the consumer's thread
                self.error = error
        return None

    def outcomes(self) -> Iterator[Outcome[T, R]]:
        workers = [_MapWorker(self) for _ in range(self.work.workers)]
        running = 0
        try:
            for worker in workers:
                worker.start()
                running += 1
            while running:
                result = self.results.get()
                if result is None:
                    running -= 1
                    continue
                outcome, taken = result
                taken.set()
                yield outcome
        finally:
            self._stop(workers)
        if self.error is not None and not isinstance(self.error, StopIteration):
            raise self.error

    def _stop(self, workers: list[_MapWorker]) -> None:
        """End the browsers of the calls that still run, and wait until all workers are idle.

        A worker may be blocked in the iterable's ``next()``, which cannot be interrupted.  It is not
        waited for; it ends when ``next()`` returns.
        """
        self.stopped.set()
        while any(worker.is_busy for worker in workers):
            for worker in workers:
                if (lease := worker.lease) is not None:
                    with contextlib.suppress(Exception):
                        lease.session.close()
            self._discard_results(timeout=0.1)
        self._discard_results(timeout=0)
        for worker in workers:
            if worker.ident is not None:  # else it was never started
                worker.join(0.1)

    def _discard_results(self, timeout: float) -> None:
        """Let the workers go on that wait for their outcome to be taken."""
        with contextlib.suppress(queue.Empty):
            while True:
                result = self.results.get(timeout=timeout)
                if result is not None:
                    result[1].set()


class _MapWorker(threading.Thread):
    """Takes items and puts out their outcomes, one after another, until there are no more items."""

    def __init__(self, run: _MapRun[Any, Any]):
        super().__init__(name=f"browserkeeper-map-{id(run):x}", daemon=True)
        self._map_run = run
        self.lease: Lease[Any] | None = None
        self.is_busy = False
        """True from when it has an item until the item's outcome is queued."""

    def run(self) -> None:
        run = self._map_run
        try:
            while (item := run.next_item()) is not None:
                self.is_busy = True
                taken = Latch()
                run.results.put((self._outcome_of(item[0]), taken))
                self.is_busy = False
                taken.wait()  # so that no worker runs far ahead of the consumer
        finally:
            run.results.put(None)

    def _outcome_of(self, item: Any) -> Outcome[Any, Any]:
        """Call the function for the item, again after an error as often as ``retries`` allows."""
        run, work = self._map_run, self._map_run.work
        attempts = 0
        while True:
            attempts += 1
            outcome = self._attempt(item, attempts)
            error = outcome.error
            retryable = isinstance(error, work.retry_on) and not isinstance(error, PoolClosed)
            if not retryable or attempts >= work.attempts or run.stopped.is_set():
                return outcome
            run.stopped.wait(random_pause(attempts, FIRST_PAUSE, LONGEST_PAUSE))

    def _attempt(self, item: Any, number: int) -> Outcome[Any, Any]:
        run = self._map_run
        began = time.monotonic()
        try:
            with run.work.lease() as self.lease:
                began = time.monotonic()
                if run.stopped.is_set():
                    raise PoolClosed("The results of this map() are no longer wanted.")
                value = run.work.function(self.lease.driver, item)
        except BaseException as error:  # noqa: BLE001 # any error is the item's outcome
            return Outcome(item, None, error, number, time.monotonic() - began)
        finally:
            self.lease = None
        return Outcome(item, value, None, number, time.monotonic() - began)
