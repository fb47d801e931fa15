"""OpenTelemetry spans of a session, for programs that trace (``browserkeeper[otel]``).

Three spans: the session, its start, its teardown.  Where the program has not imported
OpenTelemetry's API nobody can be listening, so nothing is imported and nothing is made.  Attributes have
the names of the log's fields, and ``error.type`` (OpenTelemetry's semantic conventions) where something
went wrong.  Messages of errors stay in the log: they quote drivers, and those quote addresses.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..report import ExitReport

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

PROVIDER = "OTEL_PYTHON_TRACER_PROVIDER"
"""With this in the environment the API finds its SDK by itself, when it is first asked."""
ORDINARY = ("closed", "exited", "retired")
"""Ends that are nobody's failure."""
OTHER = "_OTHER"
"""What the conventions say for an ``error.type`` without a name."""

logger = logging.getLogger("browserkeeper")

F = TypeVar("F", bound=Callable[..., None])
Attributes = dict[str, "str | int | float | bool"]


def harmless(method: F) -> F:
    """The API never raises, but a program's own span processors may: no session suffers for that."""

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logger.warning("a span could not be made", exc_info=True)

    return wrapper  # type: ignore[return-value]


class SessionSpans:
    """Of one session; ``begin`` comes first, and without it the others do nothing."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._session: Span | None = None
        self._start: Span | None = None
        self._culprit = ""

    @harmless
    def begin(self, browser: str) -> None:
        """The start begins; the parent is what is current here."""
        self._tracer = _tracer()
        if self._tracer is not None:
            facts: Attributes = {"browserkeeper.browser": browser}
            self._session = self._tracer.start_span("browserkeeper.session", attributes=facts)
            self._start = self._child("browserkeeper.session.start", self._session, facts)

    @harmless
    def started(self, session: str) -> None:
        """There is a driver."""
        if self._session is not None and self._start is not None:
            for span in (self._session, self._start):
                span.set_attribute("browserkeeper.session.id", session)
            self._start.end()
            self._start = None

    @harmless
    def failed(self, error: BaseException) -> None:
        """The start came to this; what it had begun is gone by now."""
        for span in (self._start, self._session):
            if span is not None:
                _blame(span, _name(error))
                span.end()
        self._start = self._session = None

    def left_by(self, error: BaseException) -> None:
        """The program's own exception left the block."""
        self._culprit = _name(error)

    @harmless
    def ended(self, report: ExitReport, error: Callable[[], BaseException], seconds: float) -> None:
        """A teardown that took so long is over: of the session, or of an attempt to start it.

        ``error`` makes what commands raise from now on.
        """
        if self._session is None:
            return
        parent = self._start or self._session
        facts = attributes(report)
        begin = time.time_ns() - int(seconds * 1e9)
        span = self._child("browserkeeper.session.teardown", parent, facts, begin)
        if not report.clean:
            _blame(span, "browserkeeper.errors.LeakError")
        span.end()
        if self._start is not None:
            return  # there may be another attempt
        self._session.set_attributes(facts)
        if report.reason not in ORDINARY or not report.clean:
            ours = OTHER if report.reason == "error" else _name(error())
            _blame(self._session, self._culprit or ours)
        self._session.end()
        self._session = None

    def _child(self, name: str, parent: Span, facts: Attributes, begin: int | None = None) -> Span:
        from opentelemetry.trace import set_span_in_context

        assert self._tracer is not None
        context = set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=facts, start_time=begin)


def attributes(report: ExitReport) -> Attributes:
    """The fields of the log's line, as far as spans have such values."""
    facts = report.log_fields()
    found: dict[str, Any] = {k: v for k, v in facts.items() if k.startswith("browserkeeper.")}
    phases = found.pop("browserkeeper.seconds")
    found |= {f"browserkeeper.seconds.{phase}": value for phase, value in phases.items()}
    return {name: value for name, value in found.items() if value is not None}


def _tracer() -> Tracer | None:
    """None where nobody traces."""
    if "opentelemetry.trace" not in sys.modules and not os.environ.get(PROVIDER):
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    from .._version import __version__

    return trace.get_tracer("browserkeeper", __version__)


def _blame(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))


def _name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


__all__ = ["SessionSpans"]
