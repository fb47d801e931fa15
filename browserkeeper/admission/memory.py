"""How much memory is free for one more browser, on the machine and in our cgroups.

What is free now is not yet taken by browsers that have only just been admitted.  So each young slot
reserves what its browser will still take.  A reservation shrinks to nothing within RESERVED_SECONDS, so
that a wrong guess delays a start by some seconds, and never blocks one for ever.

The reservations are those of the whole state directory, while the free memory may be that of this
program's own cgroup: browsers that start in other cgroups delay a start here by some seconds, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..errors import ConfigError
from ..process import limits

BROWSER_BYTES = 350_000_000
"""What a browser with its driver and guards takes in its first seconds.

Measured as the growth of ``memory.usage_in_bytes`` less ``total_inactive_file`` of a cgroup of its own,
every 0.1 s for 12 s after ``browser(NAME).start()`` (2 cores, Chromium 156, Firefox 153 ESR): headless
Chromium 164 MB after 0.9 s with an empty page, 215 MB with one that holds 50 MB; Firefox 350 MB after
3 s.  The shared libraries count once for all browsers, and are not in these numbers."""
RESERVED_SECONDS = 10.0
"""Seconds after which a new browser has taken its memory: three times Firefox's, for a busy machine."""
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, ImportError)
"""What a look at the memory may raise: files that cannot be read, and answers that make no sense."""

_warned: set[str] = set()
logger = logging.getLogger("browserkeeper")


def reserved(ages: Iterable[float]) -> int:
    """Bytes that browsers will still take that were admitted so many seconds ago.

    A negative age is that of a slot from before the machine's clock was set back; it counts as old.
    """
    young = (1 - age / RESERVED_SECONDS for age in ages if 0 <= age < RESERVED_SECONDS)
    return int(sum(young) * BROWSER_BYTES)


def free_for_a_start(ages: Iterable[float]) -> int | None:
    """Bytes that are free, less what the browsers of slots of these ages, in seconds, will still take.

    Negative where they will take more than is free.  None where the memory cannot be looked at, which is
    logged once: then memory holds no start back, since nothing would ever end such a wait, and the
    number of browsers still has its limit.
    """
    try:
        _require_readable()
        left = limits.memory_left()
    except UNREADABLE as error:
        _warn_once(str(error) or type(error).__name__)
        return None
    return left - reserved(ages)


def check_possible(least: int, where: str) -> None:
    """Raises ConfigError where ``least`` bytes are more than this program can ever have free, since such
    a start would never be admitted.  ``where`` says what has set this bound."""
    try:
        most, of_what = total_memory()
    except UNREADABLE:
        return  # free_for_a_start() says so
    if least > most:
        raise ConfigError(
            f"{where} can never be met: {of_what} has {size_text(most)} of memory in all. Lower it."
        )


def size_text(size: int) -> str:
    """A size for people, such as ``1.50 GiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if abs(size) >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"


def total_memory() -> tuple[int, str]:
    """Bytes that this program and its browsers may use together, and what sets that."""
    import psutil

    found = [(int(psutil.virtual_memory().total), "this machine")]
    for files in limits.MEMORY_FILES:
        for directory, most, _ in limits.cgroup_figures("memory", files):
            found.append((most, f"the cgroup {directory}"))
    return min(found)


def _require_readable() -> None:
    """Raises OSError for a cgroup's memory file that is there and cannot be read.

    ``process.limits`` takes such a file for none, and so for no limit.
    """
    for directory in limits.cgroup_directories("memory"):
        for names in limits.MEMORY_FILES:
            for name in names:
                try:
                    (directory / name).read_bytes()
                except (FileNotFoundError, NotADirectoryError):
                    continue


def _warn_once(why: str) -> None:
    if why not in _warned:
        _warned.add(why)
        logger.warning(
            "could not look how much memory is left, so that no start waits for memory: %s", why
        )


__all__ = [
    "BROWSER_BYTES",
    "RESERVED_SECONDS",
    "check_possible",
    "free_for_a_start",
    "reserved",
    "size_text",
    "total_memory",
]
