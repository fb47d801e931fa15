"""Zombies: entries in the process table that only their parent can remove (wait(2)).

Reported are those of live sessions, and those of this user that are named like a guard, a driver or a
browser: a session that has ended has no record any more, and plain Selenium's never had one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..process import system
from ..process.identity import ProcessFacts
from ..status.snapshot import LONG_ZOMBIE_PATIENCE, SessionStatus, still_zombies, wait_for_reaping
from .notices import Notice

BROWSERS = ("chrom", "headless_shell", "geckodriver", "firefox", "msedge", "crashhelper")
NAMES = ("bk-guard", *BROWSERS)
"""How the names begin; the kernel keeps 15 bytes of a name (proc(5))."""


def check(sessions: Iterable[SessionStatus]) -> Iterator[Notice]:
    """One notice for each parent.  Reads every process of the host."""
    known = {pid for status in sessions for pid in status.zombies}
    suspects = [p for p in system.everyone() if p.is_zombie and _is_ours(p, known)]
    wait_for_reaping(lambda: any(still_zombies(suspects, system)), LONG_ZOMBIE_PATIENCE)
    by_parent: dict[int, list[ProcessFacts]] = {}
    for zombie in still_zombies(suspects, system):
        by_parent.setdefault(zombie.parent, []).append(zombie)
    for parent, zombies in by_parent.items():
        if facts := system.facts(parent):
            yield notice_of(facts, zombies)


def _is_ours(process: ProcessFacts, known: set[int]) -> bool:
    if process.pid in known:
        return True
    try:
        is_users = os.stat(f"/proc/{process.pid}").st_uid == os.geteuid()
    except OSError:
        return False  # reaped meanwhile
    return is_users and process.name.startswith(NAMES)


def notice_of(parent: ProcessFacts, zombies: list[ProcessFacts]) -> Notice:
    """Its magnitude grows, and it is reported again, whenever the number of zombies doubles."""
    names = ", ".join(sorted({zombie.name for zombie in zombies}))
    many = len(zombies) > 1
    message = (
        f"{len(zombies)} {'zombies' if many else 'zombie'} ({names}; pid {zombies[0].pid}"
        f"{' …' if many else ''}): {parent.name} (pid {parent.pid}) does not reap "
        f"{'them' if many else 'it'}. A zombie has no memory, only a number, and cannot be killed."
    )
    subject = f"{parent.pid}/{parent.identity.start:.2f}"
    return Notice("zombies", subject, message, remedy(parent), magnitude=len(zombies).bit_length())


def remedy(parent: ProcessFacts) -> str:
    if parent.pid == 1:
        return (
            "PID 1 has to reap: make `browserkeeper run --` the container's entry point, or use "
            "docker run --init."
        )
    if parent.state in "Tt":
        return f"It is stopped; wake it: kill -CONT {parent.pid}."
    return f"Restart {parent.name}, which hands them on to PID 1, and have it wait for its children."
