"""What ``top`` shows of each session: a reading, with the processor use since the last one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from ..cleanup.evidence import platform_of
from ..process.identity import ProcessIdentity
from ..status.snapshot import SessionStatus, Snapshot
from . import output

Sort = Literal["memory", "cpu", "age"]
SORTS: dict[Sort, Callable[[Reading], float]] = {
    "memory": lambda reading: reading.memory,
    "cpu": lambda reading: reading.processor,
    "age": lambda reading: reading.status.age,
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A session at one moment.  ``processor``: share of one processor since the last reading (2.0: two
    processors).  ``pooled``: its state in its pool, such as ``leased``; "" if it is in no pool."""

    status: SessionStatus
    processor: float
    pooled: str = ""

    @property
    def memory(self) -> int:
        """Bytes, of all its processes."""
        return sum(self.status.memory.values())


class Meter:
    """Measures the processor use between two snapshots."""

    def __init__(self) -> None:
        self._when = time.monotonic()
        self._times: dict[ProcessIdentity, float] = {}
        """Processor seconds of each process at the last reading."""

    def read(self, found: Snapshot) -> list[Reading]:
        """All the processor time of a process that is new since the last reading counts."""
        now, times, readings = time.monotonic(), dict[ProcessIdentity, float](), []
        pooled = {id: state for pool in found.pools for id, state in pool.sessions.items()}
        for status in found.sessions:
            session = status.record.session
            platform = platform_of(session)
            here = {p.identity: platform.processor_time(p.pid) for p in status.processes}
            used = sum(max(0.0, t - self._times.get(who, 0.0)) for who, t in here.items())
            share = used / max(0.01, now - self._when)
            readings.append(Reading(status, share, pooled.get(session.id, "")))
            times |= here
        self._when, self._times = now, times
        return readings


def by_sort(readings: Iterable[Reading], sort: Sort) -> list[Reading]:
    """The highest first."""
    return sorted(readings, key=SORTS[sort], reverse=True)


def headlines(readings: Sequence[Reading], *, filtered: bool = False) -> tuple[str, str]:
    """The totals of all sessions, and a note if there is none."""
    processes = sum(len(reading.status.processes) for reading in readings)
    zombies = sum(len(reading.status.zombies) for reading in readings)
    totals = [
        output.count(len(readings), "session"),
        output.count(processes, "process"),
        output.megabytes(sum(reading.memory for reading in readings)),
        f"{sum(reading.processor for reading in readings):.0%} CPU",
        output.count(zombies, "zombie"),
    ]
    clock = time.strftime("%H:%M:%S")
    empty = "No live session has such a label." if filtered else "No live sessions."
    return f"browserkeeper {clock}: {', '.join(totals)}", "" if readings else empty


def cells(reading: Reading) -> dict[str, str]:
    """A row of the table, by column."""
    status, session = reading.status, reading.status.record.session
    return {
        "session": session.id,
        "browser": session.browser,
        "state": status.state,
        "pool": reading.pooled,
        "memory": output.megabytes(reading.memory),
        "cpu": f"{reading.processor:.0%}",
        "age": output.duration(status.age),
        "deadline": output.duration(status.deadline_left),
        "procs": str(len(status.processes)),
        "zombies": str(len(status.zombies) or ""),
        "owner": f"{session.owner_name} ({session.owner.pid})",
        "contained": session.containment,
        output.LABEL: status.label,
    }
