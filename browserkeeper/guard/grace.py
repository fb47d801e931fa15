"""The grace period of ``browserkeeper run``: what it has started is asked to end before it is killed.

Programs that are killed leave what they would have removed: Xvfb its lock and socket in ``/tmp``, a
shell what its trap removes.  So each gets SIGTERM, in an order that suits those which end others
themselves:

1. The command.  A test runner or a supervisor ends its children in its own way.
2. When it has ended: the processes that lost their parents by that, one at a time, the youngest first.
   A service, such as Xvfb under ``xvfb-run``, was started before the programs that use it.
3. After half of the grace: all that are left then.  A shell runs its trap only when its child has ended.
   What is started after that is not asked: it may be what a trap has started.

A session inside, of ``browser()`` or of another ``browserkeeper run``, has guards of its own.  They end
it when its owner has ended, with a certificate and a history; what is below them is theirs to end.
"""

from __future__ import annotations

from .signals import KEYBOARD
from .title import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .guard import Guard
    from .procfs import Stat
else:
    import _signal as signal

HURRY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end the grace period at once."""
KEYBOARD_DELAY = 0.5  # seconds after the begin in which KEYBOARD is about the key that ended the command
INNER_PATIENCE = 10.0  # seconds that the guards of sessions inside get after the death of their owners
INNER_GRACE = 2.0  # seconds after which these are told to hurry
PAUSES = (0.01, 0.02, 0.05, 0.1)  # seconds between looks; the last one repeats


def end_with_grace(guard: Guard) -> None:
    """Ask all processes to end, then kill those that own sessions, and wait for the guards of these.

    Takes the grace of the options at most, and INNER_PATIENCE where there is a session inside.  What is
    left is for the caller to kill.
    """
    report, began = guard.report, guard.report.age()
    if guard.options.grace:
        _Asking(guard).run()
    if guard.options.foreground:
        _end_sessions_inside(guard)
    if report.age() - began > PAUSES[0]:
        report.seconds["grace"] = report.age() - began


class _Asking:
    """One grace period: which processes were asked already."""

    def __init__(self, guard: Guard):
        self.guard = guard
        self.began = guard.report.age()
        self._asked: set[tuple[int, float]] = set()

    def run(self) -> None:
        """Block until all have ended, the grace has passed, or a signal ends it."""
        grace, age = self.guard.options.grace, self.guard.report.age
        pauses = iter(PAUSES)
        pause = PAUSES[-1]
        there_at_half: set[tuple[int, float]] | None = None
        while age() < self.began + grace:
            living, inside = _living(self.guard)
            if not living:
                return
            ours = [stat for stat in living if stat.pid not in inside]
            if age() < self.began + grace / 2:
                asked = self._next(living, inside)
            else:
                if there_at_half is None:
                    there_at_half = {(stat.pid, stat.start) for stat in ours}
                asked = [stat for stat in ours if (stat.pid, stat.start) in there_at_half]
            for stat in asked:
                self._ask(stat)
            pause = next(pauses, pause)
            left = self.began + grace - age()
            if self._is_hurried(self.guard.signals.wait(min(pause, max(left, 0.001)))):
                return

    def _next(self, living: list[Stat], inside: set[int]) -> list[Stat]:
        """Whom to ask now: the command, or the youngest process without a parent among them.

        Nobody, while one that was asked has not ended, or the guards of a session inside have not.
        """
        pids = {stat.pid for stat in living}
        tops = [stat for stat in living if stat.parent not in pids]
        command = [stat for stat in living if stat.pid == self.guard.command.pid]
        waited_for = command or tops
        if any((stat.pid, stat.start) in self._asked or stat.pid in inside for stat in waited_for):
            return []
        return [max(waited_for, key=lambda stat: (stat.start, stat.pid))]

    def _ask(self, stat: Stat) -> None:
        if (stat.pid, stat.start) not in self._asked:
            self._asked.add((stat.pid, stat.start))
            for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped one notices it only then
                self.guard.containment.signal(stat, number)

    def _is_hurried(self, signals: bytes) -> bool:
        """Not by the SIGTERM that the kernel sends to a primary guard at the death of its standby."""
        own = self.guard.standby_is_dead() and signal.SIGTERM
        late = self.guard.report.age() - self.began > KEYBOARD_DELAY
        return any((n in HURRY and n != own) or (n == KEYBOARD and late) for n in signals)


def _living(guard: Guard) -> tuple[list[Stat], set[int]]:
    """(all processes but zombies, the pids of guards of sessions inside and of all below them)."""
    guard.members.reap()
    living = [stat for stat in guard.containment.find() if stat.state not in "ZX"]
    inside = {stat.pid for stat in living if stat.name == NAME}
    while more := {stat.pid for stat in living if stat.parent in inside} - inside:
        inside |= more
    return living, inside


def _end_sessions_inside(guard: Guard) -> None:
    """Kill all but guards and what is below them, and wait until those guards have ended.

    A guard ends its session when its owner is dead.  After INNER_GRACE the guards get SIGTERM, which
    ends the grace period of a ``run`` inside.
    """
    age = guard.report.age
    began, hurried = age(), False
    while age() < began + INNER_PATIENCE:
        living, inside = _living(guard)
        if not inside:
            return
        is_late = age() > began + INNER_GRACE
        for stat in living:
            if stat.pid not in inside:
                if (member := guard.members.note(stat.pid)) is not None:
                    member.killed = True
                guard.containment.signal(stat, signal.SIGKILL)
            elif stat.name == NAME:
                guard.containment.signal(stat, signal.SIGCONT)
                if is_late and not hurried:
                    guard.containment.signal(stat, signal.SIGTERM)
        hurried = is_late
        guard.signals.wait(PAUSES[1])


__all__ = ["end_with_grace"]
