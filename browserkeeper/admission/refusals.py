"""Counts the starts that got no slot.  No session records them, so the metrics would not see them."""

from __future__ import annotations

from pathlib import Path

from ..errors import HostBusy
from ..state.totals import REFUSED, TIMED_OUT, Totals


def count_refusal(directory: Path, error: HostBusy, *, at_once: bool) -> None:
    """Add a start that is about to raise ``error`` to the counters in the state directory.

    ``at_once``: it did not want to wait (``wait=0``).  Else it has waited in vain.  Raises nothing;
    takes 0.1 ms, and up to 0.1 s where a program that was stopped has the file.
    """
    Totals(directory).add({f"{REFUSED if at_once else TIMED_OUT} {error.reason}": 1})


__all__ = ["count_refusal"]
