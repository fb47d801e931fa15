"""What a guard of ``browserkeeper run`` does about the sessions that were inside of its own.

Their guards end them, and retire their records (``grace.py``).  Where those guards were killed, their
records have nobody left but this guard, which has the certificate that no process of them lives.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from .files import ignore_errors
from .title import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from .guard import Guard
else:
    import _signal as signal

LIMIT = 10.0  # seconds that this may take
PAUSE = 0.01


def retire_sessions_inside(guard: Guard) -> None:
    """Finish the sessions whose guards were killed, in a process that takes LIMIT seconds at the most.

    Call it when no process of the guard's session is left.  The process judges each record by the rules
    of a sweep (``cleanup/in_passing.py``).
    """
    members = (*guard.members.past, *guard.members.living.values())
    live = os.path.dirname(guard.options.record)
    if not live or not any(member.name == NAME for member in members):
        return
    try:
        if not _has_free_lock(live, os.path.basename(guard.options.record)):
            return
        child = os.fork()
    except OSError as error:
        guard.report.notes.append(f"sessions inside were not looked for: {error}")
        return
    if child == 0:
        _finish_dead_sessions(os.path.dirname(live))
    until = time.monotonic() + LIMIT
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            ignore_errors(lambda: os.kill(child, signal.SIGKILL))
            os.waitpid(child, 0)
            return
        time.sleep(PAUSE)


def _finish_dead_sessions(state: str) -> NoReturn:
    """In the child, which imports the layers above.

    Not by a program of its own: the executable of a frozen program is no interpreter.
    """
    try:
        signal.set_wakeup_fd(-1)
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        sys.path[:] = [place for place in sys.path if place != package]
        sys.path.append(os.path.dirname(package))
        module = __import__("browserkeeper.cleanup.in_passing", fromlist=["finish_now"])
        module.finish_now(state)
    finally:
        os._exit(0)


def _has_free_lock(live: str, own: str) -> bool:
    """Whether the guards of another record are dead.  Raises OSError where records cannot be listed."""
    locks = os.path.join(os.path.dirname(live), "locks")
    for name in os.listdir(live):
        if name.endswith(".json") and name != own:
            try:
                fd = os.open(os.path.join(locks, name[:-5]), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                continue
            finally:
                os.close(fd)
    return False


__all__ = ["retire_sessions_inside"]
