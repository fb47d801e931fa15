"""What the dead left behind: found by the ledger and by the marker, ended, and reported.

A session belongs to the dead when its owner and its guard are both gone.  While one of them
lives it is theirs to end, with one exception: a guard that was stopped is woken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import ConfigError, LedgerError
from ..grid.address import Address
from ..grid.hub import Hub
from ..guard.guard import (
    is_private_directory,
    read_status_file,
    remove_tree,
    stray_shared_memory,
)
from ..process import Platform, is_alive, system
from ..process.containment import leaf_name, writable_cgroup
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import DOCUMENT, MARKER, LeftoverProcesses
from ..report import ExitReport, ProcessExit, RemoteEnd, Survivor
from ..state.ledger import BadRecord, Ledger, Record, Session, read_ended, read_record
from ..state.pool_state import drafts as pool_drafts
from ..state.pool_state import path_of, published, withdraw
from ..state.tmpdirs import PREFIX, roots
from .temporary_profiles import profiles_of

KILL_DEADLINE = 10.0
"""Seconds for one session's leftovers to go."""
DRAFT_AGE = 60.0
"""Seconds after which a half-written record's writer is taken for dead."""

State = Literal["live", "unguarded", "orphaned", "ending", "foreign"]
Kind = Literal["session", "processes", "directory", "cgroup", "record"]
SWEPT_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a dead owner left, and what was done about it.

    ``kind``: ``session`` (a record, with its processes and files), ``processes`` (marked, but
    without a record), ``directory``, ``cgroup`` (an empty leaf), ``record`` (not to be believed).
    ``removed`` is False in a dry run, and where ``problem`` says why.
    """

    kind: Kind
    session: str
    what: str
    processes: tuple[ProcessFacts, ...] = ()
    files: tuple[str, ...] = ()
    removed: bool = False
    problem: str = ""
    report: ExitReport | None = None


def platform_of(session: Session) -> Platform:
    """The clock that the session's start times were read from."""
    if session.containment != "portable":
        return system
    from ..process import portable  # imports psutil: 35 ms that other sessions need not pay

    return portable


def state_of(record: Record) -> State:
    """Who, if anybody, looks after this session.

    ``foreign``: written on another machine (a home on NFS) or in another pid namespace of this
    boot (a container that shares the state directory), where its pids mean something else; nobody
    here can judge it.
    """
    owner = owner_state(record.session.host, record.session.owner)
    if owner == "foreign":
        return "foreign"
    if not _same_boot(record):
        return "orphaned"
    guard = any(is_alive(guard, platform_of(record.session)) for guard in record.guards)
    if owner == "alive":
        return "live" if guard else "unguarded"
    return "ending" if guard else "orphaned"


def owner_state(host: str, owner: ProcessIdentity) -> Literal["alive", "dead", "foreign"]:
    """Of a process that was written down on ``host`` (``system.host_id()``)."""
    machine, boot, namespace = f"{host}//".split("/")[:3]
    our_machine, our_boot, our_namespace = system.host_id().split("/")[:3]
    if machine != our_machine or (boot == our_boot and namespace != our_namespace):
        return "foreign"
    return "alive" if boot == our_boot and is_alive(owner) else "dead"


def sweep(
    *, dry_run: bool = True, older_than: float = 0.0, ledger: Ledger | None = None
) -> list[Finding]:
    """Find, and unless ``dry_run`` end, what dead owners left.

    ``older_than``: only sessions and files of at least this age, in seconds.  Raises LedgerError
    where the state directory cannot be used.
    """
    sweeper = Sweeper(ledger or Ledger.open(), dry_run=dry_run, older_than=older_than)
    return list(sweeper.run())


class Sweeper:
    """One pass.  The order matters: records first, since they claim processes and directories."""

    def __init__(self, ledger: Ledger, *, dry_run: bool, older_than: float):
        self.ledger, self.dry_run, self.older_than = ledger, dry_run, older_than
        self.claimed: set[str] = set()

    def run(self) -> Iterator[Finding]:
        for record in list(self.ledger.records()):
            if isinstance(record, BadRecord):
                yield self._bad_record(record)
            elif finding := self._session(record):
                yield finding
        yield from self._pools()
        yield from self._drafts()
        yield from self._marked_processes()
        yield from self._directories()
        yield from self._leaves()

    # -- records

    def _session(self, record: Record) -> Finding | None:
        session = record.session
        state = state_of(record)
        if not record.path.exists():  # it ended while we looked
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
            found = tuple(leftover_processes_of(record).find()) if _same_boot(record) else ()
            return Finding("session", session.id, what, found, files)
        report = finish(self.ledger, record, "swept")
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
        """What is not plainly rubbish of ours is only reported: it may be bait, or a newer version's."""
        finding = Finding("record", bad.path.stem, bad.why, files=(str(bad.path),))
        if self.dry_run or not bad.corrupt:
            return dataclasses.replace(finding, problem="" if bad.corrupt else "left alone")
        bad.path.unlink(missing_ok=True)
        return dataclasses.replace(finding, removed=True)

    def _pools(self) -> Iterator[Finding]:
        """What pools put up that had no time to take it down."""
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
            if _age(draft) > max(DRAFT_AGE, self.older_than):
                if not self.dry_run:
                    draft.unlink(missing_ok=True)
                files = (str(draft),)
                yield Finding("record", draft.stem, "a half-written record", (), files, not self.dry_run)

    # -- what no record names

    def _marked_processes(self) -> Iterator[Finding]:
        """Processes with our marker whose session has no record: the ledger was deleted, say."""
        orphans: dict[str, list[ProcessFacts]] = {}
        guards: set[str] = set()
        for process in system.everyone():
            session = system.marker_value(process.pid, MARKER)
            if not session or session in self.claimed or process.is_zombie:
                continue
            if system.users(process.pid) <= {os.geteuid()}:  # root sees everybody's, and they are theirs
                orphans.setdefault(session, []).append(process)
                if system.marker_value(process.pid, DOCUMENT) is not None:
                    guards.add(session)
        for session, processes in orphans.items():
            old_enough = system.now() - min(p.identity.start for p in processes) >= self.older_than
            if session in guards or not old_enough:
                continue  # its guard lives, and will end it with its owner
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
        """Session directories that no record and no process claims."""
        claimed = self._claimed_now()
        for path in session_directories():
            session = path.name.removeprefix(PREFIX)
            # A minute: another state directory's session may be just starting.
            if session in claimed or _age(path) < max(self.older_than, DRAFT_AGE):
                continue
            if is_held(path) or _is_in_use(session):
                continue
            finding = Finding("directory", session, "no session", files=(str(path),))
            yield finding if self.dry_run else _removed(finding, path)

    def _leaves(self) -> Iterator[Finding]:
        """Empty cgroups of no session; one that is in use cannot be removed by rmdir(2)."""
        parent, _ = writable_cgroup()
        for path in Path(parent).glob("browserkeeper-*") if parent else ():
            session = path.name.removeprefix("browserkeeper-")
            if session in self._claimed_now() or _age(path) < max(self.older_than, DRAFT_AGE):
                continue
            if not _is_empty(path):
                continue
            finding = Finding("cgroup", session, "no session", files=(str(path),))
            yield finding if self.dry_run else _removed(finding, path)

    def _claimed_now(self) -> set[str]:
        """Sessions may have been started since the pass began."""
        records = (r for r in self.ledger.records() if isinstance(r, Record))
        return self.claimed | {record.session.id for record in records}


def _removed(finding: Finding, path: Path) -> Finding:
    try:
        path.rmdir() if finding.kind == "cgroup" else remove_tree(str(path))
    except OSError as error:
        return dataclasses.replace(finding, problem=str(error))
    return dataclasses.replace(finding, removed=True)


def _is_in_use(session: str) -> bool:
    marker = f"{MARKER}={session}"
    return any(system.bears_marker(process.pid, marker) for process in system.everyone())


def session_directories() -> Iterator[Path]:
    """Directories of the name, owner and mode that a guard gives to a session's TMPDIR."""
    for root in roots():
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            path = Path(root, name)
            if re.fullmatch(PREFIX + "[0-9a-f]{12}", name) and is_private_directory(str(path)):
                yield path


def _age(path: Path) -> float:
    """Seconds since it was changed; 0 for what is gone meanwhile."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _is_empty(leaf: Path) -> bool:
    try:
        return "populated 0" in (leaf / "cgroup.events").read_text()
    except OSError:
        return False


def is_held(directory: Path) -> bool:
    """Does a guard hold its lock?  Seen across pid namespaces: containers may share ``/dev/shm``."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _same_boot(record: Record) -> bool:
    return record.session.host == system.host_id()


def leftover_processes_of(record: Record) -> LeftoverProcesses:
    """Where to look for what is left of a session: only on the host that it was recorded on."""
    recorded = [identity for identity, _ in record.processes]
    session = record.session
    platform = platform_of(session)
    # All that is in it will be killed, so it must be a guard's work, whatever the record claims.
    cgroup = session.cgroup if os.path.basename(session.cgroup) == leaf_name(session.id) else ""
    return LeftoverProcesses(session.id, recorded, cgroup, platform, record.guards)


def finish(ledger: Ledger, record: Record, reason: str, grid: Address | None = None) -> ExitReport:
    """Do what the session's guard would have done: end its processes, then remove its files; and
    what its relay would have, for one on a Grid.

    Used by the owner whose guard was killed, who knows the Grid's credentials, and by a sweep, which
    has them from ``BROWSERKEEPER_REMOTE`` or not at all.  The certificate is the weaker one.
    """
    began = time.monotonic()
    account = _account_of(record.session)
    profiles = _profiles_of(record)
    processes: list[ProcessExit] = []
    survivors: list[ProcessFacts] = []
    if _same_boot(record):
        leftovers = leftover_processes_of(record)
        survivors = leftovers.end(KILL_DEADLINE)
        processes = [_exit_of(p) for p in leftovers.seen.values() if p is not None]
    killing = time.monotonic() - began
    session = record.session
    files, size, problems = _remove_files(session) if not survivors else (0, 0, ["files are kept"])
    for profile in profiles if not survivors else ():
        with contextlib.suppress(OSError):
            more = remove_tree(str(profile))
            files, size = files + more[0], size + more[1]
    report = ExitReport(
        session.id,
        session.browser,
        reason,
        session.containment,
        None if survivors else "two-scans",
        tuple(processes),
        tuple(Survivor(p.pid, p.name, p.state) for p in survivors),
        files_removed=files,
        bytes_freed=size,
        seconds={"killing": killing, "files": time.monotonic() - began - killing},
        memory=record.memory,
        ended_at=time.time(),
        problems=tuple(problems),
    )
    if record.session.grid:
        report = report.with_remote(RemoteEnd.from_account({"grid": record.session.grid, **account}))
        address = grid or _grid_of(record.session)
        report = give_back(report, record.session, address, KILL_DEADLINE) if address else report
    if not survivors:
        try:
            ledger.retire(record, report)
        except OSError as error:
            return dataclasses.replace(report, problems=(*report.problems, f"ledger: {error}"))
    return report


def account_of_end(
    facts: Mapping[str, Any] | None, ledger: Ledger, record: Record, grid: Address | None = None
) -> ExitReport:
    """For the owner: the guard's report; else what it wrote down; else our own, where it was killed."""
    session = record.session
    if facts is not None:
        return ExitReport.from_guard(facts, session=session.id, browser=session.browser)
    with contextlib.suppress(LedgerError, OSError):
        return read_ended(ledger.history_path(session.id)).report
    with contextlib.suppress(LedgerError, OSError):
        return finish(ledger, read_record(record.path), "guard-died", grid)
    return finish(ledger, record, "guard-died", grid)


def _profiles_of(record: Record) -> set[Path]:
    """Of a browser that other code started: it has no TMPDIR of its own session."""
    if record.session.containment != "adopted" or not _same_boot(record):
        return set()
    known = [identity for identity, _ in record.processes if is_alive(identity)]
    return {path for identity in known for path in profiles_of(identity.pid)}


def give_back(report: ExitReport, session: Session, grid: Address, patience: float) -> ExitReport:
    """What the relay of a session on a Grid would have done, had it not been killed: by the session's
    id there, or by our mark where the id did not get here.  ``patience`` is in seconds."""
    known = report.remote or RemoteEnd(session.grid)
    if known.gone:
        return report
    hub, deadline = Hub(grid), time.monotonic() + patience
    if known.session:
        said = hub.give_back(known.session, deadline)
    else:
        said = hub.give_back_unknown(session.id, deadline)
    return report.with_remote(dataclasses.replace(known, **dataclasses.asdict(said)))


def _grid_of(session: Session) -> Address | None:
    """None for rubbish."""
    try:
        return Address.parse(session.grid).completed()
    except ConfigError:
        return None


def _account_of(session: Session) -> dict[str, str]:
    if session.grid and is_private_directory(session.tmpdir):
        return read_status_file(os.path.join(session.tmpdir, "grid"))
    return {}


def _exit_of(process: ProcessFacts) -> ProcessExit:
    identity = process.identity
    return ProcessExit(identity.pid, identity.start, process.name, "killed")


def _remove_files(session: Session) -> tuple[int, int, list[str]]:
    """Only a directory that looks like a guard's work is removed, whatever the record claims."""
    files = size = 0
    problems = []
    path = Path(session.tmpdir) if session.tmpdir else None
    if path and path.name == PREFIX + session.id and is_private_directory(str(path)):
        try:
            files, size = remove_tree(str(path))
        except OSError as error:
            problems.append(f"TMPDIR not removed: {error}")
    elif path and os.path.lexists(path):
        problems.append(f"{path} does not look like a session's directory; left alone")
    for stray in stray_shared_memory(session.created):
        try:
            os.unlink(stray)
            files += 1
        except OSError as error:
            problems.append(f"{stray}: {error.strerror}")
    return files, size, problems
