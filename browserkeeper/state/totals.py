"""Counters that all programs of a state directory share: one small file, ``totals.json``.

Programs start and end, and their own counters go with them.  So here is added up what the metrics
exporter has to count although no session records it: starts that were refused, and how long requests of
pools waited.  The file is one page, which is changed in place: it does not grow, it needs no more space
on a full disk, and a process that is killed leaves the old counters or the new ones.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import json
import logging
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import LedgerError
from ..report import SCHEMA
from .documents import CorruptRecordError, read_document
from .permissions import is_ours_alone

logger = logging.getLogger("browserkeeper")

NAME = "totals.json"
SIZE = 4096
"""Bytes.  The kernel writes one page without a break, also for a process that is being killed
(``generic_perform_write`` in mm/filemap.c looks for signals between two pages)."""
PATIENCE = 0.1
"""Seconds to wait for another process, which has the file for some 50 µs.  One that was stopped in that
time must not stop all others."""
PAUSE = 0.002

_told: set[str] = set()
"""What this process has logged already, so that it is not said for each step again."""


class Totals:
    """The file in a state directory.  Numbers only rise, until the file is removed: Prometheus takes a
    fall for a restart."""

    def __init__(self, directory: Path):
        self.path = directory / NAME

    def add(self, steps: Mapping[str, float]) -> bool:
        """Add to the counters of these names.  Raises nothing.

        False, with one line in the log, if they could not be counted: the file is another user's, the
        file system has no locks, or the page is full.
        """
        try:
            with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as fd:
                counters = _parse(os.pread(fd, SIZE, 0))
                for name, step in steps.items():
                    counters[name] = round(counters.get(name, 0) + step, 6)
                os.pwrite(fd, _page(counters), 0)
        except OSError as error:  # LedgerError is one
            if str(error) not in _told:
                _told.add(str(error))
                logger.warning("not counted in the metrics: %s", error)
            return False
        return True

    def read(self) -> dict[str, float]:
        """The counters; {} where nothing has been counted yet.  Raises LedgerError if the file cannot be
        read or is not valid."""
        try:
            with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as fd:
                # Empty: it was just made, or could not be filled on a full disk.
                return _numbers(read_document(self.path)) if os.fstat(fd).st_size else {}
        except FileNotFoundError:
            return {}
        except LedgerError:
            raise
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror})") from error

    @contextlib.contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        fd = os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or not is_ours_alone(facts):
                raise LedgerError(
                    f"{self.path} is no regular file, or another user could have written it. Remove it."
                )
            until = time.monotonic() + PATIENCE
            while True:
                is_last_try = time.monotonic() > until
                try:
                    fcntl.flock(fd, lock | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if is_last_try:
                        raise LedgerError(f"{self.path} is locked by another process.") from None
                    time.sleep(PAUSE)
            yield fd
        finally:
            # A process that another thread has forked meanwhile would keep the lock (flock(2)).
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _parse(raw: bytes) -> dict[str, float]:
    """The counters of a page; none if it is empty or holds rubbish, which then is overwritten: only this
    user can have written it."""
    try:
        return _numbers(json.loads(raw))
    except (ValueError, RecursionError, LedgerError):
        return {}


def _numbers(document: object) -> dict[str, float]:
    found = document.get("totals") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise CorruptRecordError(f"{NAME}: it holds no counters. Remove it.")
    numbers = {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    if len(numbers) != len(found) or not all(math.isfinite(n) and n >= 0 for n in numbers.values()):
        raise CorruptRecordError(f"{NAME}: it holds what is no counter. Remove it.")
    return numbers


def _page(counters: Mapping[str, float]) -> bytes:
    document = {"schema": SCHEMA, "totals": counters}
    text = json.dumps(document, separators=(",", ":"))
    if len(text) >= SIZE:
        raise LedgerError(f"{NAME} is full: it holds {SIZE} bytes.")
    return text.ljust(SIZE - 1).encode("ascii") + b"\n"


# ---------------------------------------------------------------------------------- what is counted

REFUSED, TIMED_OUT = "refused", "timed-out"
"""Starts without a slot, with the reason; and pools' requests, with the browser's name, below."""
POOL_WAIT, POOL_TIMED_OUT, POOL_HOOK_ERRORS = "pool-wait", "pool-timed-out", "pool-hook-errors"
POOL_HOOKS = ("configure", "check", "reset")
"""The hooks of a pool, of which POOL_HOOK_ERRORS counts the errors."""
POOL_WAIT_BOUNDS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds.  An idle browser is leased within a millisecond; a new Chromium takes 0.6 s."""


def buckets_of(browser: str, waits: Iterable[float]) -> dict[str, float]:
    """The steps for :meth:`Totals.add` of requests that waited so many seconds for a pool's browser."""
    steps: dict[str, float] = {}
    bounds = (*map(str, POOL_WAIT_BOUNDS), "+Inf")
    for seconds in waits:
        bound = bounds[bisect.bisect_left(POOL_WAIT_BOUNDS, seconds)]
        for name, step in ((bound, 1.0), ("sum", seconds)):
            key = f"{POOL_WAIT} {browser} {name}"
            steps[key] = steps.get(key, 0.0) + step
    return steps


__all__ = [
    "POOL_HOOKS",
    "POOL_HOOK_ERRORS",
    "POOL_TIMED_OUT",
    "POOL_WAIT",
    "POOL_WAIT_BOUNDS",
    "REFUSED",
    "TIMED_OUT",
    "Totals",
    "buckets_of",
]
