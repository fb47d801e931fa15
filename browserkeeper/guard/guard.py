"""The guard of one session: its parts, and the steps until the command runs."""

from __future__ import annotations

import errno
import os

from .command import Command, Terminal
from .containment import Cgroup, Subreaper
from .downloads import Downloads
from .files import ignore_errors, make_session_directory
from .lock import SessionLock, lock_directory
from .log import CommandLog
from .members import Members, MemoryCurve
from .options import AUTO, REQUIRED, Failure, Options
from .owner import Owner
from .procfs import foreign_proc, is_exiting
from .record import Record, Report
from .signals import Signals
from .slot import Slot
from .title import set_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from .command import AnyCommand
    from .containment import Containment
    from .download_bound import DownloadBound
    from .profile import KeptProfile
    from .virtual_display import VirtualDisplay
else:
    import _signal as signal

SAMPLES = (0.25, 1.0, 2.0, 5.0)  # seconds between looks at the tree; the last one repeats


class Guard:
    """The parts that the phases of a session share (``life.py``), and the first phases."""

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
        self.display = self._virtual_display()
        self.command = command or Command(
            options, self.signals, self.containment, self.cgroup, self.display
        )
        self.report = Report(self.containment.name)
        document = os.environ.pop("BROWSERKEEPER_DOCUMENT", "null")
        self.lock = SessionLock(options.lock)
        self.slot = Slot(options.slot)
        self.record = Record(options.record, options.history, document, self.lock)
        self.downloads = Downloads(
            options.downloads, options.partial_suffix, self.report.born_epoch, options.tmpdir
        )
        self.bound = _download_bound(options, self.downloads)
        self.members = Members(self.containment, self.command, self.report.age)
        self.members.on_reaped = self._reaped
        self.memory = MemoryCurve(2 * SAMPLES[-1])
        self.terminal = Terminal(options)
        self.log = CommandLog(options.log, options.keep_log)
        self.profile = _kept_profile(options)
        self.made_tmpdir = False
        self.ask_to_quit: Callable[[], None] | None = None  # of a browser whose profile is kept
        self.to_standby: tuple[int, int] | None = None  # a pipe that says how to ask; see quitting.py
        self.tmpdir: int | None = None  # a descriptor; none in a standby guard
        self.standby = 0  # pid of the standby guard, in the primary guard only

    def _virtual_display(self) -> VirtualDisplay | None:
        """Imports its module only where it is needed."""
        if not self.options.display:
            return None
        from .virtual_display import VirtualDisplay

        return VirtualDisplay(self.options, self.signals, self.containment, self.cgroup)

    def refusal(self) -> Failure | None:
        """Why no process may be signalled from here, after telling the owner; None if there is none.

        Asked first of all: the teardown, too, would signal numbers that it reads in ``/proc``.
        """
        why = foreign_proc()
        if not why:
            return None
        failure = Failure("proc", OSError(errno.ENOTSUP, why))
        self.report_failure(failure)
        return failure

    def arm(self) -> None:
        """Detach from the owner, and watch it: its death is noticed from here on.  Raises Failure.

        The guard leaves the owner's session, so that the keys of its terminal do not reach it; with
        a foreground command only its process group, since the command keeps the terminal.
        """
        if self.options.foreground:
            ignore_errors(lambda: os.setpgid(0, 0))
        else:
            ignore_errors(os.setsid)
        self.signals.listen()
        set_title(os.environ.get("BROWSERKEEPER_SESSION", ""))
        self.containment.arm()
        self.slot.take()  # first: an owner that lives afterwards has held it until now
        self.owner.watch()
        self.lock.take()  # before the record is there: a record with a free lock means dead guards
        if self.profile is not None:
            self.profile.open()
            ignore_errors(self._connect_standby)

    def _connect_standby(self) -> None:
        self.to_standby = os.pipe()

    def become_primary(self, standby: int) -> None:
        """In the child of the fork, which inherits neither the subreaper nor the wake-up pipe.

        Asks for SIGTERM at the standby's death.
        """
        self.standby, self.owner.is_parent = standby, False
        self.signals.listen()
        self.containment.arm()
        self.lock.take()
        self.slot.take_too()
        self.containment.signal_at_parents_death(signal.SIGTERM)

    def standby_is_dead(self) -> bool:
        return bool(self.standby) and os.getppid() != self.standby

    def prepare(self) -> None:
        """Make the record, TMPDIR and cgroup.  Raises Failure.

        The record comes first, so that a sweep can find whatever is made after it.
        """
        now = self.containment.now()
        self.record.refuse_earlier_requests()
        self._step("record", self.write_record)
        self.lock.stamp(now)
        if self.profile is not None:
            self._step("profile", self.profile.take)
        if self.options.tmpdir:
            self._step("tmpdir", lambda: make_session_directory(self.options.tmpdir))
            self.made_tmpdir = True
            self.tmpdir = lock_directory(self.options.tmpdir)
            os.environ["TMPDIR"] = self.options.tmpdir
            self._step("tmpdir", self.downloads.save)
        self._step("cgroup", self.cgroup.make)

    def _step(self, where: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise Failure(where, error) from error

    def start(self) -> None:
        """Start the command, without waiting for its exec.  Raises Failure."""
        display = self.display
        if display is not None:
            self._step("display", display.start)
            self.look()
            display.go()
        self.command.start()

    def _reaped(self, pid: int, code: int) -> None:
        if (outside := self.command.outside) is not None:
            outside.browser_has_ended(pid, code, self.owner)

    def display_has_ended(self) -> bool:
        """True if the session has had a virtual display, whose process the guard has reaped."""
        if self.display is None:
            return False
        try:
            os.waitid(os.P_PID, self.display.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return False
        except ChildProcessError:
            return True

    def display_is_ending(self) -> bool:
        """True if :meth:`display_has_ended` is or will be: a process closes its sockets before it can be
        reaped."""
        return self.display_has_ended() or (
            self.display is not None and is_exiting(self.display.pid) is True
        )

    def look(self) -> None:
        """Look at all processes of the session once, and save for recovery what has changed."""
        now = self.containment.now()
        self.slot.restore()
        self.members.update()
        age, weighed, is_saved = self.report.age(), False, True
        if self.memory.is_due(age):
            self.memory.add(age, sum(map(self.containment.memory, self.members.living)))
            weighed = True
        if weighed or self.record.is_outdated(self.members):
            try:
                self.write_record()
            except OSError:  # a full disk
                is_saved = False
        # After the record: whoever recovers the session can look for the open files of a process that is
        # recorded, but cannot prove whose process has a file open.
        if self.downloads.has_changed():
            self.downloads.look(self.members.living)
        if is_saved:
            self.lock.stamp(now)

    def write_record(self) -> None:
        pids = [os.getpid(), *([self.standby] if self.standby else [])]
        stats = map(self.containment.stat, pids)
        self.record.write([stat for stat in stats if stat], self.members, self.memory)

    def facts(self, survivors: list[dict[str, Any]]) -> dict[str, Any]:
        """The exit report as a dict for JSON, with all that is known at this moment."""
        facts = self.report.facts(self.members, self.memory, self.command.status, survivors)
        isolation = self.command.isolation
        if isolation in (AUTO, REQUIRED):  # a standby guard, whose primary guard has started the driver
            isolation = ""
        facts["driver_isolation"] = isolation
        return facts

    def report_failure(self, failure: Failure) -> None:
        """Tell the owner, and with a foreground command the user, why the session did not start."""
        error = failure.error
        if self.options.foreground:
            self.say(f"{failure.where}: {error}")
        self.owner.send("failed", where=failure.where, errno=error.errno, text=str(error))

    def say(self, text: str) -> None:
        """Write a line about a foreground command for the user."""
        line = f"browserkeeper run: {self.options.command[0]}: {text}\n"
        ignore_errors(lambda: os.write(2, line.encode("utf-8", "surrogateescape")))


def _download_bound(options: Options, downloads: Downloads) -> DownloadBound | None:
    """Imports its module only where it is needed."""
    if not options.max_download:
        return None
    from .download_bound import DownloadBound

    return DownloadBound(options, downloads)


def _kept_profile(options: Options) -> KeptProfile | None:
    """Imports its module only where it is needed."""
    if not options.profile:
        return None
    from .profile import KeptProfile

    return KeptProfile(options.profile, options.tmpdir)
