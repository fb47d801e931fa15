"""Runs blocking calls of sessions and pools for asyncio, each in a thread of its own.

The event loop's default executor is not used: it has few threads, which the program needs for its own
commands, and ``asyncio.run`` waits for each of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from .call import Call

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")


async def in_thread(function: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """Run the function in a thread of its own, with the task's context variables; return its result, or
    raise its exception.

    If the task is cancelled meanwhile, the CancelledError is raised at once; the function goes on, and
    its exception is logged.  With ``stop``, that is called to make the function end, and the
    CancelledError is raised after that end; a second cancellation is raised at once.  If the function
    has not begun, it is not called.

    If the system gives no more threads, the function runs at once in the loop's thread.
    """
    import asyncio  # takes 50 ms, so only programs that use it import it

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    is_awaited = True

    def run() -> T:
        try:
            return function()
        except BaseException:
            if not is_awaited and stop is None:
                logger.warning("%r failed after its task was cancelled", function, exc_info=True)
            raise

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ended.set)

    call: Call[T] = Call(run, always_apart=True)
    call.begin(wake)
    try:
        await ended.wait()
    except BaseException as error:
        is_awaited = False
        if stop is not None:
            call.abandon()
            if not call.was_prevented:
                stop()
                if not isinstance(error, GeneratorExit):  # a coroutine that is closed may not wait
                    await ended.wait()
        raise
    return call.result()
