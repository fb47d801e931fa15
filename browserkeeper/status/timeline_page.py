"""A timeline as one HTML page: no script, nothing from the network, readable from file://.

Other programs choose the names of processes and owners, the reasons and the labels, so every text
passes ``escape``, and the policy in the page's head allows one style sheet, by its hash, and nothing
else.  Command lines are not shown: they hold addresses, and addresses hold passwords.
"""

from __future__ import annotations

import base64
import hashlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._version import __version__
from .timeline import ALIVE, Percentiles, ProcessSpan, SessionSpan, Timeline
from .timeline_axis import Window, Zone, axis, bar, chart, escape, track

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
        *("browser-died", "connection-lost"),
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
    style = STYLE.read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    window = Window(timeline, zone)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>Browser sessions, {window.heading}</title><style>{style}</style></head><body>",
            *_head(timeline, window),
            *_tiles(timeline),
            *_summary(timeline, window),
            *_sessions(timeline, window),
            _foot(timeline, window),
            "</body></html>\n",
        ]
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


def chip(label: str, css_class: str) -> str:
    return f'<span class="chip {css_class}">{escape(label)}</span>'


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


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ------------------------------------------------------------------------------------ the summary


def _head(timeline: Timeline, window: Window) -> Iterator[str]:
    yield f"<header><h1>Browser sessions</h1><p>{escape(window.heading)}</p>"
    if timeline.truncated:
        yield '<p class="warn">The history keeps 500 sessions: earlier ones of this time are gone.</p>'
    if timeline.unreadable:
        text = count(timeline.unreadable, "record")
        yield f'<p class="warn">Invalid: {text}; see `browserkeeper ps`.</p>'
    yield "</header>"


def _tiles(timeline: Timeline) -> Iterator[str]:
    unclean = len(timeline.unclean)
    peak = max((size for _, size in timeline.memory_over_time()), default=None)
    yield '<div class="tiles">'
    yield _tile(f"{len(timeline.sessions):,}", f"sessions, {len(timeline.live)} of them alive")
    text = '<b class="warn">' if unclean else "<b>"
    what = "left something behind" if unclean else "left anything behind"
    yield f'<div class="tile">{text}{unclean or "none"}</b><span>{what}</span></div>'
    yield _tile(*_percentiles(timeline.start, "start, median"))
    yield _tile(*_percentiles(timeline.teardown, "teardown, median"))
    yield _tile("–" if peak is None else megabytes(peak), "own memory at its highest, all sessions")
    yield _tile(megabytes(timeline.bytes_freed), "freed on disk")
    yield "</div>"


def _tile(value: str, text: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{text}</span></div>'


def _percentiles(found: Percentiles | None, what: str) -> tuple[str, str]:
    if found is None:
        return "–", what
    return seconds(found.p50), f"{what}; p90 {seconds(found.p90)}, at most {seconds(found.longest)}"


def _summary(timeline: Timeline, window: Window) -> Iterator[str]:
    yield '<div class="two"><section><h2>How they ended</h2>'
    yield from _outcomes(timeline)
    yield "</section><section><h2>Over time</h2>"
    sizes = timeline.memory_over_time()
    peak = max((size for _, size in sizes), default=0)
    yield chart("Own memory of all sessions", f"at most {megabytes(peak)}", sizes, window)
    alive = timeline.alive_over_time()
    most = max((level for _, level in alive), default=0)
    yield chart("Sessions alive", f"at most {most}", alive, window)
    yield axis(window) + "</section></div>"


def _outcomes(timeline: Timeline) -> Iterator[str]:
    if not timeline.outcomes:
        yield '<p class="dim">No session ended in this time.</p>'
        return
    yield '<table class="outcomes"><thead><tr><th>reason<th><th class="n">sessions'
    yield '<th class="n">not clean<th class="n">longest</tr></thead><tbody>'
    most = max(len(spans) for _, spans in timeline.outcomes)
    for reason, spans in timeline.outcomes:
        classes = [name for span in spans if (name := class_of(span)) != "ordinary"]
        css_class = classes[0] if classes else "ordinary"
        unclean = sum(span.clean is False for span in spans)
        longest = max(span.lasted(timeline.until) for span in spans)
        bad = f'<b class="warn">{unclean}</b>' if unclean else "0"
        yield f"<tr><td>{chip(reason, css_class)}<td>{track(bar(0, len(spans) / most), css_class)}"
        yield f'<td class="n">{len(spans)}<td class="n">{bad}<td class="n">{seconds(longest)}</tr>'
    yield "</tbody></table>"


# ---------------------------------------------------------------------------------------- sessions


def _sessions(timeline: Timeline, window: Window) -> Iterator[str]:
    yield '<section class="sessions"><h2>Sessions, newest first</h2>'
    if not timeline.sessions:
        yield '<p class="dim">There was no session in this time.</p></section>'
        return
    yield "<fieldset><legend>Show</legend>"
    for name, text in (
        ("all", "all"),
        ("unusual", "only unusual ends"),
        ("unclean", "only what is not clean"),
        ("living", "only what is alive"),
    ):
        checked = " checked" if name == "all" else ""
        yield f'<label><input type="radio" name="show" id="{name}"{checked}>{text}</label>'
    yield f'</fieldset><div class="axisrow">{axis(window)}</div>'
    limit = max(4, MOST_PROCESSES // len(timeline.sessions))
    for span in timeline.sessions:
        yield session_html(span, window, limit)
    yield "</section>"


def session_html(span: SessionSpan, window: Window, limit: int) -> str:
    """One line, which unfolds to the details; ``limit``: how many of its processes are listed."""
    css_class = class_of(span)
    end = window.until if span.ended is None else span.ended
    unclean = " unclean" if span.clean is False else ""
    end_chips = chip(span.ending, css_class)
    if unclean:
        end_chips += ' <span class="chip bad">NOT CLEAN</span>'
    return (
        f'<details class="{css_class}{unclean}"><summary>'
        f'<span class="mono">{window.clock(span.began)}</span>'
        f"<span>{escape(span.browser)}</span>"
        f'<span class="mono dim id">{escape(span.id)}</span>'
        f'<span class="how">{end_chips}</span>'
        f'<span class="n">{seconds(span.lasted(window.until))}</span>'
        f"{track(bar(window.share(span.began), window.share(end)), css_class)}"
        f"{_label(span)}"
        f'</summary><div class="inside">{"".join(_details(span, window, limit))}</div></details>'
    )


def _label(span: SessionSpan) -> str:
    """A line of its own below the others: labels have up to 200 characters.  ``bdi``: the letters of one
    that runs from right to left must not move what is beside it."""
    return f'<span class="name"><bdi>{escape(span.label)}</bdi></span>' if span.label else ""


def _details(span: SessionSpan, window: Window, limit: int) -> Iterator[str]:
    facts = {
        "session": f'<span class="mono">{escape(span.id)}</span>',
        **({"label": f"<bdi>{escape(span.label)}</bdi>"} if span.label else {}),
        "began": window.clock(span.began, "%Y-%m-%d %H:%M:%S"),
        "ended by" if span.ended else "state": escape(span.ending),
        "owner": f"{escape(span.owner)} (pid {span.owner_pid})",
        "containment": escape(span.containment or "–"),
        "proof": escape(span.certificate or ("none" if span.ended else "it lives")),
        "start": seconds(span.start_seconds),
        "teardown": seconds(span.teardown_seconds),
        "own memory, at most": "–" if span.peak is None else megabytes(span.peak),
        "freed": f"{count(span.files_removed, 'file')}, {megabytes(span.bytes_freed)}",
    }
    yield "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()) + "</dl>"
    yield from _lines("survives: ", span.survivors, "warn")
    yield from _lines("problem: ", span.problems, "warn")
    yield from _lines("", span.notes, "dim")
    yield from _process_table(span, window, limit)


def _lines(prefix: str, found: Sequence[str], css_class: str) -> Iterator[str]:
    if found:
        shown = [f"<li>{prefix}{escape(line[:MOST_CHARACTERS])}</li>" for line in found[:MOST_NOTES]]
        yield f'<ul class="{css_class}">{"".join(shown)}</ul>'


def _process_table(span: SessionSpan, window: Window, limit: int) -> Iterator[str]:
    if not span.processes:
        yield '<p class="dim">No process of it is known.</p>'
        return
    yield '<table class="processes"><thead><tr><th>pid<th>process<th>lifetime<th class="n">lasted'
    yield "<th>how it ended</tr></thead><tbody>"
    shown = most_relevant(span.processes, limit)
    end = window.until if span.ended is None else span.ended
    for one in shown:
        yield process_row(one, span.began, end)
    yield "</tbody></table>"
    if hidden := len(span.processes) - len(shown):
        command = f"browserkeeper history --session {escape(span.id)}"
        yield f'<p class="dim">{hidden} more: <span class="mono">{command}</span></p>'


def most_relevant(processes: Sequence[ProcessSpan], limit: int) -> list[ProcessSpan]:
    """Up to ``limit`` processes, in the order of their starts.  Survivors are chosen first, then adopted
    processes, then the first of the others."""
    by_relevance = sorted(processes, key=lambda one: (one.outcome != "survived", not one.adopted))
    return sorted(by_relevance[:limit], key=lambda one: (one.began, one.pid))


def process_row(one: ProcessSpan, begin: float, end: float) -> str:
    """A table row; the bar's track is the lifetime of the session, from ``begin`` to ``end``."""
    length = max(end - begin, 0.001)
    until = end if one.ended is None else one.ended

    def share(when: float) -> float:
        return min(1.0, max(0.0, (when - begin) / length))

    css_class = CLASS_OF_OUTCOME.get(one.outcome, "other")
    lasted = seconds(max(0.0, until - one.began))
    return (
        f'<tr class="{css_class}"><td>{one.pid}<td>{escape(one.name)}'
        f"<td><svg>{bar(share(one.began), share(until))}</svg>"
        f"<td>{lasted}<td>{escape(end_of(one))}</tr>"
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


def _foot(timeline: Timeline, window: Window) -> str:
    when = window.clock(timeline.until, "%Y-%m-%d %H:%M:%S %Z")
    return (
        f"<footer>browserkeeper {escape(__version__)}, {when}. "
        "Adopted: its parent had ended, so that a search for child processes would have missed it. "
        "Memory: resident private pages without those of files, measured every five seconds or more."
        "</footer>"
    )


__all__ = ["render"]
