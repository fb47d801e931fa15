"""OpenTelemetry spans of a session, for programs that trace (``browserkeeper[otel]``).

Three spans: the session, its start, its teardown.  A program that has not imported OpenTelemetry's API
does not trace, so nothing is imported there and no span is made.  Attributes have the names of the log's
fields; a failure has ``error.type`` too (OpenTelemetry's semantic conventions).  Error messages are left
out: they may quote whole addresses of pages.  The last commands of a bad end are an event of the span
of the session; ``command_targets.py`` says what they show of an address.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..report import EXPECTED_REASONS, ExitReport

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

PROVIDER = "OTEL_PYTHON_TRACER_PROVIDER"
"""An environment variable that makes the API load its SDK, when it is first used."""
COMMANDS = "browserkeeper.commands"
"""The event, and its attribute, with the last commands of a session that ended badly."""
UNNAMED_ERROR = "_OTHER"
"""The ``error.type`` of an error whose class is unknown, by the semantic conventions."""

logger = logging.getLogger("browserkeeper")

F = TypeVar("F", bound=Callable[..., None])
Attributes = dict[str, "str | int | float | bool"]


def never_raises(method: F) -> F:
    """Log the method's exceptions: a program's span processor that raises must not disturb a session."""

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logger.warning("a span could not be made", exc_info=True)

    return wrapper  # type: ignore[return-value]


class SessionSpans:
    """The spans of one session.  Without a :meth:`begin` the other methods do nothing."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._session: Span | None = None
        self._start: Span | None = None
        self._block_error = ""

    @property
    def are_open(self) -> bool:
        """True from :meth:`begin` to the end, in a program that traces."""
        return self._session is not None

    @never_raises
    def begin(self, browser: str, label: str = "") -> None:
        """The start begins.  The caller's current span becomes the parent."""
        self._tracer = _tracer()
        if self._tracer is not None:
            facts: Attributes = {"browserkeeper.browser": browser}
            facts |= {"browserkeeper.label": label} if label else {}
            self._session = self._tracer.start_span("browserkeeper.session", attributes=facts)
            self._start = self._child("browserkeeper.session.start", self._session, facts)

    @never_raises
    def admitted(self, waited: float) -> None:
        """The start has its slot of the host, after so many seconds."""
        if self._start is not None:
            self._start.set_attribute("browserkeeper.seconds.slot_wait", waited)

    @never_raises
    def started(self, session: str) -> None:
        """The start has succeeded."""
        if self._session is not None and self._start is not None:
            for span in (self._session, self._start):
                span.set_attribute("browserkeeper.session.id", session)
            self._start.end()
            self._start = None

    @never_raises
    def failed(self, error: BaseException) -> None:
        """The start has failed, for good."""
        for span in (self._start, self._session):
            if span is not None:
                _set_error(span, _name(error))
                span.end()
        self._start = self._session = None

    def left_by(self, error: BaseException) -> None:
        """An exception of the program has left the ``with`` block: the session's error, if it fails."""
        self._block_error = _name(error)

    @never_raises
    def ended(self, report: ExitReport, error: Callable[[], BaseException], seconds: float) -> None:
        """A teardown of ``seconds`` is over: of the session, or of a launch that failed.

        ``error`` returns the error that commands raise from now on.
        """
        if self._session is None:
            return
        parent = self._start or self._session
        facts = attributes(report)
        begin = time.time_ns() - int(seconds * 1e9)
        span = self._child("browserkeeper.session.teardown", parent, facts, begin)
        if not report.clean:
            _set_error(span, "browserkeeper.errors.LeakError")
        span.end()
        if self._start is not None:
            return  # another launch may follow
        self._session.set_attributes(facts)
        if report.commands:
            lines = [str(command) for command in report.commands]
            self._session.add_event(COMMANDS, {COMMANDS: lines})
        if report.reason not in EXPECTED_REASONS or not report.clean:
            kind = UNNAMED_ERROR if report.reason == "error" else _name(error())
            _set_error(self._session, self._block_error or kind)
        self._session.end()
        self._session = None

    def _child(self, name: str, parent: Span, facts: Attributes, begin: int | None = None) -> Span:
        from opentelemetry.trace import set_span_in_context

        assert self._tracer is not None
        context = set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=facts, start_time=begin)


def attributes(report: ExitReport) -> Attributes:
    """The fields of the log line about the end, without those that are None."""
    facts = report.log_fields()
    found: dict[str, Any] = {k: v for k, v in facts.items() if k.startswith("browserkeeper.")}
    del found[COMMANDS]  # an event of the session's span has them all
    phases = found.pop("browserkeeper.seconds")
    found |= {f"browserkeeper.seconds.{phase}": value for phase, value in phases.items()}
    return {name: value for name, value in found.items() if value is not None}


def _tracer() -> Tracer | None:
    """The package's tracer; None where the program does not trace."""
    if "opentelemetry.trace" not in sys.modules and not os.environ.get(PROVIDER):
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    from .._version import __version__

    return trace.get_tracer("browserkeeper", __version__)


def _set_error(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))


def _name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


__all__ = ["SessionSpans"]
