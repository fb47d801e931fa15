"""``browserkeeper top``: the live sessions, refreshed until it is ended, or once."""

from __future__ import annotations

import os
import sys
import time
from typing import cast

import click

from ..status.snapshot import Snapshot, snapshot
from . import output
from .environment import Command
from .parameters import label_option, seconds
from .session_text import STYLES, print_notes, process_tree
from .statuses import ExitStatus
from .top_readings import SORTS, Meter, Sort, by_sort, cells, headlines

WARM_UP = 0.5
"""Seconds before the first frame, over which processor use is measured."""


@click.command("top", cls=Command)
@click.option(
    "--interval",
    type=float,
    default=2.0,
    show_default=True,
    callback=seconds,
    metavar="SECONDS",
    help="Between two frames.",
)
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    default="memory",
    show_default=True,
    help="The highest first; the keys m, c and a do the same.",
)
@click.option(
    "--tree", is_flag=True, help="Show every process of each session; the key t does the same."
)
@click.option("--once", is_flag=True, help="One frame, then exit.")
@label_option
@output.json_option
def command(
    interval: float, sort: str, tree: bool, once: bool, labels: tuple[str, ...], as_json: bool
) -> int:
    """Watch the live sessions and pools: memory, processor, ages, zombies.

    Memory is the proportional share (PSS). CPU is in per cent of one processor, of all processes of
    the session, over the last interval. Ends at q, Ctrl-C and SIGTERM. Where standard output is no
    terminal, and with --json, there is one frame, as with --once.

    Exit status: 0; 3 the state directory cannot be read.

    \b
    Example:
      browserkeeper top --sort cpu --interval 5
    """
    meter, by = Meter(), cast(Sort, sort)
    meter.read(snapshot())
    if once or as_json or not can_be_live():
        time.sleep(WARM_UP)
        print_once(
            snapshot().labelled(labels), meter, by, tree=tree, as_json=as_json, filtered=bool(labels)
        )
    else:
        from .top_screen import Screen

        Screen(interval, by, meter, tree=tree, labels=labels).run(WARM_UP)
    return ExitStatus.OK


def can_be_live() -> bool:
    """Is standard output a terminal that can move its cursor?"""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def print_once(
    found: Snapshot, meter: Meter, sort: Sort, *, tree: bool, as_json: bool, filtered: bool
) -> None:
    readings = by_sort(meter.read(found), sort)
    if as_json:
        sessions = [
            {**reading.status.to_dict(), "processor": reading.processor, "pooled": reading.pooled}
            for reading in readings
        ]
        output.print_json({**found.to_dict(), "sessions": sessions})
        return
    for line in headlines(readings, filtered=filtered):
        output.print_line(line)
    if readings:
        styles = [STYLES.get(reading.status.state, "") for reading in readings]
        table = [cells(reading) for reading in readings]
        unused = () if any(row[output.LABEL] for row in table) else (output.LABEL,)
        columns = [name for name in table[0] if name not in unused]
        output.print_table(columns, [[row[name] for name in columns] for row in table], styles)
    for reading in readings if tree else ():
        output.print_tree(process_tree(reading.status))
    print_notes(found)
