"""The traces of one test: its phases, and when their pages are saved."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import page

if TYPE_CHECKING:
    import pytest

    from ..records import OpenedBrowser, TestRecord

PHASE_AFTER = {"setup": "call", "call": "teardown"}
LONGEST_FAILURE = 20_000
"""Characters of one failure's text."""

logger = logging.getLogger("browserkeeper")


def end_phase(record: TestRecord, report: pytest.TestReport) -> None:
    """After a phase, and before the plugin's own commands: take the picture of the end, and note the
    failure."""
    if report.failed:
        record.failures.append(f"{report.when}: {report.longreprtext[-LONGEST_FAILURE:]}")
    is_last = report.when == "call" or (report.when == "setup" and report.failed)
    for opened in record.opened:
        if opened.trace is not None:
            if is_last:
                opened.trace.look_at_end()
            opened.trace.begin_phase(PHASE_AFTER.get(str(report.when), "teardown"))
    record.phases_over = record.phases_over or is_last


def save(record: TestRecord) -> None:
    """Write the pages, if the settings want them by now; a later call writes them again.

    An error is logged, and saved in the place of the page: it must not change the outcome of the test.
    """
    if not (record.phases_over and record.settings.wants_trace(failed=record.failed)):
        return
    for opened in record.opened:
        if opened.trace is not None and opened.was_started:
            record.kept = True
            _save_one(record, opened)


def _save_one(record: TestRecord, opened: OpenedBrowser) -> None:
    assert opened.trace is not None
    name = "trace.html"
    try:
        text = page.render(record, opened, opened.trace)
    except Exception as error:  # a mistake of ours
        logger.exception("%s: its trace could not be made", record.nodeid)
        name, text = "trace.txt", f"{type(error).__name__}: {error}\n"
    try:
        record.folder.put(opened.file(name), text)
    except OSError as error:
        logger.warning("%s: its trace could not be saved: %s", record.nodeid, error)
