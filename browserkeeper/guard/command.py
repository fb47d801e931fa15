"""The command of a session: how it is started, and its place in a terminal."""

from __future__ import annotations

import os

from .files import ignore_errors
from .options import AUTO, ISOLATED, NOT_FOUND, REQUIRED, SENTINEL, START, Failure, Options
from .signals import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from .containment import Cgroup, Containment
    from .outside import Outside
    from .signals import Signals
    from .virtual_display import VirtualDisplay

    class AnyCommand(Protocol):
        """What a guard watches: a command that it starts, or a driver that runs already."""

        pid: int
        """0 where the guard has not started it."""
        status: int | None
        """The exit status, negative for a signal; None until the guard has reaped it."""
        exec_fd: int
        """Readable when the exec has succeeded or failed; -1 where none is awaited."""
        outside: Outside | None
        """Starts the browser of a driver that is isolated; None for any other command."""
        isolation: str
        """``isolated``, or why the command is not; "" where that is no question."""

        def start(self) -> None:
            """Does not wait for the exec.  Raises Failure."""

        def finish_start(self) -> None:
            """Called once ``exec_fd`` is readable.  Raises Failure where the exec has failed.

            Another exec may be awaited afterwards: that of the command, not isolated.
            """

        def has_ended(self) -> bool: ...

else:
    import _signal as signal


INSIDE = b"+"
"""What the child writes once it is in a network namespace of its own."""
OF_ISOLATION = "isolation"
"""How the names of the steps begin in which the child isolates itself."""


class Command:
    """The child that the guard starts."""

    def __init__(
        self,
        options: Options,
        signals: Signals,
        containment: Containment,
        cgroup: Cgroup,
        display: VirtualDisplay | None = None,
    ):
        """``display``: one that was started before, which the command waits for."""
        self.pid = 0
        self._display = display
        self.status: int | None = None
        self.exec_fd = -1
        self.outside: Outside | None = None
        """Starts the browser of a driver that is isolated; None for any other command."""
        self.isolation = options.isolation
        """``isolated``, or why the command is not; "" where that is no question."""
        self._options, self._signals = options, signals
        self._containment, self._cgroup = containment, cgroup

    def has_ended(self) -> bool:
        return self.status is not None

    def start(self) -> None:
        """Fork the child, which then executes the command.  Raises Failure where it cannot be forked.

        Signals are blocked in the child until it has the command's dispositions: one that the guard
        passes on by then reaches the command.
        """
        if self.isolation in (AUTO, REQUIRED):
            self._prepare_isolation()
        self._fork()

    def _prepare_isolation(self) -> None:
        """Raises Failure where the isolation is required, and the system lacks something."""
        from .outside import Outside

        if not hasattr(os, "pidfd_open"):  # Python was built on an old kernel
            self._refuse_isolation("this Python has no pidfd_open(2)", 0)
            return
        try:
            os.close(os.pidfd_open(os.getpid()))
            self.outside = Outside(self._options.browser, self.fork_beside)
        except OSError as error:
            self._refuse_isolation(f"it needs pidfd_open(2) and pipes: {error}", error.errno or 0)

    def _refuse_isolation(self, why: str, number: int) -> None:
        if self.outside is not None:
            self.outside.close()
        self.outside, self.isolation = None, why
        if self._options.isolation == REQUIRED:
            raise Failure("isolation", OSError(number, why))

    def _fork(self) -> None:
        guard = os.getpid()
        self.exec_fd, write_fd = os.pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self._exec(guard, write_fd)
        except OSError as error:
            raise Failure("fork", error) from error
        finally:
            os.close(write_fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self.outside is not None:
            self.outside.in_the_guard()

    def finish_start(self) -> None:
        """Read from the child what it says of the exec.

        It writes INSIDE once it is isolated, and why it cannot execute the command; a successful exec
        closes the pipe.
        """
        told = os.read(self.exec_fd, 64)
        if told == INSIDE:
            self.isolation = ISOLATED
            return  # the exec is still awaited
        os.close(self.exec_fd)
        self.exec_fd = -1
        where, _, number = told.removeprefix(INSIDE).decode().partition(" ")
        if where == "display" and self._display is not None:
            raise self._display.failure()
        if self.outside is not None and not where and self.isolation != ISOLATED:
            self._start_not_isolated("the process that made the namespace was killed", 0)
        elif where.startswith(OF_ISOLATION):
            self._start_not_isolated(_why_not_isolated(where, int(number)), int(number))
        elif where:
            raise Failure(where, OSError(int(number), os.strerror(int(number))))
        elif self._display is not None:
            self._display.started()

    def _start_not_isolated(self, why: str, number: int) -> None:
        """Start the command again, not isolated.  Raises Failure where it must be isolated."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self.status == -signal.SIGSYS:
            why = "a seccomp filter kills what makes a namespace"
        self._refuse_isolation(why, number)
        self.status = None
        self._fork()

    def _exec(self, guard: int, error_fd: int) -> NoReturn:
        where = "exec"
        try:
            # With a stop grace period the command has work to do at its end, also when we are killed.
            grace = self._options.stop_grace_period
            self._end_with(guard, signal.SIGTERM if grace else signal.SIGKILL)
            where = "cgroup"
            self._cgroup.enter()
            if self._options.foreground:
                where = "terminal"
                self._join_job()
            else:
                where = "log"
                self._redirect()
            if self.outside is not None:
                from .isolation import leave_the_network, send_sockets

                where = OF_ISOLATION
                leave_the_network()
                where = OF_ISOLATION + "-sockets"
                send_sockets(self._options.network_fd)
                self.outside.in_the_driver()
                self._end_with(guard, signal.SIGKILL)  # a change of credentials undoes it (prctl(2))
                os.write(error_fd, INSIDE)
            if self._display is not None:
                where = "display"
                self._wait_for_display(self._display)
            where = "exec"
            self._have_own_signals()
            if self._options.command[1:2] == [START]:  # the relay, in a frozen program
                os.environ[SENTINEL] = "relay"
            os.execvp(self._options.command[0], self._options.command)
        except OSError as error:
            os.write(error_fd, f"{where} {error.errno}".encode())
        finally:
            os._exit(NOT_FOUND)

    def _have_own_signals(self) -> None:
        self._signals.restore()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _end_with(self, guard: int, number: int) -> None:
        """Have the kernel send this signal to the process when its guard dies."""
        self._containment.signal_at_parents_death(number)
        if os.getppid() != guard:
            os._exit(1)

    def fork_beside(self, execute: Callable[[], None]) -> int:
        """Fork a child that has the cgroup, the log and the signals of a new program, and calls
        ``execute``, which is to execute one; its pid.  Raises OSError where it cannot be forked.

        The kernel does not kill it with this guard.
        """
        guard = os.getpid()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_beside(guard, execute)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        return pid

    def _run_beside(self, guard: int, execute: Callable[[], None]) -> NoReturn:
        try:
            self._redirect()
            self._cgroup.enter()
            self._have_own_signals()
            if os.getppid() == guard:
                execute()
        except OSError as error:
            os.write(2, f"{error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(NOT_FOUND)

    def _wait_for_display(self, display: VirtualDisplay) -> None:
        """Here and not in the guard, which is to notice meanwhile that it has to end the session."""
        from .virtual_display import read_number

        number = read_number(display.number_fd)
        if not number:
            raise ChildProcessError(10, "the X server has ended")
        os.environ["DISPLAY"] = f":{number}"

    def _redirect(self) -> None:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        target = self._options.log or os.devnull
        log = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _join_job(self) -> None:
        """Enter the process group of the owner, so that the shell's job control, ^C and ^Z reach both.

        Without an owner the guard is an init, and the command is the terminal's only job.
        """
        if self._options.owner:
            ignore_errors(lambda: os.setpgid(0, os.getpgid(self._options.owner)))
            return
        os.setpgid(0, 0)
        if os.isatty(0):
            ignore_errors(lambda: os.tcsetpgrp(0, os.getpid()))


def _why_not_isolated(step: str, number: int) -> str:
    from .isolation import explain

    if step == OF_ISOLATION:
        return explain(number)
    return f"no sockets for the owner can be made in a namespace: {os.strerror(number)}"


class Terminal:
    """The terminal of a foreground command that has an owner.  Otherwise every method does nothing."""

    def __init__(self, options: Options):
        self._owner = options.owner if options.foreground else 0
        self._group = 0

    def remember(self) -> None:
        """Note which job has the terminal.  A command that is killed may not give it back after it
        has given it to a job of its own."""
        try:
            job = os.getpgid(self._owner) if self._owner else 0
            if job and os.tcgetpgrp(0) == job:
                self._group = job
        except OSError:  # stdin is no terminal, or the owner is gone
            pass

    def restore(self) -> None:
        """Give the terminal back to that job."""
        if self._group:
            ignore_errors(lambda: os.tcsetpgrp(0, self._group))
