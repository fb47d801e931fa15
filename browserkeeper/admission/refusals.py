"""Counts the starts that got no slot.  No session records them, so the metrics would not see them."""

from __future__ import annotations

from pathlib import Path

from ..state.totals import REFUSED, TIMED_OUT, Totals


def count_refusal(directory: Path, reason: str, *, at_once: bool) -> None:
    """Add a start that got no slot to the counters in the state directory.

    ``reason`` is that of HostBusy, also where the session's own timeout has ended the wait; ``limits``
    where the limits are not valid.  ``at_once``: it did not want to wait (``wait=0``), or could not;
    else it has waited in vain.  Raises nothing.  Takes 0.1 ms, and up to 0.1 s where a program that was
    stopped has the file.
    """
    Totals(directory).add({f"{REFUSED if at_once else TIMED_OUT} {reason}": 1})


__all__ = ["count_refusal"]
