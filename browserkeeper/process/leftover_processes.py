"""Finds and ends a session's processes from outside, where no guard can do it by descent.

Used by an owner whose guards were killed, by ``sweep``, and by the guards that are not the ancestor
of all processes of their session (``two_scans.py``).  Each witness alone misses some processes, so
there are several: recorded identities (pid and start time), the process session that a guard led
(setsid(2)), the marker in the environment, and descent from any of those.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import Platform, system
from .identity import ProcessFacts, ProcessIdentity

MARKER = "BROWSERKEEPER_SESSION"
"""The environment variable that every process of a session is started with; its value: the id."""
LOCK = "BROWSERKEEPER_LOCK"
"""The environment variable beside the marker, with the path of the session's lock file."""
DOCUMENT = "BROWSERKEEPER_DOCUMENT"
"""The environment variable with the ledger's document; the guard removes it for its command."""

FREEZING_ROUNDS = 50
PAUSE = 0.01
"""Seconds between two rounds of killing."""


class LeftoverProcesses:
    """The processes that may be left of one session.

    ``recorded`` are identities that were seen below its guard; ``cgroup`` is its leaf, if any;
    ``platform`` is the one whose clock the recorded start times were read from; ``guards`` are the
    session's guards: each led a process session (setsid(2)), which its descendants stay in unless
    they make their own.
    """

    def __init__(
        self,
        session: str,
        recorded: Iterable[ProcessIdentity],
        cgroup: str = "",
        platform: Platform = system,
        guards: Iterable[ProcessIdentity] = (),
    ):
        self.platform = platform
        self.marker = f"{MARKER}={session}"
        self.cgroup = cgroup
        self.guards = tuple(guards)
        self.seen: dict[ProcessIdentity, ProcessFacts | None] = dict.fromkeys(recorded)
        self._protected = _self_and_ancestors()
        self._empty_scans = 0

    def remember(self, processes: Iterable[ProcessFacts]) -> None:
        """Add processes that are known to be the session's."""
        for process in processes:
            self.seen[process.identity] = process

    def find(self) -> list[ProcessFacts]:
        """Every process of the session that exists now, zombies included.  O(host)."""
        found: dict[int, ProcessFacts] = {}
        families: dict[int, list[ProcessFacts]] = {}
        for process in self.platform.everyone():
            families.setdefault(process.parent, []).append(process)
            if self._is_ours(process):
                found[process.pid] = process
        queue = list(found)
        while queue:
            for child in families.get(queue.pop(), []):
                if child.pid not in found and child.pid not in self._protected:
                    found[child.pid] = child
                    queue.append(child.pid)
        self.remember(found.values())
        return list(found.values())

    def _is_ours(self, process: ProcessFacts) -> bool:
        if process.pid in self._protected:
            return False
        known = (identity for identity in self.seen if identity.pid == process.pid)
        if any(map(process.identity.is_same_as, known)):
            return True
        return self._is_in_session(process) or self.platform.bears_marker(process.pid, self.marker)

    def _is_in_session(self, process: ProcessFacts) -> bool:
        """True where the process is in a process session that one of the guards led.

        The kernel does not hand out a pid while a session has that number (kernel/pid.c).  So another
        session can have the guard's number only before the guard started, and then its processes are
        older than the guard, or after the guard's session was empty, and then it has another leader.
        """
        for guard in self.guards:
            if not guard.start:
                continue  # an identity without a start time matches no process
            if guard.pid != process.session or process.identity.start < guard.start:
                continue
            leader = self.platform.facts(guard.pid)
            return leader is None or guard.is_same_as(leader.identity)
        return False

    def end(self, deadline: float) -> list[ProcessFacts]:
        """SIGKILL until two scans in a row find no living process; the survivors at the deadline.

        ``deadline`` is in seconds from now.  Zombies do not count: only their parent can remove them.
        """
        until = time.monotonic() + deadline
        while True:
            alive = self.kill_round()
            if self.are_gone() or time.monotonic() > until:
                return alive
            time.sleep(PAUSE)

    def kill_round(
        self, before_kill: Callable[[list[ProcessFacts]], object] = lambda found: None
    ) -> list[ProcessFacts]:
        """Scan and SIGKILL once; the processes that lived at the beginning.

        ``before_kill`` is called with the processes just before they are killed.
        """
        self._kill_cgroup()
        alive = [process for process in self.find() if not process.is_zombie]
        self._empty_scans = 0 if alive else self._empty_scans + 1
        if alive:
            self._freeze(alive)
            found = self.find()
            before_kill(found)
            for process in found:
                self.platform.send_signal(process.identity, signal.SIGKILL)
        return alive

    def are_gone(self) -> bool:
        """True when the last two rounds found no living process, and the cgroup is removed."""
        return self._empty_scans >= 2 and self._remove_cgroup()

    def _freeze(self, alive: list[ProcessFacts]) -> None:
        """Stop all before killing any: a process that forks while it is killed outruns the scans."""
        stopped: set[ProcessIdentity] = set()
        for _ in range(FREEZING_ROUNDS):
            fresh = [process.identity for process in alive if process.identity not in stopped]
            if not fresh:
                return
            for identity in fresh:
                self.platform.send_signal(identity, signal.SIGSTOP)
            stopped.update(fresh)
            alive = self.find()

    def _kill_cgroup(self) -> None:
        if self.cgroup:
            try:
                Path(self.cgroup, "cgroup.kill").write_text("1")
            except OSError:
                pass  # its guard has removed it

    def _remove_cgroup(self) -> bool:
        """False while a process in it has not exited yet; zombies do not count."""
        try:
            if self.cgroup:
                os.rmdir(self.cgroup)
        except FileNotFoundError:
            return True
        except OSError as error:
            return error.errno != errno.EBUSY
        return True


def _self_and_ancestors() -> set[int]:
    """The pids of this process and its ancestors.  They are never signalled: a sweep may run inside a
    session, and must not end itself."""
    line, pid = set(), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        found = system.facts(pid)
        pid = found.parent if found else 0
    return line
