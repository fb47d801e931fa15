"""``browserkeeper run``: a process in front of the guard, which others see and signal.

The guard behind it is a child that outlives the SIGKILL of the front.
"""

from __future__ import annotations

import os
import select

from .descriptors import pipe_above_stdio
from .signals import FORWARDED, KEYBOARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

SI_KERNEL = 0x80  # siginfo's si_code of a signal that the terminal sent (sigaction(2))
FINISHING_TIMEOUT = 10.0  # seconds that a primary guard whose standby was killed may take to finish


def stand_in_front(argv: list[str], run: Callable[[list[str]], int]) -> int:
    """Fork; the child becomes the guard (``run``) with this process as its owner.  Its exit status.

    Signals are passed on to the guard, but for the terminal's own: the terminal sends those to our
    whole process group, and the command is in it.  A hangup alone it sends to the leader of its session
    only, and a SIGCONT with it (tty_hangup()): where that is this process, as in ``xterm -e`` or
    ``ssh -t``, the command would not notice.
    """
    owner = os.getpid()
    leads_session = os.getsid(0) == owner
    read_fd, write_fd = pipe_above_stdio()
    awaited = {*FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    guard = os.fork()
    if guard == 0:
        os.close(write_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os._exit(run(["--owner", str(owner), "--control-fd", str(read_fd), *argv]))
    os.close(read_fd)
    while True:
        info = signal.sigwaitinfo(awaited)
        if info.si_signo != signal.SIGCHLD:
            is_hangup = info.si_code == SI_KERNEL and leads_session
            if info.si_code != SI_KERNEL or (is_hangup and info.si_signo == signal.SIGHUP):
                os.kill(guard, info.si_signo)
            elif is_hangup and info.si_signo == signal.SIGCONT:
                os.kill(0, signal.SIGCONT)  # to our process group, since a guard passes no SIGCONT on
            elif info.si_signo in (signal.SIGINT, signal.SIGQUIT):
                os.kill(guard, KEYBOARD)  # after the command's end the key shortens the grace
            continue
        pid, status = os.waitpid(guard, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:  # the standby guard was killed, and the primary guard ends the session
                _wait_for_readers(write_fd)
            return code if code >= 0 else 128 - code


def _wait_for_readers(write_fd: int) -> None:
    """Block until the last reader of the pipe has gone, for FINISHING_TIMEOUT at most."""
    poller = select.poll()
    poller.register(write_fd, 0)  # POLLERR is always reported: it means that there is no reader
    poller.poll(FINISHING_TIMEOUT * 1000)
