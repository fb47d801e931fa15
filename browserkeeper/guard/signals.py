"""Signals that come to the guard: each arrives as one byte, its number, on a pipe."""

from __future__ import annotations

import os
import select

from .descriptors import pipe_above_stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)
"""Signals that a foreground command gets from its guard."""
KEYBOARD = signal.SIGURG
"""What the front sends for a key of the terminal, which has already reached the command (``front.py``).
Ignored by default, so that a guard which is just starting does not die of it."""


class Signals:
    """The wake-up pipe (``signal.set_wakeup_fd``) and the dispositions of guard and command."""

    def __init__(self, foreground: bool):
        self.fd = -1
        self._foreground = foreground
        ignored = [n for n in FORWARDED if signal.getsignal(n) == signal.SIG_IGN]
        self._ignored = ignored if foreground else []  # by nohup, or by a shell's `&`

    def listen(self) -> None:
        """Make the pipe and install the handlers; again in each process that a fork has made.

        A background guard reacts to SIGTERM and SIGCHLD only, so that the keys of the owner's
        terminal do not reach it.
        """
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the owner's thread may block all signals
        self.fd, write_fd = pipe_above_stdio()
        os.set_blocking(self.fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd)
        foreground = (*FORWARDED, KEYBOARD)
        handled = {*(foreground if self._foreground else (signal.SIGTERM,)), signal.SIGCHLD}
        for number in {*foreground, signal.SIGTTOU, signal.SIGCHLD} - {signal.SIGCONT}:
            signal.signal(number, (lambda *_: None) if number in handled else signal.SIG_IGN)

    def received(self) -> bytes:
        """The numbers of the signals that have come in since the last call; never blocks."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def wait(self, seconds: float) -> bytes:
        """Block until a signal comes in, for so many seconds at most; the numbers of those that came."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        poller.poll(max(1, seconds * 1000))
        return self.received()

    def restore(self) -> None:
        """In the command's process, before exec: the dispositions that a new program expects."""
        signal.set_wakeup_fd(-1)
        ours = {KEYBOARD, signal.SIGTTOU, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ}
        for number in {*FORWARDED, *ours} - {*self._ignored}:
            signal.signal(number, signal.SIG_DFL)  # SIG_IGN would outlive the exec
        for number in self._ignored:
            signal.signal(number, signal.SIG_IGN)
