"""Two guard processes for a session, so that a SIGKILL to either of them leaves nothing.

The primary guard does the work.  The standby guard is its parent and a subreaper too: what a killed
primary leaves is re-parented to the standby, which ends it.  When the standby is killed, the primary
ends the session.
"""

from __future__ import annotations

import os
import select

from .files import ignore_errors, is_private_directory
from .guard import Guard
from .life import finish, guard_session
from .lock import lock_directory
from .options import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal


def guard_as_a_pair(guard: Guard) -> int:
    """Guard the session to its end; the exit status of the standby guard."""
    try:
        guard.arm()
        standby = os.getpid()
        try:
            primary = os.fork()
        except OSError as error:  # the limit of processes
            raise Failure("fork", error) from error
    except Failure as failure:
        guard.report_failure(failure)
        return finish(guard, failure)
    if primary == 0:
        run_primary(guard, standby)
    return run_standby(guard, primary)


def run_primary(guard: Guard, standby: int) -> NoReturn:
    """Exits.  An exception becomes a death by SIGKILL, which tells the standby guard to finish."""
    try:
        guard.become_primary(standby)
        status = guard_session(guard)
        if not guard.standby_is_dead():
            ignore_errors(lambda: os.kill(standby, signal.SIGCONT))  # it may have been stopped
        os._exit(status)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def run_standby(guard: Guard, primary: int) -> int:
    """Wait for the primary guard, and finish in its place when it is killed.

    Passes signals on to it, and continues it when it is stopped.
    """
    poller = select.poll()
    poller.register(guard.signals.fd, select.POLLIN)
    while True:
        pid, status = os.waitpid(primary, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            os.kill(primary, signal.SIGCONT)
        elif pid and os.WIFEXITED(status) and not guard.members.reap():
            guard.slot.free(is_handed_over=False)  # one that the owner has given up meanwhile
            return os.WEXITSTATUS(status)
        elif pid:
            guard.report.reason = "guard-died"
            guard.made_tmpdir = is_private_directory(guard.options.tmpdir)
            if guard.made_tmpdir:  # the primary guard's lock on it is gone
                ignore_errors(lambda: lock_directory(guard.options.tmpdir))
                guard.downloads.load()
            if guard.to_standby is not None:
                _take_over_quitting(guard, guard.to_standby[0])
            guard.owner.send("ending", reason=guard.report.reason)
            return finish(guard)
        has_pidfd = guard.owner.pidfd >= 0  # then the primary guard watches the owner
        poller.poll(None if has_pidfd else 1000)
        for number in guard.signals.received():
            if number != signal.SIGCHLD:
                os.kill(primary, number)
        if not has_pidfd and guard.owner.is_dead():
            os.kill(primary, signal.SIGTERM)


def _take_over_quitting(guard: Guard, fd: int) -> None:
    from .quitting import asked_by_standby

    quitting = asked_by_standby(guard, fd)
    guard.ask_to_quit = quitting.run if quitting is not None else None
