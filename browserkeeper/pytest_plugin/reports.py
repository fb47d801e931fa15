"""What is captured in which phase of a test, and what the test's pytest reports carry of it.

An xdist worker sends reports to its controller as JSON, so they carry only strings, numbers and lists.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from . import output_folder
from .records import TestRecord

TRACE = "trace"
"""The beginning of the name of a trace, ``trace.html`` or ``trace-2.html``."""


def complete(record: TestRecord, item: pytest.Item, report: pytest.TestReport) -> None:
    """Capture what the settings ask for after this phase, and add the results to the report."""
    record.failed = record.failed or report.failed
    before = record.kept
    if record.settings.trace != "off" and record.opened:
        from .trace import of_test

        of_test.end_phase(record, report)
    if record.opened or record.failed:
        _capture(record, report)
    if record.settings.trace != "off" and record.opened:
        of_test.save(record)
    if report.when == "teardown" and record.opened:
        from . import capture

        capture.finish(record)
    facts = _facts(record, report)
    if facts:
        report.keeper = facts  # type: ignore[attr-defined]
    if record.kept and (report.failed or not before):
        _show(record, item, report)
    if report.when == "teardown":
        record.opened.clear()  # the item is kept until the end of the run


def _capture(record: TestRecord, report: pytest.TestReport) -> None:
    settings = record.settings
    due = settings.wants_capture(failed=report.failed) or settings.wants_screenshot(failed=report.failed)
    if report.when == "teardown" or not due or (report.when == "setup" and not report.failed):
        return
    if "selenium" not in sys.modules:
        return  # without Selenium no browser was opened
    from . import browsers, capture

    browsers.record_pool_leases(record)
    for opened in record.opened:
        capture.take(record, opened)


def _facts(record: TestRecord, report: pytest.TestReport) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if record.kept:
        facts["folder"] = str(record.folder.path)
        facts["attempt"] = record.attempt
    if report.when == "teardown" and record.notice:
        facts["notice"] = record.notice
    if report.when == "teardown" and record.leaks:
        facts["leaks"] = [str(leak) for leak in record.leaks]
        facts["stuck"] = [str(leak) for leak in record.stuck]
        facts["stay"] = record.leaks_stay
        facts["allowed"] = record.allowed
        facts["only_leaked"] = record.only_leaked
    return facts


def _show(record: TestRecord, item: pytest.Item, report: pytest.TestReport) -> None:
    """Add a section to the report, and attachments for pytest-html if that is installed."""
    folder = record.folder.path
    url = _read(folder / "url.txt").strip()
    lines = [f"folder: {folder}", f"files: {', '.join(output_folder.files_in(str(folder)))}"]
    for opened in record.opened:
        if opened.report is not None and opened.report.ended_badly:
            lines += str(opened.report).splitlines()
    report.sections.append(("browser", "\n".join([f"URL: {url}", *lines] if url else lines)))
    if item.config.pluginmanager.hasplugin("html"):
        extras = getattr(report, "extras", [])
        page = Path(item.config.option.htmlpath or "report.html").absolute()
        report.extras = [*extras, *_html_extras(folder, url, page)]  # type: ignore[attr-defined]


def _link(path: Path, report: Path) -> str:
    """A link to a file that still leads there when the report and the folder are moved together."""
    return quote(os.path.relpath(path, report.parent))


def _html_extras(folder: Path, url: str, report: Path) -> list[dict[str, Any]]:
    from pytest_html import extras

    found = [extras.url(url, name="URL")] if url else []
    for name in output_folder.files_in(str(folder)):
        path = folder / name
        if path.suffix == ".png":
            found.append(extras.png(base64.b64encode(path.read_bytes()).decode(), name=name))
        elif path.match(f"{TRACE}*.html"):  # too large to be text in the report
            found.append(extras.url(_link(path, report), name=name))
        elif name != "url.txt":
            found.append(extras.text(_read(path), name=name))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
