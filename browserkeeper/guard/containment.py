"""How a session's processes are found, described and ended.

:class:`Containment` is the interface, :class:`Subreaper` the one that Linux has.  The layers above
have two more: ``process/portable_guard.py`` and ``cleanup/adopting_guard.py``.
"""

from __future__ import annotations

import errno
import os
import time

from .files import ignore_errors
from .libc import call, refusal
from .options import Failure
from .procfs import (
    Stat,
    descendants,
    exists,
    own_memory,
    read_bytes,
    read_stat,
    signal_descendant,
    unreadable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
    from typing import Any, Protocol

    from .members import Members

    class Containment(Protocol):
        """What the guard asks of a containment."""

        name: str
        """As in the report."""
        shortest_pause: float
        """Seconds between the first two rounds of killing."""
        owns_shared_memory: bool
        """Whether the session's browser may have left files in ``/dev/shm`` that the guard removes."""

        def arm(self) -> None:
            """Prepare this process to be the guard.  Raises Failure."""

        def signal_at_parents_death(self, number: int) -> None:
            """Have the kernel send this process a signal when its parent dies, where it can."""

        def find(self) -> Iterable[Stat]:
            """Every process of the session that exists now, with zombies that the guard will reap."""

        def stat(self, pid: int) -> Stat | None:
            """The facts of one process, or None where it does not exist."""

        def now(self) -> float:
            """The time now, on the clock of the start times in :class:`Stat`."""

        def memory(self, pid: int) -> int:
            """Bytes of memory that a process uses; 0 where it is gone."""

        def signal(self, stat: Stat, number: int) -> None:
            """Signal a process of the session, if it still is the one that was found."""

        def kill(self, members: Members) -> None:
            """One round of SIGKILL to all processes of the session; marks the members that it hit."""

        def certify(self, members: Members) -> str | None:
            """Reap, and return the certificate when no process of the session is left, else None."""

        def survivors(self) -> list[dict[str, Any]]:
            """The processes that SIGKILL has not ended yet, for the report."""

        def unseen(self) -> str:
            """Why a process of the session may be left all the same; "" where none can be.

            Asked once after the certificate, which is withheld then.
            """

        def profiles(self) -> Iterable[str]:
            """Directories to remove besides TMPDIR."""

else:
    import _signal as signal

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FREEZING_ROUNDS = 200  # each takes milliseconds; a fork bomb of 2,000 needs a dozen


class Cgroup:
    """A leaf of cgroup v2 for the session.  With the path "" every method does nothing."""

    def __init__(self, path: str):
        self.path = path

    def make(self) -> None:
        if self.path:
            os.mkdir(self.path, 0o755)

    def enter(self) -> None:
        """Move this process into the leaf."""
        self._write("cgroup.procs", b"0")

    def kill(self) -> None:
        """SIGKILL to all that is in the leaf."""
        ignore_errors(lambda: self._write("cgroup.kill", b"1"))

    def remove(self) -> None:
        """Remove the leaf, and the empty leaves below it: those of sessions inside whose guards were
        killed."""
        if self.path:
            _remove_directories(self.path)

    def _write(self, name: str, data: bytes) -> None:
        if not self.path:
            return
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


def _remove_directories(path: str) -> None:
    """rmdir(2) of a cgroup and of those below it, which the kernel refuses for one that is in use."""
    try:
        os.rmdir(path)
    except OSError as error:
        below = [name for name in os.listdir(path) if os.path.isdir(f"{path}/{name}")]
        if error.errno != errno.EBUSY or not below:
            raise
        for name in below:
            _remove_directories(f"{path}/{name}")
        os.rmdir(path)


def _prctl(option: int, argument: int) -> int:
    return call("prctl", option, argument, 0, 0, 0)


class Subreaper:
    """All descendants stay below the guard, so ECHILD proves that none is left."""

    shortest_pause = 0.002
    owns_shared_memory = True

    def __init__(self, cgroup: Cgroup):
        self.name = "cgroup" if cgroup.path else "subreaper"
        self._cgroup = cgroup
        self._hit: set[int] = set()

    def arm(self) -> None:
        """Become a child subreaper, which a fork does not inherit."""
        if _prctl(PR_SET_CHILD_SUBREAPER, 1) == 0:
            return
        # EINVAL for a kernel older than 3.4 (prctl(2)); a seccomp filter returns what it likes.
        if why := refusal("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise Failure("subreaper", why)

    def signal_at_parents_death(self, number: int) -> None:
        """The caller compares ``getppid()`` afterwards: the parent may have died before."""
        _prctl(PR_SET_PDEATHSIG, number)

    def find(self) -> list[Stat]:
        return [stat for pid, _ in descendants(os.getpid()) if (stat := self.stat(pid))]

    def stat(self, pid: int) -> Stat | None:
        """Without name and start where ``/proc`` hides the process.  Its number is in the list of its
        parent's children all the same, and its own children come to the guard when it dies."""
        return read_stat(pid) or (unreadable(pid) if exists(pid) else None)

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)  # seconds since boot, as in /proc/PID/stat

    def memory(self, pid: int) -> int:
        return own_memory(pid)

    def signal(self, stat: Stat, number: int) -> None:
        """A child of ours may be signalled by number, since no other process can reap it."""
        if stat.parent == os.getpid():
            ignore_errors(lambda: os.kill(stat.pid, number))  # EPERM: a setuid program
        else:
            signal_descendant(stat.pid, stat.parent, number)

    def kill(self, members: Members) -> None:
        """Freeze first where processes appear while others are killed: killing alone may never
        catch up with them."""
        known = self._hit.union(members.living)
        hit = self._signal_all(signal.SIGKILL, members)
        if hit - known:
            self._freeze(members)
            hit |= self._signal_all(signal.SIGKILL, members)
        self._hit |= hit

    def _freeze(self, members: Members) -> None:
        """Stop all before killing any: each death would make room for the next fork."""
        stopped: set[int] = set()
        for _ in range(FREEZING_ROUNDS):
            fresh = self._signal_all(signal.SIGSTOP, members, skip=stopped)
            if not fresh:
                return
            stopped |= fresh

    def _signal_all(self, number: int, members: Members, skip: Iterable[int] = ()) -> set[int]:
        """Signal every descendant once; the pids that got the signal.

        A child of ours may be signalled by number, since no other process can reap it.
        """
        if number == signal.SIGKILL:
            self._cgroup.kill()
        guard, hit = os.getpid(), set()
        for pid, parent in descendants(guard):
            if pid in skip:
                continue
            member = members.living.get(pid) or members.note(pid)
            if parent == guard:
                # EPERM: a setuid program, sudo for one.
                ignore_errors(lambda pid=pid: os.kill(pid, number))  # type: ignore[misc]
            elif not signal_descendant(pid, parent, number):
                continue
            hit.add(pid)
            if member is not None and number == signal.SIGKILL:
                member.killed = True
        return hit

    def certify(self, members: Members) -> str | None:
        return None if members.reap() else "ECHILD"

    def survivors(self) -> list[dict[str, Any]]:
        """With ``wchan``, the kernel function that the process sleeps in."""
        found = []
        for stat in self.find():
            where = (read_bytes(f"/proc/{stat.pid}/wchan") or b"").decode("ascii", "replace")
            found.append({"pid": stat.pid, "name": stat.name, "state": stat.state, "wchan": where})
        return found

    def unseen(self) -> str:
        """The kernel's answer to waitpid(2) covers the processes that ``/proc`` hides, too."""
        return ""

    def profiles(self) -> Iterable[str]:
        return ()
