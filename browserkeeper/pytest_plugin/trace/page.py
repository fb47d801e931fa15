"""The page of a trace: whole in one file, without a script, readable from ``file://``."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from ...html.page import render_page
from .recorder import Entry, Picture

if TYPE_CHECKING:
    from ..records import OpenedBrowser, TestRecord
    from .events import Message, Request
    from .trace import Trace

TEMPLATE = Path(__file__).with_name("trace.html")
STYLE = Path(__file__).with_name("trace.css")
BAD_LEVELS = ("error", "warn", "warning")


@dataclasses.dataclass(frozen=True)
class Row:
    """``bad``: it failed.  ``when`` is the offset from the start of the trace."""

    when: str
    bad: bool
    cells: tuple[str, ...]


def render(record: TestRecord, opened: OpenedBrowser, trace: Trace) -> str:
    """The text of the page.  The secrets of the browser's identity are masked in all its texts."""
    mask = opened.session.config.identity.mask
    recorder, events = trace.recorder, trace.events
    name = f"{record.nodeid}, browser {opened.number}" if len(record.opened) > 1 else record.nodeid
    return render_page(
        TEMPLATE,
        STYLE,
        images=True,
        title=f"Trace of {name}",
        name=name,
        version=__version__,
        outcome="failed" if record.failed else "passed",
        facts=[(key, mask(text)) for key, text in _facts(record, opened, trace)],
        failures=[mask(text) for text in record.failures],
        lacks=[mask(text) for text in trace.lacks],
        entries=[_masked(entry, mask) for entry in trace.entries],
        left_out=recorder.left_out,
        last=_masked_picture(trace.last, mask),
        messages=[_message(one, recorder.began_at, mask) for one in list(events.messages)]
        if events
        else [],
        messages_seen=events.messages_seen if events else 0,
        requests=[_request(one, recorder.began_at, mask) for one in list(events.requests)]
        if events
        else [],
        requests_seen=events.requests_seen if events else 0,
        has_events=events is not None,
        offset=offset,
        duration=duration,
    )


def _facts(record: TestRecord, opened: OpenedBrowser, trace: Trace) -> Iterator[tuple[str, str]]:
    session, caps = opened.session, getattr(opened.driver, "caps", None) or {}
    yield "browser", f"{session.name} {caps.get('browserVersion', '')}, session {session.id}"
    began = datetime.datetime.fromtimestamp(trace.recorder.began_at, datetime.timezone.utc)
    yield "began", f"{began:%Y-%m-%d %H:%M:%S} UTC"
    if record.attempt > 1:
        yield "attempt", str(record.attempt)
    if opened.report is not None:
        yield "end of the browser", str(opened.report)


def offset(seconds: float) -> str:
    return f"{seconds:.3f}"


def duration(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.0f} ms"


def _masked(entry: Entry, mask: Any) -> Entry:
    """A copy in whose texts the secrets of the identity are masked."""
    return dataclasses.replace(
        entry,
        target=mask(entry.target),
        parameters=[(key, mask(text)) for key, text in entry.parameters],
        picture=_masked_picture(entry.picture, mask),
    )


def _masked_picture(picture: Picture | None, mask: Any) -> Picture | None:
    if picture is None:
        return None
    texts = {key: mask(getattr(picture, key)) for key in ("note", "url", "title")}
    return dataclasses.replace(picture, **texts)


def _message(one: Message, began: float, mask: Any) -> Row:
    bad = one.level in BAD_LEVELS
    return Row(offset(one.when - began), bad, (one.level, mask(one.text), mask(one.source)))


def _request(one: Request, began: float, mask: Any) -> Row:
    answer = one.error or ("no answer" if one.status is None else str(one.status))
    size = "–" if one.size is None else f"{one.size:,} B"
    cells = (one.method, mask(one.url), answer, one.mime or "–", size, duration(one.seconds))
    return Row(offset(one.when - began), one.failed, cells)


__all__ = ["render"]
