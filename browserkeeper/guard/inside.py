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

    from .guard import Guard
else:
    import _signal as signal

LIMIT = 10.0  # seconds that the program may take
PAUSE = 0.01
_PROGRAM = "import sys;sys.path.append(sys.argv.pop(1));from {} import main;main()"


def retire_sessions_inside(guard: Guard) -> None:
    """Have a program finish the sessions whose guards were killed, and wait for it for LIMIT seconds.

    Call it when no process of the guard's session is left.  The program (``cleanup/in_passing.py``)
    judges each record by the rules of a sweep.
    """
    members = (*guard.members.past, *guard.members.living.values())
    live = os.path.dirname(guard.options.record)
    if not live or not any(member.name == NAME for member in members):
        return
    try:
        if not _has_free_lock(live, os.path.basename(guard.options.record)):
            return
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        boot = _PROGRAM.format("browserkeeper.cleanup.in_passing")
        words = [sys.executable, "-I", "-S", "-c", boot, root, os.path.dirname(live)]
        program = os.posix_spawn(sys.executable, words, os.environ)
    except OSError as error:
        guard.report.notes.append(f"sessions inside were not looked for: {error}")
        return
    until = time.monotonic() + LIMIT
    while os.waitpid(program, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            ignore_errors(lambda: os.kill(program, signal.SIGKILL))
            os.waitpid(program, 0)
            return
        time.sleep(PAUSE)


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
