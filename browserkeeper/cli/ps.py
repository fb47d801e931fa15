"""``browserkeeper ps``: what the ledger says is alive, and what is really there."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..process.identity import ProcessFacts
from ..survey import Row, survey
from . import output
from .words import STYLES, WHAT_TO_DO, pool_line


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
    found = survey()
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
        session.browser,
        row.state,
        f"{session.owner_name} ({session.owner.pid})",
        output.duration(row.age),
        str(len(row.processes)),
        output.megabytes(sum(row.memory.values())),
        session.containment,
        output.duration(row.deadline_left),
    ]


def tree_of(row: Row) -> output.Node:
    """Roots are those whose parents are none of the session's: the guard's children, or orphans."""
    below: dict[int, list[ProcessFacts]] = {}
    pids = {process.pid for process in row.processes}
    for process in row.processes:
        below.setdefault(process.parent if process.parent in pids else 0, []).append(process)

    def node(process: ProcessFacts) -> output.Node:
        children = tuple(map(node, below.get(process.pid, ())))
        style = "red" if process.pid in row.zombies else ""
        return output.Node(line(row, process), style, children)

    session = row.record.session
    guards = " and ".join(str(guard.pid) for guard in row.record.guards)
    head = f"{session.browser} session {session.id}: {row.state}, guarded by {guards}"
    return output.Node(head, STYLES.get(row.state, "bold"), tuple(map(node, below.get(0, ()))))


def line(row: Row, process: ProcessFacts) -> str:
    mark = " ZOMBIE" if process.pid in row.zombies else ""
    size = output.megabytes(row.memory[process.pid])
    return f"{process.pid} {process.name} {process.state} {size}{mark}"
