"""``browserkeeper top``: the live sessions, again and again, on a terminal of its own making."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

import click

from ..cleanup.evidence import platform_of
from ..process.identity import ProcessIdentity
from ..status.snapshot import Row, Snapshot, snapshot
from . import output
from .parameters import seconds
from .words import STYLES, WHAT_TO_DO, pool_line, tree_of

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

Sort = Literal["memory", "cpu", "age"]
SORTS: dict[Sort, Callable[[Reading], float]] = {
    "memory": lambda reading: reading.memory,
    "cpu": lambda reading: reading.processor,
    "age": lambda reading: reading.row.age,
}
KEYS: dict[bytes, Sort] = {b"m": "memory", b"c": "cpu", b"p": "cpu", b"a": "age"}
WARM_UP = 0.5
"""Seconds before the first frame, over which processor use is measured."""
FRAME_LINES = 5
"""Above and below the rows: two of a summary, a table's head and its rule, the keys."""
DISPENSABLE = ("contained", "deadline", "zombies", "owner", "procs", "age", "state", "pool")
"""Columns that a narrow terminal goes without, in this order."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A session in one frame; ``processor`` is a share of one processor since the last frame;
    ``pooled`` is what its pool does with it, "" where it has none."""

    row: Row
    processor: float
    pooled: str = ""

    @property
    def memory(self) -> int:
        return sum(self.row.memory.values())


class Meter:
    """Processor use between two looks: what each process has run since the last one."""

    def __init__(self) -> None:
        self._when = time.monotonic()
        self._before: dict[ProcessIdentity, float] = {}

    def read(self, found: Snapshot) -> list[Reading]:
        """A process that was not there at the last look has run all of its time since then."""
        now, spent, readings = time.monotonic(), dict[ProcessIdentity, float](), []
        pooled = {id: doing for pool in found.pools for id, doing in pool.sessions.items()}
        for row in found.rows:
            platform = platform_of(row.record.session)
            here = {p.identity: platform.processor_time(p.pid) for p in row.processes}
            ran = sum(max(0.0, t - self._before.get(who, 0.0)) for who, t in here.items())
            doing = pooled.get(row.record.session.id, "")
            readings.append(Reading(row, ran / max(0.01, now - self._when), doing))
            spent |= here
        self._when, self._before = now, spent
        return readings


@click.command()
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
@output.json_option
def command(interval: float, sort: str, tree: bool, once: bool, as_json: bool) -> int:
    """Watch the live sessions and pools: memory, processor, ages, zombies.

    Memory is the proportional share (PSS). CPU is in per cent of one processor, of all processes of
    the session, over the last interval. Ends at q, Ctrl-C and SIGTERM. Where standard output is no
    terminal, and with --json, there is one frame, as with --once.

    Exit status: 0.

    \b
    Example:
      browserkeeper top --sort cpu --interval 5
    """
    meter, by = Meter(), cast(Sort, sort)
    meter.read(snapshot())
    if once or as_json or not can_be_live():
        time.sleep(WARM_UP)
        print_once(snapshot(), meter, by, tree=tree, as_json=as_json)
        return 0
    Live(interval, by, meter, tree=tree).run()
    return 0


def can_be_live() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def arranged(readings: Iterable[Reading], sort: Sort) -> list[Reading]:
    return sorted(readings, key=SORTS[sort], reverse=True)


# ------------------------------------------------------------------------------------- one frame


def print_once(found: Snapshot, meter: Meter, sort: Sort, *, tree: bool, as_json: bool) -> None:
    readings = arranged(meter.read(found), sort)
    if as_json:
        sessions = [{**r.row.to_dict(), "processor": r.processor, "pooled": r.pooled} for r in readings]
        output.print_json({**found.to_dict(), "sessions": sessions})
        return
    for line in headlines(readings):
        output.print_line(line)
    if readings:
        styles = [STYLES.get(reading.row.state, "") for reading in readings]
        table = [cells(reading) for reading in readings]
        output.print_table(list(table[0]), [list(row.values()) for row in table], styles)
    for reading in readings if tree else ():
        output.print_tree(tree_of(reading.row))
    for pool in found.pools:
        output.print_line(pool_line(pool))
    for kind, what in found.problems:
        output.print_line(f"{kind}: {what}; {WHAT_TO_DO[kind]}.", "red")


def headlines(readings: Sequence[Reading]) -> tuple[str, str]:
    processes = sum(len(reading.row.processes) for reading in readings)
    zombies = sum(len(reading.row.zombies) for reading in readings)
    totals = [
        output.count(len(readings), "session"),
        output.count(processes, "process"),
        output.megabytes(sum(reading.memory for reading in readings)),
        f"{sum(reading.processor for reading in readings):.0%} CPU",
        output.count(zombies, "zombie"),
    ]
    clock = time.strftime("%H:%M:%S")
    return f"browserkeeper {clock}: {', '.join(totals)}", "" if readings else "No live sessions."


def cells(reading: Reading) -> dict[str, str]:
    row, session = reading.row, reading.row.record.session
    return {
        "session": session.id,
        "browser": session.browser,
        "state": row.state,
        "pool": reading.pooled,
        "memory": output.megabytes(reading.memory),
        "cpu": f"{reading.processor:.0%}",
        "age": output.duration(row.age),
        "deadline": output.duration(row.deadline_left),
        "procs": str(len(row.processes)),
        "zombies": str(len(row.zombies) or ""),
        "owner": f"{session.owner_name} ({session.owner.pid})",
        "contained": session.containment,
    }


# ---------------------------------------------------------------------------------------- live


class Live:
    """Frames until it is told to end; the terminal is then as it was."""

    def __init__(self, interval: float, sort: Sort, meter: Meter, *, tree: bool):
        self.interval, self.sort, self.meter, self.tree = interval, sort, meter, tree
        self.over = self.suspended = False
        self._keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        self._readings: list[Reading] | None = None
        self._notes: list[tuple[str, str]] = []

    def run(self) -> None:
        with signals() as heard:
            pause = WARM_UP
            while not self.over:
                with keys(), screen() as draw:
                    self.suspended = False
                    self._frames(heard, draw, pause)
                if self.suspended:
                    os.kill(os.getpid(), signal.SIGSTOP)  # our own terminal is the shell's again
                pause = 0.0

    def _frames(self, heard: int, draw: Callable[[Frame], None], pause: float) -> None:
        due = time.monotonic() + pause
        draw(self.frame)
        while not (self.over or self.suspended):
            left = due - time.monotonic()
            if left <= 0:
                self._look()
                due = time.monotonic() + self.interval
            elif not self._hear(heard, left):
                continue
            draw(self.frame)

    def _look(self) -> None:
        found = snapshot()
        self._readings = self.meter.read(found)
        self._notes = [(f"{kind}: {what}; {WHAT_TO_DO[kind]}.", "red") for kind, what in found.problems]
        self._notes += [(pool_line(pool), "") for pool in found.pools]

    def _hear(self, heard: int, patience: float) -> bool:
        """Wait for a key or a signal; is there something to draw?"""
        ready, _, _ = select.select([heard, *self._keyboard], [], [], patience)
        for source in ready:
            words = _read(source)
            if source == heard:
                self.over |= bool({signal.SIGINT, signal.SIGTERM} & set(words))
                self.suspended |= signal.SIGTSTP in words
            else:
                self._press(words)
        return bool(ready)

    def _press(self, words: bytes) -> None:
        self.over |= not words  # the terminal was hung up
        for number in words.lower():
            key = bytes([number])
            self.over |= key == b"q"
            self.tree ^= key == b"t"
            self.sort = KEYS.get(key, self.sort)

    def frame(self, console: Console) -> Group:
        """As many sessions, or lines of their trees, as there is room for; what is wrong; the pools."""
        from rich.console import Group
        from rich.text import Text

        width, height = console.size
        readings = arranged(self._readings or (), self.sort)
        head, empty = headlines(readings)
        if self._readings is None:
            head, empty = "browserkeeper", "Looking …"
        notes = self._notes[: max(1, height // 4)]
        room = max(1, height - FRAME_LINES - len(notes))
        trees = trees_of(readings) if self.tree else []
        hidden = len(trees or readings) - room
        lines = [Text(head, style="bold"), Text(empty or self._hidden(hidden), style="dim")]
        lines += [Text(output.printable(note), style=style) for note, style in notes]
        keys = Text(f"q quit · t trees · sort by m memory, c cpu, a age (now: {self.sort})", style="dim")
        for line in (*lines, *trees, keys):
            line.truncate(width, overflow="ellipsis")
        table = [table_of(readings[:room], width)] if readings and not trees else []
        return Group(*lines, *table, *trees[:room], keys)

    def _hidden(self, number: int) -> str:
        what = "lines" if self.tree else "sessions"
        return f"{number} more {what} than this terminal has room for" if number > 0 else ""


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 64)
    except OSError:  # EIO: a terminal that is no more
        return b""


Frame = Callable[["Console"], "Group"]


def table_of(readings: Sequence[Reading], width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = [cells(reading) for reading in readings]
    columns = fitting(rows, width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        right = name in ("memory", "cpu", "age", "deadline", "procs", "zombies")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for reading, row in zip(readings, rows, strict=True):
        style = "red" if reading.row.zombies else STYLES.get(reading.row.state, "")
        table.add_row(*(Text(output.printable(row[name])) for name in columns), style=style)
    return table


def trees_of(readings: Sequence[Reading]) -> list[Text]:
    """Each session's line, and a line for each of its processes below that."""
    from rich.text import Text

    lines = []
    for reading in readings:
        facts = cells(reading)
        names = ("browser", "session", "state", "pool", "memory", "cpu", "age")
        head = "  ".join(facts[name] for name in names if facts[name])
        root = dataclasses.replace(tree_of(reading.row), text=head)
        lines += [
            Text("  " * level + output.printable(node.text), style=node.style)
            for level, node in output.levels(root)
        ]
    return lines


def fitting(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that say something, as many as a terminal of this width has room for."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]

    def needed() -> int:
        return sum(2 + max(len(name), *(len(row[name]) for row in rows)) for name in columns)

    for name in filter(columns.__contains__, DISPENSABLE):
        if needed() <= width:
            break
        columns.remove(name)
    return columns


# ------------------------------------------------------------------------------------ the terminal


@contextlib.contextmanager
def screen() -> Iterator[Callable[[Frame], None]]:
    """The alternate screen; what was there before is back in the end, whatever happens."""
    from rich.console import Console
    from rich.live import Live as RichLive

    console = Console()
    with RichLive(console=console, screen=True, auto_refresh=False) as live:
        yield lambda frame: live.update(frame(console), refresh=True)


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """Keys come one by one and are not echoed; ^C and ^Z stay signals."""
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
        with contextlib.suppress(termios.error):  # it was hung up
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """A descriptor on which the numbers of these signals arrive, as bytes."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH, signal.SIGCONT)
    before = {number: signal.signal(number, lambda *_: None) for number in heard}
    old = signal.set_wakeup_fd(write_fd)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)
