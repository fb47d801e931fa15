"""``browserkeeper ps``: the live sessions with their processes, the pools, and the problems of any."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..status.snapshot import LONG_ZOMBIE_PATIENCE, SessionStatus, snapshot
from . import output
from .environment import Command
from .parameters import label_option
from .session_text import STYLES, print_notes, process_tree
from .statuses import ExitStatus


@click.command("ps", cls=Command)
@click.option("--tree", is_flag=True, help="Show every process of each session.")
@label_option
@output.json_option
def command(tree: bool, labels: tuple[str, ...], as_json: bool) -> int:
    """List the live sessions and pools, and what is wrong with any of them.

    Memory is the proportional share (PSS), so that it adds up. States: live; ending (its owner
    is gone, its guard is at work); unguarded (its guard was killed); orphaned (both are gone);
    foreign (not ours to judge: of another container that shares the state directory, say).

    Where the host has limits, or is drained, the last lines say so, and which starts wait.

    Exit status: 0 all is well; 1 there is an orphaned session, an invalid record, a zombie, or limits
    of the host that are not valid; 3 the state directory cannot be read.
    With --label: among the sessions with such a label, and the invalid records.

    \b
    Example:
      browserkeeper ps --tree
      browserkeeper ps --label "checkout-*"
    """
    found = snapshot(zombie_patience=LONG_ZOMBIE_PATIENCE).labelled(labels)
    if as_json:
        output.print_json(found.to_dict())
    else:
        show(found.sessions, tree=tree, filtered=bool(labels))
        print_notes(found)
    return ExitStatus.OK if found.ok else ExitStatus.FOUND


def show(sessions: Sequence[SessionStatus], *, tree: bool, filtered: bool) -> None:
    if not sessions:
        output.print_line("No live session has such a label." if filtered else "No live sessions.")
        return
    columns = ["session", "kind", "browser", "state", "owner", "age", "procs", "memory", "contained"]
    columns.append("deadline")
    rows = [cells(status) for status in sessions]
    if any(status.label for status in sessions):
        columns.append(output.LABEL)
        rows = [[*row, status.label] for row, status in zip(rows, sessions, strict=True)]
    output.print_table(columns, rows, [STYLES.get(status.state, "") for status in sessions])
    for status in sessions if tree else ():
        output.print_tree(process_tree(status))


def cells(status: SessionStatus) -> list[str]:
    session = status.record.session
    return [
        session.id,
        session.kind,
        f"{session.browser} on {session.grid}" if session.grid else session.browser,
        status.state,
        f"{session.owner_name} ({session.owner.pid})",
        output.duration(status.age),
        str(len(status.processes)),
        output.megabytes(sum(status.memory.values())),
        session.containment,
        output.duration(status.deadline_left),
    ]
