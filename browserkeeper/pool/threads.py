"""Starting a thread, with a typed error where the system gives no more threads."""

from __future__ import annotations

import _thread
import threading
import time

from ..errors import LaunchError
from ..process.limit_errors import NO_THREAD, no_more_tasks
from .latch import Latch


def start_thread(thread: threading.Thread) -> None:
    """Start the thread.  Raises LaunchError with the remedy if the system gives no more threads; every
    other exception stays what it is."""
    try:
        if threading.current_thread() is threading.main_thread():
            _start_elsewhere(thread)
        else:
            thread.start()
    except RuntimeError as error:
        # An exception of a signal handler may be a RuntimeError too; it has another message.
        if str(error) not in NO_THREAD:
            raise
        raise LaunchError(
            f"The thread {thread.name!r} cannot be started ({error}). {no_more_tasks()} Or use fewer "
            "browsers (max_size).",
            retryable=False,
        ) from None


def _start_elsewhere(thread: threading.Thread) -> None:
    """Call ``Thread.start`` in a short-lived thread.

    An exception of a signal handler, which Python runs in the main thread, would break the Python code
    of that call: it comes out as "release unlocked lock", or the Thread object is never forgotten.
    """
    done, errors = Latch(), list[BaseException]()

    def start() -> None:
        try:
            thread.start()
        except BaseException as error:  # noqa: BLE001 # raised below
            errors.append(error)
        finally:
            done.set()

    _thread.start_new_thread(start, ())
    done.wait()
    if errors:
        raise errors[0]


def wait_for_end(thread: threading.Thread, timeout: float) -> bool:
    """Block until the thread has ended, or was never started.  False after ``timeout`` seconds.

    Replaces ``Thread.join`` and ``is_alive``: before Python 3.13 an exception of a signal handler in the
    middle of them may release a lock of the running thread.
    """
    deadline, pause = time.monotonic() + timeout, 0.0005
    while thread.ident is not None and thread in threading.enumerate():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    return True
