"""``sweep()``: one pass over the machine for what sessions with a dead owner left behind.

A session is swept only where its owner and both of its guards are dead.  While one of them
lives, the session is theirs to end; a sweep only continues (SIGCONT) a stopped guard whose owner is
dead.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from ..guard.trees import remove_tree
from ..process import require_own_proc, system
from ..process.containment import leaf_name, writable_cgroup
from ..process.identity import ProcessFacts
from ..process.leftover_processes import DOCUMENT, MARKER, LeftoverProcesses
from ..report import ExitReport
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.pool_state import drafts as pool_drafts
from ..state.pool_state import path_of, published, withdraw
from ..state.records import Record
from ..state.tmpdirs import session_of
from .evidence import (
    age_of,
    has_marked_process,
    is_empty_cgroup,
    is_held,
    is_of_this_boot,
    leftover_processes_of,
    owner_state,
    session_directories,
    state_of,
)
from .removal import KILL_DEADLINE, end_dead_session

SETTLING_TIME = 60.0
"""Seconds for which a file that no record claims is left alone: its session may be just starting,
or its writer may be about to complete it."""

Kind = Literal["session", "processes", "directory", "cgroup", "record"]
SWEPT_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a dead owner left, and what was done about it.

    ``kind``: ``session`` (a record, with its processes and files), ``processes`` (marked, but
    without a record), ``directory``, ``cgroup`` (an empty leaf), ``record`` (a file in the state
    directory that is no valid record).  ``removed`` is False in a dry run, and where ``problem`` says
    why.
    """

    kind: Kind
    session: str
    what: str
    processes: tuple[ProcessFacts, ...] = ()
    files: tuple[str, ...] = ()
    removed: bool = False
    problem: str = ""
    report: ExitReport | None = None


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
    """One pass.

    Records come first: a session that is left alone claims its processes and directories, which
    the later steps then skip.
    """

    def __init__(self, ledger: Ledger, *, dry_run: bool, older_than: float):
        self.ledger, self.dry_run, self.older_than = ledger, dry_run, older_than
        self.claimed: set[str] = set()

    def run(self) -> Iterator[Finding]:
        """Raises ContainmentError where the processes cannot be judged from here."""
        require_own_proc()
        for record in list(self.ledger.records()):
            if isinstance(record, BadRecord):
                yield self._bad_record(record)
            elif finding := self._session(record):
                yield finding
        yield from self._pools()
        yield from self._drafts()
        yield from self._marked_processes()
        yield from self._directories()
        yield from self._cgroups()

    # -- what records name

    def _session(self, record: Record) -> Finding | None:
        session = record.session
        state = state_of(record)
        if not record.path.exists():  # it ended meanwhile
            return None
        if state == "ending" and not self.dry_run:
            for guard in record.guards:
                system.send_signal(guard, signal.SIGCONT)
        if state != "orphaned" or time.time() - session.created < self.older_than:
            self.claimed.add(session.id)
            return None
        what = f"{session.browser} of {session.owner_name} (pid {session.owner.pid}, dead)"
        files = tuple(path for path in (session.tmpdir, str(record.path)) if os.path.lexists(path))
        if self.dry_run:
            self.claimed.add(session.id)
            found = tuple(leftover_processes_of(record).find()) if is_of_this_boot(record) else ()
            return Finding("session", session.id, what, found, files)
        report = end_dead_session(self.ledger, record, "swept")
        return Finding(
            "session",
            session.id,
            what,
            files=files,
            removed=report.clean,
            problem="; ".join(report.problems),
            report=report,
        )

    def _bad_record(self, bad: BadRecord) -> Finding:
        """Remove a corrupt file.  Other files that are not valid records are only reported: they may
        be another user's, who wants us to act on them, or a newer version's."""
        finding = Finding("record", bad.path.stem, bad.why, files=(str(bad.path),))
        if self.dry_run or not bad.corrupt:
            return dataclasses.replace(finding, problem="" if bad.corrupt else "left alone")
        bad.path.unlink(missing_ok=True)
        return dataclasses.replace(finding, removed=True)

    def _pools(self) -> Iterator[Finding]:
        """The published states of pools whose owner is dead."""
        for pool in published(self.ledger):
            if isinstance(pool, BadRecord):
                yield self._bad_record(pool)
            elif owner_state(pool.host, pool.owner) == "dead":
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

    # -- what no record names

    def _marked_processes(self) -> Iterator[Finding]:
        """Processes with our marker whose session has no record (the state directory was deleted,
        say) and no guard."""
        orphans: dict[str, list[ProcessFacts]] = {}
        guarded: set[str] = set()
        for process in system.everyone():
            session = system.marker_value(process.pid, MARKER)
            if not session or session in self.claimed or process.is_zombie:
                continue
            if system.users(process.pid) <= {os.geteuid()}:  # root can read every user's processes
                orphans.setdefault(session, []).append(process)
                if system.marker_value(process.pid, DOCUMENT) is not None:  # only guards have it
                    guarded.add(session)
        for session, processes in orphans.items():
            old_enough = system.now() - min(p.identity.start for p in processes) >= self.older_than
            if old_enough and session not in guarded:
                yield self._end_marked(session, processes)

    def _end_marked(self, session: str, processes: list[ProcessFacts]) -> Finding:
        what = f"{len(processes)} processes without a record"
        finding = Finding("processes", session, what, tuple(processes))
        if self.dry_run:
            self.claimed.add(session)
            return finding
        left = LeftoverProcesses(session, [p.identity for p in processes]).end(KILL_DEADLINE)
        problem = f"{len(left)} survive" if left else ""
        return dataclasses.replace(finding, removed=not left, problem=problem)

    def _directories(self) -> Iterator[Finding]:
        """Session directories that no record, no guard and no process claims."""
        claimed = self._claimed_now()
        for path in session_directories():
            session = session_of(path.name)
            # Another state directory's session may be just starting.
            if session in claimed or age_of(path) < max(self.older_than, SETTLING_TIME):
                continue
            if is_held(path) or has_marked_process(session):
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
