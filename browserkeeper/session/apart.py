"""What lets a signal handler end a session, whichever lock the thread that it has interrupted holds.

urllib3's connection pool, OpenTelemetry's span processors and others have locks that are not reentrant.
A handler that calls them in the thread that it has interrupted waits for ever, where that thread was
inside such a lock.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

logger = logging.getLogger("browserkeeper")


class Lock(Protocol):
    """A ``threading.RLock``."""

    def acquire(self, *, timeout: float) -> bool: ...
    def release(self) -> None: ...


@contextlib.contextmanager
def hold(lock: Lock, timeout: float) -> Iterator[None]:
    """Hold the lock, for a block that may run twice at a time where it has to.

    After ``timeout`` seconds the block runs without the lock.  The thread that holds it may wait for
    this one: a signal handler has interrupted it, and closes a pool whose worker this thread is.
    """
    held = lock.acquire(timeout=timeout)
    try:
        yield
    finally:
        if held:
            lock.release()


def run_apart(action: Callable[[], object], timeout: float) -> None:
    """Run ``action`` in a thread of its own, and wait for it for ``timeout`` seconds at the most.

    If this thread holds a lock that it needs, it ends after that was released.  Its exceptions are
    logged.  Not by ``threading.Thread``, whose ``start()`` takes locks of that kind itself.
    """
    done = _thread.allocate_lock()
    done.acquire()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(action)
        except Exception:
            logger.exception("%r failed at the end of a session", action)
        finally:
            done.release()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # the limit of threads, or the interpreter ends
        run()
    done.acquire(timeout=timeout)
