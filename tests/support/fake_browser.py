"""A pool whose browsers have no process, for tests of the pool's threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from browserkeeper.admission.gate import SlotRequest
from browserkeeper.errors import BrowserkeeperError, SessionClosed
from browserkeeper.options.identity import Identity
from browserkeeper.pool import BrowserPool
from browserkeeper.pool.config import PoolConfig
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.report import ExitReport


class FakeBrowser:
    """Records some of the calls that it gets.

    ``script`` maps the name of a method to a function, which is called with the browser and whose
    result the method returns.
    """

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
        self.lease_label = ""
        self.identities: list[Identity] = []
        self.called_off = threading.Event()
        self.slot = SlotRequest()
        self._script = script

    def _run_script(self, method: str) -> Any:
        action = self._script.get(method)
        return action(self) if action else None

    def launch(self) -> None:
        self.slot.on_admitted()  # it takes none
        self._run_script("launch")
        if self.called_off.is_set():
            raise SessionClosed("the launch was cancelled")
        self.alive = True

    def call_off(self) -> None:
        self.called_off.set()

    def renew(self) -> str:
        self.renewals += 1
        return self._run_script("renew") or ""

    def ping(self) -> str:
        return self._run_script("ping") or ""

    @property
    def at_rest(self) -> bool:
        return True

    def after_hook(self, name: str) -> None:
        self._run_script("after_hook")

    def looks_alive(self) -> bool:
        return self.alive

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        self.deadline = seconds

    def name_lease(self, label: str) -> None:
        self.lease_label = label

    def take(self, identity: Identity) -> None:
        self.identities.append(identity)
        self._run_script("take")

    def driver_for(self, handler: Any, reused: Any = None) -> Any:
        return FakeDriver(handler)

    must_take = False

    @property
    def bidi_filter(self) -> None:
        return None

    def run(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        return command()

    def read_storage_state(self, indexed_db: bool) -> dict[str, Any]:
        return {"cookies": [], "origins": []}

    @property
    def proxy_route(self) -> None:
        return None

    def failure(self) -> BrowserkeeperError | None:
        return None

    def end(self, reason: str) -> ExitReport:
        self._run_script("end")
        self.alive = False
        self.report = ExitReport(self.id, "fake", reason, "fake", "fake")
        return self.report

    shared_browser = None

    def when_over(self, call: Callable[[], None]) -> None:
        """It is seen by ``looks_alive``."""

    def close(self) -> ExitReport:
        return self.end("closed")


class FakeDriver:
    def __init__(self, handler: Any):
        self.command_handler = handler

    def execute(self, command: Callable[[], Any]) -> Any:
        return self.command_handler.run_command("command", {}, command)

    def quit(self) -> None:
        self.command_handler.quit_driver()

    def disconnect(self) -> None:
        """There is no connection."""


class FakePool(BrowserPool[Any]):
    """A pool of fake browsers; ``browsers`` lists all that it has made."""

    def __init__(self, script: Mapping[str, Callable[[FakeBrowser], Any]] | None = None, **given: Any):
        super().__init__("chrome", **{"max_size": 2, **given})
        browsers = self.browsers = list[FakeBrowser]()

        def make(config: PoolConfig) -> FakeBrowser:
            browsers.append(FakeBrowser(config, script or {}))
            return browsers[-1]

        self._make_browser = make
