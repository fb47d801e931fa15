"""An timeline as one HTML page: no script, nothing from anywhere else, readable from file://.

Names of processes, owners and reasons are other people's words: every text passes ``escape``, and
the policy in the page's head allows one style sheet, by its hash, and nothing else at all.  Command
lines are not shown: they hold addresses, and addresses hold passwords.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._version import __version__
from .timeline import LIVES, Life, Percentiles, Span, Timeline

STYLE = Path(__file__).with_name("timeline.css")
PROCESS_ROWS = 7000
"""In the whole page, which keeps it below 2 MB."""
WORDS = 400
"""Characters of one problem or note."""
LINES = 10
"""Problems, notes and survivors of one session that are shown."""
CHART_STEPS = 400
LOOKS = {
    "ordinary": ("closed", "exited", "retired"),
    "error": ("error",),
    "deadline": ("timeout", "command-timeout", "lease-expired", "hung"),
    "died": (
        *("owner-died", "abandoned", "terminated", "guard-died", "swept"),
        *("browser-died", "connection-lost"),
    ),
    "failed": ("failed",),
}
"""Colours, by reason; the reason itself is always written beside its colour."""
CLASSES = {reason: look for look, reasons in LOOKS.items() for reason in reasons}
PROCESS_LOOKS = {
    "exited": "ordinary",
    "gone": "ordinary",
    "signalled": "error",
    "survived": "failed",
    "zombie": "failed",
    LIVES: "live",
}
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

Zone = datetime.tzinfo | None


def render(timeline: Timeline, zone: Zone = None) -> str:
    """The page.  ``zone``: of the times in it; None is this machine's."""
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


def escape(text: object) -> str:
    """Text for any place of the page, attributes too.  What does not print is shown as a sign."""
    printable = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return html.escape("".join(printable), quote=True)


class Window:
    """The time that is drawn: from the first session's beginning, at the earliest ``since``."""

    def __init__(self, timeline: Timeline, zone: Zone):
        self.zone = zone
        begins = min((span.began for span in timeline.spans), default=timeline.since)
        self.until = timeline.until
        self.since = min(max(timeline.since, begins), self.until - 1)

    def at(self, when: float) -> datetime.datetime:
        moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
        return moment.astimezone(self.zone)

    def clock(self, when: float, form: str = "%H:%M:%S") -> str:
        return self.at(when).strftime(form)

    @property
    def heading(self) -> str:
        begin, end = self.at(self.since), self.at(self.until)
        form = "%H:%M" if self.until - self.since > 600 else "%H:%M:%S"
        last = end.strftime(form if begin.date() == end.date() else f"%Y-%m-%d {form}")
        return f"{begin.strftime(f'%Y-%m-%d {form}')} to {last} ({end:%Z})"

    def share(self, when: float) -> float:
        """Where a moment lies, from 0 to 1."""
        return min(1.0, max(0.0, (when - self.since) / (self.until - self.since)))

    def ticks(self, most: int = 6) -> list[float]:
        """Moments at round times."""
        length = self.until - self.since
        step = next((tick for tick in TICKS if length / tick <= most), TICKS[-1])
        step *= max(1, math.ceil(length / step / most))
        offset = (self.at(self.since).utcoffset() or datetime.timedelta()).total_seconds()
        first = math.ceil((self.since + offset) / step) * step - offset
        return [first + number * step for number in range(int((self.until - first) // step) + 1)]

    def tick_form(self) -> str:
        ticks = self.ticks()
        if self.until - self.since > 86400:
            return "%d. %H:%M"
        return "%H:%M" if all(tick % 60 == 0 for tick in ticks) else "%H:%M:%S"


# ------------------------------------------------------------------------------------ small things


def look_of(span: Span) -> str:
    if span.state != "ended":
        return "live" if span.state in ("live", "ending") else "died"
    if span.reason == "exited" and span.kind == "session":
        return (
            "died"  # its driver did, while the end of `browserkeeper run`'s program is the ordinary one
        )
    return CLASSES.get(span.reason, "other")


def chip(label: str, look: str) -> str:
    return f'<span class="chip {look}">{escape(label)}</span>'


def bar(begin: float, end: float) -> str:
    """Shares of the track; the stroke keeps what is too short to have a width visible."""
    return f'<rect x="{begin:.2%}" width="{max(0.0, end - begin):.2%}"/>'


def track(bars: str, look: str = "") -> str:
    return f'<span class="track {look}"><svg aria-hidden="true">{bars}</svg></span>'


def megabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------ the summary


def _head(timeline: Timeline, window: Window) -> Iterator[str]:
    yield f"<header><h1>Browser sessions</h1><p>{escape(window.heading)}</p>"
    if timeline.cut:
        yield '<p class="warn">The history keeps 500 sessions: earlier ones of this time are gone.</p>'
    if timeline.unreadable:
        text = number(timeline.unreadable, "record")
        yield f'<p class="warn">{text} cannot be believed; see `browserkeeper ps`.</p>'
    yield "</header>"


def _tiles(timeline: Timeline) -> Iterator[str]:
    unclean = len(timeline.unclean)
    peak = max((size for _, size in timeline.memory()), default=None)
    yield '<div class="tiles">'
    yield _tile(f"{len(timeline.spans):,}", f"sessions, {len(timeline.live)} of them alive")
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
    sizes = timeline.memory()
    peak = max((size for _, size in sizes), default=0)
    yield chart("Own memory of all sessions", f"at most {megabytes(peak)}", sizes, window)
    alive = timeline.alive()
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
        looks = [look for span in spans if (look := look_of(span)) != "ordinary"]
        look = looks[0] if looks else "ordinary"
        unclean = sum(span.clean is False for span in spans)
        longest = max(span.lasted(timeline.until) for span in spans)
        bad = f'<b class="warn">{unclean}</b>' if unclean else "0"
        yield f"<tr><td>{chip(reason, look)}<td>{track(bar(0, len(spans) / most), look)}"
        yield f'<td class="n">{len(spans)}<td class="n">{bad}<td class="n">{seconds(longest)}</tr>'
    yield "</tbody></table>"


# ------------------------------------------------------------------------------------------ charts


def chart(title: str, note: str, found: Sequence[tuple[float, int]], window: Window) -> str:
    """Steps below a line, with the moments of the axis."""
    lines = "".join(
        f'<line class="grid" x1="{window.share(t):.2%}" x2="{window.share(t):.2%}" y1="0" y2="100%"/>'
        for t in window.ticks()
    )
    label = f"{title}: {note}"
    return (
        f"<figure><figcaption><span>{title}</span><span>{note}</span></figcaption>"
        f'<svg class="chart" height="72" role="img" aria-label="{escape(label)}">{lines}'
        '<svg width="100%" height="100%" viewBox="0 0 1000 100" preserveAspectRatio="none">'
        f'<path class="area" d="{_steps(found, window)}"/></svg></svg></figure>'
    )


def _steps(found: Sequence[tuple[float, int]], window: Window) -> str:
    """As an SVG path over 1000 by 100, with the highest level at 5; no finer than can be seen."""
    top = max((level for _, level in found), default=0)
    if not top:
        return ""
    highest: dict[int, int] = {}
    last: dict[int, int] = {}
    current = 0
    for when, level in found:
        step = int(window.share(when) * CHART_STEPS)
        highest[step] = max(level, highest.get(step, level))
        last[step] = level
    path = ["M0 100"]
    for step in sorted(highest):
        x = step * 1000 / CHART_STEPS
        for level in (current, highest[step], last[step]):
            path.append(f"L{x:g} {100 - 95 * level / top:.1f}")
        current = last[step]
    return "".join([*path, f"L1000 {100 - 95 * current / top:.1f}L1000 100"])


def axis(window: Window) -> str:
    form, labels = window.tick_form(), []
    for when in window.ticks():
        share = window.share(when)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        text = window.clock(when, form)
        labels.append(f'<text x="{share:.2%}" y="13" text-anchor="{anchor}">{text}</text>')
    return f'<svg class="axis" aria-hidden="true">{"".join(labels)}</svg>'


# ---------------------------------------------------------------------------------------- sessions


def _sessions(timeline: Timeline, window: Window) -> Iterator[str]:
    yield '<section class="sessions"><h2>Sessions, newest first</h2>'
    if not timeline.spans:
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
    limit = max(4, PROCESS_ROWS // len(timeline.spans))
    for span in timeline.spans:
        yield session(span, window, limit)
    yield "</section>"


def session(span: Span, window: Window, limit: int) -> str:
    look = look_of(span)
    end = window.until if span.ended is None else span.ended
    unclean = " unclean" if span.clean is False else ""
    how = chip(span.label, look)
    if unclean:
        how += ' <span class="chip bad">NOT CLEAN</span>'
    return (
        f'<details class="{look}{unclean}"><summary>'
        f'<span class="mono">{window.clock(span.began)}</span>'
        f"<span>{escape(span.browser)}</span>"
        f'<span class="mono dim id">{escape(span.id)}</span>'
        f'<span class="how">{how}</span>'
        f'<span class="n">{seconds(span.lasted(window.until))}</span>'
        f"{track(bar(window.share(span.began), window.share(end)), look)}"
        f'</summary><div class="inside">{"".join(_inside(span, window, limit))}</div></details>'
    )


def _inside(span: Span, window: Window, limit: int) -> Iterator[str]:
    facts = {
        "session": f'<span class="mono">{escape(span.id)}</span>',
        "began": window.clock(span.began, "%Y-%m-%d %H:%M:%S"),
        "ended by" if span.ended else "state": escape(span.label),
        "owner": f"{escape(span.owner)} (pid {span.owner_pid})",
        "containment": escape(span.containment or "–"),
        "proof": escape(span.certificate or ("none" if span.ended else "it lives")),
        "start": seconds(span.start_seconds),
        "teardown": seconds(span.teardown_seconds),
        "own memory, at most": "–" if span.peak is None else megabytes(span.peak),
        "freed": f"{number(span.files_removed, 'file')}, {megabytes(span.bytes_freed)}",
    }
    yield "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()) + "</dl>"
    yield from _lines("survives: ", span.survivors, "warn")
    yield from _lines("problem: ", span.problems, "warn")
    yield from _lines("", span.notes, "dim")
    yield from _processes(span, window, limit)


def _lines(prefix: str, found: Sequence[str], look: str) -> Iterator[str]:
    if found:
        shown = [f"<li>{prefix}{escape(line[:WORDS])}</li>" for line in found[:LINES]]
        yield f'<ul class="{look}">{"".join(shown)}</ul>'


def _processes(span: Span, window: Window, limit: int) -> Iterator[str]:
    if not span.processes:
        yield '<p class="dim">No process of it is known.</p>'
        return
    yield '<table class="processes"><thead><tr><th>pid<th>process<th>lifetime<th class="n">lasted'
    yield "<th>how it ended</tr></thead><tbody>"
    shown = telling(span.processes, limit)
    end = window.until if span.ended is None else span.ended
    for life in shown:
        yield process(life, span.began, end)
    yield "</tbody></table>"
    if hidden := len(span.processes) - len(shown):
        command = f"browserkeeper history --session {escape(span.id)}"
        yield f'<p class="dim">{hidden} more: <span class="mono">{command}</span></p>'


def telling(processes: Sequence[Life], limit: int) -> list[Life]:
    """So many at the most, in order of their starts: what survived or was adopted, then the oldest."""
    by_interest = sorted(processes, key=lambda life: (life.outcome != "survived", not life.adopted))
    return sorted(by_interest[:limit], key=lambda life: (life.began, life.pid))


def process(life: Life, begin: float, end: float) -> str:
    length = max(end - begin, 0.001)
    until = end if life.ended is None else life.ended

    def share(when: float) -> float:
        return min(1.0, max(0.0, (when - begin) / length))

    look = PROCESS_LOOKS.get(life.outcome, "other")
    lasted = seconds(max(0.0, until - life.began))
    return (
        f'<tr class="{look}"><td>{life.pid}<td>{escape(life.name)}'
        f"<td><svg>{bar(share(life.began), share(until))}</svg>"
        f"<td>{lasted}<td>{escape(how(life))}</tr>"
    )


def how(life: Life) -> str:
    """How a process ended, in words."""
    words = {
        "exited": "by itself" + (f", status {life.code}" if life.code else ""),
        "signalled": f"by {signal_name(life.signal)}, not ours",
        "killed": "killed by browserkeeper",
        "gone": "ended, its parent knows how",
        "survived": "SURVIVED",
        "zombie": "a zombie",
        LIVES: "lives",
    }.get(life.outcome, life.outcome)
    return f"{words}; adopted" if life.adopted else words


def signal_name(found: int | None) -> str:
    try:
        return signal.Signals(found or 0).name
    except ValueError:
        return f"signal {found}"


def _foot(timeline: Timeline, window: Window) -> str:
    when = window.clock(timeline.until, "%Y-%m-%d %H:%M:%S %Z")
    return (
        f"<footer>browserkeeper {escape(__version__)}, {when}. "
        "Adopted: it had left its parent, and would have escaped a walk of children. Memory: "
        "resident pages that are no file's and not shared, looked at every five seconds or less often."
        "</footer>"
    )


__all__ = ["render"]
