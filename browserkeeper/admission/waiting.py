"""The wait of one start, until it may go ahead.

Each start that waits sleeps in poll(2) until its bell rings, or the one ahead of it is gone.  Only the
first ones look by themselves as well, since a limits file, the free memory and a pair of guards that was
killed ring no bell.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import select
import time
from collections.abc import Callable

from ..errors import HostBusy
from .decision import Reason
from .files import BREAK_AFTER
from .gate_files import GateFiles, Look
from .request import SlotRequest, not_waiting
from .slots import DecideAgainError, Slot, Turn
from .texts import busy, why
from .tickets import LATE, Ticket

logger = logging.getLogger("browserkeeper")

SHORTEST, LONGEST, FAR_BEHIND = 0.5, 10.0, 30.0
"""Seconds between two looks: of the first start in the queue; of those behind it, where each place
doubles them, up to this; and of those with more than MANY before them.  200 look 11 times a second."""
MANY = 16
TELL_AFTER = 5.0
"""Seconds of waiting after which the log says what is waited for."""
MUTEX_PATIENCE = BREAK_AFTER + 2
"""Seconds for which a start that does not wait tries to get the gate's lock."""


class Wait:
    """One start that waits: its ticket, and for how long."""

    def __init__(
        self,
        gate: GateFiles,
        request: SlotRequest,
        seconds: float | None,
        check: Callable[[], float | None],
    ):
        self._gate, self._request, self._callers_check = gate, request, check
        self._began = time.monotonic()
        self._until = None if seconds is None else self._began + seconds
        self._ticket: Ticket | None = None
        self._turn = Turn(gate.ledger.turns)
        self._is_announced = False
        self._has_told = False
        self._bad_limits = ""
        self.reason: Reason | None = None
        """Why it could not go ahead when it last looked; None before its first look."""
        self.is_checking = False
        """True in the caller's ``check``, and for good where that has raised an exception."""

    def run(self) -> Slot:
        """Returns the slot.  Raises HostBusy, what ``check`` raises, and OSError."""
        self._check()
        try:
            while True:
                try:
                    seen = self._look()
                except DecideAgainError:
                    self._check()
                    continue
                if isinstance(seen, Slot):
                    seen.waited = time.monotonic() - self._began
                    self._ticket = None
                    self._turn.hand_out()
                    return seen
                self._request.waits_for = functools.partial(self._why, seen)
                self.reason = seen.reason or "full"  # None: others are before it
                is_new, self._ticket = self._ticket is None, seen.ticket
                again = self._check()
                now = time.monotonic()
                if self._until is not None and now >= self._until:
                    raise self._busy(seen, now - self._began)
                assert self._ticket is not None
                if is_new:
                    self._announce()
                if seen.reason == "limits" and seen.detail != self._bad_limits:
                    self._warn_of_limits(seen.detail)
                if self._has_to_tell and now - self._began >= TELL_AFTER:
                    self._tell(seen)
                self._sleep(self._ticket, seen, again)
        finally:
            self._leave()

    def _check(self) -> float | None:
        self.is_checking = True
        again = self._callers_check()
        self.is_checking = False
        return again

    def _look(self) -> Slot | Look:
        """Takes a ticket at the first look; and anew, at the end of the queue, where the directory was
        removed."""
        if self._ticket is not None and not self._ticket.is_in_place():
            self._ticket.close()
            self._ticket = None
        waits = self._until is None or time.monotonic() < self._until
        deadline = self._mutex_deadline()
        return self._gate.repeated(
            lambda: self._gate.look(
                self._request, self._ticket, self._turn, deadline, self._check, waits=waits
            )
        )

    def _mutex_deadline(self) -> float:
        least = time.monotonic() + MUTEX_PATIENCE
        return math.inf if self._until is None else max(least, self._until)

    def _announce(self) -> None:
        """To the pools that could give up an idle browser, and to who has made the request, once."""
        if not self._is_announced:
            self._is_announced = True
            self._gate.ask_pools_to_yield()
            self._request.on_wait()

    def _leave(self) -> None:
        """Without a slot.  A bell that was rung for this start is rung for the next one."""
        self._turn.close()
        ticket, self._ticket, self._request.bell = self._ticket, None, None
        self._request.waits_for = not_waiting
        if ticket is not None:
            ticket.close()
            self._gate.ring_first()

    def _busy(self, seen: Look, waited: float) -> HostBusy:
        state = self._gate.state(without=self._ticket.name if self._ticket is not None else "")
        return busy(state, self._request.kind, seen.limits, seen.reason, seen.detail, waited)

    def _why(self, seen: Look) -> str:
        request = self._request
        in_pool = bool(request.pool)
        state = self._gate.state(tickets_too=False)
        return why(state, request.kind, seen.limits, seen.reason, seen.detail, in_pool=in_pool)

    @property
    def _has_to_tell(self) -> bool:
        """A standby waits as long as there is work; that is no news."""
        return not self._has_told and self._request.priority == "work"

    def _warn_of_limits(self, problem: str) -> None:
        self._bad_limits = problem
        with contextlib.suppress(Exception):  # a log handler of the user's
            logger.warning("%s This program waits, and starts no browser until it is mended.", problem)

    def _tell(self, seen: Look) -> None:
        self._has_told = True
        request = self._request
        text = self._why(seen)
        with contextlib.suppress(Exception):  # a log handler of the user's
            name = f" {request.label!r}" if request.label else ""
            what = "Grid session" if request.kind == "grid" else "browser"
            logger.warning(
                "the start of a %s%s has waited for %.0f s: %s. `browserkeeper ps` shows who holds the "
                "slots.",
                what,
                name,
                time.monotonic() - self._began,
                text,
            )

    def _sleep(self, ticket: Ticket, seen: Look, again: float | None) -> None:
        """Until the bell rings, the start ahead is gone, or it is time to look again."""
        longest = FAR_BEHIND if seen.place > MANY else LONGEST
        pause = min(longest, SHORTEST * 2 ** min(seen.place, 8)) * _jitter()
        if seen.has_called:
            pause = min(pause, LATE * 1.1)  # by then they have answered, or are passed over
        poller = select.poll()
        poller.register(ticket.bell, select.POLLIN)
        if ticket.watched >= 0:
            poller.register(ticket.watched, 0)  # POLLHUP is always reported
        elif seen.ahead or not ticket.bell.is_public:
            pause = min(pause, SHORTEST * 4)
        now = time.monotonic()
        ends = [now + pause, self._until, again]
        if self._has_to_tell:
            ends.append(self._began + TELL_AFTER)
        left = min(end for end in ends if end is not None) - now
        poller.poll(max(0.0, left) * 1000 + 1)


def _jitter() -> float:
    """From 0.8 to 1.2, so that many that began at once do not look at once.  ``random`` would take 5 ms
    to import."""
    return 0.8 + time.monotonic_ns() // 1000 % 1000 / 2500


__all__ = ["Wait"]
