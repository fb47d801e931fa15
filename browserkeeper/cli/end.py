"""``browserkeeper end``: ends live sessions by hand, verified."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..cleanup.end_sessions import WAIT, Selection, SessionEnd, choose, end, preview
from ..errors import ConfigError
from ..state.ledger import Ledger
from ..state.operators import this_operator
from ..status.text import printable
from . import output
from .completion import live_sessions
from .environment import Command
from .parameters import duration, seconds_or_zero
from .statuses import ExitStatus


@click.command("end", cls=Command)
@click.argument("names", nargs=-1, metavar="[ID|LABEL]...", shell_complete=live_sessions)
@click.option(
    "--owner",
    allow_from_autoenv=False,
    type=click.IntRange(min=1),
    metavar="PID",
    help="Those of this process.",
)
@click.option(
    "--older-than",
    allow_from_autoenv=False,
    metavar="AGE",
    callback=lambda ctx, parameter, value: None if value is None else duration(ctx, parameter, value),
    help="Those that are at least this old: 90, 90s, 30m, 6h.",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    allow_from_autoenv=False,
    help="All sessions, of `browserkeeper run` too.",
)
@click.option("--reason", default="", metavar="TEXT", help="For the owners and the reports.")
@click.option(
    "--wait",
    type=float,
    default=WAIT,
    show_default=True,
    metavar="SECONDS",
    callback=seconds_or_zero,
    help="How long to wait for the ends; 0 only asks for them.",
)
@click.option(
    "--yes",
    is_flag=True,
    allow_from_autoenv=False,
    help="Do not ask. Needed where there is no terminal.",
)
@click.option("--dry-run", is_flag=True, allow_from_autoenv=False, help="Only show what would be ended.")
@output.json_option
def command(
    names: tuple[str, ...],
    owner: int | None,
    older_than: float | None,
    every: bool,
    reason: str,
    wait: float,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """End live sessions of any program, verified, and show their reports.

    A name is an id, the beginning of an id (4 characters or more) if no other begins so, a label, or a
    pattern for labels ('nightly-*'). The owner's next command raises BrowserDied, which says that an
    operator has ended the session, who and why. A session without a living guard is left alone:
    `browserkeeper sweep` is for those.

    Exit status: 0 all that are meant were ended, verified, or there was none (--wait 0: all were asked);
    1 a name is unknown or not clear, or the answer was no, and nothing was ended; 3
    browserkeeper could not look; 4 something was left alone, or did not end in time; 130 the waiting was
    interrupted.

    \b
    Example:
      browserkeeper end checkout-monitor --reason "deploy of 12.3"
    """
    try:
        selection = Selection(names, owner, older_than, every)
    except ConfigError as error:
        given = "--all and names contradict each other." if every and names else ""
        needed = "" if names else "Say which sessions: ID, LABEL, --owner, --older-than or --all."
        raise click.UsageError(given or needed or str(error)) from None
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run.")
    operator, ledger = this_operator(reason, "browserkeeper end"), Ledger.open()
    records = choose(ledger, selection)
    found = preview(records)
    if dry_run or not found:
        show(found, as_json=as_json)
        return ExitStatus.OK
    if not yes and not is_confirmed(found):
        return ExitStatus.FOUND
    try:
        ended = end(ledger, records, operator, wait)
    except KeyboardInterrupt:
        output.print_warning(
            "Stopped waiting. The guards were asked, and end these sessions all the same."
        )
        return ExitStatus.INTERRUPTED
    show(ended, as_json=as_json)
    asked = ("ended", "ending") if wait == 0 else ("ended",)
    is_done = all(one.state in asked and (one.verified or wait == 0) for one in ended)
    return ExitStatus.OK if is_done else ExitStatus.INCOMPLETE


def is_confirmed(found: Sequence[SessionEnd]) -> bool:
    """Ask on the terminal; False at the end of the input as well."""
    for one in found:
        click.echo(f"  {printable(description(one))}", err=True)
    number = sum(one.state == "would-end" for one in found)
    try:
        return click.confirm(f"End {output.count(number, 'session')}?", err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def show(found: Sequence[SessionEnd], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"sessions": [one.to_dict() for one in found]})
        return
    if not found:
        output.print_line("No live session is meant.")
    for one in found:
        if one.report is not None:
            for line in str(one.report).splitlines():
                output.print_line(line, "" if one.verified else "red")
        else:
            output.print_line(description(one), "yellow" if one.state == "left-alone" else "")
    if found and all(one.state in ("would-end", "left-alone") for one in found):
        output.print_line("Nothing was touched.")


def description(one: SessionEnd) -> str:
    words = {"would-end": "would be ended", "left-alone": "left alone"}
    what = f"{one.browser} {one.kind}" if one.kind != "session" else f"{one.browser} session"
    label = f" {one.label!r}" if one.label else ""
    why = f": {one.why}" if one.why else ""
    return (
        f"{what} {one.session}{label} of {one.owner_name} (pid {one.owner}), "
        f"{output.duration(one.age)} old, {words.get(one.state, one.state)}{why}"
    )
