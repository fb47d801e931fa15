"""``Call``: a function that runs in a thread of its own, so that its errors can be told from others'.

A signal handler may raise an exception of any class between any two bytecodes of the main thread:
``signal.alarm`` with a TimeoutError, the time limits of RQ and Celery, Ctrl-C.
``PyThreadState_SetAsyncExc`` does the same to any thread.  Raised inside Selenium, urllib3 or our own
loops, such an exception cannot be told by its class from an error of the code that it interrupts, and
that code may wrap or suppress it.

Python runs signal handlers in the main thread only (docs.python.org/3/library/signal.html, "Signals and
threads").  So what a function raises in a thread of its own is its own error, and what is raised in the
thread that waits for it came from outside.  A call costs about 0.1 ms.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..process.limit_errors import NO_THREAD

T = TypeVar("T")

PAUSE = 0.2
"""Seconds after which the waiting thread runs signal handlers at the latest.  Linux gives a process's
signal to its main thread, and that ends the wait at once; other systems may choose another thread."""


class Call(Generic[T]):
    """One call of a function, in a thread of its own, with the caller's context variables.

    The function runs in the caller's thread where no thread can be started, and, unless
    ``always_apart``, in two further cases.  The caller's thread has called :func:`get_no_exceptions`;
    or it holds a lock of ``logging``: a log handler that sends a command, or starts a session, would
    wait for ever for a thread that logs.
    """

    def __init__(self, function: Callable[[], T], *, always_apart: bool = False):
        self.is_over = False
        """True when the function has returned or raised."""
        self.is_abandoned = False
        """True when no thread waits for the result any more."""
        self.was_prevented = False
        """True if an exception from outside came before the function had begun: it never will."""
        self._always_apart = always_apart
        self._on_end: Callable[[], None] = _go_on
        self._function: Callable[[], T] | None = function
        self._context = contextvars.copy_context()
        self._error: BaseException | None = None
        self._begin = threading.Lock()  # acquired once: to run the function, or to prevent that
        self._end = threading.Lock()
        self._end.acquire()

    def run(self, stop: Callable[[], None] | None = None) -> T:
        """Run the function, and return what it returns or raise what it raises.

        An exception from outside that arrives meanwhile is raised unchanged, at once; the function goes
        on then, unless it had not begun.  With ``stop``, which is called to make the function end, this
        exception is raised after the function has ended, and a second one at once.
        """
        try:
            self._start()
            self._wait()
        except BaseException:
            self.abandon()
            if stop is not None and not self.was_prevented:
                stop()
                self._wait()
            self._error = None  # its traceback refers to this object
            raise
        return self.result()

    def begin(self, on_end: Callable[[], None]) -> None:
        """Start the function and return at once: for asyncio, where no thread may wait.

        ``on_end`` is called in the function's thread after the function; it must not raise.
        """
        self._on_end = on_end
        self._start()

    def abandon(self) -> None:
        """Prevent the function if it has not begun, and drop the error that it may raise."""
        self.is_abandoned = True
        self.was_prevented = self._begin.acquire(blocking=False)

    def result(self) -> T:
        """Returns what the function has returned, or raises what it has raised.  To be called once,
        after its end."""
        error, self._error = self._error, None
        if error is None:
            try:
                return self._value
            finally:
                del self._value  # the thread has a reference to this object for a moment longer
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def _start(self) -> None:
        """``_thread`` starts the thread in one step.  ``threading.Thread.start`` waits for it with a
        Condition; an exception from outside that arrives there becomes "release unlocked lock"."""
        steps = self._steps(_thread_object())
        try:
            next(steps)
        except StopIteration:  # an exception from outside came in the first step, which has kept it
            assert self._error is not None
            raise self._error from None
        is_apart = self._always_apart or not (
            getattr(_threads, "get_no_exceptions", False) or _holds_lock_of_logging()
        )
        if is_apart:
            try:
                _thread.start_new_thread(next, (steps, None))
                return
            except RuntimeError as error:
                if str(error) not in NO_THREAD:
                    raise
        with contextlib.suppress(StopIteration):
            steps.send(True)

    def _steps(self, thread: threading.Thread) -> Generator[None, bool | None, None]:
        """The first step does nothing; the second one runs the function, in a thread with the object
        ``thread``, or in the caller's where it is sent True.

        Until Python 3.12 a thread that begins has the identity of the thread that has started it, and
        may get the exception that is injected into that one, at its first instruction.  That would
        leave a function before its ``try``; a generator goes on inside of it.
        """
        function: Callable[[], T] | None = None
        is_registered = False
        try:
            is_inline = yield
            if not is_inline:
                _register(thread)
                is_registered = True
            if self._begin.acquire(blocking=False):
                function, self._function = self._function, None
                assert function is not None
                self._value = self._context.run(function)
        except BaseException as error:  # noqa: BLE001  # run() raises it
            self._error = None if self.is_abandoned else error
        finally:
            del function  # an error's traceback refers to this frame, and would keep a driver alive
            if is_registered:
                threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]  # noqa: SLF001
            self.is_over = True
            self._end.release()
            self._on_end()

    def _wait(self) -> None:
        while not self.is_over:
            self._end.acquire(timeout=PAUSE)


_threads = threading.local()


def get_no_exceptions() -> None:
    """Declare that the thread that calls this gets no exceptions from outside: it is not the main
    thread, and runs no code of users.  Its calls then need no threads of their own, which saves 0.1
    ms."""
    _threads.get_no_exceptions = True


def _holds_lock_of_logging() -> bool:
    """True inside a log handler, and in a signal handler that has interrupted one.

    These locks are reentrant, so what the handler calls may log, but only in the same thread.
    """
    owners = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
    locks: list[Any] = [getattr(logging, "_lock", None), *(getattr(one, "lock", None) for one in owners)]
    return any(lock._is_owned() for lock in locks if hasattr(lock, "_is_owned"))  # noqa: SLF001


def _thread_object() -> threading.Thread:
    """For a thread that ``_thread`` starts: what ``threading.current_thread()`` returns in it.

    It names log lines.  It is never started, and made here, in the thread that waits.
    """
    name = f"{threading.current_thread().name}/browserkeeper"
    return threading.Thread(name=name, daemon=True)


def _register(thread: threading.Thread) -> None:
    """Make it the object of the thread that calls this.

    ``threading.current_thread()``, which logging calls, would make one itself.  That takes a lock,
    which a thread may hold that waits for this one: its program was starting a thread when a signal
    handler closed the session.
    """
    ident = threading.get_ident()
    thread._ident = ident  # type: ignore[attr-defined]  # noqa: SLF001
    threading._active[ident] = thread  # type: ignore[attr-defined]  # noqa: SLF001


def to_the_end(function: Callable[[], T]) -> T:
    """Run a function that has to run, and that ends by itself and soon, in a thread of its own.

    An exception from outside that comes meanwhile is raised after its end.
    """
    call = Call(function, always_apart=True)
    try:
        return call.run(stop=_go_on)
    except BaseException:
        if call.was_prevented:  # it came before the function had begun
            Call(function, always_apart=True).run(stop=_go_on)
        raise


def _go_on() -> None:
    """A ``stop``, or an ``on_end``, that does nothing."""
