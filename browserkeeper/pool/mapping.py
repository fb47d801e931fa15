"""``pool.map``: many inputs through a pool's browsers, each answered exactly once."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import PoolClosed
from .latch import Latch
from .lease import Lease

if TYPE_CHECKING:
    from .pool import BrowserPool

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What came of one item: ``value``, or ``error`` where all its attempts failed.

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
        """The value; raises the error where there is one (as ``concurrent.futures`` does)."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value] # R may itself be Optional


@dataclasses.dataclass
class Work(Generic[T, R]):
    """What a call of ``map`` has to do."""

    function: Callable[[Any, T], R]
    items: Iterator[T]
    attempts: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    workers: int


class _Worker(threading.Thread):
    """Takes an item, works on it, puts the outcome where the consumer finds it; and so on."""

    def __init__(self, run: _Run[Any, Any]):
        super().__init__(name=f"browserkeeper-map-{id(run):x}", daemon=True)
        self._map_run = run
        self.lease: Lease[Any] | None = None
        self.is_busy = False
        """With an item; else it waits for one, for as long as the iterable takes."""

    def run(self) -> None:
        run = self._map_run
        try:
            while (item := run.next_item()) is not None:
                self.is_busy = True
                taken = Latch()
                run.results.put((self._work(item[0]), taken))
                self.is_busy = False
                taken.wait()  # whoever does not take results gets no more work done
        finally:
            run.results.put(None)

    def _work(self, item: Any) -> Outcome[Any, Any]:
        from tenacity import RetryCallState, wait_random_exponential

        run = self._map_run
        pause = wait_random_exponential(multiplier=0.1, max=5)
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type] # it only counts here
        while True:
            outcome = self._attempt(item, state.attempt_number)
            again = isinstance(outcome.error, run.work.retry_on) and not isinstance(
                outcome.error, PoolClosed
            )
            if not again or state.attempt_number >= run.work.attempts or run.stopped.is_set():
                return outcome
            run.stopped.wait(pause(state))
            state.attempt_number += 1

    def _attempt(self, item: Any, number: int) -> Outcome[Any, Any]:
        began = time.monotonic()
        try:
            with self._map_run.pool.lease() as self.lease:
                began = time.monotonic()
                if self._map_run.stopped.is_set():
                    raise PoolClosed("The results of this map() are no longer wanted.")
                value = self._map_run.work.function(self.lease.driver, item)
        except BaseException as error:  # noqa: BLE001 # it belongs to the item, whatever it is
            return Outcome(item, None, error, number, time.monotonic() - began)
        finally:
            self.lease = None
        return Outcome(item, value, None, number, time.monotonic() - began)


class _Run(Generic[T, R]):
    """One call of ``map`` while it goes on: what its workers share."""

    def __init__(self, pool: BrowserPool[Any], work: Work[T, R]):
        self.pool, self.work = pool, work
        self.stopped = Latch()
        self.error: BaseException | None = None
        self.results: queue.SimpleQueue[tuple[Outcome[T, R], Latch] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def next_item(self) -> tuple[T] | None:
        """The next item, in a tuple since it may be None; None at the end."""
        with self._lock:
            if self.stopped.is_set() or self.error is not None:
                return None
            try:
                return (next(self.work.items),)
            except StopIteration:
                self.error = StopIteration()
            except BaseException as error:  # noqa: BLE001 # the consumer's, who gets it in the end
                self.error = error
        return None

    def outcomes(self) -> Iterator[Outcome[T, R]]:
        workers = [_Worker(self) for _ in range(self.work.workers)]
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

    def _stop(self, workers: list[_Worker]) -> None:
        """Cut off what still runs, and wait for the threads, but not for those whom the iterable
        keeps waiting: they end when it lets go of them."""
        self.stopped.set()
        while any(worker.is_busy for worker in workers):
            for worker in workers:
                if (lease := worker.lease) is not None:
                    with contextlib.suppress(Exception):
                        lease.session.end("closed")
            self._release(timeout=0.1)
        self._release(timeout=0)
        for worker in workers:
            if worker.ident is not None:
                worker.join(0.1)

    def _release(self, timeout: float) -> None:
        """Let workers go on whose outcomes nobody will take."""
        with contextlib.suppress(queue.Empty):
            while True:
                result = self.results.get(timeout=timeout)
                if result is not None:
                    result[1].set()


def run_map(pool: BrowserPool[Any], work: Work[T, R]) -> Iterator[Outcome[T, R]]:
    """The outcomes, as they come."""
    return _Run(pool, work).outcomes()
