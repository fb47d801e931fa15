"""The life of a session: prepare, start, watch, tear down, retire."""

from __future__ import annotations

import os
import select

from .files import ignore_errors
from .guard import SAMPLES, Guard
from .inside import retire_sessions_inside
from .options import CANNOT_RUN, TIMED_OUT, Failure
from .signals import KEYBOARD
from .teardown import retire, tear_down

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

FOR_EVER = 1e9  # seconds; no session is as old
BROKEN = ("browser-died", "connection-lost")  # reasons of an owner whose commands fail
BOUND_PAUSE = 0.25  # seconds between two looks at the downloads, where they are bounded


def guard_session(guard: Guard) -> int:
    """Run all phases of a session after :meth:`Guard.arm`.  Returns the exit status of the guard."""
    failed = None
    try:
        guard.prepare()
        guard.start()
        guard.report.reason = Watch(guard).run()
        guard.owner.send("ending", reason=guard.report.reason)
    except Failure as failure:
        failed = failure
        guard.report_failure(failure)
    except Exception as error:  # a bug of the guard's must not become a leak
        guard.report.problems.append(f"guard: {error!r}")
    return finish(guard, failed)


class Watch:
    """The phase between the command's fork and the teardown.

    The command's exec is awaited here too: on a dead NFS mount it may never end.  ``deadlines``: those
    that the owner has set, by reason, in the session's age.  The nearest one ends the session.  The
    timeout of the options is not among them: the owner cannot take it back.
    """

    def __init__(self, guard: Guard):
        self.guard = guard
        self.deadlines: dict[str, float] = {}
        self._next_bound = FOR_EVER if guard.bound is None else 0.0
        self._poller = select.poll()

    def run(self) -> str:
        """Block until the session is over; the reason.  Raises Failure where the exec has failed."""
        guard, age = self.guard, self.guard.report.age
        guard.terminal.remember()
        fds = (guard.owner.control_fd, guard.owner.pidfd, guard.signals.fd, guard.command.exec_fd)
        for fd in fds:
            if fd >= 0:
                self._poller.register(fd, select.POLLIN)
        if guard.command.exec_fd < 0:
            self._is_started()
        pauses = iter(SAMPLES)
        pause = next(pauses)
        next_look = age() + pause
        next_limit = age() + guard.log.limit(age())
        while True:
            ends = [next_look, next_limit, self._next_bound, *(when for when, _ in self._deadlines())]
            ready = {fd for fd, _ in self._poller.poll(max(0.0, min(ends) - age()) * 1000)}
            if guard.command.exec_fd in ready:
                self._exec_is_over()
            self._serve(ready)
            if reason := self._reason_to_end(ready) or self._reason_of_downloads():
                return reason
            if age() >= next_look:
                if self._is_end_requested():
                    return "operator"
                guard.look()
                pause = next(pauses, pause)
                next_look = age() + pause
            if age() >= next_limit:
                next_limit = age() + guard.log.limit(age())

    def _serve(self, ready: set[int]) -> None:
        """Start the browser of an isolated driver, or end it with what stands for it."""
        guard, outside = self.guard, self.guard.command.outside
        if outside is not None and outside.fd in ready:
            outside.serve(guard.members, guard.owner)

    def _reason_of_downloads(self) -> str | None:
        bound, age = self.guard.bound, self.guard.report.age()
        if bound is None or age < self._next_bound:
            return None
        self._next_bound = age + BOUND_PAUSE
        return "max-download" if bound.is_passed(age, self.guard.members) else None

    def _exec_is_over(self) -> None:
        """Raises Failure where it has failed."""
        command = self.guard.command
        self._poller.unregister(command.exec_fd)
        command.finish_start()
        if command.exec_fd >= 0:  # it is still awaited, or that of a second start
            self._poller.register(command.exec_fd, select.POLLIN)
            return
        self._is_started()

    def _is_started(self) -> None:
        self.guard.look()
        guard, display = self.guard, self.guard.display
        shown: dict[str, str | int] = {}
        if display is not None:
            shown = {"display": display.name(), "display_pid": display.pid}
        if guard.command.outside is not None:
            self._poller.register(guard.command.outside.fd, select.POLLIN)
        shown["isolation"] = guard.command.isolation
        guard.owner.send("spawned", primary=os.getpid(), pid=guard.command.pid, **shown)

    def _reason_to_end(self, ready: set[int]) -> str | None:
        """The reason to end the session now, or None.

        What the owner has written counts more than all that is seen otherwise, its death included.  So
        its messages are read once more where something else is a reason: they may have come since
        poll(2) returned, or since they were read before, and were written before that was seen.
        """
        signals = self.guard.signals.received() if self.guard.signals.fd in ready else b""
        self.guard.members.reap()
        if reason := self._reason_of_owner():
            return reason
        reason = self._reason_seen(ready, signals)
        return (self._reason_of_owner() or reason) if reason else None

    def _reason_of_owner(self) -> str | None:
        """The reason to end that the owner has written, or None.

        A browser dies with its display, and a connection breaks with the driver.  The owner may have
        noticed that first.
        """
        reason = self._read_owner()
        if reason in BROKEN and self.guard.display_is_ending():
            return "display-died"
        if reason == "connection-lost" and self.guard.command.has_ended():
            return "exited"
        return reason

    def _reason_seen(self, ready: set[int], signals: bytes) -> str | None:
        """The reason to end the session now apart from the owner's messages, or None.

        The order matters: the death of the standby guard also brings a SIGTERM (PR_SET_PDEATHSIG), which
        alone means ``terminated``.
        """
        guard, age = self.guard, self.guard.report.age
        if guard.owner.pidfd in ready or guard.owner.is_dead():
            return "owner-died"
        if guard.standby_is_dead():
            return "guard-died"
        if reason := self._reason_of_processes():
            return reason
        if passed := [deadline for deadline in self._deadlines() if age() >= deadline[0]]:
            return min(passed)[1]
        if signal.SIGTERM in signals and self._is_end_requested():
            return "operator"
        if guard.options.foreground:
            self._forward(signals)
        elif signal.SIGTERM in signals:
            return "terminated"
        return None

    def _reason_of_processes(self) -> str | None:
        """The reason to end the session that is a death of the display or of the command, or None."""
        guard = self.guard
        if guard.display is not None and guard.display_has_ended():
            if guard.command.exec_fd >= 0:  # before it was ready
                raise guard.display.failure()
            return "display-died"
        if guard.command.has_ended():
            while guard.command.exec_fd >= 0 and guard.command.has_ended():
                self._exec_is_over()  # it has written why it cannot be executed, if that is the reason
            return "exited" if guard.command.has_ended() else None
        return None

    def _is_end_requested(self) -> bool:
        """True where an operator has asked for the end, by a file beside the record.

        SIGTERM says that the file may be there.  It is looked for from time to time as well, since an
        operator in another pid namespace cannot send a signal.
        """
        path = self.guard.record.end_request
        if not path or not os.path.lexists(path):
            return False
        from .end_request import read

        self.guard.report.operator = read(path)
        return self.guard.report.operator is not None

    def _deadlines(self) -> list[tuple[float, str]]:
        """All deadlines as pairs: the session's age, and the reason."""
        deadlines = [(when, reason) for reason, when in self.deadlines.items()]
        if self.guard.options.timeout:
            deadlines.append((self.guard.options.timeout, "timeout"))
        return deadlines

    def _forward(self, signals: bytes) -> None:
        command = self.guard.command.pid
        for number in signals:
            if number not in (signal.SIGCHLD, KEYBOARD):
                ignore_errors(lambda number=number: os.kill(command, number))  # type: ignore[misc]

    def _read_owner(self) -> str | None:
        """Handle the owner's messages; the reason to end, if one of them is that.

        ``deadline SECONDS REASON`` from now, in place of the one before with the same reason;
        ``deadline 0 REASON`` takes it back, ``deadline 0 *`` all of them; ``started SECONDS WAITED``:
        how long the owner's start took, and how long it had waited for its slot, for the report; ``lease
        HEX``: the label of the lease that has the browser, in UTF-8, for the report, nothing for none;
        ``quits SECONDS PID PORT PATH``: how to ask the browser to quit in the end (``quitting.py``); any
        other word is a reason to end.
        """
        for words in self.guard.owner.read():
            if words[0] == "started":
                _note_start(self.guard, words)
            elif words[0] == "quits":
                from .quitting import Quitting

                quitting = Quitting(self.guard, words[1:])
                self.guard.ask_to_quit = quitting.run
                if self.guard.to_standby is not None:
                    quitting.tell_standby(self.guard.to_standby[1])
            elif words[0] == "lease":
                self.guard.report.label = bytes.fromhex("".join(words[1:])).decode()
            elif words[0] == "deadline":
                seconds, reason = float(words[1]), words[2]
                self.deadlines.pop(reason, None)
                if reason == "*":
                    self.deadlines.clear()
                elif seconds:
                    self.deadlines[reason] = self.guard.report.age() + seconds
            else:
                return words[0]
        return None


def _note_start(guard: Guard, words: list[str]) -> None:
    """The owner's message ``started``."""
    guard.report.seconds["start"] = float(words[1])
    guard.report.seconds["slot_wait"] = float(words[2])
    guard.slot.is_alone = True


def finish(guard: Guard, failure: Failure | None = None) -> int:
    """Tear down and retire; the status that a shell would give for the command."""
    tear_down(guard)
    if guard.options.foreground:
        retire_sessions_inside(guard)
    guard.report.reason = guard.owner.settled(guard.report.reason)
    for words in guard.owner.read():  # its start may have succeeded while the session ended
        if words[0] == "started":
            _note_start(guard, words)
    retire(guard)
    guard.terminal.restore()
    if not guard.options.foreground:
        return 0
    if guard.report.reason == "operator":
        guard.say("an operator has ended it (browserkeeper history has who and why)")
    if guard.report.reason == "timeout":
        return TIMED_OUT
    if failure is not None:
        return failure.exit_status
    status = guard.command.status
    if status is None:  # never started, or started by the primary guard and left to its standby
        return 128 + signal.SIGKILL if guard.report.reason == "guard-died" else CANNOT_RUN
    return status if status >= 0 else 128 - status
