"""Starts the browser of an isolated driver, outside the driver's network namespace.

ChromeDriver is told that its browser is a small script, the stand-in (``drivers/stand_in.py``).  A
browser that ChromeDriver starts itself would have no network.  The stand-in asks the guard to start the
browser, and lives as long as the browser does::

    guard ─┬─ chromedriver ── stand-in     in the namespace
           └─ browser                      outside

Stand-in and guard have two pipes between them.  ChromeDriver inherits their ends, and closes them in its
children: so the stand-in opens those of its parent, by ``/proc``.  No file is needed that others could
open.  The stand-in writes its pid, or its pid and TERM, into the one pipe.  From the other one it reads
a line after each signal of the guard's, and the end, which comes with the guard's.

Imported only where a session's driver is isolated.
"""

from __future__ import annotations

import fcntl
import os
import select

from .files import ignore_errors
from .isolation import VARIABLE
from .procfs import descendants, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from .members import Members
    from .owner import Owner
else:
    import _signal as signal

COMMANDS, ANSWERS = 3, 4
"""The browser's descriptors of ``--remote-debugging-pipe``: it reads the one, and writes the other."""
SUCCEEDED, FAILED = signal.SIGUSR1, signal.SIGUSR2
"""What a stand-in gets when its browser has exited, with status 0 or with another one."""
LET_GO = signal.SIGHUP
"""What a stand-in gets once the browser has the debugging pipe, for the stand-in to close its own ends:
the driver shall see the pipe's end when the browser ends."""
TRAPPED = (SUCCEEDED, FAILED, LET_GO, signal.SIGTERM)
"""Signals that do not end a stand-in as they end other programs."""
ABOVE = 10
"""The least number of a descriptor that is not to be overwritten."""


class Outside:
    """The pipes, and the browsers that were started for stand-ins."""

    def __init__(self, browser: str, fork: Callable[[Callable[[], None]], int]):
        """``browser``: the path of the program.  ``fork``: as :meth:`Command.fork_beside`."""
        self._browser, self._fork = browser, fork
        self._requests, self._driver_writes = os.pipe()
        self._driver_reads, self._alive = os.pipe()
        self._epoll = select.epoll()
        self._epoll.register(self._requests, select.EPOLLIN)
        self._stand_ins: dict[int, tuple[int, int]] = {}
        """For each browser that lives, by its pid: the pid and the pidfd of its stand-in."""

    @property
    def fd(self) -> int:
        """Readable when :meth:`serve` has something to do."""
        return self._epoll.fileno()

    def in_the_guard(self) -> None:
        """After the driver's fork: close its ends, so that each pipe ends with the other side."""
        os.close(self._driver_writes)
        os.close(self._driver_reads)

    def close(self) -> None:
        """For a driver that could not be isolated."""
        self._epoll.close()
        os.close(self._requests)
        os.close(self._alive)

    def in_the_driver(self) -> None:
        """In the driver's process, before its exec: keep its ends of the pipes open."""
        ends = (self._driver_writes, self._driver_reads)
        os.environ[VARIABLE] = " ".join(str(fcntl.fcntl(fd, fcntl.F_DUPFD, ABOVE)) for fd in ends)

    def serve(self, members: Members, owner: Owner) -> None:
        """Do what stand-ins have asked for, and end the browsers of those that have ended.  Does not
        block."""
        for fd, _ in self._epoll.poll(0):
            if fd != self._requests:
                self._end_browser_of(fd)
                continue
            lines = os.read(self._requests, 4096)
            if not lines:  # the driver has ended
                self._epoll.unregister(self._requests)
            for line in lines.decode("ascii", "replace").splitlines():
                pid, _, word = line.partition(" ")
                if not pid.isdigit():
                    continue  # no stand-in has written it
                if word:
                    self._ask_browser_of(int(pid))
                    continue
                try:
                    browser = self._start_for(int(pid))
                except OSError as error:
                    owner.send("browser-failed", errno=error.errno, text=str(error))
                    continue
                members.born.add(browser)
                members.note(browser)
                owner.send("browser", pid=browser, stand_in=int(pid))

    def browser_has_ended(self, pid: int, code: int, owner: Owner) -> None:
        """Pass the end of a browser, which was reaped, on to its stand-in and to the owner.

        ``code``: its exit status, negative for a signal.  Does nothing for another process.
        """
        if pid not in self._stand_ins:
            return
        _, pidfd = self._stand_ins.pop(pid)
        ignore_errors(lambda: self._epoll.unregister(pidfd))  # it ended first
        by = signal.SIGKILL if -code in TRAPPED else -code
        number = by if code < 0 else FAILED if code else SUCCEEDED
        # The owner first: when its driver reports the end, the owner has to know the status.
        owner.send("browser-ended", pid=pid, code=code)
        self._tell(pidfd, number)
        os.close(pidfd)

    def _end_browser_of(self, pidfd: int) -> None:
        """The stand-in has ended before its browser: its driver has killed it, to end the browser."""
        for browser, (_, known) in self._stand_ins.items():
            if known == pidfd:
                os.kill(browser, signal.SIGKILL)  # our child, which was not reaped yet
        self._epoll.unregister(pidfd)

    def _ask_browser_of(self, stand_in: int) -> None:
        """The driver has sent SIGTERM to what it takes for the browser."""
        for browser, (pid, _) in self._stand_ins.items():
            if pid == stand_in:
                os.kill(browser, signal.SIGTERM)

    def _start_for(self, stand_in: int) -> int:
        """Start the browser for a stand-in; its pid.  Raises OSError where it cannot be started, and the
        stand-in is ended then, if it is one of this session."""
        pidfd = os.pidfd_open(stand_in)
        try:
            if stand_in not in {pid for pid, _ in descendants(os.getpid())}:
                raise ProcessLookupError(f"process {stand_in} is not of this session")
            try:
                browser = self._start_like(f"/proc/{stand_in}")
            except OSError:
                self._tell(pidfd, FAILED)
                raise
        except OSError:
            os.close(pidfd)
            raise
        self._stand_ins[browser] = (stand_in, pidfd)
        self._epoll.register(pidfd, select.EPOLLIN)
        self._tell(pidfd, LET_GO)
        return browser

    def _tell(self, pidfd: int, number: int) -> None:
        """Send a stand-in a signal, and a line, which ends its ``read``: a shell that gets a signal just
        before it reads does not notice it until then."""
        ignore_errors(lambda: signal.pidfd_send_signal(pidfd, number))
        ignore_errors(lambda: os.write(self._alive, b"\n"))

    def _start_like(self, stand_in: str) -> int:
        """Start the browser with the arguments, the environment, the directory and the debugging pipe of
        the process that has this directory in /proc.  Raises OSError."""
        # The kernel has put the shell before the script's path and the arguments (execve(2)).
        words = _strings(f"{stand_in}/cmdline")[2:]
        variables = (one.partition(b"=") for one in _strings(f"{stand_in}/environ"))
        ours = (b"", VARIABLE.encode())
        environment = {name: value for name, _, value in variables if name not in ours}
        opened: list[int] = []
        try:
            opened.append(_open(f"{stand_in}/fd/{COMMANDS}", os.O_RDONLY))
            opened.append(_open(f"{stand_in}/fd/{ANSWERS}", os.O_WRONLY))
            opened.append(_open(f"{stand_in}/cwd", os.O_PATH))

            def execute() -> None:
                os.dup2(opened[0], COMMANDS)
                os.dup2(opened[1], ANSWERS)
                os.fchdir(opened[2])
                os.execve(self._browser, [os.fsencode(self._browser), *words], environment)

            return self._fork(execute)
        finally:
            for fd in opened:
                os.close(fd)


def _strings(path: str) -> list[bytes]:
    """Those of a file in /proc that ends each with a NUL.  Raises OSError."""
    return read_file(path).split(b"\0")[:-1]


def _open(path: str, flags: int) -> int:
    """A descriptor that is above those which the browser gets."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    finally:
        os.close(fd)


__all__ = ["Outside"]
