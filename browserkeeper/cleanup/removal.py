"""Ending a session whose guards are dead: its processes, its files, its part on a Grid, its record.

The owner uses this when its guard was killed, and a sweep when the owner is dead as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path

from ..errors import ConfigError, LedgerError
from ..grid.address import Address
from ..grid.ending import end_on_grid
from ..guard.files import is_private_directory, read_status_file, remove_stray_shared_memory
from ..guard.procfs import hidden_processes
from ..guard.trees import try_to_remove
from ..process import is_alive
from ..process.identity import ProcessFacts
from ..report import ExitReport, ProcessExit, RemoteEnd, Survivor
from ..state.ledger import Ledger
from ..state.records import Record, Session, read_ended, read_record
from ..state.tmpdirs import tmpdir_name
from .evidence import is_of_this_boot, leftover_processes_of
from .temporary_profiles import profiles_of

KILL_DEADLINE = 10.0
"""Seconds that the leftover processes of one session may take to end."""


def report_without_guard(ledger: Ledger, record: Record, grid: Address | None = None) -> ExitReport:
    """For the owner: the exit report of a session whose guard ended without sending one.

    The guard's report from the history, where it was written; else the session is ended here
    with the reason ``guard-died``, by the record on disk, or by the owner's own where that one
    cannot be read.  ``grid`` is the Grid's address with its credentials.
    """
    with contextlib.suppress(LedgerError, OSError):
        return read_ended(ledger.history_path(record.session.id)).report
    with contextlib.suppress(LedgerError, OSError):
        record = read_record(record.path)
    return end_dead_session(ledger, record, "guard-died", grid)


def end_dead_session(
    ledger: Ledger, record: Record, reason: str, grid: Address | None = None
) -> ExitReport:
    """End the session's processes, remove its files, end its part on a Grid, and move its record to
    the history.  Blocks for about ``KILL_DEADLINE`` seconds at most, and as long again for a Grid.

    ``grid`` is the Grid's address with its credentials; without it they are taken from
    ``BROWSERKEEPER_REMOTE`` where that names the same Grid.  The certificate is ``two-scans``: only a
    guard, as an ancestor of the processes, can get ECHILD.  There is none where ``/proc`` hides
    processes.  Files and record are kept while a process survives.
    """
    began = time.monotonic()
    session = record.session
    status_file = _read_relay_status(session)
    profiles = _profiles_of_adopted(record)
    processes: list[ProcessExit] = []
    survivors: list[ProcessFacts] = []
    if is_of_this_boot(record):
        leftovers = leftover_processes_of(record)
        survivors = leftovers.end(KILL_DEADLINE)
        processes = [
            ProcessExit(p.pid, p.identity.start, p.name, "killed") for p in leftovers.seen.values() if p
        ]
    killing = time.monotonic() - began
    unseen = hidden_processes()
    files, size, problems = 0, 0, ["files are kept"]
    if not survivors:
        files, size, problems = _remove_files(session, profiles)
        problems += [f"processes of the session may be left: {unseen}"] if unseen else []
    report = ExitReport(
        session.id,
        session.browser,
        reason,
        session.containment,
        None if survivors or unseen else "two-scans",
        tuple(processes),
        tuple(Survivor(p.pid, p.name, p.state) for p in survivors),
        files_removed=files,
        bytes_freed=size,
        seconds={"killing": killing, "files": time.monotonic() - began - killing},
        memory=record.memory,
        ended_at=time.time(),
        problems=tuple(problems),
    )
    if session.grid:
        report = report.with_remote(RemoteEnd.from_status_file({"grid": session.grid, **status_file}))
        address = grid or _grid_of(session)
        report = end_on_grid(report, address, KILL_DEADLINE) if address else report
    if not survivors:
        try:
            ledger.retire(record, report)
        except OSError as error:
            return dataclasses.replace(report, problems=(*report.problems, f"ledger: {error}"))
    return report


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


def _remove_files(session: Session, profiles: set[Path]) -> tuple[int, int, list[str]]:
    """Remove the session's TMPDIR, its shared memory and ``profiles``.  Returns the number of files,
    their bytes, and the problems.

    A TMPDIR is removed only where its name, owner and mode are what a guard gives to one,
    whatever the record says.
    """
    files = size = 0
    problems = []
    path = Path(session.tmpdir) if session.tmpdir else None
    if path and path.name == tmpdir_name(session.id) and is_private_directory(str(path)):
        files, size, left = try_to_remove(str(path))
        problems += [f"TMPDIR not removed: {left}"] if left else []
    elif path and os.path.lexists(path):
        problems.append(f"{path} does not look like a session's directory; left alone")
    if session.containment != "adopted":  # else it may be of the program that started the browser
        files += remove_stray_shared_memory(session.created)[0]
    for profile in profiles:
        more, bytes_of_it, left = try_to_remove(str(profile))
        files, size = files + more, size + bytes_of_it
        problems += [f"temporary profile not removed: {left}"] if left else []
    return files, size, problems
