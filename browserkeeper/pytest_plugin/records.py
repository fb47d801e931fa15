"""The record of the running test: its browsers, its output folder, its leaks, whether it failed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from .output_folder import Folder
from .run_marker import RUN
from .settings import SETTINGS, Settings

if TYPE_CHECKING:
    from ..report import ExitReport
    from ..session import BrowserSession
    from .leaks import Leak
    from .trace.trace import Trace


@dataclasses.dataclass
class OpenedBrowser:
    """One browser that a test was given.

    ``number`` counts a test's browsers from 1.  ``session`` outlives ``driver`` if the browser is leased
    from a pool.  ``log_start`` is the size of the driver's log, in bytes, when the test got the browser:
    what is before it belongs to other tests of a warm browser.
    """

    number: int
    driver: Any
    session: BrowserSession[Any]
    is_leased: bool = False
    log_start: int = 0
    captured: bool = False
    trace: Trace | None = None

    def file(self, name: str) -> str:
        return numbered(name, self.number)

    @property
    def was_started(self) -> bool:
        """False if the start failed before a session was made: no such browser is installed, for
        example."""
        return bool(self.session.id)

    @property
    def report(self) -> ExitReport | None:
        return self.session.report


def numbered(name: str, number: int) -> str:
    """The name of an output file of a test's browser: ``page.html`` for the first, ``page-2.html`` for
    the second."""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{suffix}"


@dataclasses.dataclass
class TestRecord:
    """One attempt at one test.  ``attempt`` counts from 1."""

    __test__ = False

    nodeid: str
    """As pytest has it: the ids of parameters may hold any characters."""
    attempt: int
    settings: Settings
    folder: Folder
    base_url: str = ""
    """Of the drivers of the test's fixtures."""
    opened: list[OpenedBrowser] = dataclasses.field(default_factory=list)
    leaks: list[Leak] = dataclasses.field(default_factory=list)
    stuck: list[Leak] = dataclasses.field(default_factory=list)
    """The leaks that could not be ended."""
    notice: str = ""
    """Of browsers that outlive the test and are not plainly its own, if it could be no warning."""
    leaks_stay: bool = False
    """The leaks are only warned of."""
    allowed: str = ""
    """The reason why the leaks are allowed; "" if they are not."""
    only_leaked: bool = False
    """The leaks are the only error of the teardown."""
    failed: bool = False
    failures: list[str] = dataclasses.field(default_factory=list)
    """The text of each phase that failed, for the trace."""
    phases_over: bool = False
    """The test itself has run, or its set-up has failed."""
    kept: bool = False
    """The folder has something to keep."""

    @property
    def label(self) -> str:
        """The label of the test's browsers, where the user gives none."""
        from ..options.labels import safe_label

        return safe_label(self.nodeid)

    def add(
        self, driver: Any, session: BrowserSession[Any], *, is_leased: bool = False
    ) -> OpenedBrowser:
        opened = OpenedBrowser(len(self.opened) + 1, driver, session, is_leased)
        self.opened.append(opened)
        return opened


RECORD = pytest.StashKey[TestRecord]()


def start(item: pytest.Item) -> TestRecord:
    """A new record for a new attempt.  (pytest-rerunfailures runs the same item again.)"""
    before = item.stash.get(RECORD, None)
    attempt = before.attempt + 1 if before else 1
    settings = item.config.stash[SETTINGS]
    folder = Folder(settings.output, item.nodeid, attempt, item.config.stash[RUN])
    record = item.stash[RECORD] = TestRecord(item.nodeid, attempt, settings, folder, settings.base_url)
    return record
