"""A child process, like ``subprocess.Popen``, that a signal handler may use at any moment.

``Popen.poll()`` and ``Popen.wait()`` take a lock that is not reentrant.  Python runs a signal handler
between two bytecodes of the main thread: a handler that ends a session while the main thread is inside
one of these would wait for ever.  Here no lock is taken.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import select
import signal
import subprocess
import time
from typing import Any

from ..guard.descriptors import above_stdio
from .uninterrupted import Descriptor

LONGEST_PAUSE = 0.05
"""Seconds between two looks at a child, where the system has no pidfd (pidfd_open(2), Linux 5.3)."""


class ChildProcess:
    """A child that Popen has started, with those methods of Popen that concern the process.

    Safe to use from several threads and signal handlers.  In a fork of this process it can only tell
    whether the child lives.
    """

    def __init__(self, process: subprocess.Popen[bytes]):
        """Take over ``process``, which must not be used any more."""
        self.pid, self.args = process.pid, process.args
        process.returncode = 0  # then its destructor neither reaps the child nor warns
        self._owner = os.getpid()
        self._pidfd = _open_pidfd(self.pid)
        self._ends: list[Any] = []
        """What wait functions have returned: one element once the child has been reaped."""
        self._is_gone = False
        """Other code has reaped the child, or SIGCHLD is ignored."""

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None until :meth:`poll` has reaped the child.  0 where
        other code has reaped it."""
        if not self._ends:
            return 0 if self._is_gone else None
        end = self._ends[0]
        if hasattr(end, "si_code"):
            return int(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)
        return os.waitstatus_to_exitcode(end[1])

    def poll(self) -> int | None:
        """Reap the child if it has ended; its :attr:`returncode`."""
        if self.returncode is None:
            if os.getpid() != self._owner:
                return 0 if self._has_ended() else None
            try:
                self._reap()
            except ChildProcessError:
                self._is_gone = True
            except ValueError:  # another thread has reaped it, and closed the pidfd
                pass
        return self.returncode

    def _reap(self) -> None:
        """Raises ChildProcessError where other code has reaped the child.

        ``extend`` is one call of C code: no signal handler runs between the wait function and the
        storing of what it returned, which the handler would miss.
        """
        if self._pidfd is not None:
            # P_PIDFD: the number may belong to another child, where other code has reaped this one.
            fds, flags = map(io.FileIO.fileno, (self._pidfd,)), (os.WEXITED | os.WNOHANG,)
            try:
                self._ends.extend(filter(None, map(os.waitid, (os.P_PIDFD,), fds, flags)))
                return
            except ChildProcessError:
                raise
            except OSError:  # EINVAL: Linux 5.3 has pidfds, but not P_PIDFD
                pass
        ends = map(os.waitpid, (self.pid,), (os.WNOHANG,))
        self._ends.extend(filter(operator.itemgetter(0), ends))

    def wait(self, timeout: float | None = None) -> int:
        """Block until the child has ended; its :attr:`returncode`.

        Raises subprocess.TimeoutExpired after ``timeout`` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while (code := self.poll()) is None:
            left = LONGEST_PAUSE if until is None else until - time.monotonic()
            if left <= 0:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            if self._pidfd is None:
                time.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._has_ended(left)
        return code

    def _has_ended(self, seconds: float = 0) -> bool:
        """By the pidfd, after at most so many seconds; without a pidfd, whether the number is unused."""
        if self._pidfd is None:
            with contextlib.suppress(PermissionError):
                try:
                    os.kill(self.pid, 0)
                except ProcessLookupError:
                    return True
            return False
        poller = select.poll()
        with contextlib.suppress(ValueError):  # closed by another thread, after the child's end
            poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def send_signal(self, number: int) -> None:
        """Signal the child, unless it has ended.  Never signals another process of the same number."""
        if self.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, ValueError):
            if self._pidfd is None:
                os.kill(self.pid, number)
            else:
                # One call of C code: a signal handler in between may close the pidfd.
                fds = map(io.FileIO.fileno, (self._pidfd,))
                list(map(signal.pidfd_send_signal, fds, (number,)))

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Give back the pidfd, once the child has been reaped."""
        if self._pidfd is not None and self.returncode is not None:
            self._pidfd.close()


def _open_pidfd(pid: int) -> Descriptor | None:
    try:
        return Descriptor(above_stdio(os.pidfd_open(pid)))
    except (
        OSError,  # the kernel is older than 5.3, or a sandbox refuses it
        AttributeError,  # Python was built on such a kernel, or for another system
    ):
        return None
