"""The guard where there is no subreaper: the same story, on psutil, with a weaker certificate.

Run as ``python -m browserkeeper.process.portable_guard`` with the options of ``guard.py``.  It
cannot adopt what daemonises, so it keeps a list of all it saw below itself, and ends what it
finds by that list, by descent and by the environment marker, until two scans in a row find
nothing.  It reaps its direct children only, and nothing dies with it.
"""

from __future__ import annotations

import sys

from ..guard.guard import Guard, Options, guard_session
from ..guard.procfs import Stat
from . import portable
from .identity import ProcessIdentity
from .leftover_processes import LeftoverProcesses


class PortableGuard(Guard):
    """Overrides how the tree is seen and how it is ended; nothing else."""

    certificate = "two-scans"

    def __init__(self, options: Options, session: str):
        super().__init__(options)
        self.containment = "portable"
        self.leftovers = LeftoverProcesses(session, (), platform=portable)

    def _become_subreaper(self) -> None:
        """There is none to become."""

    def _below(self) -> list[int]:
        return [process.pid for process in portable.tree(self.pid)]

    def _stat(self, pid: int) -> Stat | None:
        found = portable.facts(pid)
        if found is None:
            return None
        self.leftovers.seen.setdefault(ProcessIdentity(pid, found.identity.start))
        start = found.identity.start
        return Stat(pid, found.name, found.state, found.parent, self.session, start)

    def _memory(self, pid: int) -> int:
        return portable.own_memory(pid)

    def tear_down(self) -> None:
        """Until two scans in a row find nothing; like its model, it does not give up."""
        if self.reason == "timeout" and self.options.grace:
            self._ask_to_end()
        if self.options.farewell:
            self._wait_for_farewell()
        began = self.age()
        self.sample()
        self.tearing_down = True
        while left := self.leftovers.end(self.options.kill_deadline, self._collect):
            survivors = [{"pid": p.pid, "name": p.name, "state": p.state, "wchan": ""} for p in left]
            self.tell("stuck", report=self.report(survivors))
        self._collect()
        for pid in list(self.members):
            self.members[pid].killed = True
            self._ended(pid, "gone")
        self.phases["killing"] = self.age() - began

    def _collect(self) -> None:
        for process in self.leftovers.find():
            if not process.is_zombie and (member := self.note(process.pid)):
                member.killed = True
        self.reap()


def main() -> None:
    """The session's id comes first, then the options of ``guard.py``."""
    session, *argv = sys.argv[1:]
    guard = PortableGuard(Options(argv), session)
    guard.arm()
    sys.exit(guard_session(guard))


if __name__ == "__main__":
    main()
