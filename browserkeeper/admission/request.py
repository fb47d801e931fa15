"""What one start asks of the gate."""

from __future__ import annotations

from collections.abc import Callable

from .files import Bell
from .limits import Kind
from .tickets import Priority


def not_waiting() -> str:
    """The ``waits_for`` of a request that does not wait, or that has not looked yet whether it must."""
    return ""


class SlotRequest:
    """What one start asks for, and the hand on it while it waits.

    ``max_browsers`` and ``min_memory`` (bytes) are the arguments of the start.  ``pool`` is any text
    that is the same for all requests of one pool; see :meth:`Gate.held_back_outside`.

    :meth:`promote` and :meth:`wake` may be called in any thread and in a signal handler.
    """

    def __init__(
        self,
        kind: Kind = "browser",
        *,
        label: str = "",
        priority: Priority = "work",
        max_browsers: int | None = None,
        min_memory: int | None = None,
        pool: str = "",
    ):
        self.kind, self.label, self.pool = kind, label, pool
        self.priority: Priority = priority
        self.max_browsers, self.min_memory = max_browsers, min_memory
        self.on_wait: Callable[[], None] = lambda: None
        """Called when this start has to wait, and once."""
        self.on_admitted: Callable[[], None] = lambda: None
        """Called when it has its slot."""
        self.bell: Bell | None = None
        """That of its ticket, while it waits."""
        self.waits_for: Callable[[], str] = not_waiting
        """Says what the start waits for, in one sentence without a full stop; "" while it does not."""

    def promote(self) -> None:
        """Make a standby request work: it goes behind the work that waits, and before all standbys."""
        self.priority = "work"
        self.wake()

    def wake(self) -> None:
        """Have a start that waits call its ``check`` now, and look again."""
        bell = self.bell
        if bell is not None:
            bell.ring()


__all__ = ["SlotRequest", "not_waiting"]
