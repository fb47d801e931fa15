"""The guard of a driver that other code has started: no ancestor of it, so with a weaker certificate.

Run with the session's id and the options of ``guard/options.py``; instead of a command, ``PID:START``
of the driver and of the browser come after the ``--``, and directories that belong to them.  This
guard starts nothing and reaps nothing.  It keeps a list of all processes that it saw below those two,
ends those until two scans in a row find none, and removes the temporary profiles that the browser's
command line named.  A process that had left the tree before the guard came cannot be told from another
program's and is never signalled: crash handlers end with their browser.
"""

from __future__ import annotations

import errno
import select
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from ..guard.guard import Guard
from ..guard.life import Watch, finish
from ..guard.options import Failure, Options
from ..guard.outside import Outside
from ..guard.procfs import Stat, own_memory
from ..process import is_alive, system
from ..process.identity import ProcessIdentity
from ..process.leftover_processes import LeftoverProcesses
from ..process.two_scans import TwoScans, stat_of
from .temporary_profiles import profiles_of

OWNER_PAUSE = 0.5
"""Seconds between two looks at the owner, where the kernel has no pidfd."""


class AdoptedDriver:
    """Takes the place of the command that other guards start.  ``roots`` are driver and browser."""

    pid = 0
    status: int | None = None
    exec_fd = -1
    outside: Outside | None = None  # the driver runs already
    isolation = ""
    """It is not known in which network namespace the driver is."""

    def __init__(self, roots: Iterable[ProcessIdentity]):
        self._roots = tuple(roots)

    def start(self) -> None:
        """Starts nothing.  Raises Failure where one of the processes is gone."""
        if self.has_ended():
            raise Failure("adopt", ProcessLookupError(errno.ESRCH, "the driver or its browser is gone"))

    def finish_start(self) -> None:
        """Does nothing: there is no exec to wait for."""

    def has_ended(self) -> bool:
        """True when one of the two is gone: neither is of any use without the other."""
        return not all(map(is_alive, self._roots))


class AdoptedContainment:
    """Implements ``guard.containment.Containment``.  Its processes are driver and browser (``roots``)
    and every process that was below them in one of the scans.

    ``directories`` are removed at the end, with the temporary profiles of the processes.
    """

    name = "adopted"
    shortest_pause = TwoScans.shortest_pause
    owns_shared_memory = False  # other processes of the program that started the browser may use it

    def __init__(self, session: str, roots: Iterable[ProcessIdentity], directories: Iterable[str]):
        self._roots = tuple(roots)
        self._scans = TwoScans(LeftoverProcesses(self._roots))
        self.kill, self.certify = self._scans.kill, self._scans.certify
        self.survivors, self.unseen = self._scans.survivors, self._scans.unseen
        self.signal = self._scans.signal
        self._profiles = {Path(directory) for directory in directories}
        self._examined: set[ProcessIdentity] = set()

    def arm(self) -> None:
        """No subreaper: orphans of processes that others started would not come to this one."""

    def signal_at_parents_death(self, number: int) -> None:
        """Does nothing: this guard has no parent guard and starts no process."""

    def find(self) -> list[Stat]:
        """All that were ever seen and still live, and what is below them; they are remembered."""
        leftovers = self._scans.leftovers
        known = [identity for identity in leftovers.seen if is_alive(identity)]
        pids = dict.fromkeys(identity.pid for identity in known)
        for identity in known:
            pids.update(dict.fromkeys(process.pid for process in system.tree(identity.pid)))
        found = [facts for pid in pids if (facts := system.facts(pid)) and not facts.is_zombie]
        leftovers.remember(found)
        for process in found:
            # Chrome makes its socket's directory only a while after its start, so the roots are
            # looked at each time.
            if process.identity not in self._examined or process.identity in self._roots:
                self._examined.add(process.identity)
                self._profiles.update(profiles_of(process.pid))
        return [stat_of(process) for process in found]

    def stat(self, pid: int) -> Stat | None:
        found = system.facts(pid)
        return stat_of(found) if found and not found.is_zombie else None

    def now(self) -> float:
        return system.now()

    def memory(self, pid: int) -> int:
        return own_memory(pid)

    def profiles(self) -> Iterable[str]:
        """The temporary profiles."""
        return map(str, self._profiles)


def guard_adopted(guard: Guard) -> int:
    """The phases of a session with a driver that runs already.  Returns the exit status.

    Nothing is the session's before its owner has said ``keep``, in answer to ``ready``.  Where it does
    not, and where it says ``released`` later, because the adoption failed after all, driver and browser
    are left alone, and the record is withdrawn.
    """
    try:
        guard.prepare()
        guard.owner.send("ready")
        if not was_kept(guard):
            raise Failure("adopt", InterruptedError(errno.EINTR, "the adoption was called off"))
        guard.start()
        guard.slot.is_alone = True
    except Failure as failure:
        guard.report_failure(failure)
        guard.record.withdraw()
        return failure.exit_status
    try:
        guard.report.reason = Watch(guard).run()
        if guard.report.reason == "released":
            guard.record.withdraw()
            return 0
        guard.owner.send("ending", reason=guard.report.reason)
    except Exception as error:  # noqa: BLE001 # a bug of the guard's must not become a leak
        guard.report.problems.append(f"guard: {error!r}")
    return finish(guard)


def was_kept(guard: Guard) -> bool:
    """Block until the owner has written; True if that is ``keep``.

    False as well where the owner has died, and at SIGTERM.
    """
    owner, signals = guard.owner, guard.signals
    poller = select.poll()
    for fd in (owner.control_fd, owner.pidfd, signals.fd):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll(OWNER_PAUSE * 1000)}
        if owner.control_fd in ready:
            return owner.read() == [["keep"]]
        if owner.is_dead() or signal.SIGTERM in signals.received():
            return False


def main() -> None:
    """The session's id comes first, then the guard's options."""
    session, *argv = sys.argv[1:]
    options = Options(argv)
    directories = [word for word in options.command if word.startswith("/")]
    pairs = (word.split(":") for word in options.command if not word.startswith("/"))
    roots = [ProcessIdentity(int(pid), float(start)) for pid, start in pairs]
    guard = Guard(options, AdoptedContainment(session, roots, directories), AdoptedDriver(roots))
    if refusal := guard.refusal():
        sys.exit(refusal.exit_status)
    guard.arm()
    sys.exit(guard_adopted(guard))


if __name__ == "__main__":
    main()
