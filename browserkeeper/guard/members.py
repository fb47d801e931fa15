"""The session's processes: which were seen, how each ended, how much memory they used."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from .procfs import Stat

    class Processes(Protocol):
        """The part of a containment that finds and describes processes."""

        def find(self) -> Iterable[Stat]: ...
        def stat(self, pid: int) -> Stat | None: ...

    class Child(Protocol):
        """The part of a command that reaping needs."""

        pid: int
        status: int | None

else:
    import _signal as signal

PAST_LIMIT = 300  # ended processes that a report names; a pipe takes 64 KiB at once
WEIGHINGS = 120  # memory samples that a report holds; at that number every second one is dropped


class Member:
    """One process that was seen below the guard, and how it ended."""

    __slots__ = ("adopted", "code", "ended", "killed", "name", "outcome", "pid", "signal", "start")

    def __init__(self, stat: Stat):
        self.pid, self.start, self.name = stat.pid, stat.start, stat.name
        self.adopted = self.killed = False
        self.outcome: str | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.ended: float | None = None

    def facts(self) -> dict[str, Any]:
        """As in the report."""
        return {key: getattr(self, key) for key in self.__slots__ if key != "killed"}


class Members:
    """All processes that were seen; ``living`` are those that have not been seen to end."""

    def __init__(self, processes: Processes, command: Child, age: Callable[[], float]):
        """``age`` returns the session's age in seconds."""
        self.living: dict[int, Member] = {}
        self.past: list[Member] = []  # ended ones: the next process of the same pid is a new member
        self.forgotten = 0
        self.reaped = 0
        self.tearing_down = False
        self.born: set[int] = set()
        """The pids of children of the guard besides the command: the browser of an isolated driver."""
        self.on_reaped: Callable[[int, int], None] = lambda pid, code: None
        """Called with the pid of each child that was reaped, and its exit status, negative for a
        signal."""
        self.x_servers: set[int] = set()
        """The pids of those whose names are such as X servers have: Xvfb, Xorg, Xephyr, Xtigervnc."""
        self._processes, self._command, self._age = processes, command, age

    def update(self) -> None:
        """Look at all processes of the session once.

        A member that is gone was reaped by its own parent, so how it ended is unknown.  One whose parent
        died during the look may be in no list of children that was read; so each is asked by itself.
        """
        found = {stat.pid: stat for stat in self._processes.find()}
        for stat in found.values():
            self._note(stat)
        for pid in [pid for pid in self.living if pid not in found]:
            if not self._lives_on(pid):
                self._ended(pid, "gone")

    def _lives_on(self, pid: int) -> bool:
        """False as well for a zombie, and where ``/proc`` hides the process that has the pid now."""
        stat = self._processes.stat(pid)
        return stat is not None and stat.state not in "?ZX" and stat.start == self.living[pid].start

    def note(self, pid: int) -> Member | None:
        """The member of that pid, new or known; None where no such process exists."""
        stat = self._processes.stat(pid)
        return self._note(stat) if stat else None

    def _note(self, stat: Stat) -> Member:
        pid = stat.pid
        member = self.living.get(pid)
        if member is not None and stat.state == "?":
            return member  # it has been hidden since
        if member is None or member.start != stat.start:
            if member is not None:
                self._ended(pid, "gone")
            member = self.living[pid] = Member(stat)
        member.name = stat.name  # an exec changes it
        if member.name.startswith("X"):
            self.x_servers.add(pid)
        if stat.parent == os.getpid() and pid != self._command.pid and pid not in self.born:
            # During the teardown parents are killed, so only a session of its own shows a daemon.
            member.adopted |= not self.tearing_down or stat.session != os.getsid(0)
        return member

    def reap(self) -> bool:
        """Collect every child that has exited; False when there is no child at all (ECHILD).

        ``WNOWAIT`` first: a zombie still has a name, and an adopted one was perhaps never seen.
        """
        while True:
            try:
                ready = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ready is None:
                    return True
                self._reap_one(ready.si_pid)
            except ChildProcessError:
                return False

    def _reap_one(self, pid: int) -> None:
        member = self.note(pid)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if pid == self._command.pid:
            self._command.status = code
        else:
            self.reaped += 1
        self.born.discard(pid)
        self.on_reaped(pid, code)
        if member is None:
            return
        if code >= 0:
            self._ended(pid, "exited", code=code)
        else:
            ours = member.killed and -code == signal.SIGKILL
            self._ended(pid, "killed" if ours else "signalled", by=-code)

    def end_all(self) -> None:
        """Mark all remaining members as gone.  Called when no process is left."""
        for pid in list(self.living):
            self._ended(pid, "gone")

    def _ended(self, pid: int, outcome: str, code: int | None = None, by: int | None = None) -> None:
        member = self.living.pop(pid)
        member.outcome = "killed" if member.killed and outcome == "gone" else outcome
        member.code, member.signal, member.ended = code, by, self._age()
        self.past.append(member)
        if len(self.past) > PAST_LIMIT:
            del self.past[0]
            self.forgotten += 1

    def pids(self) -> set[int]:
        return {member.pid for member in (*self.past, *self.living.values())}

    def hidden(self) -> int:
        """How many were never seen otherwise than hidden in ``/proc``."""
        return sum(member.name == "?" for member in (*self.past, *self.living.values()))

    def facts(self) -> list[dict[str, Any]]:
        """As in the report, the oldest process first."""
        everyone = sorted([*self.past, *self.living.values()], key=lambda m: (m.start, m.pid))
        return [member.facts() for member in everyone]


class MemoryCurve:
    """``looks``: the session's memory over time, as [its age in seconds, bytes]."""

    def __init__(self, pause: float) -> None:
        """``pause``: seconds between two samples, once samples have been dropped for the first time."""
        self.looks: list[list[float]] = []
        self._first_pause = pause
        self._pause = self._next = 0.0

    def is_due(self, age: float) -> bool:
        return age >= self._next

    def add(self, age: float, size: int) -> None:
        """Add a sample.  When there are too many, the smaller of each two neighbours is dropped, which
        keeps the peaks."""
        self.looks.append([age, size])
        if len(self.looks) >= WEIGHINGS:
            pairs = zip(self.looks[::2], self.looks[1::2], strict=True)
            self.looks = [max(pair, key=lambda look: look[1]) for pair in pairs]
            self._pause = self._pause * 2 or self._first_pause
        self._next = age + self._pause
