"""The guard of a driver that other code has started: no ancestor of it, so with a weaker certificate.

Run with the session's id and the options of ``guard.py``; instead of a command, ``PID:START`` of the
driver and of the browser come after the ``--``, and directories that go with them.  It starts nothing
and reaps nothing.  It keeps a list of all that it ever saw below those two, ends that at the end until
two scans in a row find nothing of it, and removes the temporary profiles that the browser's command
line named.  What had left the tree before it came cannot be told from a stranger's, and is never
signalled: crash handlers end with their browser.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..guard.files import remove_tree
from ..guard.guard import Failure, Guard, Options, guard_session
from ..guard.procfs import Stat
from ..process import is_alive, system
from ..process.identity import ProcessIdentity
from ..process.leftover_processes import LeftoverProcesses
from .temporary_profiles import profiles_of


class AdoptingGuard(Guard):
    """Overrides how the tree is found and how it is ended; nothing else."""

    certificate = "two-scans"

    def __init__(self, options: Options, session: str):
        super().__init__(options)
        self.containment = "adopted"
        self.profiles = {Path(word) for word in options.command if word.startswith("/")}
        pairs = (word.split(":") for word in options.command if not word.startswith("/"))
        self.roots = [ProcessIdentity(int(pid), float(start)) for pid, start in pairs]
        self.leftovers = LeftoverProcesses(session, self.roots)

    def _become_subreaper(self) -> None:
        """What others started would not come to us."""

    def spawn(self) -> None:
        """Nothing: it runs already.  A Failure where it does not."""
        self.sample()
        if not self.members:
            raise Failure("adopt", ProcessLookupError(3, "the driver is gone"))

    def _below(self) -> list[int]:
        known = [identity for identity in self.leftovers.seen if is_alive(identity)]
        found = {identity.pid: None for identity in known}
        for identity in known:
            found.update({process.pid: None for process in system.tree(identity.pid)})
        return list(found)

    def _stat(self, pid: int) -> Stat | None:
        found = system.facts(pid)
        if found is None or (pid != self.pid and found.is_zombie):
            return None
        if pid != self.pid and found.identity not in self.leftovers.seen:
            self.leftovers.seen[found.identity] = found
            self.profiles.update(profiles_of(pid))
        return Stat(pid, found.name, found.state, found.parent, found.session, found.identity.start)

    def sample(self) -> None:
        super().sample()
        for root in self.roots:
            self.profiles.update(profiles_of(root.pid))

    def _what_happened(self, ready: set[int]) -> str | None:
        """One of the two gone is the session's end: neither is of any use without the other."""
        ended = not all(map(is_alive, self.roots))
        return super()._what_happened(ready) or ("exited" if ended else None)

    def tear_down(self) -> None:
        """Until two scans in a row find nothing; it does not give up."""
        began = self.age()
        self.sample()
        self.tearing_down = True
        for member in self.members.values():
            member.killed = True
        while left := self.leftovers.end(self.options.kill_deadline, self.sample):
            survivors = [{"pid": p.pid, "name": p.name, "state": p.state, "wchan": ""} for p in left]
            self.tell("stuck", report=self.report(survivors))
        for pid in list(self.members):
            self.members[pid].killed = True
            self._ended(pid, "gone")
        self.phases["killing"] = self.age() - began

    def _remove_files(self) -> tuple[int, int]:
        files = size = 0
        for profile in self.profiles:
            try:
                more = remove_tree(str(profile)) if profile.exists() else (0, 0)
            except OSError as error:
                self.problems.append(f"{profile} not removed: {error}")
            else:
                files, size = files + more[0], size + more[1]
        return files, size


def main() -> None:
    """The session's id comes first, then the options of ``guard.py``."""
    session, *argv = sys.argv[1:]
    guard = AdoptingGuard(Options(argv), session)
    guard.arm()
    sys.exit(guard_session(guard))


if __name__ == "__main__":
    main()
