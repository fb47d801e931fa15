"""``drain()`` and ``resume()``: an operator lets no session start on this host, and then again.

``admission/drain.py`` has the file; here is what looks at the sessions that still run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from ..admission import drain as drains
from ..admission.drain import Drain
from ..admission.gate import Gate
from ..config import check_flag, check_seconds
from ..process import require_own_proc
from ..report import Operator
from ..state.documents import BadRecord
from ..state.ledger import Ledger
from ..state.locks import ask
from ..state.operators import this_operator
from ..state.records import Record
from .evidence import verdict_of

PAUSE = 0.25
"""Seconds between two looks at the sessions that still run."""


@dataclasses.dataclass(frozen=True)
class Running:
    """A session that a drain waits for; ``session`` is "" for one whose guard has not started."""

    session: str
    browser: str
    label: str
    owner: int
    owner_name: str

    def __str__(self) -> str:
        started = f"{self.browser} session {self.session}"
        name = started if self.session else "a session that is starting"
        label = f' "{self.label}"' if self.label else ""
        return f"{name}{label} of {self.owner_name} (pid {self.owner})"


def drain(reason: str = "", *, survive_reboot: bool = False, wait: float = 0) -> list[Running]:
    """Let no session start on this host until :func:`resume`, and have the running ones finish.

    Starts wait, or raise HostBusy with this ``reason``.  A host that is drained already stays so.
    Programs of `browserkeeper run` are not held back, since they are no browsers, and not waited for.

    Args:
        reason: a line of text for those that wait.
        survive_reboot: True keeps the drain over a new start of the machine.
        wait: seconds to wait until no session runs.

    Returns:
        The sessions that still run, which is a list without items once all have finished.

    Raises:
        ConfigError: an argument makes no sense.
        LedgerError: the state directory cannot be written.  The host is as before then.
        ContainmentError: ``/proc`` shows another pid namespace than this process's.
    """
    check_seconds("wait", wait, or_zero=True)
    check_flag("survive_reboot", survive_reboot)
    operator, ledger = this_operator(reason), Ledger.open()
    start(ledger, operator, survive_reboot=survive_reboot)
    return wait_until_idle(ledger, wait)


def resume() -> Drain | None:
    """Let sessions start again.  Returns the drain that this ends; None where the host is not drained.

    Raises LedgerError where the drain's file cannot be removed.
    """
    ledger = Ledger.open()
    ended = drains.end(ledger)
    gate = Gate(ledger)
    gate.ring_first()
    gate.ring_pools()
    return ended


def draining() -> Drain | None:
    """The drain that is in force on this host; None where there is none."""
    return drains.present(Ledger.open())


def start(ledger: Ledger, operator: Operator, *, survive_reboot: bool) -> Drain | None:
    """See :func:`drain`.  Returns the drain that was in force before."""
    require_own_proc()
    before = drains.start(ledger, operator, survives_reboot=survive_reboot)
    gate = Gate(ledger)
    gate.let_decisions_end()
    gate.ring_pools()  # they close their idle browsers
    return before


def wait_until_idle(
    ledger: Ledger, seconds: float, progress: Callable[[Sequence[Running]], None] = lambda _: None
) -> list[Running]:
    """Block until no session runs, for so many seconds at most.  Returns those that still run.

    Returns also when another program has ended the drain, since sessions start again then.
    ``progress`` is called with the sessions at once, and at each change.
    """
    until, before = time.monotonic() + seconds, None
    while True:
        found = running(ledger)
        if found != before:
            progress(found)
            before = found
        left = until - time.monotonic()
        if not found or left <= 0 or drains.present(ledger) is None:
            return found
        time.sleep(min(PAUSE, left))


def running(ledger: Ledger) -> list[Running]:
    """The sessions that run, and the starts that were admitted, oldest first.

    Every session counts that may still have a browser, also one that cannot be judged from here.  One
    whose owner and guards are dead does not: it is a sweep's.
    """
    found: dict[str, Running] = {}
    runs: set[str] = set()
    for record in sorted(ledger.records(), key=_age_key):
        if isinstance(record, BadRecord):
            if ask(ledger.lock_path(record.path.stem)).state == "held":
                found[record.path.stem] = Running(record.path.stem, "unknown", "", 0, "?")
            continue
        session = record.session
        if session.kind == "run":
            runs.add(session.id)
        elif verdict_of(record).state != "orphaned" and record.path.exists():
            owner, name = session.owner.pid, session.owner_name
            found[session.id] = Running(session.id, session.browser, session.label, owner, name)
    # A start has its slot before its guard has written the record.
    starting = [
        Running(one.session, one.kind, one.label, one.pid, one.program)
        for one in Gate(ledger).state().held
        if one.session not in found and one.session not in runs
    ]
    return [*found.values(), *starting]


def _age_key(record: Record | BadRecord) -> tuple[float, str]:
    """Oldest first, and the same at each look, whatever order the directory has them in."""
    created = 0.0 if isinstance(record, BadRecord) else record.session.created
    return created, record.path.name


__all__ = ["Running", "drain", "draining", "resume"]
