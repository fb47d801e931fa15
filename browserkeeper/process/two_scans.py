"""Killing by scans, and the certificate ``two-scans``, for the portable and the adopting guard.

Neither guard is the ancestor of every process of its session, so no ECHILD proves the end.  The
certificate ``two-scans`` says that two scans in a row found no living process of the session.
"""

from __future__ import annotations

from signal import Signals
from typing import Any

from ..guard.members import Members
from ..guard.procfs import Stat
from .identity import ProcessFacts, ProcessIdentity
from .leftover_processes import LeftoverProcesses


class TwoScans:
    """The part of a containment (``guard/containment.py``) that ends what LeftoverProcesses finds."""

    shortest_pause = 0.01

    def __init__(self, leftovers: LeftoverProcesses):
        self.leftovers = leftovers
        self._alive: list[ProcessFacts] = []

    def kill(self, members: Members) -> None:
        """One round over the host: SIGKILL to all, after they have been noted as members."""

        def note(found: list[ProcessFacts]) -> None:
            for process in found:
                if process.is_zombie:
                    continue
                member = members.living.get(process.pid) or members.note(process.pid)
                if member is not None:
                    member.killed = True

        self._alive = self.leftovers.kill_round(note)

    def certify(self, members: Members) -> str | None:
        """``two-scans`` after two scans without a living process, else None.  Also reaps this process's
        children."""
        members.reap()
        return "two-scans" if self.leftovers.are_gone() else None

    def signal(self, stat: Stat, number: int) -> None:
        """Signal one process that a scan has found."""
        identity = ProcessIdentity(stat.pid, stat.start)
        self.leftovers.platform.send_signal(identity, Signals(number))

    def unseen(self) -> str:
        """Why a process may be left that no scan shows; "" where there is no reason."""
        why = self.leftovers.doubts()
        return f"processes of the session may be left: {why}" if why else ""

    def survivors(self) -> list[dict[str, Any]]:
        """The processes that lived when the last round of killing began."""
        return [{"pid": p.pid, "name": p.name, "state": p.state, "wchan": ""} for p in self._alive]


def stat_of(process: ProcessFacts) -> Stat:
    """The facts in the form that the guard uses."""
    start = process.identity.start
    return Stat(process.pid, process.name, process.state, process.parent, process.session, start)
