"""The guard of one session: its parts, and its life from the start to the teardown."""

from __future__ import annotations

import fcntl
import os
import select

from .command import Command, Terminal
from .containment import Cgroup, Subreaper
from .files import ignore_errors
from .members import Members, MemoryCurve
from .options import CANNOT_RUN, TIMED_OUT, Failure, Options
from .owner import Owner
from .record import Record, Report
from .signals import Signals
from .teardown import retire, tear_down

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from .command import AnyCommand
    from .containment import Containment
else:
    import _signal as signal

SAMPLES = (0.25, 1.0, 2.0, 5.0)  # seconds between looks at the tree; the last one repeats


class Guard:
    """The parts that the phases of a session share, and the first phases: arm, prepare, start."""

    def __init__(
        self,
        options: Options,
        containment: Containment | None = None,
        command: AnyCommand | None = None,
    ):
        """By default a subreaper, and the command of the options."""
        self.options = options
        self.owner = Owner(options)
        self.signals = Signals(options.foreground)
        self.cgroup = Cgroup(options.cgroup)
        self.containment = containment or Subreaper(self.cgroup)
        self.command = command or Command(options, self.signals, self.containment, self.cgroup)
        self.report = Report(self.containment.name)
        document = os.environ.pop("BROWSERKEEPER_DOCUMENT", "null")
        self.record = Record(options.record, options.history, document)
        self.members = Members(self.containment, self.command, self.report)
        self.memory = MemoryCurve(2 * SAMPLES[-1])
        self.terminal = Terminal(options)
        self.made_tmpdir = False
        self.standby = 0  # pid of the standby guard, in the primary guard only

    def arm(self) -> None:
        """From here on the owner may die at any moment.  Raises Failure.

        The guard leaves the owner's session, so that the keys of its terminal do not reach it; with
        a foreground command only its process group, since the command keeps the terminal.
        """
        if self.options.foreground:
            ignore_errors(lambda: os.setpgid(0, 0))
        else:
            ignore_errors(os.setsid)
        self.signals.listen()
        self.containment.arm()
        self.owner.watch()

    def become_primary(self, standby: int) -> None:
        """In the child of the fork, which inherits neither the subreaper nor the wake-up pipe.

        Asks for SIGTERM at the standby's death.
        """
        self.standby, self.owner.is_parent = standby, False
        self.signals.listen()
        self.containment.arm()
        self.containment.signal_at_parents_death(signal.SIGTERM)

    def standby_is_dead(self) -> bool:
        return bool(self.standby) and os.getppid() != self.standby

    def prepare(self) -> None:
        """Make the record, TMPDIR and cgroup.  Raises Failure.

        The record comes first, so that a sweep can find whatever is made after it.
        """
        self._step("record", self.write_record)
        if self.options.tmpdir:
            self._step("tmpdir", lambda: os.mkdir(self.options.tmpdir, 0o700))
            self.made_tmpdir = True
            self._lock(self.options.tmpdir)
            os.environ["TMPDIR"] = self.options.tmpdir
        self._step("cgroup", self.cgroup.make)

    def _lock(self, directory: str) -> None:
        """A sweep in another pid namespace cannot see the session's processes, but this lock."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        ignore_errors(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))

    def _step(self, where: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise Failure(where, error) from error

    def start(self) -> None:
        """Start the command.  Raises Failure."""
        self.command.start()
        self.look()

    def look(self) -> None:
        """Look at all processes of the session once, and save for recovery what has changed."""
        self.members.update()
        age, weighed = self.report.age(), False
        if self.memory.is_due(age):
            self.memory.add(age, sum(map(self.containment.memory, self.members.living)))
            weighed = True
        if weighed or self.record.is_outdated(self.members):
            ignore_errors(self.write_record)

    def write_record(self) -> None:
        guards = [os.getpid(), *([self.standby] if self.standby else [])]
        self.record.write(guards, self.members, self.memory)

    def facts(self, survivors: list[dict[str, Any]]) -> dict[str, Any]:
        """The report as it stands."""
        return self.report.facts(self.members, self.memory, self.command.status, survivors)

    def report_failure(self, failure: Failure) -> None:
        """Tell the owner, and with a foreground command the user, why the session did not start."""
        error = failure.error
        if self.options.foreground:
            text = f"browserkeeper run: {self.options.command[0]}: {failure.where}: {error}\n"
            ignore_errors(lambda: os.write(2, text.encode("utf-8", "surrogateescape")))
        self.owner.send("failed", where=failure.where, errno=error.errno, text=str(error))

    def finish(self, failure: Failure | None = None) -> int:
        """Tear down and retire; the status that a shell would give for the command."""
        tear_down(self)
        retire(self)
        self.terminal.restore()
        if not self.options.foreground:
            return 0
        if self.report.reason == "timeout":
            return TIMED_OUT
        if failure is not None:
            return failure.exit_status
        status = self.command.status
        if status is None:  # never started, or started by the primary guard and left to its standby
            return 128 + signal.SIGKILL if self.report.reason == "guard-died" else CANNOT_RUN
        return status if status >= 0 else 128 - status


class Watch:
    """The phase between start and teardown; ``deadline`` is the owner's, in the session's age."""

    def __init__(self, guard: Guard):
        self.guard = guard
        self.deadline = 0.0
        self.deadline_reason = ""

    def run(self) -> str:
        """Block until the session is over; the reason."""
        guard, age = self.guard, self.guard.report.age
        guard.terminal.remember()
        poller = select.poll()
        for fd in (guard.owner.control_fd, guard.owner.pidfd, guard.signals.fd):
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        pauses = iter(SAMPLES)
        pause = next(pauses)
        next_look = age() + pause
        while True:
            ends = [next_look, *filter(None, (guard.options.timeout, self.deadline))]
            ready = {fd for fd, _ in poller.poll(max(0.0, min(ends) - age()) * 1000)}
            if reason := self._reason_to_end(ready):
                return reason
            if age() >= next_look:
                guard.look()
                pause = next(pauses, pause)
                next_look = age() + pause

    def _reason_to_end(self, ready: set[int]) -> str | None:
        """None while there is none.  Of several reasons the one that explains the others comes first."""
        guard, age = self.guard, self.guard.report.age
        signals = guard.signals.received() if guard.signals.fd in ready else b""
        guard.members.reap()
        if guard.owner.control_fd in ready and (reason := self._read_owner()):
            return reason
        if guard.owner.pidfd in ready or guard.owner.is_dead():
            return "owner-died"
        if guard.standby_is_dead():
            return "guard-died"
        if guard.command.has_ended():
            return "exited"
        if guard.options.timeout and age() >= guard.options.timeout:
            return "timeout"
        if self.deadline and age() >= self.deadline:
            return self.deadline_reason
        if guard.options.foreground:
            self._forward(signals)
        elif signal.SIGTERM in signals:
            return "terminated"
        return None

    def _forward(self, signals: bytes) -> None:
        command = self.guard.command.pid
        for number in signals:
            if number != signal.SIGCHLD:
                ignore_errors(lambda number=number: os.kill(command, number))  # type: ignore[misc]

    def _read_owner(self) -> str | None:
        """Handle the owner's messages; the reason to end, if one of them is that.

        ``deadline SECONDS REASON`` from now, ``deadline 0`` for none; ``started SECONDS``: how long
        the owner's start took, for the report; any other word is a reason to end.
        """
        for words in self.guard.owner.read():
            if words[0] == "started":
                self.guard.report.seconds["start"] = float(words[1])
            elif words[0] == "deadline":
                seconds = float(words[1])
                self.deadline = self.guard.report.age() + seconds if seconds else 0.0
                self.deadline_reason = words[2] if seconds else ""
            else:
                return words[0]
        return None


def guard_session(guard: Guard) -> int:
    """The whole life of a session, once the guard is armed; the exit status of the guard."""
    failed = None
    try:
        guard.prepare()
        guard.start()
        guard.owner.send("spawned", primary=os.getpid(), pid=guard.command.pid)
        guard.report.reason = Watch(guard).run()
        guard.owner.send("ending", reason=guard.report.reason)
    except Failure as failure:
        failed = failure
        guard.report_failure(failure)
    except Exception as error:  # a bug of the guard's must not become a leak
        guard.report.problems.append(f"guard: {error!r}")
    return guard.finish(failed)
