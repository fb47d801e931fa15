"""``browserkeeper drain``: lets no session start on this host, and waits for those that run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click

from ..admission.drain import Drain, present
from ..cleanup.draining import Running, start, wait_until_idle
from ..state.ledger import Ledger
from ..state.operators import this_operator
from . import output
from .environment import Command
from .parameters import seconds_or_zero
from .statuses import ExitStatus

MOST_NAMED = 5


@click.command("drain", cls=Command)
@click.option(
    "--wait",
    type=float,
    default=0.0,
    metavar="SECONDS",
    callback=seconds_or_zero,
    help="Return when no session runs any more, or after so long.",
)
@click.option(
    "--survive-reboot", is_flag=True, help="Stay drained when the machine is started anew, too."
)
@click.option("--reason", default="", metavar="TEXT", help="For the programs that wait.")
@output.json_option
def command(wait: float, survive_reboot: bool, reason: str, as_json: bool) -> int:
    """Let no session start on this host until `browserkeeper resume`; those that run may finish.

    Starts wait, or fail with HostBusy, which says who has drained the host, since when and why. Programs
    of `browserkeeper run` are neither held back nor waited for. A host that is drained already stays
    so. Interrupting --wait leaves the drain in force.

    Exit status: 0 the host is drained and, with --wait, no session runs; 1 another program has ended
    the drain meanwhile; 3 the drain could not be written; 4 sessions still run after --wait; 130
    the waiting was interrupted.

    \b
    Example:
      browserkeeper drain --wait 120 --reason "deploy of 12.3"
    """
    operator, ledger = this_operator(reason, "browserkeeper drain"), Ledger.open()
    before = start(ledger, operator, survive_reboot=survive_reboot)
    if not as_json:
        print_start(before, present(ledger))
    try:
        left = wait_until_idle(ledger, wait, show_progress if wait else lambda _: None)
    except KeyboardInterrupt:
        output.print_warning(
            "Stopped waiting. The drain stays in force; `browserkeeper resume` ends it."
        )
        return ExitStatus.INTERRUPTED
    now = present(ledger)
    if now is None:
        output.print_warning("Another program has ended the drain: sessions start again.")
    if as_json:
        output.print_json(
            {
                "drain": now.to_dict() if now else None,
                "was_drained": before is not None,
                "running": [dataclasses.asdict(one) for one in left],
            }
        )
    elif not left:
        output.print_line("No session runs.")
    else:
        output.print_line(f"{output.count(len(left), 'session')} still running: {names(left)}.")
    if now is None:
        return ExitStatus.FOUND
    return ExitStatus.INCOMPLETE if left and wait else ExitStatus.OK


def print_start(before: Drain | None, now: Drain | None) -> None:
    if before is not None and before.problem:
        output.print_line(f"The drain file was not valid, and was replaced ({before.problem}).")
    elif before is not None:
        output.print_line("The host was drained already.")
    if now is None:
        return
    until = "`browserkeeper resume`" if now.survives_reboot else "`browserkeeper resume` or a reboot"
    output.print_line(f"No session starts until {until}: {now}.")


def show_progress(left: Sequence[Running]) -> None:
    """On stderr, one line at each change: what runs in a pod's preStop has no terminal."""
    if left:
        output.print_warning(f"waiting for {output.count(len(left), 'session')}: {names(left)}")


def names(left: Sequence[Running]) -> str:
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return ", ".join(map(str, left[:MOST_NAMED])) + more
