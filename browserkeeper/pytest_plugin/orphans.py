"""Drivers and browsers of a run of tests whose parents have died, found by the run's name in their
environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from ..cleanup.browser_programs import kind_of
from ..guard.procfs import read_bytes
from ..process import system
from ..process.identity import ProcessFacts
from . import run_marker
from .browser_processes import ancestors

CLOCK_TICK = 0.02
"""Seconds by which a start time may be too early: the kernel counts in ticks."""


@dataclasses.dataclass(frozen=True)
class Orphan:
    """``line`` are the living ancestors that have the run's name too, the nearest first; ``scope`` is
    that of ``run_marker``."""

    process: ProcessFacts
    scope: str
    line: tuple[ProcessFacts, ...]


def of_run(run: str, old_pids: AbstractSet[int] = frozenset(), since: float = 0.0) -> Iterator[Orphan]:
    """Those that were started at ``since`` or later and are not below this process.

    Reads the list of all pids, but only the facts of those that are not among ``old_pids``.
    """
    for orphan in _marked(run, old_pids, since):
        if os.getpid() not in (orphan.process.parent, *(each.parent for each in orphan.line)):
            yield orphan


def of_dead_worker(run: str) -> Iterator[Orphan]:
    """All of a run whose process has died; this process may have become their parent."""
    return _marked(run, frozenset(), 0.0)


def _marked(run: str, old_pids: AbstractSet[int], since: float) -> Iterator[Orphan]:
    """The name alone proves nothing: a job server passes its client's environment on to jobs that are
    its own.  So the line of parents must end where the kernel brings orphans: at PID 1 or at one of our
    own ancestors; and the process must be in our cgroup, which an orphan does not leave."""
    adopters: set[int] = set()
    for pid in system.pids():
        process = None if pid in old_pids else system.facts(pid)
        if process is None or process.is_zombie or process.identity.start < since - CLOCK_TICK:
            continue
        scope = run_marker.scope_in(system.marker_value(pid, run_marker.VARIABLE), run)
        if scope is None or not kind_of(process) or not _is_in_our_cgroup(pid):
            continue
        adopters = adopters or _adopters()
        line: list[ProcessFacts] = []
        for ancestor in ancestors(process):
            if ancestor.pid in adopters:
                yield Orphan(process, scope, tuple(line))
                break
            if run_marker.scope_in(system.marker_value(ancestor.pid, run_marker.VARIABLE), run) is None:
                break
            line.append(ancestor)


def _adopters() -> set[int]:
    us = system.facts(os.getpid())
    above = [ancestor.pid for ancestor in ancestors(us)] if us is not None else []
    return {1, os.getpid(), *above}


def _is_in_our_cgroup(pid: int) -> bool:
    """In the same one or in one below it, in each hierarchy (cgroups(7)).  True where there are none."""
    ours, theirs = _cgroups(os.getpid()), _cgroups(pid)
    return all(f"{theirs.get(name, '')}/".startswith(f"{path}/") for name, path in ours.items())


def _cgroups(pid: int) -> dict[bytes, str]:
    found = {}
    for line in (read_bytes(f"/proc/{pid}/cgroup") or b"").splitlines():
        name, _, path = line.rpartition(b":")
        found[name] = path.decode("utf-8", "replace").rstrip("/")
    return found
