"""The section at the end of the terminal's output: captures of failed tests, and tests that leaked
or seem to have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from .output_folder import files_in
from .settings import Settings


@dataclasses.dataclass(frozen=True)
class LeakedTest:
    """``browsers`` and ``stuck`` (those that could not be ended) are descriptions; ``stay``: they were
    only warned of; ``allowed`` is the reason of keeper_allow_leak, or ""."""

    nodeid: str
    browsers: tuple[str, ...]
    stuck: tuple[str, ...]
    stay: bool
    allowed: str


class Summary:
    """Collects the facts from every report, those of xdist's workers included."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folders: dict[str, str] = {}
        self._leaked: list[LeakedTest] = []
        self._notices: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        facts: dict[str, Any] = getattr(report, "keeper", None) or {}
        if folder := facts.get("folder"):
            self._folders[folder] = report.nodeid
        if notice := facts.get("notice"):
            self._notices.append(notice)
        if found := facts.get("leaks"):
            self._leaked.append(
                LeakedTest(
                    report.nodeid, tuple(found), tuple(facts["stuck"]), facts["stay"], facts["allowed"]
                )
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[Any, str, Any] | None:
        """Show a leak as a failure of the test; pytest would show an error of its teardown."""
        facts: dict[str, Any] = getattr(report, "keeper", None) or {}
        if report.when == "teardown" and report.failed and facts.get("only_leaked"):
            return "failed", "L", ("LEAKED", {"red": True})
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._folders and not self._leaked and not self._notices:
            return
        write = terminalreporter.write_line
        terminalreporter.section("browserkeeper")
        if self._folders:
            write("Captured from the browsers of these tests:")
        for folder, nodeid in self._folders.items():
            write(f"  {nodeid}")
            write(f"    {folder}: {', '.join(files_in(folder))}")
        for notice in self._notices:
            write(notice, yellow=True)
        for leaked in self._leaked:
            write(f"{leaked.nodeid} left running{_outcome(leaked)}:", red=not leaked.allowed)
            for browser in leaked.browsers:
                still = "  STILL RUNNING: " if browser in leaked.stuck else "  "
                write(f"{still}{browser}")


def _outcome(leaked: LeakedTest) -> str:
    if leaked.allowed:
        return f" (allowed: {leaked.allowed}; ended at the end of the run)"
    if leaked.stay:
        return " (not ended)"
    return "" if leaked.stuck else " (ended)"
