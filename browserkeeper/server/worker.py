"""``Worker``: one thread for the commands of a session, which run in the order in which they came."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..session.call import get_no_exceptions


class Worker:
    """One thread for functions that block.  The methods are called in the event loop's thread.

    ``on_end`` is called in the event loop whenever a function has ended, or was dropped.  The first call
    starts the thread.

    This class replaces ``ThreadPoolExecutor``, whose calls need three futures each, and so twice the
    processor time and two more rounds of the event loop.
    """

    def __init__(self, name: str, on_end: Callable[[], None]):
        self._name, self._on_end = name, on_end
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None]
        self._calls = queue.SimpleQueue()
        self._has_begun = self._is_closed = False

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call the function after those before it; the future gets what it returns or raises.

        If the future is cancelled, the function is called all the same.  Raises RuntimeError after
        close(), and where the system gives no thread.
        """
        if self._is_closed:
            raise RuntimeError("the thread has been told to end")
        loop = asyncio.get_running_loop()
        if not self._has_begun:
            thread = threading.Thread(
                target=_work, args=(self._calls, loop, self._note), name=self._name, daemon=True
            )
            thread.start()
            self._has_begun = True
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put((future, function))
        return future

    def _note(self, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        self._on_end()
        if future.done():  # nothing awaits it any more
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def close(self, error: Callable[[], BaseException]) -> None:
        """Let the thread end after the function that runs.  The functions that wait are dropped, and
        each of their futures gets an ``error()``.  Idempotent; returns at once."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(queue.Empty):
            while dropped := self._calls.get_nowait():
                self._note(dropped[0], None, error())
        self._calls.put(None)


def _work(
    calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None],
    loop: asyncio.AbstractEventLoop,
    note: Callable[[asyncio.Future[Any], Any, BaseException | None], None],
) -> None:
    get_no_exceptions()
    while (call := calls.get()) is not None:
        future, function = call
        value, error = None, None
        try:
            value = function()
        except BaseException as raised:  # noqa: BLE001 # it is raised where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(note, future, value, error)
        del call, future, function, value, error  # a thread that waits must keep no objects alive


__all__ = ["Worker"]
