"""Ending a session whose guards are dead: its processes, its files, its part on a Grid, its record.

The owner uses this when its guard was killed, and a sweep when the owner is dead as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError, LedgerError
from ..grid.address import Address
from ..grid.ending import end_on_grid
from ..guard.displays import noted_display, remove_display_files
from ..guard.downloads import FILE, finish_partial_files, open_partial_files, read_seen
from ..guard.files import is_private_directory, read_status_file, remove_stray_shared_memory
from ..guard.trees import try_to_remove
from ..process import is_alive, system
from ..report import ExitReport, PartialDownload, ProcessExit, RemoteEnd, Survivor
from ..state.ledger import Ledger
from ..state.locks import holding
from ..state.records import Record, Session, read_ended, read_record
from ..state.tmpdirs import tmpdir_name
from .evidence import Scope, is_of_this_boot, leftover_processes_of
from .temporary_profiles import profiles_of

KILL_DEADLINE = 10.0
"""Seconds that the leftover processes of one session may take to end."""
LOCK_PATIENCE = 2.0
"""Seconds until a guard that was killed, or another start that asks, lets go of the lock; it takes
milliseconds.  The holder of a record must not give up sooner: others leave the session to it."""
UNSEEN = "its processes could not be looked for from here: their pid namespace cannot be seen"


def report_without_guard(ledger: Ledger, record: Record, grid: Address | None = None) -> ExitReport:
    """For the owner: the exit report of a session whose guard ended without sending one.

    The guard's report from the history, where it was written; else the session is ended here
    with the reason ``guard-died``, by the record on disk, or by the owner's own where that one
    cannot be read.  ``grid`` is the Grid's address with its credentials.
    """
    with contextlib.suppress(LedgerError, OSError):
        report = read_ended(ledger.history_path(record.session.id)).report
        if report.certificate is not None:  # else a sweep of another container, which sees no process
            return report
    for path in (record.path, ledger.unseen / record.path.name):
        with contextlib.suppress(LedgerError, OSError):
            record = read_record(path)
            break
    return end_dead_session(ledger, record, "guard-died", grid, by_owner=True)


def end_dead_session(
    ledger: Ledger,
    record: Record,
    reason: str,
    grid: Address | None = None,
    *,
    scope: Scope = "here",
    by_owner: bool = False,
) -> ExitReport:
    """End the session's processes, remove its files, end its part on a Grid, and move its record to
    the history.  Blocks for about ``KILL_DEADLINE`` and ``DOUBT_PATIENCE`` at most,
    and for ``KILL_DEADLINE`` again for a Grid.

    ``grid`` is the Grid's address with its credentials; without it they are taken from
    ``BROWSERKEEPER_REMOTE`` where that names the same Grid.  ``scope`` is that of the verdict on the
    session (``evidence.Verdict``): processes are looked for only ``here``, and the certificate is then
    ``two-scans``, since only a guard, as an ancestor of the processes, can get ECHILD; there is none
    where a process cannot be looked at (:meth:`LeftoverProcesses.doubts`).  Elsewhere the scope is the
    certificate, or there is none.
    ``by_owner``: guards that hang are ended too.

    The session's lock is asked right before the removal.  Files and record are kept while a process
    survives or a guard holds the lock.
    """
    began = time.monotonic()
    session = record.session
    status_file = _read_relay_status(session)
    profiles = _profiles_of_adopted(record)
    downloads = PartialFiles(session)
    certified = _certified_end(ledger, session.id)
    report = certified or _end_processes(record, reason, scope, downloads, by_owner=by_owner)
    killing = time.monotonic() - began
    if report.survivors:
        return dataclasses.replace(report, problems=("files are kept",))
    with _all_locks(record, by_owner=by_owner) as obstacle:
        if obstacle:
            with contextlib.suppress(LedgerError, OSError):  # another sweep was faster
                return read_ended(ledger.history_path(session.id)).report
            return dataclasses.replace(report, problems=(f"files are kept: {obstacle}",))
        partial = downloads.finish()
        files, size, problems = _remove_files(record, profiles, scope)
        problems += downloads.problems
        if not certified:
            seconds = {"killing": killing, "files": time.monotonic() - began - killing}
            removed = [one.bytes for one in partial if one.removed]
            found = {
                "files_removed": files + len(removed),
                "bytes_freed": size + sum(removed),
                "seconds": seconds,
                "partial_downloads": partial,
            }
            report = dataclasses.replace(report, ended_at=time.time(), **found)  # type: ignore[arg-type]
        report = dataclasses.replace(report, problems=(*problems, *report.problems))
        if session.grid and not certified:
            remote = RemoteEnd.from_status_file({"grid": session.grid, **status_file})
            report = report.with_remote(remote)
            address = grid or _grid_of(session)
            report = end_on_grid(report, address, KILL_DEADLINE) if address else report
        try:
            if certified:
                record.path.unlink(missing_ok=True)
                ledger.end_request_path(session.id).unlink(missing_ok=True)
            else:
                ledger.retire(record, report, keep=scope == "unseen")
            if record.lock is not None and (certified or scope != "unseen"):
                record.lock.unlink(missing_ok=True)
        except OSError as error:
            return dataclasses.replace(report, problems=(*report.problems, f"ledger: {error}"))
    return report


def _certified_end(ledger: Ledger, session: str) -> ExitReport | None:
    """The report of a session that has ended with ECHILD, and whose guard was killed right before it
    removed the record.  No process of it exists."""
    with contextlib.suppress(LedgerError, OSError):
        report = read_ended(ledger.history_path(session)).report
        return report if report.certificate == "ECHILD" else None
    return None


class PartialFiles:
    """The partial downloads of a session: those that its guards had seen, and those that its processes
    still write.  ``guard/downloads.py`` has the rules."""

    def __init__(self, session: Session):
        self._since = session.created
        self.problems: list[str] = []
        file = os.path.join(session.tmpdir, FILE) if _is_made_by_guard(session) else ""
        self._directory, self._suffix, self._seen = read_seen(file)

    def look(self, pids: Iterable[int]) -> None:
        if self._suffix:
            self._seen.update(open_partial_files(pids, self._suffix, self._directory))

    def finish(self) -> tuple[PartialDownload, ...]:
        """Call it when no process of the session is left, and before its TMPDIR is removed."""
        if not self._suffix:
            return ()
        found, self.problems = finish_partial_files(
            self._directory, self._suffix, self._seen, self._since
        )
        return tuple(PartialDownload(**one) for one in found)


def _end_processes(
    record: Record, reason: str, scope: Scope, downloads: PartialFiles, *, by_owner: bool
) -> ExitReport:
    """End the session's processes where they can be looked for.  Returns a report with the certificate,
    the processes and the survivors."""
    session = record.session
    report = ExitReport(session.id, session.browser, reason, session.containment, None)
    report = dataclasses.replace(report, memory=record.memory, ended_at=time.time(), label=session.label)
    if scope in ("ended-with-boot", "ended-with-namespace"):
        return dataclasses.replace(report, certificate=scope)
    # An owner and its session are in one place, also where it cannot be named (``/proc`` without a boot
    # id), unless ``/proc`` is another pid namespace's.
    is_here = is_of_this_boot(record) or (by_owner and system.host().namespace != "")
    if scope == "unseen" or not is_here:
        return dataclasses.replace(report, notes=(UNSEEN,))
    leftovers = leftover_processes_of(record, with_guards=by_owner)
    downloads.look(process.pid for process in leftovers.find())
    survivors = leftovers.end(KILL_DEADLINE)
    ended = [p for p in leftovers.seen.values() if p]
    hidden = leftovers.doubts()
    return dataclasses.replace(
        report,
        certificate=None if survivors or hidden else "two-scans",
        processes=tuple(ProcessExit(p.pid, p.identity.start, p.name, "killed") for p in ended),
        survivors=tuple(Survivor(p.pid, p.name, p.state) for p in survivors),
        problems=(f"processes of the session may be left: {hidden}",) if hidden else (),
    )


@contextlib.contextmanager
def _all_locks(record: Record, *, by_owner: bool) -> Iterator[str]:
    """Hold the session's lock and that of its TMPDIR.  Yields why they cannot be had, or "".

    The owner has waited for the deaths of its guards, so to it a lock that is missing (a state
    directory that was removed) is no obstacle.
    """
    with contextlib.ExitStack() as stack:
        paths = [record.lock] if record.lock is not None else []
        if _is_made_by_guard(record.session):
            paths.append(Path(record.session.tmpdir))
        for path in paths:
            answer = stack.enter_context(holding(path, LOCK_PATIENCE))
            if answer.state == "held":
                yield f"the lock {path} is held"
                return
            if answer.state == "unknown" and path == record.lock and not by_owner:
                yield answer.why
                return
        yield ""


def _grid_of(session: Session) -> Address | None:
    """The address in the record with credentials from the environment; None where it is none."""
    try:
        return Address.parse(session.grid).completed()
    except ConfigError:
        return None


def _read_relay_status(session: Session) -> dict[str, str]:
    if session.grid and is_private_directory(session.tmpdir):
        return read_status_file(os.path.join(session.tmpdir, "grid"))
    return {}


def _profiles_of_adopted(record: Record) -> set[Path]:
    """The temporary profiles of a browser that other code started: they are not in a TMPDIR of ours,
    and only the browser's command line names them."""
    if record.session.containment != "adopted" or not is_of_this_boot(record):
        return set()
    known = [identity for identity, _ in record.processes if is_alive(identity)]
    return {path for identity in known for path in profiles_of(identity.pid)}


def _is_made_by_guard(session: Session) -> bool:
    """True if the recorded TMPDIR has the name, owner and mode that a guard gives to one."""
    name = os.path.basename(session.tmpdir)
    return name == tmpdir_name(session.id) and is_private_directory(session.tmpdir)


def _remove_files(record: Record, profiles: set[Path], scope: Scope) -> tuple[int, int, list[str]]:
    """Remove the session's TMPDIR, its shared memory, lock and socket of its virtual display, and
    ``profiles``.  Returns the number of files, their bytes, and the problems.

    Shared memory is removed only where all processes that may use it can be seen.

    A TMPDIR is removed only where it is such as a guard makes, whatever the record says.
    """
    files = size = 0
    session = record.session
    problems: list[str] = []
    if _is_made_by_guard(session):
        # Before the TMPDIR, which has the note of its number.
        noted = noted_display(session.tmpdir) if scope != "unseen" else None
        if noted:
            display, pid = noted
            files, problems = remove_display_files({pid}, session.created, display)
        more, size, left = try_to_remove(session.tmpdir)
        files += more
        problems += [f"TMPDIR not removed: {left}"] if left else []
    elif session.tmpdir and os.path.lexists(session.tmpdir):
        problems.append(f"{session.tmpdir} does not look like a session's directory; left alone")
    # Not of an adopted browser: it may be of the program that started that one.
    if scope == "here" and session.containment != "adopted":
        files += remove_stray_shared_memory(session.created)[0]
    for profile in profiles:
        more, bytes_of_it, left = try_to_remove(str(profile))
        files, size = files + more, size + bytes_of_it
        problems += [f"temporary profile not removed: {left}"] if left else []
    return files, size, problems
