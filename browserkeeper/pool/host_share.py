"""A pool's share of the host: its requests for slots, and what it sees of the other programs.

Which start may go ahead is decided by ``browserkeeper/admission``; what a pool gives up for others, by
its scheduler.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

from ..admission import drain
from ..admission.files import Bell
from ..admission.gate import Gate, SlotRequest
from ..admission.limits import Kind
from ..config import SessionConfig
from ..errors import BrowserkeeperError, HostBusy
from ..state.ledger import Ledger
from .event_loop import EventLoop
from .logs import log
from .scheduler import HostView, Outsider, Priority

LOOK_EVERY = 1.0
"""Seconds between two looks at the host at least, while no program waits outside the pool: those that
begin to wait ring the pool's bell."""
LOOK_SHARE = 0.05
"""The looks take this share of the event loop's time at most, while programs wait outside."""
OPEN_EVERY = 60.0
"""Seconds between two attempts to open the state directory, where that failed."""


class HostShare:
    """One pool's.  For the event loop's thread, but for :meth:`busy`.

    A pool works as well without it, where the state directory cannot be used: then it gives up no
    browser, and its launches raise what is wrong.
    """

    def __init__(self, config: SessionConfig):
        self._config = config
        self._kind: Kind = "grid" if config.place == "grid" else "browser"
        self._id = os.urandom(8).hex()
        self._gate: Gate | None = None
        self._bell: Bell | None = None
        self._view = HostView()
        self._next_look = 0.0
        self._is_closed = config.place == "server"  # whose leases take no slots of this host

    def mark(self, request: SlotRequest, priority: Priority) -> None:
        """Make it a request of this pool, before the launch."""
        request.pool, request.priority = self._id, priority

    def look(self, now: float, loop: EventLoop) -> HostView | None:
        """What is seen now, or None where the last look is not old enough.

        Never blocks: it takes no lock.  20 µs where no program waits.
        """
        if now < self._next_look or self._is_closed:
            return None
        if self._gate is None and not self._open(loop):
            self._next_look = now + OPEN_EVERY
            return None
        assert self._gate is not None
        began = time.monotonic()
        held_back = self._gate.held_back_outside(self._launch())
        drained = drain.present(self._gate.ledger) is not None
        waiting = sorted((now - one.age, one.is_owed) for one in held_back)
        self._view = HostView(tuple(Outsider(*one) for one in waiting), drained)
        cost = time.monotonic() - began
        is_quiet = not held_back and not drained
        self._next_look = now + (LOOK_EVERY if is_quiet else cost / LOOK_SHARE)
        return self._view

    def _open(self, loop: EventLoop) -> bool:
        """Open the state directory, and have a bell there that programs ring when they begin to wait."""
        try:
            gate = Gate(Ledger.open())
            self._bell = gate.yield_bell()
        except (OSError, BrowserkeeperError) as error:
            log(logging.WARNING, "pool: it cannot see which programs wait for a browser: %s", error)
            return False
        self._gate = gate
        loop.listen(self._bell.fileno(), self._on_ring)
        return True

    def look_soon(self) -> None:
        """Have the next :meth:`look` look, however short ago the last one was."""
        self._next_look = 0.0

    def _on_ring(self, now: float) -> None:
        """The look follows, with the other steps of the event loop."""
        if self._bell is not None:
            self._bell.clear()
        self.look_soon()

    def close(self, loop: EventLoop) -> None:
        """Remove the bell.  Idempotent."""
        self._is_closed = True
        bell, self._bell = self._bell, None
        if bell is not None:
            loop.ignore(bell.fileno())
            with contextlib.suppress(OSError):
                bell.remove()

    def busy(self) -> HostBusy | None:
        """What a launch waits for now: the host's limit, its source, who holds the slots, who waits.

        None where that is not known, as where this process may open no more files.  May be called in any
        thread.
        """
        if self._gate is None:
            return None
        try:
            return self._gate.explain(self._launch())
        except (OSError, BrowserkeeperError) as error:
            log(logging.WARNING, "pool: what its launches wait for is not known: %s", error)
            return None

    def _launch(self) -> SlotRequest:
        """What each launch of the pool asks for."""
        most, least = self._config.max_browsers, self._config.min_memory
        return SlotRequest(self._kind, max_browsers=most, min_memory=least, pool=self._id)


__all__ = ["HostShare"]
