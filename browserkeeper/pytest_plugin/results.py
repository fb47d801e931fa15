"""From a test's record to its reports: what is captured when, and what a report carries.

A report travels from an xdist worker to its controller as JSON, so all that it carries here is
strings, numbers and lists.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from . import output
from .records import TestRecord


def complete(record: TestRecord, item: pytest.Item, report: pytest.TestReport) -> None:
    """Capture what this phase's report calls for, and hang on to the report what came of it."""
    record.failed = record.failed or report.failed
    before = record.kept
    if record.opened or record.failed:
        _capture(record, report)
    if report.when == "teardown" and record.opened:
        from . import capture

        capture.finish(record)
    facts = _facts(record, report)
    if facts:
        report.keeper = facts  # type: ignore[attr-defined]
    if record.kept and (report.failed or not before):
        _show(record, item, report)
    if report.when == "teardown":
        record.opened.clear()  # the item lives as long as the run, its browsers need not


def _capture(record: TestRecord, report: pytest.TestReport) -> None:
    settings = record.settings
    due = settings.wants_capture(failed=report.failed) or settings.wants_screenshot(failed=report.failed)
    if report.when == "teardown" or not due or (report.when == "setup" and not report.failed):
        return
    if "selenium" not in sys.modules:
        return  # no browser of ours without it
    from . import capture, opening

    opening.note_leases_out(record)
    for opened in record.opened:
        capture.take(record, opened)


def _facts(record: TestRecord, report: pytest.TestReport) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if record.kept:
        facts["folder"] = str(record.folder.path)
        facts["attempt"] = record.attempt
    if report.when == "teardown" and record.leaks:
        facts["leaks"] = [str(leak) for leak in record.leaks]
        facts["stuck"] = [str(leak) for leak in record.stuck]
        facts["allowed"] = record.allowed
        facts["only_leaked"] = record.only_leaked
    return facts


def _show(record: TestRecord, item: pytest.Item, report: pytest.TestReport) -> None:
    """In the report's own sections, and in pytest-html's where that is installed."""
    folder = record.folder.path
    url = _read(folder / "url.txt").strip()
    lines = [f"folder: {folder}", f"files: {', '.join(output.files_in(str(folder)))}"]
    report.sections.append(("browser", "\n".join([f"URL: {url}", *lines] if url else lines)))
    if item.config.pluginmanager.hasplugin("html"):
        extras = getattr(report, "extras", [])
        report.extras = [*extras, *_html_extras(folder, url)]  # type: ignore[attr-defined]


def _html_extras(folder: Path, url: str) -> list[dict[str, Any]]:
    from pytest_html import extras

    found = [extras.url(url, name="URL")] if url else []
    for name in output.files_in(str(folder)):
        path = folder / name
        if path.suffix == ".png":
            found.append(extras.png(base64.b64encode(path.read_bytes()).decode(), name=name))
        elif name != "url.txt":
            found.append(extras.text(_read(path), name=name))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
