"""The time axis of the timeline page: positions, ticks, and the areas of its charts."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
from collections.abc import Sequence

from ..status.timeline import Timeline

CHART_STEPS = 400
"""Horizontal resolution of a chart: changes within one step are drawn as one."""
MOST_TICKS = 6
TICK_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400),
)
"""Seconds between two ticks; longer ones are whole days."""

Zone = datetime.tzinfo | None


@dataclasses.dataclass(frozen=True)
class Tick:
    """A moment on the axis: its position from 0 to 1, its label, and where its label is anchored."""

    when: float
    share: float
    text: str

    @property
    def anchor(self) -> str:
        return "start" if self.share < 0.06 else "end" if self.share > 0.94 else "middle"


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

    @functools.cached_property
    def ticks(self) -> list[Tick]:
        """At round moments, MOST_TICKS + 1 at the most."""
        moments, day = self._moments(MOST_TICKS), self.until - self.since > 86400
        whole = "%H:%M" if all(when % 60 == 0 for when in moments) else "%H:%M:%S"
        form = "%d. %H:%M" if day else whole
        return [Tick(when, self.share(when), self.clock(when, form)) for when in moments]

    def _moments(self, most: int) -> list[float]:
        length = self.until - self.since
        step = next((tick for tick in TICK_STEPS if length / tick <= most), TICK_STEPS[-1])
        step *= max(1, math.ceil(length / step / most))
        offset = (self.at(self.since).utcoffset() or datetime.timedelta()).total_seconds()
        first = math.ceil((self.since + offset) / step) * step - offset
        return [first + number * step for number in range(int((self.until - first) // step) + 1)]


def area(steps: Sequence[tuple[float, int]], window: Window) -> str:
    """The area below a step function as an SVG path over 1000 by 100, whose highest level is at y = 5.

    ``steps``: pairs of a moment and the level from then on."""
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
