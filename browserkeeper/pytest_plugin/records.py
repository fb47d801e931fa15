"""What is known of the test that runs now: its browsers, its folder, what it left running."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from .output import Folder
from .settings import SETTINGS, Settings

if TYPE_CHECKING:
    from ..report import ExitReport
    from ..session import BrowserSession
    from .leaks import Leak


@dataclasses.dataclass
class Opened:
    """One browser that a test was given.  ``session`` outlives ``driver`` where it was leased.

    ``log_start`` is where the driver's log stood then: a warm browser has had other tests.
    """

    number: int
    driver: Any
    session: BrowserSession[Any]
    is_leased: bool = False
    log_start: int = 0
    captured: bool = False

    def file(self, name: str) -> str:
        """The same names for each browser of a test, a number in all but the first's."""
        stem, dot, suffix = name.rpartition(".")
        return name if self.number == 1 else f"{stem}-{self.number}{dot}{suffix}"

    @property
    def was_started(self) -> bool:
        """False where it was refused before: no such browser here, say."""
        return bool(self.session.id)

    @property
    def report(self) -> ExitReport | None:
        return self.session.report


@dataclasses.dataclass
class TestRecord:
    """One attempt at one test; they are counted from 1."""

    __test__ = False

    nodeid: str
    attempt: int
    settings: Settings
    folder: Folder
    opened: list[Opened] = dataclasses.field(default_factory=list)
    leaks: list[Leak] = dataclasses.field(default_factory=list)
    stuck: list[Leak] = dataclasses.field(default_factory=list)
    """Those of the leaks that could not be ended."""
    allowed: str = ""
    """Why they are allowed."""
    only_leaked: bool = False
    """They are all that is wrong with the teardown."""
    failed: bool = False
    kept: bool = False
    """Is there something in the folder that is to stay?"""

    def add(self, driver: Any, session: BrowserSession[Any], *, is_leased: bool = False) -> Opened:
        opened = Opened(len(self.opened) + 1, driver, session, is_leased)
        self.opened.append(opened)
        return opened


RECORD = pytest.StashKey[TestRecord]()
MARK = "BROWSERKEEPER_PYTEST"
"""The environment variable that names this run, after those it runs inside of: ``outer/inner``."""
RUN = pytest.StashKey[str]()
"""Names this run, workers included; a folder of another one is stale."""


def start(item: pytest.Item) -> TestRecord:
    """A new record for a new attempt (pytest-rerunfailures takes the same item again)."""
    before = item.stash.get(RECORD, None)
    attempt = before.attempt + 1 if before else 1
    settings = item.config.stash[SETTINGS]
    folder = Folder(settings.output, item.nodeid, attempt, item.config.stash[RUN])
    record = item.stash[RECORD] = TestRecord(item.nodeid, attempt, settings, folder)
    return record


def worker_run(workerinput: dict[str, Any]) -> str:
    """The name of one xdist worker's run, unique on this machine."""
    return f"{workerinput['testrunuid']}.{workerinput['workerid']}"
