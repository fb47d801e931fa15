"""A browser of a pool without a process, for tests of the threads around it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from browserkeeper.errors import BrowserkeeperError, SessionClosed
from browserkeeper.pool import BrowserPool
from browserkeeper.pool.config import PoolConfig
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.report import ExitReport


class FakeBrowser:
    """Counts what is done to it; ``script`` has functions to call in place of what it would do."""

    numbers = itertools.count(1)

    def __init__(self, config: PoolConfig, script: Mapping[str, Callable[[FakeBrowser], Any]]):
        self.id = f"fake-{next(self.numbers)}"
        self.identity: ProcessIdentity | None = None
        self.session: Any = self
        self.report: ExitReport | None = None
        self.downloads: Path | None = None
        self.alive = False
        self.renewals = 0
        self.deadline: float | None = None
        self.called_off = threading.Event()
        self._script = script

    def _do(self, what: str) -> Any:
        action = self._script.get(what)
        return action(self) if action else None

    def launch(self) -> None:
        self._do("launch")
        if self.called_off.is_set():
            raise SessionClosed("called off")
        self.alive = True

    def call_off(self) -> None:
        self.called_off.set()

    def renew(self) -> str:
        self.renewals += 1
        return self._do("renew") or ""

    def ping(self) -> str:
        return self._do("ping") or ""

    def looks_alive(self) -> bool:
        return self.alive

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        self.deadline = seconds

    def driver_for(self, handler: Any) -> Any:
        return FakeDriver(handler)

    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        return command()

    def failure(self) -> BrowserkeeperError | None:
        return None

    def end(self, reason: str) -> ExitReport:
        self._do("end")
        self.alive = False
        self.report = ExitReport(self.id, "fake", reason, "fake", "fake")
        return self.report

    def close(self) -> ExitReport:
        return self.end("closed")


class FakeDriver:
    def __init__(self, handler: Any):
        self.command_handler = handler

    def execute(self, command: Callable[[], Any]) -> Any:
        return self.command_handler.run_command("command", {}, command)

    def quit(self) -> None:
        self.command_handler.quit_driver()


class FakePool(BrowserPool[Any]):
    """A pool of them; ``browsers`` lists all that were ever made."""

    def __init__(self, script: Mapping[str, Callable[[FakeBrowser], Any]] | None = None, **given: Any):
        super().__init__("chrome", **{"max_size": 2, **given})
        browsers = self.browsers = list[FakeBrowser]()

        def make(config: PoolConfig) -> FakeBrowser:
            browsers.append(FakeBrowser(config, script or {}))
            return browsers[-1]

        self._make_browser = make
