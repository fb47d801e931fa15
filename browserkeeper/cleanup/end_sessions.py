"""``end_sessions()``: an operator's hand, which ends live sessions of other programs, verified.

Only a session's guard ends it.  It is asked by a file beside the record, with who asks and why
(``guard/end_request.py``), and woken by SIGTERM where the whole identity of its process fits.
Elsewhere, in another pid namespace or before Linux 5.3, it finds the file at its next look at its
processes, which is at most 5 s later.  A session without a living guard is left to its owner, or to a
sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ..config import check_count, check_flag, check_seconds
from ..errors import ConfigError, LedgerError, NoSuchSession
from ..guard.end_request import head
from ..guard.files import discard, write_atomically
from ..options.labels import matches
from ..process import require_own_proc, system
from ..process.leftover_processes import MARKER
from ..report import ExitReport, Operator
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.locks import ask
from ..state.operators import this_operator
from ..state.records import Record, is_id, read_ended
from .evidence import age_of, age_of_session, ask_lock_of, platform_of, verdict_of
from .pool_evidence import lease_labels, living_pools

WAIT = 30.0
"""Seconds to wait for the ends; a guard needs less than one, unless a process cannot be killed."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two looks at the history."""
MOST_CANDIDATES = 20
"""That are named in an error."""
SHORTEST_BEGINNING = 4
"""Characters of an id.  One id in 256 begins with "db", and must not be taken for the session with that
label, which has ended."""


@dataclasses.dataclass(frozen=True)
class SessionEnd:
    """What became of one session that was to be ended.

    ``state``: ``ended``; ``ending`` (its guard was asked to end it, and has not finished);
    ``left-alone``, and ``why``; ``would-end`` in a dry run.  ``report`` is the exit report of a session
    that has ended; None where no history of it was written.  ``owner`` is the owner's pid, ``age`` in
    seconds.
    """

    session: str
    browser: str
    kind: str
    label: str
    owner: int
    owner_name: str
    age: float
    state: Literal["ended", "ending", "left-alone", "would-end"]
    why: str = ""
    report: ExitReport | None = None

    @property
    def verified(self) -> bool:
        """True if the session has ended, and its report proves that nothing is left."""
        return self.state == "ended" and self.report is not None and self.report.clean

    def to_dict(self) -> dict[str, Any]:
        """The fields, ``verified`` and the whole report as values of JSON."""
        facts = dataclasses.asdict(self)
        report = self.report.to_dict() if self.report else None
        return {**facts, "verified": self.verified, "report": report}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which sessions are meant: those with the ``names``, or all; of them those of the process
    ``owner``, and those that are at least ``older_than`` seconds old.  Raises ConfigError."""

    names: tuple[str, ...] = ()
    owner: int | None = None
    older_than: float | None = None
    all: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise ConfigError(
                    f"{name!r} is no id or label of a session; `browserkeeper ps` has them."
                )
        if self.owner is not None:
            check_count("owner", self.owner, least=1)
        if self.older_than is not None:
            check_seconds("older_than", self.older_than)
        check_flag("all", self.all)
        if self.all and self.names:
            raise ConfigError(f"all=True and {self.names[0]!r} contradict each other; give one of them.")
        if not (self.all or self.names or self.owner is not None or self.older_than is not None):
            raise ConfigError("Say which sessions: ids, labels, owner=, older_than= or all=True.")


def end_sessions(
    *names: str,
    owner: int | None = None,
    older_than: float | None = None,
    all: bool = False,
    reason: str = "",
    wait: float = WAIT,
    dry_run: bool = False,
) -> list[SessionEnd]:
    """End live sessions of this user, whichever program they belong to, and verify it.

    Their owners get BrowserDied, which names this user, this program and ``reason``.

    Args:
        names: ids, beginnings of ids (4 characters or more) if no other session's begins so, labels, or
            patterns for labels (``nightly-*``, as in a shell).
        owner: only the sessions of the process with this pid.
        older_than: only sessions of at least this age, in seconds.
        all: all sessions, those of `browserkeeper run` included.
        reason: a line of text for the owners and for the reports.
        wait: seconds to wait for the ends; 0 returns once the guards are asked.
        dry_run: only say which sessions would be ended.

    Raises:
        ConfigError: an argument makes no sense, or none says which sessions are meant.
        NoSuchSession: a name is no live session's, or the beginning of several ids.  Nothing was ended.
        LedgerError: the state directory cannot be used.
        ContainmentError: ``/proc`` shows another pid namespace than this process's.
    """
    check_seconds("wait", wait, or_zero=True)
    check_flag("dry_run", dry_run)
    selection, operator = Selection(names, owner, older_than, all), this_operator(reason)
    ledger = Ledger.open()
    records = choose(ledger, selection)
    return preview(records) if dry_run else end(ledger, records, operator, wait)


# ------------------------------------------------------------------ which sessions


def choose(ledger: Ledger, selection: Selection) -> list[Record | BadRecord]:
    """The records of the sessions that are meant, oldest first.  Raises NoSuchSession.

    Where all are meant, also the files that are no valid records and whose guards live.
    """
    require_own_proc()
    found = list(ledger.records())
    records = sorted((r for r in found if isinstance(r, Record)), key=lambda r: r.session.created)
    chosen = records
    if selection.names:
        bad = {record.path.stem: record for record in found if isinstance(record, BadRecord)}
        ids = {one.session.id for name in selection.names for one in _named(ledger, name, records, bad)}
        chosen = [record for record in records if record.session.id in ids]
    if selection.owner is not None:
        here = system.host()
        chosen = [
            record
            for record in chosen
            if record.session.owner.pid == selection.owner and record.session.place.is_same_as(here)
        ]
    if selection.older_than is not None:
        chosen = [record for record in chosen if age_of_session(record) >= selection.older_than]
    bad_ones = [record for record in found if isinstance(record, BadRecord)]
    unknown = [bad for bad in bad_ones if ask(ledger.lock_path(bad.path.stem)).state == "held"]
    return [*chosen, *(unknown if selection.all else ())]


def _named(
    ledger: Ledger, name: str, records: Sequence[Record], bad: dict[str, BadRecord]
) -> list[Record]:
    """The sessions that one name means.  Raises NoSuchSession."""
    if exact := [record for record in records if record.session.id == name]:
        return exact
    labelled = [record for record in records if record.session.label == name]
    begin = [record for record in records if record.session.id.startswith(name)]
    is_short = len(name) < SHORTEST_BEGINNING
    if is_short and labelled:
        return labelled
    if len(labelled + begin) > 1 and begin:
        what = f"{name!r} is not clear: the ids of {len(begin)} live sessions begin with it"
        if labelled:
            what += f", and it is the label of {len(labelled)}"
        raise NoSuchSession(*_with_candidates(what, [*labelled, *begin]))
    if is_short and begin:
        what = (
            f"{name!r} is no label, and too short for the beginning of an id: give {SHORTEST_BEGINNING} "
            "characters of it at least. This id begins so"
        )
        raise NoSuchSession(*_with_candidates(what, begin))
    if found := labelled or begin:
        return found
    if found := [one for one in records if one.session.label and matches(one.session.label, name)]:
        return found
    raise _no_session(ledger, name, bad)


def _no_session(ledger: Ledger, name: str, bad: dict[str, BadRecord]) -> NoSuchSession:
    """The error for a name that means no live session: what it means instead."""
    if name in bad:
        return NoSuchSession(
            f"The record of session {name} is not valid ({bad[name].why}). `browserkeeper sweep` says "
            "what can be done about it."
        )
    if is_id(name):
        with contextlib.suppress(LedgerError, OSError):
            why = read_ended(ledger.history_path(name)).report.reason
            return NoSuchSession(f"Session {name} has ended already ({why}).")
    leased = [id for id, label in lease_labels(living_pools(ledger)).items() if matches(label, name)]
    if leased:
        return NoSuchSession(
            f"{name!r} is the label of a lease of a pool, which may have given the browser to another "
            f"lease by now. If you mean the browser, give its id: {' '.join(leased)}",
            tuple(leased),
        )
    return NoSuchSession(
        f"No live session has the id or the label {name!r}; `browserkeeper ps` lists them."
    )


def _with_candidates(what: str, records: Sequence[Record]) -> tuple[str, tuple[str, ...]]:
    named = [
        f"  {record.session.id} {record.session.label or record.session.browser} "
        f"of {record.session.owner_name} (pid {record.session.owner.pid})"
        for record in records[:MOST_CANDIDATES]
    ]
    more = [f"  and {len(records) - MOST_CANDIDATES} more"] if len(records) > MOST_CANDIDATES else []
    return "\n".join([f"{what}:", *named, *more]), tuple(r.session.id for r in records)


# ------------------------------------------------------------------ their ends


def preview(records: Sequence[Record | BadRecord]) -> list[SessionEnd]:
    """What :func:`end` would do with these sessions; touches nothing."""
    return [
        _outcome(record, "left-alone", why)
        if (why := obstacle(record))
        else _outcome(record, "would-end")
        for record in records
    ]


def end(
    ledger: Ledger, records: Sequence[Record | BadRecord], operator: Operator, wait: float
) -> list[SessionEnd]:
    """Ask the guards of these sessions to end them, and wait for up to ``wait`` seconds for all ends.

    An exception from outside, such as KeyboardInterrupt, ends the waiting only: the guards are asked.
    """
    found: dict[str, SessionEnd] = {}
    asked = []
    for record in records:
        why = obstacle(record)
        if isinstance(record, Record) and not why:
            why = _ask(ledger, record, operator)
            asked += [] if why else [record]
        found[record.path.stem] = _outcome(record, "left-alone" if why else "ending", why)
    for ended in _wait(ledger, asked, time.monotonic() + wait):
        found[ended.session] = ended
    return list(found.values())


def obstacle(record: Record | BadRecord) -> str:
    """Why the session's guard cannot be asked to end it; "" where it can, and where it has ended."""
    if isinstance(record, BadRecord):
        return f"its guard lives, and its record is not valid ({record.why})"
    session = record.session
    if os.environ.get(MARKER) == session.id:
        return "this command runs inside of it, and would be ended with it"
    verdict = verdict_of(record)
    if not record.path.exists():
        return ""
    if verdict.state == "orphaned":
        return (
            "its owner and its guards are dead: `browserkeeper sweep --yes` removes what is left of it"
        )
    if verdict.state == "unguarded":
        who = f"{session.owner_name} (pid {session.owner.pid})"
        return f"its guards were killed: its owner {who} ends it, or a sweep once that is dead"
    if verdict.state == "foreign":
        if session.place.uid not in (-1, os.geteuid()):
            return f"it is of another user (uid {session.place.uid})"
        return "" if ask_lock_of(record).state == "held" else f"not ours to judge: {verdict.why}"
    return ""


def _ask(ledger: Ledger, record: Record, operator: Operator) -> str:
    """Write the request, and wake the guard.  Returns why it cannot be asked, or ""."""
    path = str(ledger.end_request_path(record.session.id))
    text = f'{head(record.session.id)}"operator": {json.dumps(operator.to_dict())}}}\n'
    try:
        write_atomically(path, text)
    except OSError as error:
        return f"the request to its guard cannot be written ({path}: {error.strerror})"
    # A guard removes its record first and then the request, so one of the two removes it.
    if not record.path.exists():
        discard(path)
        return ""
    _wake(record)
    return ""


def _wake(record: Record) -> None:
    """SIGTERM to the guard that leads, and SIGCONT to both, which may be stopped.

    By pidfds, whose processes have the recorded start times, and only where the record's pids mean
    processes of this host.  Where that is not so, the guard finds the request at its next look.
    """
    if not record.session.place.is_same_as(system.host()):
        return
    platform = platform_of(record.session)
    fd = platform.exit_fd(record.guards[0]) if record.guards else -1
    if fd >= 0:
        with contextlib.suppress(OSError):  # it has just ended
            signal.pidfd_send_signal(fd, signal.SIGTERM)
        os.close(fd)
    for guard in record.guards:
        platform.send_signal(guard, signal.SIGCONT)


def _wait(ledger: Ledger, records: Sequence[Record], until: float) -> Iterator[SessionEnd]:
    """The outcomes of these sessions, as each becomes known."""
    waiting, pause = list(records), SHORTEST_PAUSE
    while True:
        for record in list(waiting):
            if outcome := _outcome_now(ledger, record):
                waiting.remove(record)
                yield outcome
        if not waiting or time.monotonic() >= until:
            break
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE)
    for record in waiting:
        why = obstacle(record)  # its guards may have been killed meanwhile
        going_on = "its guard was asked, and has not finished; it goes on"
        yield _outcome(record, "left-alone" if why else "ending", why or going_on)


def _outcome_now(ledger: Ledger, record: Record) -> SessionEnd | None:
    """None while its guard is at work, or its owner, whose guards were killed."""
    if record.path.exists():
        is_free = ask_lock_of(record).state == "free"
        if not is_free or verdict_of(record).state != "orphaned" or not (why := obstacle(record)):
            return None
        return _outcome(record, "left-alone", why)
    discard(str(ledger.end_request_path(record.session.id)))  # of a guard that knows no requests
    try:
        report = read_ended(ledger.history_path(record.session.id)).report
    except (LedgerError, OSError) as error:
        return _outcome(record, "ended", f"there is no report of its end ({error})")
    return _outcome(record, "ended", report=report)


def _outcome(
    record: Record | BadRecord,
    state: Literal["ended", "ending", "left-alone", "would-end"],
    why: str = "",
    report: ExitReport | None = None,
) -> SessionEnd:
    if isinstance(record, BadRecord):
        return SessionEnd(
            record.path.stem, "unknown", "session", "", 0, "?", age_of(record.path), state, why
        )
    session = record.session
    return SessionEnd(
        session.id,
        session.browser,
        session.kind,
        session.label,
        session.owner.pid,
        session.owner_name,
        age_of_session(record),
        state,
        why,
        report,
    )


__all__ = ["SessionEnd", "end_sessions"]
