"""The doctor's checks of the host's gate: which limits hold and where they come from, whether they can
be met, whether slots can be counted, and a drain (docs/host.md)."""

from __future__ import annotations

import difflib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator

from ..admission import drain, memory
from ..admission.gate import Gate
from ..admission.limits import (
    NAMES,
    VARIABLES,
    Bound,
    HostLimits,
    environment_limits,
    file_limits,
    path_of,
)
from ..errors import BrowserkeeperError
from ..state.ledger import Ledger
from .check import Check
from .doctor_limits import MEMORY_PER_BROWSER

LIMITS = "host's limits"
SLOTS = "slots"
DRAIN = "drain"


def limits() -> Check:
    """Are the limits valid, which of them hold, and can they be met?"""
    ledger = Ledger.open()
    try:
        by_environment, by_file = environment_limits(), file_limits(ledger)
    except BrowserkeeperError as error:
        remedy = "Correct it: until then no session starts. docs/host.md has the names and values."
        return Check(LIMITS, "fail", str(error), remedy)
    found = by_environment.combined(by_file)
    if misspelt := _misspelt():
        wrong, right = misspelt
        return Check(LIMITS, "warn", f"{wrong} is set, and means nothing", f"Did you mean {right}?")
    what = "; ".join(_lines(found, by_environment, by_file))
    if not what:
        return Check(LIMITS, "ok", f"none is set, in the environment or in {path_of(ledger)}")
    try:
        if found.min_memory is not None:
            memory.check_possible(found.min_memory.value, found.min_memory.where)
    except BrowserkeeperError as error:
        return Check(LIMITS, "fail", str(error).removesuffix(" Lower it."), "Lower it.")
    if short := _more_than_the_memory(found.max_browsers):
        return Check(LIMITS, "warn", f"{what}; {short}", "Lower max_browsers, or set min_memory too.")
    return Check(LIMITS, "ok", what)


def _lines(found: HostLimits, *sources: HostLimits) -> Iterator[str]:
    """Each limit that holds and where it was set, and the looser ones that do not count beside it."""
    for name in NAMES:
        bound: Bound | None = getattr(found, name)
        if bound is None:
            continue
        others = [one for source in sources if (one := getattr(source, name)) not in (None, bound)]
        yield bound.where + "".join(f" ({one.where} is looser)" for one in others)


def _more_than_the_memory(most: Bound | None) -> str:
    """What is wrong with a limit on browsers that the memory does not allow, or ""."""
    if most is None:
        return ""
    total, of_what = memory.total_memory()
    needed = most.value * MEMORY_PER_BROWSER
    if needed <= total:
        return ""
    return (
        f"{most.value} browsers need about {memory.size_text(needed)} with one light page each, and "
        f"{of_what} has {memory.size_text(total)}"
    )


def _misspelt() -> tuple[str, str] | None:
    """A variable that is set and is nearly one of ours, and that one."""
    known = list(VARIABLES.values())
    for name in os.environ:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near and name not in known and name.startswith("BROWSERKEEPER_"):
            return name, near[0]
    return None


def slots() -> Check:
    """Can slots be counted in the state directory: are there locks of flock(2)?"""
    ledger = Ledger.open()
    try:
        with tempfile.TemporaryFile(dir=ledger.slots) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.listdir(ledger.slots)
    except OSError as error:
        what = f"no slots can be made, locked and counted in {ledger.slots}: {error.strerror}"
        remedy = (
            "Make that a directory of this user's, on a local file system (BROWSERKEEPER_STATE_DIR)."
        )
        return Check(SLOTS, "warn", what, remedy)
    state = Gate(ledger).state()
    browsers, grids = len(state.counted("browser")), len(state.counted("grid"))
    waiting = len(state.waiting) + len(state.standby)
    what = f"{browsers} held by browsers, {grids} by sessions of Grids; starts that wait: {waiting}"
    return Check(SLOTS, "ok", what)


def drained() -> Check:
    """Does an operator let no session start?"""
    found = drain.present(Ledger.open())
    if found is None:
        return Check(DRAIN, "ok", "the host is not drained: sessions may start")
    remedy = "When they may start again: browserkeeper resume"
    return Check(DRAIN, "warn", f"no session starts: {found}", remedy)


CHECKS: tuple[Callable[[], Check], ...] = (limits, slots, drained)

__all__ = ["CHECKS", "drained", "limits", "slots"]
