"""Finds the browsers that a test has left running, whoever started them, and tells the test's own from
others.

Before and after each test the children of this process are compared, which takes microseconds.  Only
if a process was started is there a closer look: at the descendants of this process, and at new
processes elsewhere that have this run's name in their environment (their parents have died).

A browser is the test's own if all processes between it and pytest were started during the test, by the
test's thread, and nothing that outlives the test holds it.  See docs/pytest.md.

pytest is not made a child subreaper to adopt the orphans: a subreaper has to reap, and a program that
waits for a daemon's pid to disappear (``pg_ctl stop``) would wait for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import resource
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator

import pytest

from ..cleanup.browser_programs import kind_of
from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from . import holders, orphans, run_marker
from .browser_processes import forking_thread, guard_of, is_guard, roots

PAUSE = 0.02
"""Seconds between two looks at browsers that may be about to exit."""
QUIET_LOOKS = 100
"""Looks at which no process of them has exited or was at work.  After quit() they exit within 0.2 s; a
process that has to wait for a processor counts as at work, however busy the machine is."""
PATIENCE = 20.0
"""Seconds for browsers that are at work to exit or to come to rest."""


@dataclasses.dataclass(frozen=True)
class Leak:
    """A driver or browser that was left running, with its descendants.

    ``processes`` is their number.  ``source`` says what started it.  ``guard`` is set if it is a session
    of browserkeeper.  ``holder`` names what may need it after the test; "" if it is the test's own.
    """

    root: ProcessFacts
    name: str
    processes: int
    source: str
    guard: ProcessIdentity | None = None
    holder: str = ""

    def __str__(self) -> str:
        number = f"{self.processes} process{'es' if self.processes != 1 else ''}"
        text = f"{self.name} (pid {self.root.pid}, {number}), started by {self.source}"
        return f"{text}, held by {self.holder}" if self.holder else text


@dataclasses.dataclass(frozen=True)
class Seen:
    """A process at one look.  ``kind`` is that of :func:`kind_of`.  ``line`` are its ancestors, the
    nearest first: up to pytest, or for an orphan those that have the run's name."""

    process: ProcessFacts
    kind: str
    line: tuple[ProcessFacts, ...]
    is_orphan: bool = False

    @property
    def identity(self) -> ProcessIdentity:
        return self.process.identity


@dataclasses.dataclass
class Belongings:
    """What a fixture of a wider scope has started: the processes, and the scope in their environment."""

    scope: str
    processes: set[ProcessIdentity]


class LeakDetector:
    """Compares the processes before and after each test.

    ``run`` is the name of this process's run in the environment of its processes.  ``excluded`` returns
    pids whose descendants are not examined: the browsers of pools, which the pools end.
    """

    def __init__(self, run: str, excluded: Callable[[], Iterable[int]] = tuple):
        self.run = run
        self._excluded = excluded
        self._numbers = itertools.count(1)
        self._of_fixtures: dict[Hashable, Belongings] = {}
        self._old_pids = set(system.pids())
        self.begin()

    def begin(self) -> None:
        """A test begins: what runs now was not started by it."""
        self._began = system.now()
        self._torn_down: dict[ProcessIdentity, str] = {}
        self._reaped = _use_of_reaped_children()
        self._before = self._present()
        this = threading.get_native_id()
        threads = {thread.native_id for thread in threading.enumerate()}
        self._old_threads = {native for native in threads if native not in (None, this)}
        self._scope = f"t{next(self._numbers)}"
        self._scopes = {self._scope}
        run_marker.set_scope(self.run, self._scope)

    def end(self) -> list[Leak]:
        """A test has ended, with its fixtures: what it has left running, and what it may have (those
        have a ``holder``).  Blocks until there is nothing, or until that is at rest."""
        nothing_started = not self._children() and _use_of_reaped_children() == self._reaped
        if nothing_started and not self._torn_down:
            return []
        left = self._wait_until_at_rest()
        self._old_pids = set(system.pids())
        return self._judged(left)

    # -- fixtures of a wider scope than a test

    @contextlib.contextmanager
    def fixture_setup(self, fixture: Hashable) -> Iterator[None]:
        """What is started in this block belongs to the fixture until :meth:`fixture_torn_down`.

        If the block raises it belongs to the test, since such a fixture has no teardown.
        """
        before, outer = self._present(), self._scope
        self._scope = f"f{next(self._numbers)}"
        run_marker.set_scope(self.run, self._scope)
        try:
            yield
            self._of_fixtures[fixture] = Belongings(self._scope, self._started_since(before))
        except BaseException:
            self._scopes.add(self._scope)
            raise
        finally:
            self._scope = outer
            run_marker.set_scope(self.run, outer)

    def fixture_torn_down(self, fixture: Hashable, source: str) -> None:
        """What the fixture started should be gone by now; ``source`` names it in a Leak."""
        if (belongings := self._of_fixtures.pop(fixture, None)) is not None:
            self._torn_down.update(dict.fromkeys(belongings.processes, source))

    # -- looking

    def _children(self) -> list[ProcessFacts]:
        excluded = set(self._excluded())
        return [p for p in system.children(os.getpid()) if p.pid not in excluded and not p.is_zombie]

    def _present(self) -> set[ProcessIdentity]:
        return {seen.identity for seen in self._below_us()}

    def _started_since(self, before: set[ProcessIdentity]) -> set[ProcessIdentity]:
        """The processes below us that are new, as all processes between them and us are: what a process
        of ``before`` has started is not counted."""
        new = [seen for seen in self._below_us() if seen.identity not in before]
        return {seen.identity for seen in new if before.isdisjoint(p.identity for p in seen.line)}

    def _below_us(self) -> list[Seen]:
        """The descendants of this process, without those below browsers and below what is excluded."""
        found: list[Seen] = []
        queue: list[tuple[ProcessFacts, tuple[ProcessFacts, ...]]] = [(p, ()) for p in self._children()]
        excluded = set(self._excluded()) if queue else set()
        while queue:
            process, line = queue.pop(0)
            if process.is_zombie or process.pid in excluded:
                continue
            found.append(Seen(process, kind_of(process), line))
            if found[-1].kind != "browser":
                queue += [(child, (process, *line)) for child in system.children(process.pid)]
        return found

    def _unexpected(self) -> list[Seen]:
        """Drivers and browsers that belong neither to a process from before the test nor to a fixture
        that is still in use.  Of those that are below one another only the outermost."""
        in_use = [*self._of_fixtures.values()]
        expected = self._before - self._torn_down.keys()
        expected = expected.union(*(each.processes for each in in_use))
        scopes = {each.scope for each in in_use if each.scope}
        found = [
            seen
            for seen in self._below_us()
            if seen.kind
            and expected.isdisjoint(p.identity for p in (seen.process, *seen.line))
            and _scope_of(seen.process, self.run) not in scopes
        ]
        for orphan in orphans.of_run(self.run, self._old_pids, self._began):
            if orphan.scope in self._scopes or orphan.process.identity in self._torn_down:
                found.append(Seen(orphan.process, "orphan", orphan.line, is_orphan=True))
        outermost = {process.pid for process in roots([seen.process for seen in found])}
        return [seen for seen in found if seen.process.pid in outermost]

    def _wait_until_at_rest(self) -> list[Seen]:
        """The unexpected drivers and browsers, once they are at rest.

        Those that are about to exit lose a process now and then, or have one that runs, is ready to run
        (R) or waits for a disk (D).
        """
        quiet, before = 0, None
        until = time.monotonic() + PATIENCE
        while (left := self._unexpected()) and quiet < QUIET_LOOKS and time.monotonic() < until:
            members = [p for seen in left for p in (seen.process, *system.tree(seen.process.pid))]
            picture = {process.identity for process in members}
            if picture != before:
                quiet, before = 0, picture
            elif all(process.state not in "RD" for process in members):
                quiet += 1
            time.sleep(PAUSE)
        return left

    # -- judging

    def _judged(self, left: list[Seen]) -> list[Leak]:
        """Leaves out what a fixture holds that is still in use.

        An orphan may be the browser of a driver that is not the test's own (undetected-chromedriver's
        browser is no child of its driver).  So where there is such a driver, the orphans are not either.
        """
        found: list[Leak] = []
        shared: list[str | None] = []
        for seen in sorted(left, key=lambda seen: seen.is_orphan):
            described = _describe(seen.process, seen.line, self._torn_down.get(seen.identity))
            if seen.is_orphan:
                holder = shared[0] if shared else ""
            else:
                holder = self._holder(seen)
                shared += [holder] if holder != "" else []
            if holder is not None:
                found.append(dataclasses.replace(described, holder=holder))
        return found

    def _holder(self, seen: Seen) -> str | None:
        """What may need a browser below us after the test: "" if nothing does, None if it is a fixture
        that is still in use, which gets the browser among its belongings."""
        top = seen.line[-1] if seen.line else seen.process
        holder = holders.find(top.pid, self._old_threads)
        if isinstance(holder, pytest.FixtureDef):
            belongings = self._of_fixtures.setdefault(holder, Belongings("", set()))
            belongings.processes |= {seen.identity, *(p.identity for p in seen.line)}
            return None
        if holder == holders.THE_TEST:
            return self._older_process(seen)
        return holder or self._older_process(seen) or self._other_thread(top)

    def _older_process(self, seen: Seen) -> str:
        """A process that was there before the test, or that an earlier test has started."""
        for process in seen.line:
            if process.identity in self._torn_down and not kind_of(process) and not is_guard(process):
                return f"process:{process.name}"
        scope = _scope_of(seen.process, self.run)
        if scope and scope not in self._scopes and seen.identity not in self._torn_down:
            return f"process:{seen.process.name}"
        return ""

    def _other_thread(self, child: ProcessFacts) -> str:
        """The thread that started a child of ours, if that may not be the test's doing: if there were
        other threads before the test."""
        if not self._old_threads:
            return ""
        native = forking_thread(child.pid)
        if native == threading.get_native_id():
            return ""
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        return f"thread:{names.get(native, 'unknown')}"


def _scope_of(process: ProcessFacts, run: str) -> str | None:
    return run_marker.scope_in(system.marker_value(process.pid, run_marker.VARIABLE), run)


def _use_of_reaped_children() -> object:
    """Changes with each child that this process reaps (getrusage(2))."""
    return tuple(resource.getrusage(resource.RUSAGE_CHILDREN))


def of_dead_worker(run: str) -> list[Leak]:
    """What is left of a run whose process died before it could look itself.

    Below a program that a fixture of that run had started, and that lives on, it may be in use: such a
    browser has a ``holder``.
    """
    found = {orphan.process.pid: orphan for orphan in orphans.of_dead_worker(run)}
    leaks = []
    for process in roots([orphan.process for orphan in found.values()]):
        orphan = found[process.pid]
        of_tests = [(_scope_of(p, run) or "").startswith("t") or is_guard(p) for p in orphan.line]
        services = [p for p, of_test in zip(orphan.line, of_tests, strict=True) if not of_test]
        holder = f"process:{services[0].name}" if services else ""
        leaks.append(dataclasses.replace(_describe(process, orphan.line, None), holder=holder))
    return leaks


def _describe(process: ProcessFacts, line: Iterable[ProcessFacts], source: str | None) -> Leak:
    below = [p for p in system.tree(process.pid) if not p.is_zombie]
    mains = [p.name for p in below if kind_of(p) == "browser"]
    name = " of ".join([*mains[:1], process.name])
    source = source or _phase_of_start(process.pid)
    return Leak(process, name, 1 + len(below), source, guard_of(process, line))


def _phase_of_start(pid: int) -> str:
    """The phase of the test that the process was started in, by the environment variable that pytest
    sets."""
    value = system.marker_value(pid, "PYTEST_CURRENT_TEST") or ""
    match = re.search(r" \((setup|call|teardown)\)$", value)
    return f"the test's {match.group(1)}" if match else "the test"
