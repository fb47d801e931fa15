"""``browserkeeper history``: the reports of the sessions that have ended."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import sys
from typing import Any

import click

from ..errors import ConfigError, NoSuchSession
from ..report import REASONS, ProcessExit, meanings
from ..state.ledger import HISTORY_LIMIT, Ledger
from ..state.records import EndedSession, read_ended
from . import output
from .completion import ended_sessions
from .environment import Command
from .parameters import label_option
from .statuses import ExitStatus


@click.command("history", cls=Command, epilog=f"\b\nEnd reasons:\n{output.definitions(REASONS)}")
@click.option(
    "--limit",
    type=click.IntRange(1, HISTORY_LIMIT),
    default=20,
    show_default=True,
    help="How many, newest first.",
)
@click.option(
    "--session", metavar="ID", shell_complete=ended_sessions, help="The whole report of this one."
)
@label_option
@output.json_option
def command(limit: int, session: str | None, labels: tuple[str, ...], as_json: bool) -> int:
    """List the sessions that have ended, newest first, or show one of them whole.

    "Clean" means that it is proved that no process survived and every file is gone. "Reason" says
    what ended the session; the list is below. "Contained" is how its processes were kept together.

    Exit status: 0; 1 there is no ended session with this id; 3 the history cannot be read.

    \b
    Example:
      browserkeeper history --session 0123456789ab
      browserkeeper history --label "checkout-*"
    """
    if session is not None and labels:
        raise ConfigError("--session names one session already; leave --label out.")
    ledger = Ledger.open()
    if session is not None:
        show_one(find(ledger, session), as_json=as_json)
        return ExitStatus.OK
    found = ledger.ended() if labels else ledger.ended(limit)
    fitting = (e for e in found if not labels or any(e.is_named(pattern) for pattern in labels))
    show_all(list(itertools.islice(fitting, limit)), as_json=as_json, filtered=bool(labels))
    return ExitStatus.OK


def find(ledger: Ledger, session: str) -> EndedSession:
    """Raises NoSuchSession if no session with this id has ended.  Only an alphanumeric id becomes a
    path."""
    try:
        if session.isalnum():
            return read_ended(ledger.history_path(session))
    except FileNotFoundError:
        if ledger.record_path(session).exists():
            raise NoSuchSession(f"Session {session} has not ended; see `browserkeeper ps`.") from None
    raise NoSuchSession(
        f"No ended session {session!r} in {ledger.history} (the last {HISTORY_LIMIT} are kept). "
        "`browserkeeper history` lists them."
    )


def as_dict(ended: EndedSession) -> dict[str, Any]:
    return {"session": dataclasses.asdict(ended.session), "report": ended.report.to_dict()}


# -- one


def show_one(ended: EndedSession, *, as_json: bool) -> None:
    if as_json:
        output.print_json(as_dict(ended))
        return
    for line in str(ended.report).splitlines():
        output.print_line(line)
    output.print_line(f"  {meanings([ended.report.reason])[0]}")
    if ended.session.command:
        output.print_line(f"  command: {' '.join(ended.session.command)}")
    columns = ["pid", "name", "outcome", "ended after", "adopted"]
    output.print_table(columns, [exit_cells(process) for process in ended.report.processes])


def exit_cells(process: ProcessExit) -> list[str]:
    detail = {"exited": f" {process.code}", "signalled": f" by {process.signal}"}
    outcome = process.outcome or "?"
    adopted = "yes" if process.adopted else ""
    after = "-" if process.ended is None else f"{process.ended:.3f} s"
    return [str(process.pid), process.name, outcome + detail.get(outcome, ""), after, adopted]


# -- all


def show_all(found: list[EndedSession], *, as_json: bool, filtered: bool) -> None:
    if as_json:
        output.print_json({"ended": [as_dict(ended) for ended in found]})
        return
    if not found:
        none = "No session with such a label has ended." if filtered else "No session has ended yet."
        output.print_line(none)
        return
    columns = ["ended", "session", "browser", "reason", "clean", "contained"]
    columns += ["procs", "lasted", "ending", "freed"]
    rows = [cells(ended) for ended in found]
    if any(ended.label for ended in found):
        columns.append(output.LABEL)
        rows = [[*row, ended.label] for row, ended in zip(rows, found, strict=True)]
    output.print_table(columns, rows, ["" if ended.report.clean else "red" for ended in found])
    if sys.stdout.isatty():  # not for programs, which read the lines of the table
        for line in meanings(ended.report.reason for ended in found):
            output.print_line(line, "dim")


def cells(ended: EndedSession) -> list[str]:
    session, report = ended.session, ended.report
    ending = sum(report.seconds.get(phase, 0.0) for phase in ("killing", "files"))
    when = datetime.datetime.fromtimestamp(report.ended_at, datetime.timezone.utc).astimezone()
    return [
        when.strftime("%Y-%m-%d %H:%M:%S"),
        session.id,
        session.browser,
        report.reason,
        "yes" if report.clean else "NO",
        report.containment,
        str(len(report.processes)),
        output.duration(report.ended_at - session.created),
        f"{ending:.3f} s",
        output.megabytes(report.bytes_freed),
    ]
