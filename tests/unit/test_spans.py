"""OpenTelemetry spans of a session, with OpenTelemetry's SDK: parents, attributes, errors.

A program that does not trace must not pay for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from browserkeeper import LaunchError, SessionTimeout, browser
from browserkeeper.report import ExitReport, Survivor
from browserkeeper.session.commands import over_error
from browserkeeper.session.spans import PROVIDER, SessionSpans
from fixtures.server import Site
from tests.conftest import PROGRAMS
from tests.support.cli import ROOT
from tests.support.waiting import SECONDS

SESSION, START, TEARDOWN = (
    "browserkeeper.session",
    "browserkeeper.session.start",
    "browserkeeper.session.teardown",
)
FAKE_DRIVER = str(PROGRAMS / "fake_driver.py")


class Spans:
    """The spans that were exported."""

    def __init__(self, exporter: InMemorySpanExporter):
        self.exporter = exporter

    @property
    def finished(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def names(self) -> list[str]:
        return [span.name for span in self.finished]

    def one(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.finished if span.name == name)
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    return Spans(exporter)


def told(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    inner, outer = span.parent, parent.get_span_context()
    return inner is not None and outer is not None and inner.span_id == outer.span_id


def exit_report(reason: str = "closed", **more: Any) -> ExitReport:
    return ExitReport("0123456789ab", "chromium", reason, "subreaper", "ECHILD", **more)


# --------------------------------------------------------------------------------------- real ones


@pytest.mark.chrome
def test_a_sessions_spans_are_children_of_the_callers(spans: Spans, site: Site) -> None:
    with trace.get_tracer("a task").start_as_current_span("the task"):
        session = browser("chromium", label="checkout")
        with session as driver:
            driver.get(site.url_for("slow", seconds=0) + "&token=secret")
            assert spans.names() == [START], "the start span ends with the start"
    assert spans.names() == [START, TEARDOWN, SESSION, "the task"]
    whole, start, teardown = map(spans.one, (SESSION, START, TEARDOWN))
    assert is_child(whole, spans.one("the task"))
    assert is_child(start, whole)
    assert is_child(teardown, whole)
    assert session.report is not None
    for span in (whole, start, teardown):
        assert told(span)["browserkeeper.session.id"] == session.id
        assert told(span)["browserkeeper.browser"] == "chromium"
        assert told(span)["browserkeeper.label"] == "checkout"
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in told(span)
    assert told(teardown)["browserkeeper.reason"] == "closed"
    assert told(teardown)["browserkeeper.certificate"] == "ECHILD"
    assert told(teardown)["browserkeeper.processes"] == len(session.report.processes)
    assert told(whole)["browserkeeper.seconds.start"] == session.report.seconds["start"]
    times = [whole.start_time, start.start_time, start.end_time, teardown.start_time, teardown.end_time]
    times.append(whole.end_time)
    assert times == sorted(times, key=lambda moment: moment or 0)
    text = "".join(span.to_json() for span in spans.finished)
    assert site.url not in text
    assert "secret" not in text


@pytest.mark.chrome
def test_a_timeout_sets_the_error_type(spans: Spans) -> None:
    session, site = browser("chromium"), Site()  # a site that nobody has asked before

    def set_deadline_in_mid_command() -> None:
        site.wait_for("/slow", SECONDS)
        session.set_deadline(0.3)

    with site, ThreadPoolExecutor(1) as pool, pytest.raises(SessionTimeout), session as driver:
        pool.submit(set_deadline_in_mid_command)
        driver.get(site.url_for("slow", seconds=30) + "&token=secret")
    whole = spans.one(SESSION)
    assert whole.status.status_code is StatusCode.ERROR
    assert told(whole)["error.type"] == "browserkeeper.errors.SessionTimeout"
    assert told(whole)["browserkeeper.reason"] == "timeout"
    assert spans.one(TEARDOWN).status.status_code is StatusCode.UNSET, "the teardown itself went well"
    (event,) = whole.events
    assert event.name == "browserkeeper.commands"
    assert event.attributes is not None
    lines = event.attributes["browserkeeper.commands"]
    assert isinstance(lines, tuple)
    assert str(lines[-1]).startswith(f"get {site.url_for('slow')}?...: in flight for ")
    assert "browserkeeper.commands" not in told(whole)
    assert "secret" not in "".join(span.to_json() for span in spans.finished)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("exited", "browserkeeper.errors.BrowserDied"),
        ("browser-died", "browserkeeper.errors.BrowserDied"),
        ("closed", None),
        ("retired", None),
    ],
)
def test_a_crash_is_an_error_and_an_ordinary_end_is_none(
    reason: str, kind: str | None, spans: Spans
) -> None:
    """A driver that crashes while no command runs: the session ends with the reason ``exited``."""
    made = SessionSpans()
    made.begin("chromium")
    made.started("0123456789ab")
    report = exit_report(reason)
    made.ended(report, lambda: over_error(browser("chromium").config, report, "0", {}), 0.1)
    whole = spans.one(SESSION)
    assert "browserkeeper.label" not in told(whole), "it has none"
    assert told(whole).get("error.type") == kind
    assert whole.status.status_code is (StatusCode.ERROR if kind else StatusCode.UNSET)


@pytest.mark.chrome
def test_a_session_works_without_opentelemetry() -> None:
    script = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"  # what import makes of this is ImportError
        "from browserkeeper import browser\n"
        "session = browser('chromium')\n"
        "with session: pass\n"
        "sys.exit(not session.report.clean or 'opentelemetry.trace' in sys.modules)"
    )
    done = in_python(script, **{PROVIDER: "sdk_tracer_provider"})
    assert done.returncode == 0, done.stderr


def in_python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


# ---------------------------------------------------------------------------- launches that fail


def test_each_failed_launch_has_a_teardown_span(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "exit")
    with pytest.raises(LaunchError):
        browser("chromium", driver_path=FAKE_DRIVER, attempts=2, label="checkout").start()
    assert spans.names() == [TEARDOWN, TEARDOWN, START, SESSION]
    start, whole = spans.one(START), spans.one(SESSION)
    assert all(is_child(span, start) for span in spans.finished[:2])
    assert {told(span)["browserkeeper.label"] for span in spans.finished} == {"checkout"}
    assert told(start)["browserkeeper.seconds.slot_wait"] >= 0
    for span in (start, whole):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == told(span)["error.type"] == "browserkeeper.errors.LaunchError"
        assert not span.events


def test_the_api_is_not_imported_in_a_program_that_does_not_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = (
        "import sys\n"
        "from browserkeeper import LaunchError, browser\n"
        f"session = browser('chromium', driver_path={FAKE_DRIVER!r}, attempts=1)\n"
        "try: session.start()\n"
        "except LaunchError: sys.exit('opentelemetry.trace' in sys.modules)\n"
    )
    asked_for = {PROVIDER: "sdk_tracer_provider"}
    assert in_python(script, FAKE_DRIVER="exit", **asked_for).returncode == 1, "the control"
    monkeypatch.delenv(PROVIDER, raising=False)
    assert in_python(script, FAKE_DRIVER="exit").returncode == 0


# ------------------------------------------------------------------------------------ how it ended


def finished(spans: Spans, report: ExitReport, error: BaseException | None = None) -> ReadableSpan:
    of_session = SessionSpans()
    of_session.begin("chromium")
    of_session.started(report.session)
    if error is not None:
        of_session.left_by(error)
    of_session.ended(report, lambda: SessionTimeout("http://me:secret@example.com"), 0.1)
    return spans.one(SESSION)


def test_an_exception_of_the_program_sets_the_error_type_of_the_session(spans: Spans) -> None:
    whole = finished(spans, exit_report("error"), ValueError("http://me:secret@example.com"))
    assert told(whole)["error.type"] == "ValueError"
    assert whole.status.status_code is StatusCode.ERROR
    assert "secret" not in whole.to_json()


def test_a_leak_is_an_error_of_the_teardown(spans: Spans) -> None:
    whole = finished(spans, exit_report(survivors=(Survivor(1, "x", "D"),)))
    assert whole.status.status_code is StatusCode.ERROR
    teardown = spans.one(TEARDOWN)
    assert told(teardown)["error.type"] == "browserkeeper.errors.LeakError"
    assert told(teardown)["browserkeeper.survivors"] == 1
    assert teardown.end_time is not None
    assert teardown.start_time is not None
    assert 0.09e9 < teardown.end_time - teardown.start_time < 60e9


def test_an_exception_of_a_span_processor_is_logged(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, *_: object, **__: object) -> None:
            raise ValueError("broken")

    trace.get_tracer_provider().add_span_processor(Broken())  # type: ignore[attr-defined]
    of_session = SessionSpans()
    of_session.begin("chromium")
    of_session.started("0123456789ab")
    of_session.ended(exit_report(), ValueError, 0.1)
    assert "a span could not be made" in caplog.text


def test_no_span_is_made_without_a_begin(spans: Spans) -> None:
    of_session = SessionSpans()
    of_session.started("0123456789ab")
    of_session.ended(exit_report(), ValueError, 0.1)
    of_session.failed(ValueError())
    assert not spans.finished
