"""A pool whose browsers have no process, but a real slot of the host each.

``python -m tests.pool.slot_browsers SIZE LEASES [LABEL]`` is a program with such a pool: it takes so
many leases, prints ``leased`` for each, and waits to be killed.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import Slot
from browserkeeper.errors import SessionClosed
from browserkeeper.pool.config import PoolConfig
from browserkeeper.report import ExitReport
from browserkeeper.state.ledger import Ledger
from tests.support.fake_browser import FakeBrowser, FakePool


class SlotBrowser(FakeBrowser):
    """Takes its slot as a session's start does, and gives it back at its end."""

    taken: Slot | None = None

    def launch(self) -> None:
        self.taken = Gate(Ledger.open()).acquire(self.slot, None, self._check)
        try:
            self._run_script("launch")
            self._check()
        except BaseException:
            self.taken.release()
            raise
        self.alive = True

    def _check(self) -> None:
        if self.called_off.is_set():
            raise SessionClosed("the launch was cancelled")

    def call_off(self) -> None:
        super().call_off()
        self.slot.wake()

    def end(self, reason: str) -> ExitReport:
        if self.taken is not None:
            self.taken.release()
        return super().end(reason)


class SlotPool(FakePool):
    """``browsers`` lists all browsers that it has made."""

    def __init__(
        self, script: Mapping[str, Callable[[FakeBrowser], Any]] | None = None, **given: Any
    ) -> None:
        super().__init__(script, **{"max_size": 4, "min_idle": 0, "launch_concurrency": 4, **given})

        browsers = self.browsers

        def make(config: PoolConfig) -> FakeBrowser:
            browser = SlotBrowser(config, script or {})
            browser.slot = SlotRequest(
                label=config.browser.label, max_browsers=config.browser.max_browsers
            )
            browsers.append(browser)
            return browser

        self._make_browser = make


def held() -> int:
    """How many slots are held on this host."""
    return len(Gate(Ledger.open()).state().held)


def waiting() -> tuple[int, int]:
    """How many starts wait on this host: as work, and as a standby."""
    state = Gate(Ledger.open()).state()
    return len(state.waiting), len(state.standby)


def main(size: int, leases: int, label: str = "") -> None:
    with SlotPool(max_size=size, checkout_timeout=300, label=label or None) as pool:
        kept = []

        def lease() -> None:
            kept.append(pool.lease())
            print("leased", flush=True)

        for _ in range(leases):
            threading.Thread(target=lease, daemon=True).start()
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
