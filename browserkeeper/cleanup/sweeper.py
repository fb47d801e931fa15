"""``sweep()``: one pass over the machine for what sessions with a dead owner left behind.

A session is swept only where its owner and both of its guards are dead.  While one of them
lives, the session is theirs to end; a sweep only continues (SIGCONT) a stopped guard whose owner is
dead.  What cannot be judged is left alone; ``evidence.py`` has the rules.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from ..errors import LedgerError
from ..guard.trees import remove_tree
from ..process import require_own_proc, system
from ..process.containment import leaf_name, writable_cgroup
from ..process.identity import ProcessFacts
from ..process.leftover_processes import LOCK, MARKER
from ..report import ExitReport
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.locks import LOCKS, SHORT, ask, fits, holding
from ..state.permissions import first_untrusted_directory
from ..state.pool_state import drafts as pool_drafts
from ..state.pool_state import path_of, published, withdraw
from ..state.records import Record, is_id, read_ended, read_record
from ..state.tmpdirs import session_of
from .evidence import (
    age_of,
    has_marked_process,
    is_empty_cgroup,
    leftover_processes_of,
    platform_of,
    session_directories,
    verdict_of,
)
from .pool_evidence import owner_of
from .removal import LOCK_PATIENCE, end_dead_session

SETTLING_TIME = 60.0
"""Seconds for which a file that no record claims is left alone: its session may be just starting,
or its writer may be about to complete it."""

UNSEEN_LIFETIME = 86_400.0
"""Seconds for which the record of a session is kept whose processes the sweep could not see: a sweep in
the right pid namespace comes much earlier, or that namespace is gone."""

Kind = Literal["session", "processes", "directory", "cgroup", "record"]
SWEPT_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a dead owner left, and what was done about it.

    ``kind``: ``session`` (a record, with its processes and files), ``directory``, ``cgroup`` (an empty
    leaf), ``record`` (a file in the state directory that is no valid record).  ``removed`` is False in a
    dry run, and where ``problem`` says why.
    """

    kind: Kind
    session: str
    what: str
    processes: tuple[ProcessFacts, ...] = ()
    files: tuple[str, ...] = ()
    removed: bool = False
    problem: str = ""
    report: ExitReport | None = None


@dataclasses.dataclass(frozen=True)
class LeftAlone:
    """Something that looks like a session's, and is not ours to judge; ``why`` says the reason.

    ``kind`` is that of a :class:`Finding`: ``session``, ``processes`` or ``directory``.
    """

    kind: Kind
    session: str
    what: str
    why: str


def sweep(
    *, dry_run: bool = True, older_than: float = 0.0, ledger: Ledger | None = None
) -> list[Finding]:
    """Find what dead owners left and, unless ``dry_run``, end and remove it.

    ``older_than``: only sessions and files of at least this age, in seconds.  Raises LedgerError
    where the state directory cannot be used, and ContainmentError where ``/proc`` shows another pid
    namespace than this process's.
    """
    sweeper = Sweeper(ledger or Ledger.open(), dry_run=dry_run, older_than=older_than)
    return list(sweeper.run())


class Sweeper:
    """One pass.  Afterwards ``left_alone`` names what was not ours to judge.

    Records come first: a session that is left alone claims its processes and directories, which
    the later steps then skip.
    """

    def __init__(self, ledger: Ledger, *, dry_run: bool, older_than: float):
        self.ledger, self.dry_run, self.older_than = ledger, dry_run, older_than
        self.claimed: set[str] = set()
        self.left_alone: list[LeftAlone] = []

    def run(self) -> Iterator[Finding]:
        """Raises ContainmentError where the processes cannot be judged from here."""
        require_own_proc()
        for record in list(self.ledger.records()):
            if isinstance(record, BadRecord):
                yield self._bad_record(record)
            elif finding := self._session(record, self.ledger):
                yield finding
        yield from self._unseen()
        yield from self._pools()
        yield from self._drafts()
        yield from self._marked_processes()
        yield from self._directories()
        yield from self._cgroups()
        yield from self._locks()

    def finish(self, record: Record) -> Finding | None:
        """End the session of one record if it is dead, and retire it; None where it is not.

        Call it with the record's lock held, where the session's lock was free.  Raises ContainmentError
        where the processes cannot be judged from here.
        """
        require_own_proc()
        return self._session(record, self.ledger, LOCK_PATIENCE)

    # -- what records name

    def _session(self, record: Record, ledger: Ledger, patience: float = SHORT) -> Finding | None:
        session = record.session
        verdict = verdict_of(record, patience)
        if not record.path.exists():  # it ended meanwhile
            return None
        if verdict.state == "foreign":
            self._leave_alone("session", session.id, f"{session.browser} session", verdict.why)
        if verdict.state == "ending" and not self.dry_run:
            for guard in record.guards:
                platform_of(session).send_signal(guard, signal.SIGCONT)
        if verdict.state != "orphaned" or time.time() - session.created < self.older_than:
            self.claimed.add(session.id)
            return None
        label = f' "{session.label}"' if session.label else ""
        what = f"{session.browser}{label} of {session.owner_name} (pid {session.owner.pid}, dead)"
        files = tuple(path for path in (session.tmpdir, str(record.path)) if os.path.lexists(path))
        if self.dry_run:
            self.claimed.add(session.id)
            found = tuple(leftover_processes_of(record).find()) if verdict.scope == "here" else ()
            return Finding("session", session.id, what, found, files)
        report = end_dead_session(ledger, record, "swept", scope=verdict.scope)
        return Finding(
            "session",
            session.id,
            what,
            files=files,
            removed=not report.survivors and not report.problems,
            problem="; ".join(report.problems),
            report=report,
        )

    def _unseen(self) -> Iterator[Finding]:
        """Sessions that a sweep elsewhere has retired without seeing their processes."""
        for record in list(self.ledger.unseen_records()):
            if isinstance(record, BadRecord):
                yield self._bad_record(record)
                continue
            verdict = verdict_of(record)
            if verdict.state == "orphaned" and verdict.scope != "unseen":
                if finding := self._session(record, self.ledger):
                    yield finding
                continue
            self.claimed.add(record.session.id)
            is_over = verdict.state in ("orphaned", "foreign") and age_of(record.path) > UNSEEN_LIFETIME
            if is_over and not self.dry_run:
                record.path.unlink(missing_ok=True)
                if record.lock is not None and ask(record.lock).state == "free":
                    record.lock.unlink(missing_ok=True)

    def _leave_alone(self, kind: Kind, session: str, what: str, why: str) -> None:
        self.left_alone.append(LeftAlone(kind, session, what, why))

    def _bad_record(self, bad: BadRecord) -> Finding:
        """Remove a corrupt file.  Other files that are not valid records are only reported: they may
        be another user's, who wants us to act on them, or a newer version's."""
        finding = Finding("record", bad.path.stem, bad.why, files=(str(bad.path),))
        lock = bad.path.parent.parent / LOCKS / bad.path.stem
        if bad.corrupt and ask(lock).state == "held":
            return dataclasses.replace(finding, problem="left alone: a guard of its session lives")
        if self.dry_run or not bad.corrupt:
            return dataclasses.replace(finding, problem="" if bad.corrupt else "left alone")
        bad.path.unlink(missing_ok=True)
        return dataclasses.replace(finding, removed=True)

    def _pools(self) -> Iterator[Finding]:
        """The published states of pools whose owner is dead."""
        for pool in published(self.ledger):
            if isinstance(pool, BadRecord):
                if ask(pool.path).state != "held":  # else a pool of another version that lives
                    yield self._bad_record(pool)
            elif owner_of(self.ledger, pool) == "dead":
                if not self.dry_run:
                    withdraw(self.ledger, pool)
                what = f"state of a pool of {pool.owner_name} (pid {pool.owner.pid}, dead)"
                files = (str(path_of(self.ledger, pool)),)
                yield Finding("record", pool.name, what, (), files, not self.dry_run)

    def _drafts(self) -> Iterator[Finding]:
        for draft in [*self.ledger.drafts(), *pool_drafts(self.ledger)]:
            if age_of(draft) > max(SETTLING_TIME, self.older_than):
                if not self.dry_run:
                    draft.unlink(missing_ok=True)
                files = (str(draft),)
                yield Finding("record", draft.stem, "a half-written record", (), files, not self.dry_run)
        for request in self.ledger.stale_end_requests():
            if age_of(request) > max(SETTLING_TIME, self.older_than):
                if not self.dry_run:
                    request.unlink(missing_ok=True)
                what, files = "a request to end a session that is over", (str(request),)
                yield Finding("record", request.stem, what, (), files, not self.dry_run)

    # -- what no record names

    def _marked_processes(self) -> Iterator[Finding]:
        """Processes with our marker whose session has no record in this state directory.

        The environment of such a process names the session's lock, and with it the state directory that
        has the record.  Where that record says that the session is dead, the session is ended as it
        would be by a sweep there.  Everything else that bears a marker is left alone.
        """
        marked: dict[tuple[str, str], list[ProcessFacts]] = {}
        for process in system.everyone():
            session = system.marker_value(process.pid, MARKER)
            if not session or not is_id(session) or session in self.claimed or process.is_zombie:
                continue
            if system.users(process.pid) <= {os.geteuid()}:  # root can read every user's processes
                lock = system.marker_value(process.pid, LOCK) or ""
                marked.setdefault((session, lock), []).append(process)
        # Of a session's processes some may have lost the lock's path: they come last.
        for (session, lock), processes in sorted(marked.items(), key=lambda item: not item[0][1]):
            if session in self.claimed:
                continue
            record, why = self._record_behind(session, Path(lock))
            finding = self._session(record, Ledger(Path(lock).parent.parent)) if record else None
            if finding:
                yield finding
            elif record is None and why:
                names = " ".join(f"{process.name} (pid {process.pid})" for process in processes)
                self._leave_alone("processes", session, names, why)

    def _record_behind(self, session: str, lock: Path) -> tuple[Record | None, str]:
        """(the record of the session to which this lock belongs, ""), or (None, why there is none that
        may be acted upon); the reason is "" for a session that is alive."""
        if not fits(lock, session):
            return None, "it bears the marker of a session, but does not name its lock"
        ledger = Ledger(lock.parent.parent)
        if untrusted := first_untrusted_directory(ledger.directory):
            return None, f"its lock is below {untrusted}, which belongs to another user"
        answer = ask(lock)
        if answer.state == "held":
            self.claimed.add(session)
            return None, ""
        try:
            if answer.state == "free" and ledger.directory != self.ledger.directory:
                if not ledger.is_ours_alone():
                    return None, f"its state directory {ledger.directory} can be written by others"
                return read_record(ledger.record_path(session)), ""
            certificate = read_ended(ledger.history_path(session)).report.certificate
        except (OSError, LedgerError):
            return None, answer.why or "no record says whose it is"
        return None, _why_after_end(certificate)

    def _directories(self) -> Iterator[Finding]:
        """Session directories that no record, no guard and no process claims."""
        claimed = self._claimed_now()
        for path in session_directories():
            session = session_of(path.name)
            # Another state directory's session may be just starting.
            if session in claimed or age_of(path) < max(self.older_than, SETTLING_TIME):
                continue
            with holding(path) as answer:
                if answer.state != "free":
                    continue
                if has_marked_process(session):
                    why = "a process bears the marker of its session"
                    self._leave_alone("directory", session, str(path), why)
                    continue
                finding = Finding("directory", session, "no session", files=(str(path),))
                yield finding if self.dry_run else _removed(finding, path)

    def _cgroups(self) -> Iterator[Finding]:
        """Empty cgroups of no session; rmdir(2) refuses to remove one that is in use."""
        parent, _ = writable_cgroup()
        for path in Path(parent).glob(leaf_name("*")) if parent else ():
            session = path.name.removeprefix(leaf_name(""))
            if session in self._claimed_now() or age_of(path) < max(self.older_than, SETTLING_TIME):
                continue
            if not is_empty_cgroup(path):
                continue
            finding = Finding("cgroup", session, "no session", files=(str(path),))
            yield finding if self.dry_run else _removed(finding, path)

    def _locks(self) -> Iterator[Finding]:
        """Locks of no record, whose guards were killed right before they removed them."""
        for path in self.ledger.lock_files():
            session = path.name
            if session in self._claimed_now() or age_of(path) < max(self.older_than, SETTLING_TIME):
                continue
            with holding(path) as answer:
                if answer.state == "free":
                    if not self.dry_run:
                        path.unlink(missing_ok=True)
                    files = (str(path),)
                    yield Finding("record", session, "a lock of no session", (), files, not self.dry_run)

    def _claimed_now(self) -> set[str]:
        """The claimed sessions and those that were started since the pass began."""
        records = (r for r in self.ledger.records() if isinstance(r, Record))
        return self.claimed | {record.session.id for record in records}


def _removed(finding: Finding, path: Path) -> Finding:
    try:
        path.rmdir() if finding.kind == "cgroup" else remove_tree(str(path))
    except OSError as error:
        return dataclasses.replace(finding, problem=str(error))
    return dataclasses.replace(finding, removed=True)


def _why_after_end(certificate: str | None) -> str:
    """Why a marked process is left alone whose session has ended."""
    if certificate == "ECHILD":
        return "its session ended with the certificate ECHILD: the process did not descend from it"
    return "its session has ended, and the process is not known to descend from it"
