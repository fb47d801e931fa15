"""The hooks of pytest-xdist's controller: they report how the browsers of a crashed worker ended."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .run_marker import worker_run
from .settings import Settings

GUARD_TIMEOUT = 5.0
"""Seconds for the guards of a dead worker to end its browsers; they take 0.1."""
RECENT = 50
"""How many ended sessions to read from the history, newest first."""


class ControllerHooks:
    """Notes each worker's pid while it lives: once it has crashed, xdist does not say it any more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pids: dict[str, int] = {}
        self._endings: dict[str, list[str]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """Costs no message: execnet asks each new process for these facts, and caches the answer."""
        self._pids[gateway.id] = gateway._rinfo().pid  # noqa: SLF001 # as xdist itself does

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if not error:
            return
        name, pid = node.gateway.id, self._pids.get(node.gateway.id, 0)
        endings = sessions_of_dead(pid) if pid else []
        if self._settings.leaks != "off":
            endings += _end_leaks(worker_run(node.workerinput))
        self._endings[name] = endings

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        node: Any = getattr(report, "node", None)
        endings = self._endings.pop(node.gateway.id, []) if node is not None else []
        if endings:
            report.longrepr = "\n".join([str(report.longrepr), *endings])


def sessions_of_dead(pid: int) -> list[str]:
    """How the sessions of a dead process ended, a line for each.  Blocks up to GUARD_TIMEOUT seconds,
    until they have."""
    from ..errors import LedgerError
    from ..state.ledger import Ledger
    from ..state.records import Record

    try:
        ledger = Ledger.open()
    except LedgerError as error:
        return [f"How its browsers ended is not known: {error}"]

    def live() -> list[Record]:
        records = (record for record in ledger.records() if isinstance(record, Record))
        return [record for record in records if record.session.owner.pid == pid]

    until = time.monotonic() + GUARD_TIMEOUT
    while (left := live()) and time.monotonic() < until:
        time.sleep(0.02)
    ended = [e.report for e in ledger.ended(RECENT) if e.session.owner.pid == pid]
    endings = [f"Its browser: {report}" for report in ended if report.reason == "owner-died"]
    return endings + [
        f"Its browser: {record.session.browser} session {record.session.id} is still there; "
        "look with `browserkeeper ps`, end it with `browserkeeper sweep --yes`."
        for record in left
    ]


def _end_leaks(run: str) -> list[str]:
    """End the browsers that the dead worker's tests started without browserkeeper and its guard."""
    from . import leak_ending, leaks

    found = leaks.of_dead_run(run)
    stuck = leak_ending.end(found)
    return [f"Left running, {'NOT ' if leak in stuck else ''}ended now: {leak}" for leak in found]
