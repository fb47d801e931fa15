"""A timeline as one HTML page: no script, nothing from the network, readable from file://.

The template (timeline.html) has the words and the elements; this module the figures.  Command lines are
not shown: they hold addresses, and addresses hold passwords.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..report import meaning_of
from ..status.timeline import ALIVE, Percentiles, ProcessSpan, SessionSpan, Timeline
from .page import render_page
from .timeline_axis import Window, Zone, area

TEMPLATE = Path(__file__).with_name("timeline.html")
STYLE = Path(__file__).with_name("timeline.css")
MOST_PROCESSES = 7000
"""Rows of processes in the whole page, which keeps it below 2 MB."""
MOST_CHARACTERS = 400
"""Of one problem or note."""
MOST_NOTES = 10
"""Problems, notes or survivors of one session that are shown."""
REASONS_OF_CLASS = {
    "ordinary": ("closed", "exited", "retired", "operator"),
    "error": ("error",),
    "deadline": ("timeout", "command-timeout", "lease-expired", "hung"),
    "died": (
        *("owner-died", "abandoned", "terminated", "guard-died", "swept"),
        *("browser-died", "connection-lost", "display-died"),
    ),
    "failed": ("failed",),
}
"""CSS classes, which are colours, by end reason; the reason itself is always written beside its
colour."""
CLASS_OF_REASON = {reason: name for name, reasons in REASONS_OF_CLASS.items() for reason in reasons}
CLASS_OF_OUTCOME = {
    "exited": "ordinary",
    "gone": "ordinary",
    "signalled": "error",
    "survived": "failed",
    "zombie": "failed",
    ALIVE: "live",
}


def render(timeline: Timeline, zone: Zone = None) -> str:
    """The text of the page.  ``zone``: that of the times in it; None is this machine's."""
    window = Window(timeline, zone)
    units: dict[str, Any] = {"megabytes": megabytes, "percent": percent, "seconds": seconds}
    return render_page(
        TEMPLATE,
        STYLE,
        title=f"Browser sessions, {window.heading}",
        version=__version__,
        timeline=timeline,
        window=window,
        tiles=list(tiles(timeline)),
        outcomes=list(outcomes(timeline)),
        sessions=sessions(timeline, window),
        most_notes=MOST_NOTES,
        most_characters=MOST_CHARACTERS,
        **charts(timeline, window),
        count=count,
        **units,
    )


# --------------------------------------------------------------------------------- texts and classes


def class_of(span: SessionSpan) -> str:
    """The CSS class of a session."""
    if span.state != "ended":
        return "live" if span.state in ("live", "ending") else "died"
    if span.reason == "exited" and span.kind == "session":
        # "exited" is the ordinary end of the program of `browserkeeper run`; of a browser's session it
        # says that the driver died.
        return "died"
    return CLASS_OF_REASON.get(span.reason, "other")


def megabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def seconds(value: float | None) -> str:
    """Seconds with the unit that suits their size."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def percent(share: float) -> str:
    """A length of SVG, 0 at least."""
    return f"{max(0.0, share):.2%}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ------------------------------------------------------------------------------------ the summary


@dataclasses.dataclass(frozen=True)
class Tile:
    value: str
    text: str
    bad: bool = False


def tiles(timeline: Timeline) -> Iterator[Tile]:
    unclean = len(timeline.unclean)
    peak = max((size for _, size in timeline.memory_over_time()), default=None)
    yield Tile(f"{len(timeline.sessions):,}", f"sessions, {len(timeline.live)} of them alive")
    what = "left something behind" if unclean else "left anything behind"
    yield Tile(str(unclean or "none"), what, bad=bool(unclean))
    yield _percentiles(timeline.start, "start, median")
    yield _percentiles(timeline.teardown, "teardown, median")
    yield Tile("–" if peak is None else megabytes(peak), "own memory at its highest, all sessions")
    yield Tile(megabytes(timeline.bytes_freed), "freed on disk")


def _percentiles(found: Percentiles | None, what: str) -> Tile:
    if found is None:
        return Tile("–", what)
    more = f"{what}; p90 {seconds(found.p90)}, at most {seconds(found.longest)}"
    return Tile(seconds(found.p50), more)


def charts(timeline: Timeline, window: Window) -> dict[str, Any]:
    sizes, alive = timeline.memory_over_time(), timeline.alive_over_time()
    return {
        "peak_memory": max((size for _, size in sizes), default=0),
        "memory_area": area(sizes, window),
        "most_alive": max((level for _, level in alive), default=0),
        "alive_area": area(alive, window),
    }


@dataclasses.dataclass(frozen=True)
class OutcomeRow:
    """The sessions that ended for one reason; ``share``: of the most frequent one, up to 1."""

    reason: str
    css_class: str
    share: float
    number: int
    unclean: int
    longest: float
    meaning: str


def outcomes(timeline: Timeline) -> Iterator[OutcomeRow]:
    most = max((len(spans) for _, spans in timeline.outcomes), default=0)
    for reason, spans in timeline.outcomes:
        unusual = [name for span in spans if (name := class_of(span)) != "ordinary"]
        yield OutcomeRow(
            reason,
            unusual[0] if unusual else "ordinary",
            len(spans) / most,
            len(spans),
            sum(span.clean is False for span in spans),
            max(span.lasted(timeline.until) for span in spans),
            meaning_of(reason),
        )


# ---------------------------------------------------------------------------------------- sessions


@dataclasses.dataclass(frozen=True)
class ProcessRow:
    """``begin`` and ``length``: in per cent of the session's lifetime.  All is text already: there may
    be 7000 rows, and a call in a template costs more than one here."""

    pid: int
    name: str
    css_class: str
    begin: str
    length: str
    lasted: str
    ending: str


@dataclasses.dataclass(frozen=True)
class SessionRow:
    """``begin`` and ``end``: positions on the page's axis.  ``facts``: pairs of a name and a text.
    ``hidden``: how many of its processes have no row."""

    span: SessionSpan
    css_class: str
    unclean: bool
    begin: float
    end: float
    lasted: float
    facts: list[tuple[str, str]]
    processes: list[ProcessRow]
    hidden: int


def sessions(timeline: Timeline, window: Window) -> Iterator[SessionRow]:
    limit = max(4, MOST_PROCESSES // max(1, len(timeline.sessions)))
    return (session_row(span, window, limit) for span in timeline.sessions)


def session_row(span: SessionSpan, window: Window, limit: int) -> SessionRow:
    """``limit``: how many of its processes are listed."""
    end = window.until if span.ended is None else span.ended
    shown = most_relevant(span.processes, limit)
    return SessionRow(
        span,
        class_of(span),
        span.clean is False,
        window.share(span.began),
        window.share(end),
        span.lasted(window.until),
        list(session_facts(span, window)),
        [process_row(one, span.began, end) for one in shown],
        len(span.processes) - len(shown),
    )


def session_facts(span: SessionSpan, window: Window) -> Iterator[tuple[str, str]]:
    yield "began", window.clock(span.began, "%Y-%m-%d %H:%M:%S")
    yield "ended by" if span.ended else "state", span.ending
    yield "owner", f"{span.owner} (pid {span.owner_pid})"
    yield "containment", span.containment or "–"
    yield "proof", span.certificate or ("none" if span.ended else "it lives")
    yield "start", seconds(span.start_seconds)
    yield "teardown", seconds(span.teardown_seconds)
    yield "own memory, at most", "–" if span.peak is None else megabytes(span.peak)
    yield "freed", f"{count(span.files_removed, 'file')}, {megabytes(span.bytes_freed)}"


def most_relevant(processes: Sequence[ProcessSpan], limit: int) -> list[ProcessSpan]:
    """Up to ``limit`` processes, in the order of their starts.  Survivors are chosen first, then adopted
    processes, then the first of the others."""
    by_relevance = sorted(processes, key=lambda one: (one.outcome != "survived", not one.adopted))
    return sorted(by_relevance[:limit], key=lambda one: (one.began, one.pid))


def process_row(one: ProcessSpan, begin: float, end: float) -> ProcessRow:
    """``begin`` and ``end``: those of its session, in epoch seconds."""
    length = max(end - begin, 0.001)
    until = end if one.ended is None else one.ended

    def share(when: float) -> float:
        return min(1.0, max(0.0, (when - begin) / length))

    return ProcessRow(
        one.pid,
        one.name,
        CLASS_OF_OUTCOME.get(one.outcome, "other"),
        percent(share(one.began)),
        percent(share(until) - share(one.began)),
        seconds(max(0.0, until - one.began)),
        end_of(one),
    )


def end_of(one: ProcessSpan) -> str:
    """How a process ended, as text."""
    text = {
        "exited": "by itself" + (f", status {one.code}" if one.code else ""),
        "signalled": f"by {signal_name(one.signal)}, not ours",
        "killed": "killed by browserkeeper",
        "gone": "ended, reaped by its parent",
        "survived": "SURVIVED",
        "zombie": "a zombie",
        ALIVE: "lives",
    }.get(one.outcome, one.outcome)
    return f"{text}; adopted" if one.adopted else text


def signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


__all__ = ["render"]
