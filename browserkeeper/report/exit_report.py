"""The facts about a session's end.  Frozen dataclasses; printing and JSON, no decisions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCHEMA = 1
"""Version of every JSON document that browserkeeper writes or prints."""

REASONS = (
    *("closed", "error", "timeout", "command-timeout", "owner-died", "abandoned", "exited"),
    *("terminated", "guard-died", "swept", "failed", "lease-expired", "hung", "retired"),
)
"""Ours, of :attr:`ExitReport.reason`, which explains them; ``set_deadline`` takes other words too."""


@dataclasses.dataclass(frozen=True)
class ProcessExit:
    """One process that was seen below the guard, and how it ended.

    ``outcome`` is ``exited`` (by itself, with ``code``), ``signalled`` (by ``signal``, not ours),
    ``killed`` (by us), ``gone`` (reaped by its own parent, so that only it knows how) or
    ``survived``.  ``start`` is in seconds since boot, ``ended`` in seconds since the guard's start.
    ``adopted``: it had left its parent and came to the guard (a crash handler that daemonised,
    say).  Processes that came and went between two looks at the tree, reaped by their own
    parents, are not listed.
    """

    pid: int
    start: float
    name: str
    outcome: str | None = None
    code: int | None = None
    signal: int | None = None
    ended: float | None = None
    adopted: bool = False


@dataclasses.dataclass(frozen=True)
class Survivor:
    """A process that SIGKILL has not ended; ``wchan`` is the kernel function it sleeps in."""

    pid: int
    name: str
    state: str
    wchan: str = ""


def parse_memory_samples(facts: Iterable[Sequence[float]]) -> tuple[tuple[float, int], ...]:
    """Of a guard's JSON.  Raises TypeError or ValueError where it is something else."""
    try:
        return tuple((float(age), int(size)) for age, size in facts)
    except OverflowError as error:  # an int of infinity
        raise ValueError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class RemoteEnd:
    """What a Selenium Grid said of the end of its session; None where it said nothing.

    ``gone``: the Grid knows no such session any more.  ``slot_free``: its status lists none either
    (only Grids have that list).  ``answer`` is its word in one line, ``queued`` whether the session
    never got further than the Grid's queue.  ``session`` is the Grid's id, "" where none came to be.
    """

    grid: str
    session: str = ""
    gone: bool | None = None
    slot_free: bool | None = None
    answer: str = ""
    queued: bool = False

    @classmethod
    def from_status_file(cls, words: Mapping[str, str]) -> RemoteEnd:
        """From what the session's relay wrote down."""
        facts = {"yes": True, "no": False}
        return cls(
            words.get("grid", ""),
            words.get("session", ""),
            facts.get(words.get("gone", "")),
            facts.get(words.get("slot_free", "")),
            words.get("answer", ""),
            words.get("queued") == "yes",
        )

    def to_status_file(self) -> dict[str, str]:
        """The inverse of :meth:`from_status_file`."""
        words = {True: "yes", False: "no", None: "unknown"}
        facts = {name: words[getattr(self, name)] for name in ("gone", "slot_free", "queued")}
        return {**facts, "grid": self.grid, "session": self.session, "answer": self.answer}

    def __str__(self) -> str:
        words = {True: "yes", False: "no", None: "unknown"}
        which = f"session {self.session}" if self.session else "no session"
        told = f"gone: {words[self.gone]}, slot free: {words[self.slot_free]}"
        return f"{which} on {self.grid}: {told} ({self.answer})"

    @property
    def problem(self) -> str:
        """Nothing where the Grid said that the session is gone."""
        if self.gone:
            return ""
        which = f"session {self.session}" if self.session else "the request for a session"
        return (
            f"{self.grid} did not say that {which} is gone ({self.answer or 'it was not asked'}); "
            "what is left of it there ends with the Grid's own session timeout"
        )


@dataclasses.dataclass(frozen=True)
class ExitReport:
    """What happened at the end of a session.

    ``reason``: ``closed``, ``error``, ``timeout``, ``command-timeout``, ``owner-died``,
    ``abandoned`` (the owner let go of the session without closing it), ``exited`` (the driver
    ended by itself), ``terminated`` (SIGTERM to the guard), ``guard-died``, ``swept``, ``failed``
    (it never started), and of a pool's browsers ``lease-expired``, ``hung`` or ``retired``.

    ``certificate`` names the proof that nothing is left: ``ECHILD`` (a subreaper without a child
    has no descendant left, prctl(2)) or ``two-scans`` (two scans of the process table in a row
    found nothing: weaker).  None where there is no proof.

    ``seconds`` holds the length of each phase.  ``remote`` is there for a session on a Grid: of its
    processes nothing can be seen from here, so nothing is said of them but the Grid's own word.
    ``memory``: (seconds since the guard's start, bytes of
    all processes), as the guard saw it from time to time: resident pages that are no file's and not
    shared (off Linux: all resident ones), which is less than PSS, but costs nothing.
    """

    session: str
    browser: str
    reason: str
    containment: str
    certificate: str | None
    processes: tuple[ProcessExit, ...] = ()
    survivors: tuple[Survivor, ...] = ()
    zombies_reaped: int = 0
    files_removed: int = 0
    bytes_freed: int = 0
    status: int | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    memory: tuple[tuple[float, int], ...] = ()
    ended_at: float = 0.0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remote: RemoteEnd | None = None

    @property
    def clean(self) -> bool:
        """True when it is proved that no process survives and every file is gone; of a session on a
        Grid, that this holds of its part here, and that the Grid says that the session is gone."""
        return self.certificate is not None and not self.survivors and not self.problems

    @property
    def verified(self) -> bool | None:
        """Is it proved that every process of the session is gone?  None where they are on another
        machine and cannot be seen: ``remote`` has that machine's word instead."""
        return None if self.remote is not None else self.clean

    @property
    def was_asked(self) -> bool:
        """Has somebody asked the Grid to end the session?"""
        return self.remote is not None and bool(self.remote.answer)

    def with_remote(self, remote: RemoteEnd) -> ExitReport:
        """The same, with the Grid's (better) word."""
        before = {remote.problem, self.remote.problem if self.remote else ""}
        known = [problem for problem in self.problems if problem not in before]
        problems = (*known, *filter(None, [remote.problem]))
        return dataclasses.replace(self, remote=remote, problems=problems)

    @property
    def adopted(self) -> tuple[ProcessExit, ...]:
        """The processes that had left their parents and would have escaped a walk of children."""
        return tuple(process for process in self.processes if process.adopted)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **dataclasses.asdict(self),
            "clean": self.clean,
            "verified": self.verified,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def log_fields(self) -> dict[str, Any]:
        """For a log record's ``extra=``: names of ECS and ours (docs/operations.md lists them)."""
        return {
            "event.action": "session-ended",
            "event.outcome": "success" if self.clean else "failure",
            "browserkeeper.session.id": self.session,
            "browserkeeper.browser": self.browser,
            "browserkeeper.reason": self.reason,
            "browserkeeper.certificate": self.certificate,
            "browserkeeper.containment": self.containment,
            "browserkeeper.processes": len(self.processes),
            "browserkeeper.survivors": len(self.survivors),
            "browserkeeper.bytes_freed": self.bytes_freed,
            "browserkeeper.seconds": dict(self.seconds),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> ExitReport:
        """The inverse of :meth:`to_dict`; raises KeyError or TypeError for other documents."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in facts.items() if name in names}
        known["processes"] = tuple(ProcessExit(**p) for p in known.get("processes", ()))
        known["survivors"] = tuple(Survivor(**p) for p in known.get("survivors", ()))
        known["remote"] = RemoteEnd(**known["remote"]) if known.get("remote") else None
        known["memory"] = parse_memory_samples(known.get("memory", ()))
        for name in ("problems", "notes"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)

    @classmethod
    def from_guard(cls, facts: Mapping[str, Any], *, session: str, browser: str) -> ExitReport:
        """The guard's own account, which knows the session by its processes only."""
        names = {"files_removed": facts["files"], "bytes_freed": facts["bytes"]}
        given = {**facts, "remote": None, **names, "session": session, "browser": browser}
        report = cls.from_dict(given)
        account = facts.get("account")
        if not isinstance(account, Mapping) or not account:
            return report
        return report.with_remote(RemoteEnd.from_status_file(account))

    def __str__(self) -> str:
        verdict = f"clean, {self.certificate}" if self.clean else "NOT CLEAN"
        verdict += " here" if self.remote else ""
        head = f"{self.browser} session {self.session}: {self.reason}, {verdict} ({self.containment})"
        ended = f"{len(self.processes)} processes, {len(self.adopted)} adopted, "
        ended += f"{self.zombies_reaped} reaped by the guard; "
        ended += f"{self.files_removed} files, {self.bytes_freed / 1e6:.1f} MB freed"
        phases = ", ".join(f"{name} {value:.3f} s" for name, value in self.seconds.items())
        lines = [head, f"  {ended}", f"  {phases}"]
        lines += [f"  {self.remote}"] if self.remote else []
        lines += [f"  survives: {s.name} (pid {s.pid}, {s.state}, {s.wchan})" for s in self.survivors]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])
