"""Sessions with records and guards whose command is a small program in place of a driver."""

from __future__ import annotations

import dataclasses
import time

from browserkeeper.process import own_line, system
from browserkeeper.process.containment import choose
from browserkeeper.process.guard_process import GuardProcess
from browserkeeper.report import ExitReport
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Session, new_id, read_ended
from tests.support.guards import SLEEP_FOREVER, plan_for
from tests.support.waiting import deadline_in, wait_until


class Sessions:
    """Sessions of this process whose command is a small program, with records and guards."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.guards: dict[str, GuardProcess] = {}

    def start(
        self,
        label: str = "",
        command: tuple[str, ...] = SLEEP_FOREVER,
        containment: str = "subreaper",
        *,
        once_spawned: bool = True,
        **facts: object,
    ) -> str:
        """Start one, and return its id when its guard has started the command, or else when it has
        written the record."""
        id, me, host = str(facts.pop("id", new_id())), own_line(), system.host()
        session = Session(
            id=id,
            kind="session",
            browser="sleep",
            owner=me[0],
            owner_name="test",
            host=host.id,
            containment=choose(containment).kind,  # type: ignore[arg-type]
            created=time.time(),
            lock=str(self.ledger.lock_path(id)),
            init_start=host.init_start,
            uid=host.uid,
            label=label,
        )
        session = dataclasses.replace(session, **facts)  # type: ignore[arg-type]
        guard = self.guards[id] = GuardProcess(
            plan_for(
                command,
                containment,
                session=id,
                document=session.to_json(),
                record=str(self.ledger.record_path(id)),
                lock=session.lock,
                history=str(self.ledger.history_path(id)),
            )
        )
        if once_spawned:
            assert guard.wait_for("spawned", deadline=deadline_in()) is not None
        assert wait_until(lambda: self.is_live(id))
        return id

    def report_of(self, id: str) -> ExitReport:
        """From the history; waits for it."""
        path = self.ledger.history_path(id)
        assert wait_until(path.exists)
        return read_ended(path).report

    def is_live(self, id: str) -> bool:
        return self.ledger.record_path(id).exists()
