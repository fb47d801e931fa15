"""Finds and ends a session's processes from outside, where no guard can do it by descent.

Used by an owner whose guards were killed, by ``sweep``, and by the guards that are not the ancestor
of all processes of their session (``two_scans.py``).  A process belongs to the session by one of these:

- Its identity (pid and start time) was recorded when it was seen below a guard.
- It descends from such a process, or is in the cgroup that was made for the session.
- It bears the session's marker in its environment *and* is an orphan of the session
  (:class:`MarkedOrphans`).  The marker alone says nothing: a job server starts jobs with the
  environment of its client.

A pid, process group or process session alone is never a reason: the kernel hands these numbers out
again.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..guard.procfs import children_of, hidden_processes, read_stat
from . import Platform, own_line, system
from .identity import ProcessFacts, ProcessIdentity

MARKER = "BROWSERKEEPER_SESSION"
"""The environment variable that every process of a session is started with; its value: the id."""
LOCK = "BROWSERKEEPER_LOCK"
"""The environment variable beside the marker, with the path of the session's lock file."""
DOCUMENT = "BROWSERKEEPER_DOCUMENT"
"""The environment variable with the ledger's document; the guard removes it for its command."""

NAMED = 3
"""Processes that a doubt names; of the others it says how many they are."""
FREEZING_ROUNDS = 50
PAUSE = 0.01
"""Seconds between two rounds of killing."""
READING_PAUSE = 0.1
"""Seconds between two scans that only wait for an environment to become readable."""
DOUBT_PATIENCE = 5.0
"""Seconds that a process may take to end of which nothing says whose it is.  Some end with the others: a
crash handler whose browser was killed needs milliseconds, and on a busy machine more than a second."""

UNREADABLE = "the environment of {} cannot be read"
UNPROVEN = "nothing says whether the session or a job server started {}"


@dataclasses.dataclass(frozen=True)
class MarkedOrphans:
    """Which processes that bear a session's marker are its orphans.

    ``marker`` is the assignment in their environment.  ``after`` and ``before`` are on the clock of the
    start times: when the guards last looked at all processes below them, and when they must have been
    dead.  Of a process that is older, the guards would have recorded that it is theirs; one that is
    younger was not started in the session's life.  ``resources`` are the cgroups of the guards, as
    ``Platform.resources`` gives them.  ``ancestors`` are the processes above the guards, by ``system``:
    one of them gets the orphans if it is a subreaper, else PID 1 gets them (prctl(2),
    PR_SET_CHILD_SUBREAPER).
    """

    marker: str
    after: float
    before: float
    resources: str
    ancestors: tuple[ProcessIdentity, ...] = ()

    def has(self, process: ProcessFacts, platform: Platform) -> bool:
        """True if all that can be known of the process says that it is the session's orphan."""
        return (
            self._has_its_age(process)
            and platform.bears_marker(process.pid, self.marker)
            and platform.users(process.pid) == {os.geteuid()}
            and platform.is_in_our_namespace(process.pid)
            and self._has_our_cgroups(process.pid, platform)
            and self._was_adopted(process)
        )

    def doubt_about(self, process: ProcessFacts, platform: Platform) -> str:
        """Why a process that is not proved to be the session's may be all the same: UNPROVEN or
        UNREADABLE; "" where nothing speaks for it.  It is not ended for that.

        A process of its age and user that bears the marker is one, wherever it is: a newborn that called
        setsid(2) as the guards were killed looks like a job server's job.  One whose environment cannot
        be read (it is not dumpable, prctl(2), or the read hangs) is one if it may be an orphan by all
        other signs.
        """
        if not self._has_its_age(process) or platform.users(process.pid) != {os.geteuid()}:
            return ""
        if platform.bears_marker(process.pid, self.marker):
            return UNPROVEN
        parent = system.facts(process.parent)
        if (
            (process.session == process.pid or _is_of_another_session(process, parent))
            and self._has_our_cgroups(process.pid, platform)
            and not platform.has_readable_environment(process.pid)
        ):
            return UNREADABLE
        return ""

    def _has_its_age(self, process: ProcessFacts) -> bool:
        return not process.is_zombie and self.after <= process.identity.start <= self.before

    def _has_our_cgroups(self, pid: int, platform: Platform) -> bool:
        """False for a unit that a service manager started: PID 1 is its parent by birth."""
        if sys.platform == "linux" and not self.resources:
            return False  # they could not be read
        return platform.resources(pid) == self.resources

    def _was_adopted(self, process: ProcessFacts) -> bool:
        """True if the process lost its parent, and the kernel gave it to a process that gets the
        session's orphans: PID 1, or an ancestor of the guards.  False where nothing is proved.

        Any other parent has started it, or is the subreaper of other processes.  PID 1 or the ancestor
        may have started it, too, if it has the same process session or has made one of its own.
        """
        parent = system.facts(process.parent)
        return (
            parent is not None
            and _is_of_another_session(process, parent)
            and (parent.pid == 1 or any(map(parent.identity.is_same_as, self.ancestors)))
        )


def _is_of_another_session(process: ProcessFacts, parent: ProcessFacts | None) -> bool:
    """True if the process session (setsid(2)) of a process is neither its own nor its parent's.

    It has the one that the process that started it had then.  That alone does not prove that it is an
    orphan: its parent may have called setsid(2) later.
    """
    return parent is not None and process.session not in (0, process.pid, parent.session)


class LeftoverProcesses:
    """The processes that may be left of one session.

    ``recorded`` are identities that were seen below its guard; ``cgroup`` is its leaf, if any;
    ``platform`` is the one whose clock the recorded start times were read from; ``orphans`` says which
    marked processes count, None that none does.
    """

    def __init__(
        self,
        recorded: Iterable[ProcessIdentity],
        cgroup: str = "",
        platform: Platform = system,
        orphans: MarkedOrphans | None = None,
    ):
        self.platform = platform
        self.cgroup = cgroup
        self.orphans = orphans
        self.seen: dict[ProcessIdentity, ProcessFacts | None] = dict.fromkeys(recorded)
        self._doubtful: dict[ProcessFacts, str] = {}  # of the last scan, each with the reason
        self._end_of_doubt = 0.0  # since the first doubt; 0 before
        # They are never signalled: a sweep may run inside a session, and must not end itself.
        self._protected = {identity.pid for identity in own_line()}
        self._empty_scans = 0

    def remember(self, processes: Iterable[ProcessFacts]) -> None:
        """Add processes that are known to be the session's."""
        for process in processes:
            self.seen[process.identity] = process

    def find(self) -> list[ProcessFacts]:
        """Every process of the session that exists now, zombies included.  O(host)."""
        found: dict[int, ProcessFacts] = {}
        families: dict[int, list[ProcessFacts]] = {}
        doubtful: dict[ProcessFacts, str] = {}
        inside = set(self._pids_in_cgroup())
        for process in self.platform.everyone():
            families.setdefault(process.parent, []).append(process)
            if process.pid not in self._protected and (
                process.pid in inside or self._is_recorded(process) or self._is_orphan(process)
            ):
                found[process.pid] = process
            elif why := self._doubt_about(process):
                doubtful[process] = why
        queue = [process for process in found.values() if process.pid in families]
        while queue:
            parent = queue.pop()
            if not self._is_still_there(parent):
                continue  # during the scan another process may have got its pid, and children
            for child in families[parent.pid]:
                if child.pid not in found and child.pid not in self._protected:
                    found[child.pid] = child
                    queue += [child] if child.pid in families else []
        self.remember(found.values())
        self._doubtful = {process: why for process, why in doubtful.items() if process.pid not in found}
        return list(found.values())

    def _is_recorded(self, process: ProcessFacts) -> bool:
        known = (identity for identity in self.seen if identity.pid == process.pid)
        return any(map(process.identity.is_same_as, known))

    def _is_orphan(self, process: ProcessFacts) -> bool:
        return self.orphans is not None and self.orphans.has(process, self.platform)

    def _doubt_about(self, process: ProcessFacts) -> str:
        if self.orphans is None or process.pid == os.getpid():  # a guard bears the marker, too
            return ""
        return self.orphans.doubt_about(process, self.platform)

    def _is_still_there(self, process: ProcessFacts) -> bool:
        now = self.platform.facts(process.pid)
        return now is not None and process.identity.is_same_as(now.identity)

    def _still_lives(self, process: ProcessFacts) -> bool:
        now = self.platform.facts(process.pid)
        return now is not None and process.identity.is_same_as(now.identity) and not now.is_zombie

    def _pids_in_cgroup(self) -> Iterator[int]:
        """The processes in the session's leaf and in the cgroups that they have made below it."""
        for directory, _, _ in os.walk(self.cgroup) if self.cgroup else ():
            try:
                yield from map(int, Path(directory, "cgroup.procs").read_text().split())
            except OSError:
                continue  # it was removed

    def end(self, deadline: float) -> list[ProcessFacts]:
        """SIGKILL until two scans in a row find no living process; the survivors at the deadline.

        ``deadline`` is in seconds from now.  Zombies do not count: only their parent can remove them.
        Scans on for DOUBT_PATIENCE at most while an environment cannot be read: on a busy machine a read
        can time out.  If a later scan can read it and finds the marker, the process is ended.
        """
        until = time.monotonic() + deadline
        while True:
            alive = self.kill_round()
            are_gone = self.are_gone()
            if are_gone and not self._may_be_readable_yet():
                return alive
            if time.monotonic() > until:  # what this round has killed may be dead by now: two scans
                return self._living() or self._living()
            time.sleep(READING_PAUSE if are_gone else PAUSE)

    def _may_be_readable_yet(self) -> bool:
        unreadable = [process for process, why in self._doubtful.items() if why == UNREADABLE]
        return any(map(self._still_lives, unreadable)) and time.monotonic() < self._doubt_until()

    def _doubt_until(self) -> float:
        self._end_of_doubt = self._end_of_doubt or time.monotonic() + DOUBT_PATIENCE
        return self._end_of_doubt

    def _living(self) -> list[ProcessFacts]:
        return [process for process in self.find() if not process.is_zombie]

    def kill_round(
        self, before_kill: Callable[[list[ProcessFacts]], object] = lambda found: None
    ) -> list[ProcessFacts]:
        """Scan and SIGKILL once; the processes that lived at the beginning.

        ``before_kill`` is called with the processes just before they are killed.
        """
        self._kill_cgroup()
        alive = self._living()
        self._empty_scans = 0 if alive else self._empty_scans + 1
        if alive:
            self._freeze(alive)
            found = self.find()
            before_kill(found)
            if hidden_processes():
                for process in found:
                    self._kill_hidden_children(process)
            for process in found:
                self.platform.send_signal(process.identity, signal.SIGKILL)
        return alive

    def _kill_hidden_children(self, parent: ProcessFacts) -> None:
        """SIGKILL to the children of a process that ``/proc`` hides.

        Their numbers are in the list of children of the process, which can be seen.  The pidfd is opened
        before that list is read: another process that got the number since is not in it.
        """
        for pid in children_of(parent.pid):
            if read_stat(pid) is not None or pid in self._protected:
                continue
            try:
                fd = os.pidfd_open(pid)
            except (OSError, AttributeError):  # it is gone, or the kernel is older than 5.3
                continue
            try:
                if pid in children_of(parent.pid) and self._is_still_there(parent):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(fd)

    def are_gone(self) -> bool:
        """True when the last two rounds found no living process, and the cgroup is removed."""
        return self._empty_scans >= 2 and self._remove_cgroup()

    def doubts(self) -> str:
        """Why a process of the session may be left although no scan shows one; "" if there is no reason.

        Call it after the scans.  Blocks for DOUBT_PATIENCE at most, while there is a reason.
        """
        if why := hidden_processes():
            return why
        until = self._doubt_until()
        while (left := list(filter(self._still_lives, self._doubtful))) and time.monotonic() < until:
            time.sleep(PAUSE)
        reasons = {why: [p for p in left if self._doubtful[p] == why] for why in (UNPROVEN, UNREADABLE)}
        return "; ".join(why.format(_named(those)) for why, those in reasons.items() if those)

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


def _named(processes: list[ProcessFacts]) -> str:
    names = ", ".join(f"{process.name} ({process.pid})" for process in processes[:NAMED])
    return names + (f" and {len(processes) - NAMED} more" if len(processes) > NAMED else "")
