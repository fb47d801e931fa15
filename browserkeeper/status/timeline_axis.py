"""The time axis of the timeline page, and what is drawn along it as SVG: bars, charts, tick labels."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Sequence

from .text import printable
from .timeline import Timeline

CHART_STEPS = 400
"""Horizontal resolution of a chart: changes within one step are drawn as one."""
TICK_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400),
)
"""Seconds between two ticks; longer ones are whole days."""

Zone = datetime.tzinfo | None


def escape(text: object) -> str:
    """Text for any place of the page, attributes too; characters that do not print are replaced."""
    return html.escape(printable(str(text)), quote=True)


class Window:
    """The time that the page shows: it ends at ``until``, and begins with the first session, but
    not before ``since``.  ``zone``: that of all times on the page; None is this machine's."""

    def __init__(self, timeline: Timeline, zone: Zone):
        self.zone = zone
        begins = min((span.began for span in timeline.sessions), default=timeline.since)
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
        """The position of a moment on the axis, from 0 to 1."""
        return min(1.0, max(0.0, (when - self.since) / (self.until - self.since)))

    def ticks(self, most: int = 6) -> list[float]:
        """Round moments for the ticks, in epoch seconds, ``most`` + 1 at the most."""
        length = self.until - self.since
        step = next((tick for tick in TICK_STEPS if length / tick <= most), TICK_STEPS[-1])
        step *= max(1, math.ceil(length / step / most))
        offset = (self.at(self.since).utcoffset() or datetime.timedelta()).total_seconds()
        first = math.ceil((self.since + offset) / step) * step - offset
        return [first + number * step for number in range(int((self.until - first) // step) + 1)]

    def tick_form(self) -> str:
        ticks = self.ticks()
        if self.until - self.since > 86400:
            return "%d. %H:%M"
        return "%H:%M" if all(tick % 60 == 0 for tick in ticks) else "%H:%M:%S"


def bar(begin: float, end: float) -> str:
    """A bar between two positions.  The style sheet gives it a stroke, so that a very short one is
    visible."""
    return f'<rect x="{begin:.2%}" width="{max(0.0, end - begin):.2%}"/>'


def track(bars: str, css_class: str = "") -> str:
    return f'<span class="track {css_class}"><svg aria-hidden="true">{bars}</svg></span>'


def chart(title: str, note: str, steps: Sequence[tuple[float, int]], window: Window) -> str:
    """The area below a step function, which is given by pairs of moment and level from then on."""
    lines = "".join(
        f'<line class="grid" x1="{window.share(t):.2%}" x2="{window.share(t):.2%}" y1="0" y2="100%"/>'
        for t in window.ticks()
    )
    label = f"{title}: {note}"
    return (
        f"<figure><figcaption><span>{title}</span><span>{note}</span></figcaption>"
        f'<svg class="chart" height="72" role="img" aria-label="{escape(label)}">{lines}'
        '<svg width="100%" height="100%" viewBox="0 0 1000 100" preserveAspectRatio="none">'
        f'<path class="area" d="{_area(steps, window)}"/></svg></svg></figure>'
    )


def _area(steps: Sequence[tuple[float, int]], window: Window) -> str:
    """An SVG path over 1000 by 100, whose highest level is at y = 5."""
    top = max((level for _, level in steps), default=0)
    if not top:
        return ""
    highest: dict[int, int] = {}
    last: dict[int, int] = {}
    for when, level in steps:
        column = int(window.share(when) * CHART_STEPS)
        highest[column] = max(level, highest.get(column, level))
        last[column] = level
    path, current = ["M0 100"], 0
    for column in sorted(highest):
        x = column * 1000 / CHART_STEPS
        for level in (current, highest[column], last[column]):
            path.append(f"L{x:g} {100 - 95 * level / top:.1f}")
        current = last[column]
    return "".join([*path, f"L1000 {100 - 95 * current / top:.1f}L1000 100"])


def axis(window: Window) -> str:
    """The labels of the ticks."""
    form, labels = window.tick_form(), []
    for when in window.ticks():
        share = window.share(when)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        text = window.clock(when, form)
        labels.append(f'<text x="{share:.2%}" y="13" text-anchor="{anchor}">{text}</text>')
    return f'<svg class="axis" aria-hidden="true">{"".join(labels)}</svg>'
