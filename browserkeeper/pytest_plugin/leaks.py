"""Browsers that a test has left running, whoever started them.

Before and after each test the children of this process are compared, which takes microseconds.
Only where something was started is there a closer look: at what hangs below us, and at new
processes elsewhere that bear this run's mark in their environment (those whose parents have
died).  pytest is not made a subreaper to catch the latter: whoever adopts has to reap, and what
waits for a daemon's pid to disappear (``pg_ctl stop``) would wait for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

from ..cleanup.temporary_profiles import profiles_of
from ..guard.files import remove_tree
from ..process import is_alive, system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import DOCUMENT
from .records import MARK

BROWSERS = frozenset(
    """
    chrome chromium chromium-browser google-chrome headless_shell chrome-headless-shell
    chromium-headless-shell msedge brave opera vivaldi-bin firefox firefox-esr firefox-bin MiniBrowser
    """.split()
)
DRIVERS = ("chromedriver", "geckodriver", "msedgedriver", "operadriver", "WebKitWebDriver", "uc_driver")
"""Names end so: undetected-chromedriver puts words of its own before them."""
HELPER = re.compile(rb"[\0 ](--type=|-contentproc[\0 ])")
"""In the command line of a browser's own helper process; Chrome's write spaces for the NULs."""

CLOCK_TICK = 0.02
"""Seconds by which a start time may be too early: the kernel counts in ticks."""
SETTLE = 1.5
"""Seconds that browsers may take to go once the test is over; after quit() they take 0.2."""
END_PATIENCE = 10.0
"""Seconds for a leaked browser to be gone; a guard ends its own in 0.1."""


@dataclasses.dataclass(frozen=True)
class Leak:
    """A driver or browser that was left, with all below it.  ``guard`` is there for a session of
    browserkeeper's; ``source`` says what started it."""

    root: ProcessFacts
    name: str
    processes: int
    source: str
    guard: ProcessIdentity | None = None

    def __str__(self) -> str:
        number = f"{self.processes} process{'es' if self.processes != 1 else ''}"
        return f"{self.name} (pid {self.root.pid}, {number}), started by {self.source}"


class Watch:
    """Looks before and after each test.  ``run`` names this process's run of tests uniquely;
    ``spared`` gives the pids below which everything is somebody's who will end it."""

    def __init__(self, run: str, spared: Callable[[], Iterable[int]] = tuple):
        self.run = run
        self._spared = spared
        self._began = system.now()
        self._pulse: object = None
        self._known: set[ProcessIdentity] = set()
        self._held: dict[Hashable, set[ProcessIdentity]] = {}
        self._released: dict[ProcessIdentity, str] = {}
        self._old_pids = set(system.pids())

    # -- before and after

    def begin(self) -> None:
        """A test begins: what is there now is not its own."""
        self._began = system.now()
        self._released.clear()
        self._pulse = self._take_pulse()
        self._known = self._present()

    def end(self) -> list[Leak]:
        """A test has ended, fixtures and all: what it has left running."""
        if self._is_quiet() and not self._released:
            return []
        until = time.monotonic() + SETTLE
        while (left := self._strange()) and time.monotonic() < until:
            time.sleep(0.02)
        self._old_pids = set(system.pids())
        return [_describe(process, self._released.get(process.identity)) for process in left]

    def _is_quiet(self) -> bool:
        """Nothing that could be a browser's was started: no child now, and none that came and went."""
        return not self._children() and self._take_pulse() == self._pulse

    def _take_pulse(self) -> object:
        """Changes with each child that is reaped (getrusage(2))."""
        return tuple(resource.getrusage(resource.RUSAGE_CHILDREN))

    def _children(self) -> list[ProcessFacts]:
        spared = set(self._spared())
        return [p for p in system.children(os.getpid()) if p.pid not in spared and not p.is_zombie]

    def _strange(self) -> list[ProcessFacts]:
        known = (self._known - self._released.keys()).union(*self._held.values())
        everything = [*self._below_us(), *elsewhere(self.run, self._old_pids, self._began)]
        return _roots([process for process in everything if process.identity not in known])

    # -- fixtures of a wider scope than a test

    @contextlib.contextmanager
    def holding(self, fixture: Hashable) -> Iterator[None]:
        """What is started in this block belongs to a fixture, until :meth:`release`; to the test,
        if the block raises: such a fixture has no teardown."""
        before = self._present()
        yield
        self._held[fixture] = self._present() - before

    def release(self, fixture: Hashable, source: str) -> None:
        """The fixture has been torn down: what it started should be gone."""
        for identity in self._held.pop(fixture, ()):
            self._released[identity] = source

    # -- looking

    def _present(self) -> set[ProcessIdentity]:
        return {process.identity for process in self._below_us()}

    def _below_us(self) -> list[ProcessFacts]:
        """Drivers and browsers below us, but for what is spared; not what is below a browser."""
        found: list[ProcessFacts] = []
        queue = self._children()
        spared = set(self._spared()) if queue else set()
        while queue:
            process = queue.pop()
            if process.is_zombie or process.pid in spared:
                continue
            kind = kind_of(process)
            if kind:
                found.append(process)
            if kind != "browser":
                queue += system.children(process.pid)
        return found


def elsewhere(run: str, old: set[int], since: float) -> Iterator[ProcessFacts]:
    """Drivers and browsers of a run whose parents have died, started ``since`` then and not among
    the ``old`` pids.  O(host), but only new processes are looked at."""
    for pid in system.pids():
        process = None if pid in old else system.facts(pid)
        if process is None or process.is_zombie or process.identity.start < since - CLOCK_TICK:
            continue
        marks = (system.marker_value(pid, MARK) or "").split("/")
        if run in marks and kind_of(process) and not _is_below(process, {os.getpid()}):
            yield process


def of_dead_run(run: str) -> list[Leak]:
    """What a run has left whose own process died before it could look."""
    return [_describe(process, None) for process in _roots(elsewhere(run, set(), 0.0))]


# --------------------------------------------------------------------------------- processes


def kind_of(process: ProcessFacts) -> str:
    """``driver``, ``browser`` (its main process) or ""."""
    names = {process.name, system.program(process.pid)}
    if any(name.endswith(DRIVERS) for name in names):
        return "driver"
    if not names.isdisjoint(BROWSERS) or process.name in _SHORT_BROWSERS:
        return "" if HELPER.search(system.command_line(process.pid)) else "browser"
    return ""


_SHORT_BROWSERS = frozenset(name[:15] for name in BROWSERS)
"""As the kernel cuts them (TASK_COMM_LEN)."""


def _is_guard(process: ProcessFacts) -> bool:
    return system.marker_value(process.pid, DOCUMENT) is not None


def _ancestors(process: ProcessFacts) -> Iterator[ProcessFacts]:
    parent = process.parent
    while parent > 0 and (found := system.facts(parent)) is not None:
        yield found
        parent = found.parent


def _is_below(process: ProcessFacts, pids: set[int]) -> bool:
    return any(ancestor.pid in pids for ancestor in _ancestors(process))


def _roots(processes: Iterable[ProcessFacts]) -> list[ProcessFacts]:
    """Those of them that are not below another of them."""
    by_pid = {process.pid: process for process in processes}
    return [process for process in by_pid.values() if not _is_below(process, set(by_pid))]


def _guard_above(process: ProcessFacts) -> ProcessIdentity | None:
    guards = [ancestor.identity for ancestor in _ancestors(process) if _is_guard(ancestor)]
    return guards[-1] if guards else None


def _describe(process: ProcessFacts, source: str | None) -> Leak:
    below = [p for p in system.tree(process.pid) if not p.is_zombie]
    mains = [p.name for p in below if kind_of(p) == "browser"]
    name = " of ".join([*mains[:1], process.name])
    return Leak(process, name, 1 + len(below), source or _phase(process.pid), _guard_above(process))


def _phase(pid: int) -> str:
    """pytest tells every process which phase of which test it was started in."""
    value = system.marker_value(pid, "PYTEST_CURRENT_TEST") or ""
    match = re.search(r" \((setup|call|teardown)\)$", value)
    return f"the test's {match.group(1)}" if match else "the test"


# ------------------------------------------------------------------------------------ the end


def end(leaks: Iterable[Leak]) -> list[Leak]:
    """End them, and nothing else; those that are still there after :data:`END_PATIENCE`."""
    leaks = list(leaks)
    deadline = time.monotonic() + END_PATIENCE
    families = [_Family(leak) for leak in leaks]
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
    """A leaked process and all that was ever seen below it, by identity."""

    def __init__(self, leak: Leak):
        self.leak = leak
        self._members = {leak.root.identity}
        self._profiles: set[Path] = set()
        self._asked = False
        self._give_up_asking = time.monotonic() + END_PATIENCE / 2

    def is_gone(self) -> bool:
        self._grow()
        guard = {self.leak.guard} if self.leak.guard else set()
        return not any(is_alive(identity) for identity in self._members | guard)

    def _grow(self) -> None:
        for identity in list(self._members):
            if is_alive(identity):
                self._members |= {process.identity for process in system.tree(identity.pid)}
        self._profiles |= {path for m in self._members for path in profiles_of(m.pid)}

    def kill(self) -> None:
        """A guard is asked: it ends the session as a whole, files and record too.  Others are
        stopped first, so that none starts another while they die."""
        if self.leak.guard is not None and time.monotonic() < self._give_up_asking:
            if not self._asked:
                system.send_signal(self.leak.guard, signal.SIGTERM)
                self._asked = True
            system.send_signal(self.leak.guard, signal.SIGCONT)
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            self._grow()
            for identity in self._members:
                system.send_signal(identity, number)

    def remove_profiles(self) -> None:
        """What its driver would have removed."""
        for path in self._profiles:
            with contextlib.suppress(OSError):
                remove_tree(str(path))
