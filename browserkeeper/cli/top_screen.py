"""``top`` on a terminal: the frame, the keys, and giving the terminal back in whatever way it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..status.snapshot import snapshot
from ..status.text import printable
from . import output
from .host_text import host_lines
from .session_text import STYLES, pool_line, problem_line, process_tree
from .top_readings import Meter, Reading, Sort, by_sort, cells, headlines

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

KEYS: dict[bytes, Sort] = {b"m": "memory", b"c": "cpu", b"p": "cpu", b"a": "age"}
FRAME_LINES = 5
"""Lines above and below the rows: two of a summary, a table's head and its rule, the keys."""
DISPENSABLE = ("contained", "deadline", "zombies", "owner", "procs", "age", "state", "pool", "label")
"""Columns that a narrow terminal goes without, in this order."""

Frame = Callable[["Console"], "Group"]


class Screen:
    """Draws frames until a key or a signal ends it.  ``interval``: seconds between two readings."""

    def __init__(
        self,
        interval: float,
        sort: Sort,
        meter: Meter,
        *,
        tree: bool,
        labels: Sequence[str] = (),
    ):
        self.interval, self.sort, self.meter, self.tree = interval, sort, meter, tree
        self.labels = labels
        """Patterns of the labels that are shown; all without a pattern."""
        self.ended = self.suspended = False
        self._keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        self._readings: list[Reading] | None = None
        self._notes: list[tuple[str, str]] = []
        """Problems, the host's gate, pools: pairs of text and style."""

    def run(self, pause: float) -> None:
        """Blocks until it is ended; the first reading is taken after ``pause`` seconds."""
        with signals() as signal_fd:
            while not self.ended:
                with keys(), alternate_screen() as draw:
                    self.suspended = False
                    self._draw_frames(signal_fd, draw, pause)
                if self.suspended:
                    os.kill(os.getpid(), signal.SIGSTOP)  # now that the shell has its terminal back
                pause = 0.0

    def _draw_frames(self, signal_fd: int, draw: Callable[[Frame], None], pause: float) -> None:
        """Until it is ended or suspended."""
        due = time.monotonic() + pause
        draw(self.frame)
        while not (self.ended or self.suspended):
            left = due - time.monotonic()
            if left <= 0:
                self._read_sessions()
                due = time.monotonic() + self.interval
            elif not self._handle_input(signal_fd, left):
                continue
            draw(self.frame)

    def _read_sessions(self) -> None:
        found = snapshot().labelled(self.labels)
        self._readings = self.meter.read(found)
        self._notes = [(problem_line(problem), "red") for problem in found.problems]
        self._notes += host_lines(found.host) if found.host is not None else ()
        self._notes += [(pool_line(pool), "") for pool in found.pools]

    def _handle_input(self, signal_fd: int, timeout: float) -> bool:
        """Wait for a key or a signal, and act on it; False if none came within ``timeout`` seconds."""
        ready, _, _ = select.select([signal_fd, *self._keyboard], [], [], timeout)
        for fd in ready:
            received = _read(fd)
            if fd == signal_fd:
                self.ended |= bool({signal.SIGINT, signal.SIGTERM} & set(received))
                self.suspended |= signal.SIGTSTP in received
                continue
            self.ended |= not received  # end of file: the terminal was hung up
            for number in received.lower():
                key = bytes([number])
                self.ended |= key == b"q"
                self.tree ^= key == b"t"
                self.sort = KEYS.get(key, self.sort)
        return bool(ready)

    def frame(self, console: Console) -> Group:
        """Totals, problems and pools, then as many sessions, or lines of their trees, as there is room
        for."""
        from rich.console import Group
        from rich.text import Text

        width, height = console.size
        readings = by_sort(self._readings or (), self.sort)
        head, empty = headlines(readings, filtered=bool(self.labels))
        if self._readings is None:
            head, empty = "browserkeeper", "Looking …"
        notes = self._notes[: max(1, height // 4)]
        room = max(1, height - FRAME_LINES - len(notes))
        trees = tree_lines(readings) if self.tree else []
        hidden = len(trees or readings) - room
        lines = [Text(head, style="bold"), Text(empty or self._hidden(hidden), style="dim")]
        lines += [Text(printable(note), style=style) for note, style in notes]
        keys = Text(f"q quit · t trees · sort by m memory, c cpu, a age (now: {self.sort})", style="dim")
        for line in (*lines, *trees, keys):
            line.truncate(width, overflow="ellipsis")
        table = [table_of(readings[:room], width)] if readings and not trees else []
        return Group(*lines, *table, *trees[:room], keys)

    def _hidden(self, number: int) -> str:
        what = "lines" if self.tree else "sessions"
        return f"{number} more {what} than this terminal has room for" if number > 0 else ""


def _read(fd: int) -> bytes:
    """b"" at the end of file."""
    try:
        return os.read(fd, 64)
    except OSError:  # EIO: the terminal was hung up
        return b""


# ---------------------------------------------------------------------------- tables and trees


def table_of(readings: Sequence[Reading], width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = [cells(reading) for reading in readings]
    columns = fitting(rows, width)
    others = [name for name in columns if name != output.LABEL]
    room = width - needed_width(rows, others) - 2
    for row in rows:
        row[output.LABEL] = output.shorten(row[output.LABEL], max(output.LEAST_LABEL, room))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        right = name in ("memory", "cpu", "age", "deadline", "procs", "zombies")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for reading, row in zip(readings, rows, strict=True):
        style = "red" if reading.status.zombies else STYLES.get(reading.status.state, "")
        table.add_row(*(Text(printable(row[name])) for name in columns), style=style)
    return table


def fitting(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that are not empty, as many as fit into ``width`` characters, with labels at their
    shortest."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in filter(columns.__contains__, DISPENSABLE):
        if needed_width(rows, columns) <= width:
            break
        columns.remove(name)
    return columns


def needed_width(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> int:
    """Characters that a table of these columns takes, with labels at their shortest."""
    most = {output.LABEL: output.LEAST_LABEL}
    widest = (
        max(output.columns_of(printable(text)) for text in (name, *(row[name] for row in rows)))
        for name in columns
    )
    return sum(
        2 + min(width, most.get(name, width)) for name, width in zip(columns, widest, strict=True)
    )


def tree_lines(readings: Sequence[Reading]) -> list[Text]:
    """Each session's line, and a line for each of its processes below it."""
    from rich.text import Text

    lines = []
    for reading in readings:
        facts = cells(reading)
        names = ("browser", "session", "state", "pool", "memory", "cpu", "age", output.LABEL)
        head = "  ".join(facts[name] for name in names if facts[name])
        root = dataclasses.replace(process_tree(reading.status), text=head)
        lines += [
            Text("  " * level + printable(node.text), style=node.style)
            for level, node in output.levels(root)
        ]
    return lines


# ------------------------------------------------------------------------------------ the terminal


@contextlib.contextmanager
def alternate_screen() -> Iterator[Callable[[Frame], None]]:
    """Yields a function that draws a frame; the former content of the screen comes back at the end."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda frame: live.update(frame(console), refresh=True)


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """Keys are read one by one and not echoed; Ctrl-C and Ctrl-Z still send signals."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal was hung up
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """Yields a descriptor from which the numbers of signals that have arrived are read, as bytes."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH, signal.SIGCONT)
    before = {number: signal.signal(number, lambda *_: None) for number in handled}
    old = signal.set_wakeup_fd(write_fd)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)
