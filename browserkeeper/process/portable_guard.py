"""The guard where there is no subreaper: containment by psutil, with a weaker certificate.

Run with the session's id and the options of ``guard/options.py``, by ``isolated_command`` of
``guard_process.py``.  It does not get what daemonises as its child, so it keeps a list of all
processes that it saw below itself, and ends those, their descendants and the session's marked orphans
(``leftover_processes.py``), until two scans in a row find nothing.  It reaps its direct children
only, and no process dies with it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable

from ..guard.descriptors import occupy_stdio
from ..guard.guard import Guard
from ..guard.life import guard_session
from ..guard.options import Options
from ..guard.procfs import Stat
from . import identity_of, own_line, portable
from .leftover_processes import MARKER, LeftoverProcesses, MarkedOrphans
from .two_scans import TwoScans, stat_of


class PortableContainment:
    """Implements ``guard.containment.Containment``."""

    name = "portable"
    shortest_pause = TwoScans.shortest_pause
    owns_shared_memory = True

    def __init__(self, session: str):
        own = identity_of(os.getpid(), portable).start
        marked = f"{MARKER}={session}"
        cgroups = portable.resources(os.getpid())
        orphans = MarkedOrphans(marked, own, math.inf, cgroups, own_line())
        self._scans = TwoScans(LeftoverProcesses((), platform=portable, orphans=orphans))
        self.kill, self.certify = self._scans.kill, self._scans.certify
        self.survivors, self.unseen = self._scans.survivors, self._scans.unseen
        self.signal = self._scans.signal

    def arm(self) -> None:
        """There is no subreaper to become."""

    def signal_at_parents_death(self, number: int) -> None:
        """Does nothing: only Linux has such a signal (PR_SET_PDEATHSIG)."""

    def find(self) -> list[Stat]:
        """The processes below this one; they are remembered, since they may leave the tree."""
        found = portable.tree(os.getpid())
        self._scans.leftovers.remember(found)
        return [stat_of(process) for process in found]

    def stat(self, pid: int) -> Stat | None:
        found = portable.facts(pid)
        return stat_of(found) if found else None

    def now(self) -> float:
        return portable.now()

    def memory(self, pid: int) -> int:
        return portable.own_memory(pid)

    def profiles(self) -> Iterable[str]:
        return ()


def main() -> None:
    """The session's id comes first, then the guard's options."""
    occupy_stdio()
    session, *argv = sys.argv[1:]
    guard = Guard(Options(argv), PortableContainment(session))
    if refusal := guard.refusal():
        sys.exit(refusal.exit_status)
    guard.arm()
    sys.exit(guard_session(guard))


if __name__ == "__main__":
    main()
