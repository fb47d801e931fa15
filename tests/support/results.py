"""Writes the results of a run to a file while it goes on, for scripts/lanes.py, which runs several.

One JSON document a line: ``{"collected": n}``; for each test ``{"test", "began": true}`` when it starts,
and ``{"test", "outcome", "seconds", "text"}`` when its teardown is done; ``{"exit": n}`` at the end.
So a run that was killed still shows which test it was in.  Does nothing unless BROWSERKEEPER_RESULTS
names a file.
"""

from __future__ import annotations

import json
import os
from typing import Any, TextIO

import pytest


class Results:
    def __init__(self, file: TextIO):
        self.file = file
        self.phases: dict[str, list[pytest.TestReport]] = {}

    def write(self, **document: Any) -> None:
        self.file.write(json.dumps(document) + "\n")
        self.file.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(collected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(
                test=report.nodeid or "collection",
                outcome="failed",
                seconds=0,
                text=str(report.longrepr),
            )
        elif report.skipped:
            self.write(test=report.nodeid, outcome="skipped", seconds=0, text=reason_of(report.longrepr))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.phases[nodeid] = []
        self.write(test=nodeid, began=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.phases[report.nodeid].append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        phases = self.phases.pop(nodeid)
        outcome, text = "passed", ""
        for report in phases:
            if report.failed:
                outcome = "failed"
                text += f"{report.when}: {report.longreprtext}\n"
                text += "".join(f"--- {title}\n{content}\n" for title, content in report.sections)
            elif report.skipped and outcome == "passed":
                outcome, text = "skipped", reason_of(report.longrepr)
        self.write(test=nodeid, outcome=outcome, seconds=sum(r.duration for r in phases), text=text)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.write(exit=int(exitstatus))


def reason_of(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def pytest_configure(config: pytest.Config) -> None:
    # Not in pytest-xdist's workers, and not in runs inside of tests.
    path = os.environ.pop("BROWSERKEEPER_RESULTS", "")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(open(path, "w", encoding="utf-8")), "lane-results")  # noqa: SIM115
