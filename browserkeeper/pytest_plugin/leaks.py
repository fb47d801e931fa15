"""Finds the browsers that a test has left running, whoever started them.

Before and after each test the children of this process are compared, which takes microseconds.  Only
if a process was started is there a closer look: at the descendants of this process, and at new
processes elsewhere that have this run's name in their environment (their parents have died).

pytest is not made a child subreaper to adopt the latter: a subreaper has to reap, and a program that
waits for a daemon's pid to disappear (``pg_ctl stop``) would wait for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import time
from collections.abc import Callable, Hashable, Iterable, Iterator

from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from .browser_processes import guard_above, is_below, kind_of, roots
from .run_marker import VARIABLE

CLOCK_TICK = 0.02
"""Seconds by which a start time may be too early: the kernel counts in ticks."""
SETTLE = 1.5
"""Seconds for browsers to go after the test; after quit() they take 0.2."""


@dataclasses.dataclass(frozen=True)
class Leak:
    """A driver or browser that was left running, with its descendants.

    ``processes`` is their number.  ``source`` says what started it.  ``guard`` is set if it is a session
    of browserkeeper.
    """

    root: ProcessFacts
    name: str
    processes: int
    source: str
    guard: ProcessIdentity | None = None

    def __str__(self) -> str:
        number = f"{self.processes} process{'es' if self.processes != 1 else ''}"
        return f"{self.name} (pid {self.root.pid}, {number}), started by {self.source}"


class LeakDetector:
    """Compares the drivers and browsers before and after each test.

    ``run`` is the name of this process's run in the environment of its processes.  ``excluded`` returns
    pids whose descendants are not examined: the browsers of pools, which the pools end.
    """

    def __init__(self, run: str, excluded: Callable[[], Iterable[int]] = tuple):
        self.run = run
        self._excluded = excluded
        self._began = system.now()
        self._reaped: object = None
        self._known: set[ProcessIdentity] = set()
        self._of_fixtures: dict[Hashable, set[ProcessIdentity]] = {}
        self._torn_down: dict[ProcessIdentity, str] = {}
        self._old_pids = set(system.pids())

    def begin(self) -> None:
        """A test begins: what runs now was not started by it."""
        self._began = system.now()
        self._torn_down.clear()
        self._reaped = _use_of_reaped_children()
        self._known = self._present()

    def end(self) -> list[Leak]:
        """A test has ended, with its fixtures: what it has left running.  Blocks up to SETTLE seconds,
        until there is nothing."""
        nothing_started = not self._children() and _use_of_reaped_children() == self._reaped
        if nothing_started and not self._torn_down:
            return []
        until = time.monotonic() + SETTLE
        while (left := self._unexpected()) and time.monotonic() < until:
            time.sleep(0.02)
        self._old_pids = set(system.pids())
        return [_describe(process, self._torn_down.get(process.identity)) for process in left]

    # -- fixtures of a wider scope than a test

    @contextlib.contextmanager
    def fixture_setup(self, fixture: Hashable) -> Iterator[None]:
        """What is started in this block belongs to the fixture until :meth:`fixture_torn_down`.

        If the block raises it belongs to the test, since such a fixture has no teardown.
        """
        before = self._present()
        yield
        self._of_fixtures[fixture] = self._present() - before

    def fixture_torn_down(self, fixture: Hashable, source: str) -> None:
        """What the fixture started should be gone by now; ``source`` names it in a Leak."""
        for identity in self._of_fixtures.pop(fixture, ()):
            self._torn_down[identity] = source

    # -- looking

    def _children(self) -> list[ProcessFacts]:
        excluded = set(self._excluded())
        return [p for p in system.children(os.getpid()) if p.pid not in excluded and not p.is_zombie]

    def _present(self) -> set[ProcessIdentity]:
        return {process.identity for process in self._below_us()}

    def _below_us(self) -> list[ProcessFacts]:
        """Drivers and browsers among the descendants of this process.  Does not look below browsers,
        nor below what is excluded."""
        found: list[ProcessFacts] = []
        queue = self._children()
        excluded = set(self._excluded()) if queue else set()
        while queue:
            process = queue.pop()
            if process.is_zombie or process.pid in excluded:
                continue
            kind = kind_of(process)
            if kind:
                found.append(process)
            if kind != "browser":
                queue += system.children(process.pid)
        return found

    def _unexpected(self) -> list[ProcessFacts]:
        """Drivers and browsers that neither were there before the test nor belong to a fixture."""
        known = (self._known - self._torn_down.keys()).union(*self._of_fixtures.values())
        everything = [*self._below_us(), *orphans_of_run(self.run, self._old_pids, self._began)]
        return roots([process for process in everything if process.identity not in known])


def _use_of_reaped_children() -> object:
    """Changes with each child that this process reaps (getrusage(2))."""
    return tuple(resource.getrusage(resource.RUSAGE_CHILDREN))


def orphans_of_run(run: str, old_pids: set[int], since: float) -> Iterator[ProcessFacts]:
    """Drivers and browsers of ``run`` that are not below this process, started at ``since`` or later.

    Reads the list of all pids, but only the facts of those that are not among ``old_pids``.
    """
    for pid in system.pids():
        process = None if pid in old_pids else system.facts(pid)
        if process is None or process.is_zombie or process.identity.start < since - CLOCK_TICK:
            continue
        marks = (system.marker_value(pid, VARIABLE) or "").split("/")
        if run in marks and kind_of(process) and not is_below(process, {os.getpid()}):
            yield process


def of_dead_run(run: str) -> list[Leak]:
    """What is left of a run whose process died before it could look itself."""
    return [_describe(process, None) for process in roots(orphans_of_run(run, set(), 0.0))]


def _describe(process: ProcessFacts, source: str | None) -> Leak:
    below = [p for p in system.tree(process.pid) if not p.is_zombie]
    mains = [p.name for p in below if kind_of(p) == "browser"]
    name = " of ".join([*mains[:1], process.name])
    source = source or _phase_of_start(process.pid)
    return Leak(process, name, 1 + len(below), source, guard_above(process))


def _phase_of_start(pid: int) -> str:
    """The phase of the test that the process was started in, by the environment variable that pytest
    sets."""
    value = system.marker_value(pid, "PYTEST_CURRENT_TEST") or ""
    match = re.search(r" \((setup|call|teardown)\)$", value)
    return f"the test's {match.group(1)}" if match else "the test"
