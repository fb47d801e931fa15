"""``browserkeeper report``: the timeline of the last hours, as text or as an HTML page."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from pathlib import Path

import click

from ..errors import ConfigError
from ..html.page import require_jinja2
from ..report import REASONS, meaning_of
from ..status.timeline import Percentiles, SessionSpan, Timeline, timeline
from . import output
from .completion import files
from .environment import Command
from .parameters import duration
from .statuses import ExitStatus

SHOWN = 5
"""How many of the longest sessions are shown, and how many of those that are not clean."""
STDOUT = "-"
DAY = 86400


@click.command("report", cls=Command, epilog=f"\b\nEnd reasons:\n{output.definitions(REASONS)}")
@click.option(
    "--since",
    default="6h",
    show_default=True,
    callback=duration,
    metavar="DURATION",
    help="How far back: seconds, or 30m, 6h, 2d.",
)
@click.option(
    "--html",
    "page",
    metavar="FILE",
    shell_complete=files,
    help='Write one self-contained page; "-" for stdout. Needs pip install "browserkeeper[html]".',
)
@output.json_option
def command(since: float, page: str | None, as_json: bool) -> int:
    """Show the last hours: sessions, how each ended, memory; as a page with --html.

    Of this host and this state directory; the history reaches back 500 sessions. Times are this
    machine's. The page needs no network and no script; it holds no command lines and no addresses.

    Exit status: 0; 2 FILE cannot be written, or Jinja2 is missing; 3 the history cannot be read.

    \b
    Example:
      browserkeeper report --since 24h --html sessions.html
    """
    if page is not None:
        require_jinja2("--html")
    if page == STDOUT and as_json:
        raise ConfigError("--json and --html - both write to standard output; name a file for --html.")
    if page is not None and page != STDOUT:
        check_path(page)
    found = timeline(since)
    if page is not None:
        from ..html.timeline_page import render

        write(page, render(found), quiet=as_json)
    if as_json:
        output.print_json(found.to_dict())
    elif page is None:
        show(found)
    return ExitStatus.OK


# -- the page


def check_path(page: str) -> None:
    """Raises ConfigError if the page cannot be written there, before the ledger is read."""
    path = Path(page)
    if not page:
        raise ConfigError("--html is empty; name a file, or use - for standard output.")
    if path.is_dir():
        raise ConfigError(f"--html {page!r} is a directory; name a file.")
    if path.exists() and not path.is_file():
        raise ConfigError(f"--html {page!r} is not a regular file; for standard output use --html -.")
    if not path.resolve().parent.is_dir():
        raise ConfigError(
            f"--html {page!r}: there is no directory {path.resolve().parent}; create it first."
        )


def write(page: str, text: str, *, quiet: bool) -> None:
    """Replaces the file at once: a reader finds the old page or the new one.  Raises ConfigError if
    it cannot be written."""
    data = text.encode("utf-8", "replace")
    if page == STDOUT:
        sys.stdout.buffer.write(data)
        return
    target = Path(page).resolve()  # the target of a link is replaced, not the link
    draft = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(data)
        os.replace(draft, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise ConfigError(
            f"--html {page!r} cannot be written: {error.strerror}. Name another file."
        ) from error
    if not quiet:
        output.print_line(f"{page}: {len(data) / 1e3:,.0f} kB")


# -- the terminal


def show(found: Timeline) -> None:
    span = f"{_clock(found.since)} to {_clock(found.until)}"
    alive, unclean = len(found.live), len(found.unclean)
    counts = f"{output.count(len(found.sessions), 'session')}, {alive} alive, {unclean} not clean"
    output.print_line(f"{span}: {counts}", "bold")
    if found.truncated:
        output.print_line(
            "The history keeps 500 sessions: earlier ones of this time are gone.", "yellow"
        )
    if found.unreadable:
        records = output.count(found.unreadable, "record")
        output.print_line(f"Invalid: {records}; see `browserkeeper ps`.", "red")
    if not found.sessions:
        return
    show_outcomes(found)
    show_seconds(found)
    peak = max((size for _, size in found.memory_over_time()), default=None)
    memory = "" if peak is None else f"; own memory, all sessions, at most: {output.megabytes(peak)}"
    output.print_line("")
    output.print_line(f"freed on disk: {output.megabytes(found.bytes_freed)}{memory}")
    show_sessions("longest", found.longest[:SHOWN], found.until)
    show_sessions("not clean", found.unclean[:SHOWN], found.until)
    if unclean > SHOWN:
        output.print_line(f"… and {unclean - SHOWN} more, see --json.")


def show_outcomes(found: Timeline) -> None:
    rows, styles = [], []
    for reason, spans in found.outcomes:
        bad = sum(span.clean is False for span in spans)
        longest = max(span.lasted(found.until) for span in spans)
        known = [str(len(spans)), str(bad), output.duration(longest)]
        rows.append([reason, *known, meaning_of(reason)])
        styles.append("red" if bad else "")
    if rows:
        output.print_line("")
        output.print_table(["ended by", "sessions", "not clean", "longest", "meaning"], rows, styles)


def show_seconds(found: Timeline) -> None:
    phases = {"start": found.start, "teardown": found.teardown}
    rows = [percentile_cells(name, values) for name, values in phases.items() if values]
    if rows:
        output.print_line("")
        output.print_table(["seconds", "sessions", "p50", "p90", "p99", "max"], rows)


def percentile_cells(name: str, found: Percentiles) -> list[str]:
    values = (found.p50, found.p90, found.p99, found.longest)
    return [name, str(found.number), *(f"{value:.3f}" for value in values)]


def show_sessions(title: str, spans: tuple[SessionSpan, ...], now: float) -> None:
    """A table of sessions; below it the survivors and problems of each."""
    if not spans:
        return
    columns = [title, "began", "browser", "owner", "ended by", "lasted", "procs", "memory"]
    rows = [session_cells(span, now) for span in spans]
    if any(span.label for span in spans):
        columns.append(output.LABEL)
        rows = [[*row, span.label] for row, span in zip(rows, spans, strict=True)]
    styles = ["red" if span.clean is False else "" for span in spans]
    output.print_line("")
    output.print_table(columns, rows, styles)
    for span in spans:
        for left in (*span.survivors, *span.problems):
            output.print_line(f"{span.id}: {left}", "red")


def session_cells(span: SessionSpan, now: float) -> list[str]:
    return [
        span.id,
        _clock(span.began, "%H:%M:%S" if now - span.began < DAY else "%m-%d %H:%M"),
        span.browser,
        f"{span.owner} ({span.owner_pid})",
        span.ending,
        output.duration(span.lasted(now)),
        str(len(span.processes)),
        "-" if span.peak is None else output.megabytes(span.peak),
    ]


def _clock(when: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).astimezone()
    return moment.strftime(form)
