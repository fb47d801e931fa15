"""The hooks of pytest-xdist's controller: they report how the browsers of a crashed worker ended."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ..process import identity_of, is_alive, system
from ..process.identity import ProcessIdentity
from .run_marker import worker_run
from .settings import Settings

GUARD_TIMEOUT = 30.0
"""Seconds for the guards of a dead worker to end its browsers; they take 0.1."""
DEATH_TIMEOUT = 5.0
"""Seconds for a worker to be dead whose connection has closed; it takes less than a millisecond."""
ASKED_FOR = ("closed", "error", "retired")
"""Reasons of ends that an owner asks for.  Those of a dead worker are of earlier tests."""
RECENT = 50
"""How many ended sessions to read from the history, newest first."""


class ControllerHooks:
    """Notes who each worker is while it lives: once it has crashed, xdist does not say it any more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers: dict[str, ProcessIdentity] = {}
        self._endings: dict[str, list[str]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """Costs no message: execnet asks each new process for these facts, and caches the answer.

        A worker on another machine (``--tx ssh=…``) has a pid that means another process here.
        """
        if gateway.spec.popen:
            pid = gateway._rinfo().pid  # noqa: SLF001 # as xdist itself does
            self.workers[gateway.id] = identity_of(pid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if not error:
            return
        worker = self.workers.get(node.gateway.id)
        if worker is None:
            return
        endings = sessions_of_dead(worker)
        if self._settings.leaks != "off":
            _wait_for_death(worker)
            endings += _handle_leaks(worker_run(node.workerinput), self._settings)
        self._endings[node.gateway.id] = endings

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        node: Any = getattr(report, "node", None)
        endings = self._endings.pop(node.gateway.id, []) if node is not None else []
        if endings:
            report.longrepr = "\n".join([str(report.longrepr), *endings])


def sessions_of_dead(owner: ProcessIdentity) -> list[str]:
    """How the sessions ended that a dead process had, a line for each.  Blocks up to GUARD_TIMEOUT
    seconds, until they have.

    For whatever reason they ended: that a guard's owner has died, or is about to, is not always the word
    that the guard has for it.
    """
    from ..errors import LedgerError
    from ..state.ledger import Ledger
    from ..state.records import Record, Session

    try:
        ledger = Ledger.open()
    except LedgerError as error:
        return [f"How its browsers ended is not known: {error}"]

    here = system.host()

    def is_of_owner(session: Session) -> bool:
        return owner.is_same_as(session.owner) and session.place.is_same_as(here)

    def live() -> list[Record]:
        records = (record for record in ledger.records() if isinstance(record, Record))
        return [record for record in records if is_of_owner(record.session)]

    until = time.monotonic() + GUARD_TIMEOUT
    while (left := live()) and time.monotonic() < until:
        time.sleep(0.02)
    ended = [each.report for each in ledger.ended(RECENT) if is_of_owner(each.session)]
    endings = [f"Its browser: {report}" for report in ended if report.reason not in ASKED_FOR]
    return endings + [
        f"Its browser: {record.session.browser} session {record.session.id} is still there; "
        "look with `browserkeeper ps`, end it with `browserkeeper sweep --yes`."
        for record in left
    ]


def _wait_for_death(worker: ProcessIdentity) -> None:
    """A process that ends closes its files before its children get another parent, by which they are
    known as orphans."""
    until = time.monotonic() + DEATH_TIMEOUT
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.005)


def _handle_leaks(run: str, settings: Settings) -> list[str]:
    """End the browsers that the dead worker's tests started without browserkeeper and its guard.

    Named only: with ``keeper_leaks = warn``, and those that a program may use which a fixture started.
    """
    from . import leak_ending, leaks

    found = leaks.of_dead_worker(run)
    own = [leak for leak in found if not leak.holder and settings.leaks != "warn"]
    stuck = leak_ending.end(own)
    outcome = {id(leak): "NOT ended now" if leak in stuck else "ended now" for leak in own}
    return [f"Left running, {outcome.get(id(leak), 'not ended')}: {leak}" for leak in found]
