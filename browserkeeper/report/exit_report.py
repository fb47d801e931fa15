"""The facts about a session's end as frozen dataclasses, with their text and JSON forms."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..guard.downloads import final_name
from ..guard.options import ISOLATED
from .last_command import LastCommand, commands_as_text, latest_that_fit
from .operator import Operator
from .reasons import EXPECTED_REASONS

SCHEMA = 1
"""Version of all JSON documents that browserkeeper writes or prints."""

COMMANDS_IN_LOG = 1000
"""Characters of JSON for the last commands in a log line; one to a pipe has 4,096 bytes at most."""


@dataclasses.dataclass(frozen=True)
class ProcessExit:
    """A process that the guard saw among its descendants, and how it ended.

    ``outcome`` is ``exited`` (by itself, with exit status ``code``), ``signalled`` (by ``signal``,
    which browserkeeper did not send), ``killed`` (by browserkeeper), ``gone`` (reaped by its own
    parent, so the exit status is not known) or ``survived``.  ``start`` is in seconds since boot,
    ``ended`` in seconds since the guard's start.  ``adopted`` is True where the process had left
    its parent and became a child of the guard, as a crash handler that daemonises does.

    The guard samples the process tree.  A process that started and was reaped by its parent between
    two samples is not listed.
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
    """A process that did not end after SIGKILL.  ``state`` is the letter of ps(1); ``wchan`` is the
    kernel function that the process sleeps in, "" where it is not known."""

    pid: int
    name: str
    state: str
    wchan: str = ""


@dataclasses.dataclass(frozen=True)
class PartialDownload:
    """A download that the end of the session has cut off.

    ``path`` is the partial file (``….crdownload`` of Chromium, ``….part`` of Firefox), which had
    ``bytes``.  ``placeholder`` is the empty file with the final name that Firefox had made, and that was
    removed as well, "" for none.  ``why`` says why the partial file was left, "" where it was removed.
    ``suggested`` is the final name, if the name of the partial file does not show it; else "".  Only the
    session's owner knows it: the history does not have it.
    """

    path: str
    bytes: int
    removed: bool
    why: str = ""
    placeholder: str = ""
    suggested: str = ""

    @property
    def name(self) -> str:
        """The name that the file would have got."""
        if self.suggested:
            return self.suggested
        if self.placeholder:
            return os.path.basename(self.placeholder)
        name = os.path.basename(self.path)
        return final_name(name, os.path.splitext(name)[1])

    def with_name_of(self, names: Mapping[str, str]) -> PartialDownload:
        """A copy with ``suggested``, if ``names`` has the final name.  The keys of ``names`` are the
        names of partial files without the suffix."""
        name = names.get(os.path.splitext(os.path.basename(self.path))[0], "")
        return dataclasses.replace(self, suggested=name) if name and name != self.name else self

    def __str__(self) -> str:
        verdict = "removed" if self.removed else f"left: {self.why}"
        if self.suggested:
            verdict = f"{verdict} (it would have been {self.suggested!r})"
        return f"partial download: {self.path!r}, {self.bytes / 1e6:.1f} MB, {verdict}"


def parse_memory_samples(facts: Iterable[Sequence[float]]) -> tuple[tuple[float, int], ...]:
    """Memory samples, as in :attr:`ExitReport.memory`, from JSON.  Raises TypeError or ValueError for
    other values."""
    try:
        return tuple((float(age), int(size)) for age, size in facts)
    except OverflowError as error:  # an int of infinity
        raise ValueError(str(error)) from error


def _operator_from(value: object) -> Operator | None:
    """A guard writes the text of the request as it is; a report in JSON has an object."""
    if value is None:
        return None
    return Operator.parse(value) if isinstance(value, str) else Operator.from_dict(value)


_WORDS = {True: "yes", False: "no", None: "unknown"}
_FACTS = {word: fact for fact, word in _WORDS.items()}


@dataclasses.dataclass(frozen=True)
class RemoteEnd:
    """What a Selenium Grid, or a server of `browserkeeper serve`, answered about the end of a session.

    ``grid`` is its address, and ``kind`` says which of the two it is: ``grid`` or ``server``.
    ``gone``: True if it said that it has no such session.  ``slot_free``: True if the Grid's
    status, which lists the sessions of all slots, does not have it; a plain driver has no such
    list.  A server's answer says both at once.  Both are None where there was no answer.
    ``answer`` is the answer in one line, "" if it was not asked.  ``queued``: True if the request for
    the session did not leave the queue.  ``session`` is the session's id there, "" if none was created.

    ``report`` is the server's own report of the lease's end: which processes have ended, and how, if
    its browser has ended with it.  None where the server sent none, and for a Grid.
    """

    grid: str
    session: str = ""
    gone: bool | None = None
    slot_free: bool | None = None
    answer: str = ""
    queued: bool = False
    kind: str = "grid"
    report: ExitReport | None = None

    @property
    def processes(self) -> tuple[ProcessExit, ...]:
        """Those of the server that have ended with the session, as the server has seen them."""
        return self.report.processes if self.report is not None else ()

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> RemoteEnd:
        """From the JSON of a report.  Raises TypeError, KeyError or ValueError for other values."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in facts.items() if name in names}
        if known.get("report") is not None:
            known["report"] = ExitReport.from_dict(known["report"])
        return cls(**known)

    @classmethod
    def from_status_file(cls, words: Mapping[str, str]) -> RemoteEnd:
        """From the status file of the session's relay (``grid/relay.py``)."""
        return cls(
            words.get("grid", ""),
            words.get("session", ""),
            _FACTS.get(words.get("gone", "")),
            _FACTS.get(words.get("slot_free", "")),
            words.get("answer", ""),
            words.get("queued") == "yes",
        )

    def to_status_file(self) -> dict[str, str]:
        """The inverse of :meth:`from_status_file`."""
        facts = {name: _WORDS[getattr(self, name)] for name in ("gone", "slot_free", "queued")}
        return {**facts, "grid": self.grid, "session": self.session, "answer": self.answer}

    def __str__(self) -> str:
        which = f"session {self.session}" if self.session else "no session"
        if self.kind == "server":
            how = f"{len(self.processes)} processes ended there" if self.processes else "no process told"
            return f"{which} on {self.grid}: gone: {_WORDS[self.gone]}, {how} ({self.answer})"
        facts = f"gone: {_WORDS[self.gone]}, slot free: {_WORDS[self.slot_free]}"
        return f"{which} on {self.grid}: {facts} ({self.answer})"

    @property
    def problem(self) -> str:
        """The sentence for ``ExitReport.problems``; "" where the Grid said that the session is
        gone."""
        if self.gone:
            return ""
        which = f"session {self.session}" if self.session else "the request for a session"
        if self.kind == "server":
            return (
                f"{self.grid} did not say that {which} is gone ({self.answer or 'it was not asked'}); "
                "a server that lives ends it when this process ends, and the guards of a dead one do so "
                "at once"
            )
        return (
            f"{self.grid} did not say that {which} is gone ({self.answer or 'it was not asked'}); "
            "if it is still there, the Grid's own session timeout ends it"
        )


@dataclasses.dataclass(frozen=True)
class ExitReport:
    """What happened at the end of a session.

    ``reason`` is one of ``browserkeeper.report.REASONS``, which says what each means (as does
    ``docs/reference/states.md``), or the word that ``set_deadline`` was given.  With ``operator`` the
    field ``operator`` says who ended the session, and why.

    ``certificate`` names the proof that no process is left: ``ECHILD`` (a child subreaper without a
    child has no descendant left, prctl(2)), or ``two-scans`` (two successive scans of the process
    table found nothing), which is weaker.  ``ended-with-boot`` and ``ended-with-namespace`` say that the
    kernel has ended all processes, with the machine or with PID 1 of their pid namespace, and that none
    was looked for.  ``server-answer``: the session was a lease of a server (``server=``), which has said
    that it is over.  None where there is no proof.

    ``processes`` are those that were seen, ``survivors`` those that did not end.  ``status`` is the
    exit status of the driver.  ``seconds`` has the length of each phase: ``start``, ``lifetime``,
    ``quitting`` (until the browser of a kept profile had quit, or its time was over), ``killing``,
    ``files``, ``close`` (the whole end, as its caller waited).  A phase that was not is not there.
    ``ended_at`` is in seconds since the epoch.

    ``remote`` is set for a session on a Grid or of a server.  Processes there are not seen from
    here, so ``processes`` has only those of this session's own guard; ``remote.processes`` has those of
    which the server tells.

    ``partial_downloads`` are those that the end has cut off.  Partial files of this session are removed,
    whole files never.  A partial file of the time of this session that may be another's is named, and
    left.

    ``label`` is the name that the user gave to the session, or that Celery or pytest filled in, else "".
    Of a pool's browser that ended in a lease, or as the lease ended, it is the lease's, if it had one.

    ``memory`` has samples: seconds since the guard's start, and bytes of all processes.  Counted are
    resident pages that belong to no file and are not shared; off Linux all resident pages.  The
    number is below PSS, whose computation would take the kernel much longer.

    ``commands`` are the last 20 WebDriver commands of a session that ended badly, oldest first, and
    empty for any other.  Only the owner knows them.  So ``commands_known`` is False in the history of a
    session whose owner was dead, and in reports of older versions.

    ``driver_isolation`` is ``isolated`` if the driver had a network namespace of its own
    (``isolate_driver=``), or else why it had none; "" where that is not known.
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
    partial_downloads: tuple[PartialDownload, ...] = ()
    label: str = ""
    operator: Operator | None = None
    commands: tuple[LastCommand, ...] = ()
    commands_known: bool = False
    driver_isolation: str = ""

    @property
    def ended_badly(self) -> bool:
        """True unless the program or its pool ended the session, and nothing is left of it.

        True for an operator's end: the program did not expect it.
        """
        return self.reason not in EXPECTED_REASONS or self.reason == "operator" or not self.clean

    @property
    def clean(self) -> bool:
        """True if it is proved that no process is left and all files were removed.  For a session on a
        Grid: True if this holds for its part on this machine, and the Grid said that the session is
        gone."""
        return self.certificate is not None and not self.survivors and not self.problems

    @property
    def verified(self) -> bool | None:
        """:attr:`clean`, but None for a session on a Grid: no proof is possible for processes on
        another machine.  None as well for a lease of a server that has not said how it ended."""
        if self.remote is not None and (self.remote.kind == "grid" or self.remote.gone is None):
            return None
        return self.clean

    @property
    def was_asked(self) -> bool:
        """True if the Grid was asked to end the session."""
        return self.remote is not None and bool(self.remote.answer)

    def with_remote(self, remote: RemoteEnd) -> ExitReport:
        """A copy with this answer of the Grid; its problem replaces the one of the former answer."""
        head = f"{remote.grid} did not say that "  # how each :attr:`RemoteEnd.problem` begins
        known = [problem for problem in self.problems if not problem.startswith(head)]
        problems = (*known, *filter(None, [remote.problem]))
        return dataclasses.replace(self, remote=remote, problems=problems)

    @property
    def adopted(self) -> tuple[ProcessExit, ...]:
        """The processes that had left their parents, which a search through the children of the driver
        would have missed."""
        return tuple(process for process in self.processes if process.adopted)

    def to_dict(self) -> dict[str, Any]:
        """The report as values of JSON, with ``schema`` and ``clean``; :meth:`from_dict` reads it."""
        return {
            "schema": SCHEMA,
            **dataclasses.asdict(self),
            "clean": self.clean,
            "verified": self.verified,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def log_fields(self) -> dict[str, Any]:
        """Fields for the ``extra=`` of a log record, by the names of ECS and by ours (listed in
        docs/operations.md)."""
        return {
            "event.action": "session-ended",
            "event.outcome": "success" if self.clean else "failure",
            "browserkeeper.session.id": self.session,
            "browserkeeper.browser": self.browser,
            "browserkeeper.reason": self.reason,
            "browserkeeper.certificate": self.certificate,
            "browserkeeper.containment": self.containment,
            "browserkeeper.driver_isolation": self.driver_isolation,
            "browserkeeper.processes": len(self.processes),
            "browserkeeper.survivors": len(self.survivors),
            "browserkeeper.bytes_freed": self.bytes_freed,
            "browserkeeper.partial_downloads": len(self.partial_downloads),
            "browserkeeper.seconds": dict(self.seconds),
            **({"browserkeeper.label": self.label} if self.label else {}),
            "browserkeeper.commands": latest_that_fit(self.commands, COMMANDS_IN_LOG),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> ExitReport:
        """The inverse of :meth:`to_dict`.  Raises KeyError, TypeError or ValueError for other
        documents."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in facts.items() if name in names}
        known["processes"] = tuple(ProcessExit(**p) for p in known.get("processes", ()))
        known["survivors"] = tuple(Survivor(**p) for p in known.get("survivors", ()))
        partial = known.get("partial_downloads", ())
        known["partial_downloads"] = tuple(PartialDownload(**download) for download in partial)
        known["remote"] = RemoteEnd.from_dict(known["remote"]) if known.get("remote") else None
        known["operator"] = _operator_from(known.get("operator"))
        known["commands"] = tuple(LastCommand.from_dict(one) for one in known.get("commands", ()))
        known["commands_known"] = known.get("commands_known") is True
        known["memory"] = parse_memory_samples(known.get("memory", ()))
        for name in ("problems", "notes"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)

    @classmethod
    def from_guard(
        cls, facts: Mapping[str, Any], *, session: str, browser: str, label: str = ""
    ) -> ExitReport:
        """From the JSON of a guard, which does not name the session and its browser."""
        in_lease = facts.get("label", "")
        if not isinstance(in_lease, str):
            raise TypeError(f"label is {in_lease!r}")
        names = {"session": session, "browser": browser, "label": in_lease or label}
        sizes = {"files_removed": facts["files"], "bytes_freed": facts["bytes"]}
        report = cls.from_dict({**facts, "remote": None, **sizes, **names})
        account = facts.get("account")
        if not isinstance(account, Mapping) or not account:
            return report
        return report.with_remote(RemoteEnd.from_status_file(account))

    def __str__(self) -> str:
        verdict = f"clean, {self.certificate}" if self.clean else "NOT CLEAN"
        verdict += " here" if self.remote and self.remote.kind == "grid" else ""
        name = f'{self.session} "{self.label}"' if self.label else self.session
        head = f"{self.browser} session {name}: {self.reason}, {verdict} ({self.containment})"
        ended = f"{len(self.processes)} processes, {len(self.adopted)} adopted, "
        ended += f"{self.zombies_reaped} reaped by the guard; "
        ended += f"{self.files_removed} files, {self.bytes_freed / 1e6:.1f} MB freed"
        phases = ", ".join(f"{name} {value:.3f} s" for name, value in self.seconds.items())
        lines = [head, f"  {ended}", f"  {phases}"]
        if self.driver_isolation == ISOLATED:
            lines.append("  the driver's port was closed to other programs")
        elif self.driver_isolation and self.processes:
            lines.append(f"  the driver's port was open to every local user: {self.driver_isolation}")
        lines += [f"  ended by {self.operator}"] if self.operator else []
        lines += [f"  {self.remote}"] if self.remote else []
        lines += [f"  survives: {s.name} (pid {s.pid}, {s.state}, {s.wchan})" for s in self.survivors]
        lines += [f"  {download}" for download in self.partial_downloads]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  note: {note}" for note in self.notes]
        if self.commands:
            lines.append(commands_as_text(self.commands, indent="  "))
        elif self.ended_badly and self.containment and not self.commands_known:
            lines.append("  last commands: not known, since only its owner knew them")
        return "\n".join(lines)
