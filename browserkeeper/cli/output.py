"""Printing, for all commands: tables, trees, JSON, errors, units.

A terminal gets rich's tables and colours.  A pipe or a file, and a terminal where NO_COLOR is set, gets
plain lines that awk can read; rich is not imported then.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..options.labels import ELLIPSIS
from ..report import SCHEMA
from ..status.text import printable

F = TypeVar("F", bound=Callable[..., Any])
_JSON = "browserkeeper.json"


def json_option(function: F) -> F:
    """Adds ``--json`` to a command, and records it for :func:`wants_json`."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=_remember,
        help=f'Print JSON, with {{"schema": {SCHEMA}}} in it.',
    )(function)


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[_JSON] = value
    return value


def wants_json(ctx: click.Context) -> bool:
    """Was ``--json`` given to the command of this context?"""
    return bool(ctx.meta.get(_JSON))


def print_json(document: Mapping[str, Any]) -> None:
    """One document, with the version of its schema."""
    print(json.dumps({"schema": SCHEMA, **document}, indent=2))


def print_error(error: Exception, more: Iterable[str] = (), *, as_json: bool) -> None:
    """As text to stderr, or as JSON to stdout.  ``more``: lines that follow the error's own."""
    message = "\n".join([str(error), *more])
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": message}})
    else:
        lines = map(printable, message.splitlines())
        print("\n".join(["browserkeeper: " + next(lines, ""), *lines]), file=sys.stderr)


def is_fancy() -> bool:
    """Is standard output a terminal, and are colours allowed (no-color.org)?"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_warning(text: str) -> None:
    """A line on stderr, beside what the command prints on stdout."""
    print(f"browserkeeper: {printable(text)}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------- tables, trees


LABEL = "label"
"""The column of labels.  It is the last of its table: a label may have spaces, and programs that count
the columns of earlier versions find them where they were."""
LEAST_LABEL = 16
"""Columns of a terminal that a label keeps at least."""


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    """Prints aligned columns.  ``styles``: rich's style of each row, "" for none.

    On a terminal labels are shortened to the room that the other columns leave.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if columns[-1] == LABEL and sys.stdout.isatty():
        widths = column_widths(columns[:-1], [row[:-1] for row in cells])
        between = (3 if is_fancy() else 2) * len(columns)
        room = shutil.get_terminal_size().columns - sum(widths) - between
        cells = [[*row[:-1], shorten(row[-1], max(LEAST_LABEL, room))] for row in cells]
    if is_fancy():
        _rich_table(columns, cells, styles)
        return
    widths = column_widths(columns, cells)
    for row in ([name.upper() for name in columns], *cells):
        padded = (cell + " " * (w - columns_of(cell)) for cell, w in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns_of, column)) for column in zip(columns, *rows, strict=True)]


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes: 2 for each Chinese character, 0 for a combining
    accent."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shorten(text: str, width: int) -> str:
    """The text in ``width`` columns, with an ellipsis in place of its middle: the beginning and the end
    of a label tell more."""
    if columns_of(text) <= width:
        return text
    left = (width - 1) * 2 // 3
    ends = range(len(text) + 1)
    head = bisect.bisect_right(ends, left, key=lambda end: columns_of(text[:end])) - 1
    tail = bisect.bisect_left(ends, left + 1 - width, key=lambda begin: -columns_of(text[begin:]))
    return text[:head] + ELLIPSIS + text[tail:]


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        # An id that was cut is of no use, and a label is short enough already.
        table.add_column(name, no_wrap=name in ("session", LABEL))
    for number, row in enumerate(rows):
        table.add_row(*map(Text, row), style=styles[number] if styles else None)
    Console().print(table)


@dataclasses.dataclass(frozen=True)
class Node:
    """One line of a tree, and the lines below it."""

    text: str
    style: str = ""
    children: tuple[Node, ...] = ()


def print_tree(root: Node) -> None:
    """With guide lines on a terminal; elsewhere indented by two spaces a level."""
    if is_fancy():
        _rich_tree(root)
        return
    for level, node in levels(root):
        print("  " * level + printable(node.text))


def levels(node: Node, level: int = 0) -> Iterator[tuple[int, Node]]:
    """The pairs of depth and node, parents before their children."""
    yield level, node
    for child in node.children:
        yield from levels(child, level + 1)


def _rich_tree(root: Node) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def grow(tree: Tree, node: Node) -> Tree:
        for child in node.children:
            grow(tree.add(Text(printable(child.text), style=child.style)), child)
        return tree

    Console().print(grow(Tree(Text(printable(root.text), style=root.style)), root))


def print_line(text: str, style: str = "") -> None:
    """One line, styled on a terminal."""
    if not is_fancy() or not style:
        print(printable(text))
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(printable(text), style=style))


def definitions(meanings: Mapping[str, str]) -> str:
    """Words with their meanings, a line each, for the end of a help text."""
    width = max(map(len, meanings))
    return "\n".join(f"  {word:{width}}  {meaning}" for word, meaning in meanings.items())


# --------------------------------------------------------------------------------------- units


def megabytes(size: int) -> str:
    """Bytes as ``1.2 MB``."""
    return f"{size / 1e6:.1f} MB"


def duration(seconds: float | None) -> str:
    """Seconds as ``1.2 s``, ``3 min`` or ``4.5 h``; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """``1 process``, ``2 processes``."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"
