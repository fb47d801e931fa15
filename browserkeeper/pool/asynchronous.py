"""``pool.alease()``: a lease for asyncio.  A task that waits for its browser holds no thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import ConfigError, LeaseTimeout, PoolTimeout, refuse_to_pickle
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..session.asynchronous import in_thread
from .lease import Lease, Request

if TYPE_CHECKING:
    from selenium import webdriver

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)


class AsyncLease(Generic[D_co]):
    """What ``pool.alease()`` returns: ``async with pool.alease() as lease:``, once."""

    __reduce_ex__ = refuse_to_pickle

    def __init__(
        self,
        request: Request,
        ask: Callable[[Request], Lease[D_co]],
        prepare: Callable[[Lease[D_co]], None],
        timed_out: Callable[[Request, float], PoolTimeout],
        limit: float,
    ):
        """``ask`` queues the request and returns its lease, which may be used after the grant.
        ``prepare`` then sets the request's identity; it may block.  ``timed_out`` cancels a request that
        got no browser within ``limit`` seconds, and returns the error to raise."""
        self._request, self._ask, self._limit = request, ask, limit
        self._prepare, self._timed_out = prepare, timed_out
        self.on_entered: Callable[[Lease[D_co]], None] | None = None
        """Called in the task with the lease, before the block begins; must not block."""
        self._lease: Lease[D_co] | None = None
        self._was_entered = False

    async def __aenter__(self) -> Lease[D_co]:
        if self._was_entered:
            raise ConfigError("An alease() serves one `async with` block: call pool.alease() for each.")
        self._was_entered = True
        request = self._request
        request.thread = _name_of_task()
        try:
            lease = await self._granted()
        except BaseException:  # a refusal, the task's cancellation, or the end of its event loop
            request.cancel()
            raise
        try:
            if lease.has_identity:  # else no thread is needed
                await in_thread(lambda: self._prepare(lease))
            if self.on_entered is not None:
                self.on_entered(lease)
        except BaseException:
            lease.cut_off("interrupted: an exception came before the lease was ready")
            raise
        self._lease = lease
        return lease

    async def _granted(self) -> Lease[D_co]:
        """Wait for the answer to the request, without a thread, and return the lease.  Raises
        PoolTimeout, or the error of a refusal."""
        import asyncio

        request, loop, answered = self._request, asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed: its task never uses the lease
                request.cancel()

        request.on_answer = wake
        lease = self._ask(request)
        timer = loop.call_later(self._limit, answered.set)
        try:
            await answered.wait()
        finally:
            timer.cancel()
        if request.answer() is None:
            raise await in_thread(lambda: self._timed_out(request, self._limit))
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        assert lease is not None
        if isinstance(error, GeneratorExit):  # the event loop was closed: the task may not wait
            lease.cut_off("abandoned")
            return
        try:
            await in_thread(lease.release)
        except LeaseTimeout:
            if error is None:
                raise
        except BaseException:
            lease.cut_off("interrupted: an exception came while the lease was released")
            raise


def _name_of_task() -> str:
    """The names of the event loop's thread and of the task, for ``pool.leases()`` and messages."""
    import asyncio

    name = threading.current_thread().name
    with contextlib.suppress(RuntimeError):
        if (task := asyncio.current_task()) is not None:
            return f"{name} ({task.get_name()})"
    return name
