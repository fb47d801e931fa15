"""The slot of one start: the wait for it, and the slot until the session's guards have it alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..admission.gate import Gate, SlotRequest
from ..config import SessionConfig
from ..errors import SessionTimeout
from ..state.ledger import Ledger

if TYPE_CHECKING:
    from ..admission.slots import Slot
    from .ending import DeadlineError


class Admission:
    """One start's place among all programs of the host.

    A session that is attached to a browser which runs already needs no slot: it starts none.
    """

    def __init__(self, config: SessionConfig):
        self.request = SlotRequest(
            "grid" if config.place == "grid" else "browser",
            label=config.label,
            max_browsers=config.max_browsers,
            min_memory=config.min_memory,
        )
        """A pool sets its ``priority`` and ``pool`` before the start."""
        self.slot: Slot | None = None

    @property
    def waited(self) -> float:
        """Seconds that the start has waited for its slot."""
        return self.slot.waited if self.slot is not None else 0.0

    def take(
        self, config: SessionConfig, ledger: Ledger, check: Callable[[Callable[[], str]], float | None]
    ) -> None:
        """Take the slot, and wait for it if need be.

        ``check`` is called often meanwhile, with a function that says what is waited for; see
        ``Gate.acquire``, which counts for the metrics that it got none.  Raises HostBusy, ConfigError,
        LedgerError, and what ``check`` raises.
        """
        if not config.debugger_address:
            self.slot = Gate(ledger).acquire(
                self.request, config.wait, lambda: check(self.request.waits_for)
            )

    def bind(self, session: str) -> None:
        """Note which session has the slot, for people.  Again for each attempt."""
        if self.slot is not None:
            self.slot.bind(session)

    def hand_over(self) -> None:
        """Leave the slot to the guards of a session that has started."""
        if self.slot is not None:
            self.slot.hand_over()

    def give_back(self) -> None:
        """The start has failed, and all that it has started is gone.  Idempotent; does nothing after
        :meth:`hand_over`."""
        if self.slot is not None:
            self.slot.release()


def check_deadlines(
    config: SessionConfig,
    began: float,
    user_deadlines: Mapping[str, tuple[float, float]],
    deadline_errors: Mapping[str, DeadlineError],
    why: Callable[[], str],
) -> float | None:
    """The nearest deadline of a start that waits for its slot (``time.monotonic()``); None for none.

    ``user_deadlines`` and ``deadline_errors``: those of the session's control.  Raises SessionTimeout,
    or what ``deadline_errors`` makes, where it has passed: no guard is there that would keep it.
    """
    deadlines = [
        (passes, f"the deadline of {seconds:g} s that set_deadline() had set", "")
        for seconds, passes in list(user_deadlines.values())
    ]
    if config.timeout is not None:
        what = f"the session's timeout of {config.timeout:g} s"
        deadlines.append((began + config.timeout, what, "timeout"))
    if not deadlines:
        return None
    passes, what, reason = min(deadlines)
    if time.monotonic() < passes:
        return passes
    waits_for = why()
    phase = "its launch had not begun"  # the search for browser and driver has taken so long
    if waits_for:
        phase = f"it was still waiting for a slot of the host, since {waits_for}"
    kind = deadline_errors.get(reason, SessionTimeout)
    raise kind(f"{config.name} did not start within {what}: {phase}.", None)


__all__ = ["Admission", "check_deadlines"]
