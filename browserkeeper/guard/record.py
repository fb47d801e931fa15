"""What the guard writes about a session: the record while it lives, then the report of its end."""

from __future__ import annotations

import time

from .files import discard, write_atomically
from .owner import to_json
from .procfs import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .lock import SessionLock
    from .members import Members, MemoryCurve
    from .procfs import Stat

SCHEMA = 1


class Record:
    """The session's file in the ledger, from which others recover it when its guards were killed.

    ``document`` is JSON about the session that its owner made; it is copied as it is.
    """

    def __init__(self, path: str, history: str, document: str, lock: SessionLock):
        self._path, self._history, self._document = path, history, document
        self._lock = lock
        self.end_request = f"{path.removesuffix('.json')}.end" if path else ""
        """Where an operator's request to end this session would be (``end_request.py``)."""
        self._cgroups = (read_bytes("/proc/self/cgroup") or b"").decode("utf-8", "replace")
        self._recorded: set[int] = set()

    def write(self, guards: list[Stat], members: Members, memory: MemoryCurve) -> None:
        """``guards``: by the containment, so that all start times are of one clock.  Raises OSError."""
        if not self._path:
            return
        who = to_json([{"pid": stat.pid, "start": stat.start} for stat in guards])
        processes = to_json([[m.pid, m.start, m.name] for m in members.living.values()])
        write_atomically(
            self._path,
            f'{{"schema":{SCHEMA},"session":{self._document},'
            f'"guards":{who},"processes":{processes},"memory":{to_json(memory.looks)},'
            f'"cgroups":{to_json(self._cgroups)}}}\n',
        )
        self._recorded = set(members.living)

    def refuse_earlier_requests(self) -> None:
        """Remove a request to end the session that is there before its record: it means another one.

        Ids are random, so there is none, unless files were copied or made by hand.
        """
        if self.end_request:
            discard(self.end_request)

    def is_outdated(self, members: Members) -> bool:
        return set(members.living) != self._recorded

    def withdraw(self) -> None:
        """Remove the record and the lock of a session that never was; it leaves no history."""
        self._remove()

    def retire(self, report: dict[str, Any]) -> str:
        """Replace the record by the history, then remove the lock.

        Returns why no history could be written, or "".
        """
        problem = ""
        if self._history:
            line = f'{{"schema":{SCHEMA},"session":{self._document},"exit":{to_json(report)}}}\n'
            try:
                write_atomically(self._history, line)
            except OSError as error:  # a full disk; the session has ended all the same
                problem = f"no history was written: {error}"
        self._remove()
        return problem

    def _remove(self) -> None:
        if self._path:
            discard(self._path)
            discard(self.end_request)
        self._lock.remove()


class Report:
    """What the phases find out for the final report, and the session's age."""

    def __init__(self, containment: str):
        self.containment = containment
        self.reason = "failed"
        self.label = ""  # of the lease that has a pool's browser; the record has the session's own
        self.operator: str | None = None  # JSON: who has ended the session by hand (end_request.py)
        self.certificate: str | None = None
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.files = self.bytes = 0
        self.partial_downloads: list[dict[str, Any]] = []
        self.born_epoch = time.time()
        self._born = time.monotonic()

    def age(self) -> float:
        """Seconds since the guard started."""
        return time.monotonic() - self._born

    def facts(
        self,
        members: Members,
        memory: MemoryCurve,
        status: int | None,
        survivors: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """The report as its readers get it; ``status`` is the command's, ``survivors`` still live."""
        more = [f"{members.forgotten} more processes"] if members.forgotten else []
        return {
            "reason": self.reason,
            "operator": self.operator,
            "label": self.label,
            "containment": self.containment,
            "certificate": self.certificate,
            "status": status,
            "processes": members.facts(),
            "survivors": survivors,
            "zombies_reaped": members.reaped,
            "files": self.files,
            "bytes": self.bytes,
            "partial_downloads": self.partial_downloads,
            "memory": memory.looks,
            "seconds": {"lifetime": self.age(), **self.seconds},
            "ended_at": time.time(),
            "problems": self.problems,
            "notes": [*self.notes, *more],
        }


__all__ = ["Record", "Report"]
