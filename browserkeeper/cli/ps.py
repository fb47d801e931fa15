"""``browserkeeper ps``: what the ledger says is alive, and what is really there."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..status.snapshot import Row, snapshot
from . import output
from .words import STYLES, WHAT_TO_DO, pool_line, tree_of


@click.command()
@click.option("--tree", is_flag=True, help="Show every process of each session.")
@output.json_option
def command(tree: bool, as_json: bool) -> int:
    """List the live sessions and pools, and what is wrong with any of them.

    Memory is the proportional share (PSS), so that it adds up. States: live; ending (its owner
    is gone, its guard is at work); unguarded (its guard was killed); orphaned (both are gone);
    foreign (of another container that shares the state directory).

    Exit status: 0 all is well; 1 there is an orphaned session, a record that cannot be believed,
    or a zombie.

    \b
    Example:
      browserkeeper ps --tree
    """
    found = snapshot()
    if as_json:
        output.print_json(found.to_dict())
    else:
        show(found.rows, tree=tree)
        for pool in found.pools:
            output.print_line(pool_line(pool))
        for kind, what in found.problems:
            output.print_line(f"{kind}: {what}; {WHAT_TO_DO[kind]}.", "red")
    return int(not found.ok)


def show(rows: Sequence[Row], *, tree: bool) -> None:
    if not rows:
        output.print_line("No live sessions.")
        return
    columns = ["session", "kind", "browser", "state", "owner", "age", "procs", "memory", "contained"]
    styles = [STYLES.get(row.state, "") for row in rows]
    output.print_table([*columns, "deadline"], [cells(row) for row in rows], styles)
    for row in rows if tree else ():
        output.print_tree(tree_of(row))


def cells(row: Row) -> list[str]:
    session = row.record.session
    return [
        session.id,
        session.kind,
        f"{session.browser} on {session.grid}" if session.grid else session.browser,
        row.state,
        f"{session.owner_name} ({session.owner.pid})",
        output.duration(row.age),
        str(len(row.processes)),
        output.megabytes(sum(row.memory.values())),
        session.containment,
        output.duration(row.deadline_left),
    ]
