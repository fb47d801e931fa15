"""Zombies: entries in the process table that nobody but their parent can remove (wait(2)).

Ours are those of sessions, and, since a session that has ended has no record any more, those of
this user that bear the name of a guard, a driver or a browser: plain Selenium's too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from ..process import system
from ..process.identity import ProcessFacts
from ..status.snapshot import ZOMBIE_PATIENCE, SessionStatus
from .notices import Notice

BROWSERS = ("chrom", "headless_shell", "geckodriver", "firefox", "msedge", "crashhelper")
NAMES = ("bk-guard", *BROWSERS)
"""How the names begin (15 bytes of them, proc(5))."""


def look_at(rows: Iterable[SessionStatus]) -> Iterator[Notice]:
    """O(host).  One notice for each parent."""
    known = {pid for row in rows for pid in row.zombies}
    families: dict[int, list[ProcessFacts]] = {}
    for zombie in lasting([p for p in system.everyone() if p.is_zombie and _is_ours(p, known)]):
        families.setdefault(zombie.parent, []).append(zombie)
    for parent, zombies in families.items():
        if found := system.facts(parent):
            yield notice_of(found, zombies)


def _is_ours(process: ProcessFacts, known: set[int]) -> bool:
    if process.pid in known:
        return True
    try:
        is_users = os.stat(f"/proc/{process.pid}").st_uid == os.geteuid()
    except OSError:
        return False  # reaped meanwhile
    return is_users and process.name.startswith(NAMES)


def lasting(suspects: list[ProcessFacts]) -> list[ProcessFacts]:
    """Those that are there a moment later: the others were only waiting for their turn."""
    if suspects:
        time.sleep(ZOMBIE_PATIENCE)
    found = [system.facts(process.pid) for process in suspects]
    return [
        now
        for process, now in zip(suspects, found, strict=True)
        if now and now.is_zombie and process.identity.is_same_as(now.identity)
    ]


def notice_of(parent: ProcessFacts, zombies: list[ProcessFacts]) -> Notice:
    """Said again whenever their number has doubled."""
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
