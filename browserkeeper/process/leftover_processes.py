"""The second line: find and end a session's processes from outside, when no guard can.

Used by the owner whose guard was killed, by ``sweep``, and by the portable guard.  Several
witnesses, since each one alone misses some: the processes that were recorded (pid and start
time), the session that the guard led, everything that bears the environment marker, and
everything below those.
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
DOCUMENT = "BROWSERKEEPER_DOCUMENT"
"""Carries the ledger's document to the guard, which keeps it from what it starts."""

FREEZING_ROUNDS = 50


class LeftoverProcesses:
    """What may be left of one session.

    ``recorded`` are identities that were seen below its guard; ``cgroup`` is its leaf, if any;
    ``platform`` is the one whose clock the recorded start times were read from; ``guards`` led
    the session (setsid(2)) that all have stayed in who did not make one of their own.
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
        for process in found.values():
            self.seen[process.identity] = process
        return list(found.values())

    def _is_ours(self, process: ProcessFacts) -> bool:
        if process.pid in self._protected:
            return False
        if any(process.identity.is_same_as(known) for known in self._known(process.pid)):
            return True
        return self._is_in_session(process) or self.platform.bears_marker(process.pid, self.marker)

    def _is_in_session(self, process: ProcessFacts) -> bool:
        """A pid is not handed out again while it names a session (kernel/pid.c), so only a session
        made since under a recycled number has to be told apart: by its leader, and by its age."""
        for guard in self.guards:
            if guard.pid != process.session or process.identity.start < guard.start:
                continue
            leader = self.platform.facts(guard.pid)
            return leader is None or guard.is_same_as(leader.identity)
        return False

    def _known(self, pid: int) -> list[ProcessIdentity]:
        return [identity for identity in self.seen if identity.pid == pid]

    def end(self, deadline: float, reap: Callable[[], object] = lambda: None) -> list[ProcessFacts]:
        """SIGKILL until two scans in a row find nothing alive; the survivors at the deadline.

        ``deadline`` is in seconds from now.  Zombies are not alive: nobody but their parent can
        remove them.  ``reap`` is called each round, by those who are such a parent.
        """
        until = time.monotonic() + deadline
        quiet = 0
        while True:
            self._kill_cgroup()
            alive = [process for process in self.find() if not process.is_zombie]
            quiet = 0 if alive else quiet + 1
            if (quiet >= 2 and self._remove_cgroup()) or time.monotonic() > until:
                return alive
            self._freeze(alive)
            for process in self.find():
                self.platform.send_signal(process.identity, signal.SIGKILL)
            reap()
            time.sleep(0.01)

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
                pass  # removed by its guard already

    def _remove_cgroup(self) -> bool:
        """False while something in it is still on its way out, zombies not counted."""
        try:
            if self.cgroup:
                os.rmdir(self.cgroup)
        except FileNotFoundError:
            return True
        except OSError as error:
            return error.errno != errno.EBUSY
        return True


def _self_and_ancestors() -> set[int]:
    """A sweep that runs inside somebody's session must not end itself."""
    line, pid = set(), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        found = system.facts(pid)
        pid = found.parent if found else 0
    return line
