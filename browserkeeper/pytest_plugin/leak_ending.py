"""Ends leaked browsers, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from ..cleanup.temporary_profiles import profiles_of
from ..guard.trees import remove_tree
from ..process import is_alive, system
from .leaks import Leak

TIMEOUT = 10.0
"""Seconds for a leaked browser to be gone; a guard ends its own in 0.1."""


def end(leaks: Iterable[Leak]) -> list[Leak]:
    """End them and remove their temporary profiles.  Blocks up to TIMEOUT seconds; returns the leaks
    that are still there after it."""
    families = [_Family(leak) for leak in leaks]
    deadline = time.monotonic() + TIMEOUT
    while left := [family for family in families if not family.is_gone()]:
        if time.monotonic() > deadline:
            break
        for family in left:
            family.kill()
        time.sleep(0.02)
    for family in families:
        family.remove_profiles()
    return [family.leak for family in left]


class _Family:
    """A leaked process and all descendants of it that were ever seen, by identity."""

    def __init__(self, leak: Leak):
        self.leak = leak
        self._members = {leak.root.identity}
        self._profiles: set[Path] = set()
        self._guard_was_asked = False
        self._guard_has_until = time.monotonic() + TIMEOUT / 2

    def is_gone(self) -> bool:
        self._look()
        guard = {self.leak.guard} if self.leak.guard else set()
        return not any(is_alive(identity) for identity in self._members | guard)

    def _look(self) -> None:
        for identity in list(self._members):
            if is_alive(identity):
                below = {process.identity for process in system.tree(identity.pid)}
                if is_alive(identity):  # else another process may have got the pid meanwhile
                    self._members |= below
        self._profiles |= {path for m in self._members for path in profiles_of(m.pid)}

    def kill(self) -> None:
        """Asks the guard, if there is one: it ends the whole session, with its files and record.
        Without a guard, or if that takes too long, stops and kills all members.  They are stopped
        first so that none of them starts another process while the others die."""
        if self.leak.guard is not None and time.monotonic() < self._guard_has_until:
            if not self._guard_was_asked:
                system.send_signal(self.leak.guard, signal.SIGTERM)
                self._guard_was_asked = True
            system.send_signal(self.leak.guard, signal.SIGCONT)
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            self._look()
            for identity in self._members:
                system.send_signal(identity, number)

    def remove_profiles(self) -> None:
        """Removes what the killed driver can no longer remove."""
        for path in self._profiles:
            with contextlib.suppress(OSError):
                remove_tree(str(path))
