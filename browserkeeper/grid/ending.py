"""Ending a session on a Grid, and verifying that it is gone.

Measured with Selenium Grid 4.47 (docs/remote.md): a request for a session whose connection is closed
while it waits leaves the queue within a second; one that is closed while its browser starts is
ended by the Grid itself; a DELETE waits behind the running command, for up to the Grid's session
timeout, unless that command is interrupted over CDP (Chromium) or BiDi (Firefox).
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence

from ..report import ExitReport, RemoteEnd
from ..wire.http import FailedLooks
from .address import Address
from .hub import FAILURES, Hub
from .interrupt import interrupt_command

DELETE_ALONE = 0.7
"""Seconds that a DELETE may take before the command that it may be waiting for is interrupted."""
UNREACHABLE_PATIENCE = 2.0
"""Seconds for which a Grid that cannot be reached is tried: if it was stopped, its sessions ended.  One
that does not answer in time can be reached, and is asked until the deadline."""
LOOK_TIMEOUT = 2.0
"""Seconds that one request for the status or the queue may take."""
LOOK_PAUSE = 0.1
"""Seconds between two looks at the status or the queue."""
LOOK_SHARE = 0.1
"""Share of the time limit that is kept for looks at the status where a DELETE has no answer.  Without it
there would be one look, which decided, and whose answer had to come within 0.2 s."""
LOOK_LEAST = 1.5
"""At least so many seconds are kept; of a limit below 4.5 s, a third."""
QUIET_LOOKS, QUIET_PAUSE = 4, 0.3
"""Successive looks that must find nothing of a closed request, and the seconds between them: it takes
up to half a second until a session appears whose client has gone."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a session on a Grid ended, by the Grid's own answers; the fields are as in RemoteEnd."""

    gone: bool | None
    slot_free: bool | None
    answer: str


def worst_of(endings: Sequence[Ending]) -> Ending:
    """One ending for all: of a fact that is True for some, and False or unknown for another, the latter
    is what holds; the answers of all."""

    def of_all(facts: Sequence[bool | None]) -> bool | None:
        return False if False in facts else None if None in facts else True

    return Ending(
        of_all([ending.gone for ending in endings]),
        of_all([ending.slot_free for ending in endings]),
        "; ".join(ending.answer for ending in endings),
    )


def end_on_grid(report: ExitReport, grid: Address, limit: float) -> ExitReport:
    """End the session of a report on its Grid, and return the report with the Grid's answer.

    For a session whose relay was killed before it could do so.  Finds the session by its id on the
    Grid, or by our marker where that id is not known.  Asks nothing where the report says that the
    session is gone.  Blocks for ``limit`` seconds at most.
    """
    remote = report.remote or RemoteEnd(str(grid))
    if remote.gone:
        return report
    hub, deadline = Hub(grid), time.monotonic() + limit
    if remote.session:
        ending = end_session(hub, remote.session, deadline)
    else:
        ending = end_marked_session(hub, report.session, deadline)
    return report.with_remote(dataclasses.replace(remote, **dataclasses.asdict(ending)))


def end_session(hub: Hub, session: str, deadline: float) -> Ending:
    """End a session and look whether it is gone; returns by ``deadline`` (``time.monotonic()``)."""
    answers: list[Ending] = []
    left = _left(deadline)
    until = deadline - max(LOOK_SHARE * left, min(LOOK_LEAST, left / 3))
    deleting = threading.Thread(target=lambda: answers.append(_delete(hub, session, until)), daemon=True)
    deleting.start()
    deleting.join(min(DELETE_ALONE, _left(until)))
    if deleting.is_alive():
        interrupt_command(hub, session, until, lambda: not deleting.is_alive())
        deleting.join(_left(until))
    ending = answers[0] if answers else Ending(None, None, "no answer to DELETE in time")
    return _verified(hub, session, ending, deadline)


def _delete(hub: Hub, session: str, deadline: float) -> Ending:
    """DELETE until the Grid says that the session is gone or refuses the credentials.  Tries again
    after the Grid's own errors; gives up sooner where the Grid cannot be reached."""
    ending = Ending(None, None, "was not asked in time")
    give_up = min(deadline, time.monotonic() + UNREACHABLE_PATIENCE)
    while (left := _left(deadline)) > 0.01:
        try:
            answer = hub.ask("DELETE", f"/session/{session}", left)
        except FAILURES as error:
            ending = Ending(None, None, f"DELETE failed: {error or type(error).__name__}")
            if time.monotonic() > give_up:
                return ending
        else:
            if answer.status == 200 or answer.is_unknown_session:
                return Ending(True, None, answer.brief)
            ending = Ending(None, None, answer.brief)
            if answer.status in (401, 403):
                return ending
        time.sleep(min(LOOK_PAUSE, _left(deadline)))
    return ending


def _verified(hub: Hub, session: str, ending: Ending, deadline: float) -> Ending:
    """The ending with what the Grid's status says.  The status may list an ended session for a moment,
    so this looks again until ``deadline``.  A look that fails does not undo one that saw the session."""
    was_listed, failed = False, FailedLooks(UNREACHABLE_PATIENCE)
    while True:
        try:
            running = hub.sessions(_look_timeout(deadline))
        except FAILURES as error:
            if failed.is_last(error, time.monotonic()) and not was_listed:
                return ending
        else:
            if running is None:
                return ending
            if session not in running:
                return dataclasses.replace(ending, slot_free=True, gone=True)
            was_listed = True
            failed.clear()
        if _left(deadline) <= 0:
            return dataclasses.replace(ending, slot_free=False, gone=False) if was_listed else ending
        time.sleep(min(LOOK_PAUSE, _left(deadline)))


def end_marked_session(hub: Hub, marker: str, deadline: float) -> Ending:
    """End the session that the Grid has under this marker, if any, and wait until the queue has no
    request with it.  For a request that was closed before its answer named the session."""
    quiet, ending = 0, Ending(None, None, "the request was closed before its answer came")
    failed = FailedLooks(UNREACHABLE_PATIENCE)
    while _left(deadline) > 0:
        try:
            if hub.is_queued(marker, _look_timeout(deadline)):
                quiet, ending = 0, Ending(False, False, "the request is still in the Grid's queue")
                failed.clear()
                time.sleep(LOOK_PAUSE)
                continue
            running = hub.sessions(_look_timeout(deadline))
        except FAILURES as error:
            quiet = 0
            if ending.gone is None:  # else an earlier look has seen it
                ending = Ending(None, None, f"{type(error).__name__}: {error}")
            if failed.is_last(error, time.monotonic()):
                return ending
            time.sleep(min(LOOK_PAUSE, _left(deadline)))
            continue
        failed.clear()
        if running is None:
            return Ending(None, None, "the status does not list the sessions")
        found = [session for session, its_marker in running.items() if its_marker == marker]
        if found:
            quiet, ending = 0, end_session(hub, found[0], deadline)
            continue
        quiet += 1
        if quiet >= QUIET_LOOKS:
            return Ending(True, True, "no session and no request of ours is left")
        time.sleep(QUIET_PAUSE)
    return ending


def _look_timeout(deadline: float) -> float:
    return min(LOOK_TIMEOUT, max(0.2, _left(deadline)))


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


__all__ = ["Ending", "end_marked_session", "end_on_grid", "end_session", "worst_of"]
