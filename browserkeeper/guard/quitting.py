"""Asking a browser whose profile is kept to quit, so that it writes its cookies and storage.

Every end of such a session asks, that by a time limit or by the death of the owner included.  Measured
with Chromium 156 and Firefox 153 ESR (docs/design.md): SIGINT to Chromium's main process is a normal
quit, also while a command hangs; SIGTERM loses its cookies.  Firefox dies of both, and geckodriver
executes a DELETE after the command that hangs.  That command fails when the process that shows its page
is killed.

Imported only where a session has such a profile.
"""

from __future__ import annotations

import errno
import os

from .files import ignore_errors
from .procfs import exists, read_bytes, signal_descendant, unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any

    from .guard import Guard
    from .procfs import Stat
else:
    import _signal as signal

PAUSE = 0.02  # seconds between looks at the browser
PATIENCE = 1.5  # seconds that Firefox may take before the command that hangs is broken off; it takes 0.5
GONE = -1.0  # the start time of a process that had ended when its number came
HIDDEN = 0.0  # the start time of a process that could not be read (``procfs.unreadable``)
PATIENT_PART = 4  # of all seconds, PATIENCE is at most the fourth part


class Quitting:
    """How to ask one browser.

    ``words``: the seconds for its end; the pid of its main process; for Firefox the port and the path of
    the driver's session, for Chromium the port 0; and the process's start time, where it is known.
    """

    def __init__(self, guard: Guard, words: Sequence[str]):
        self._guard, self._seconds, self._pid = guard, float(words[0]), int(words[1])
        self._port, self._path = int(words[2]), words[3]
        stat = guard.containment.stat(self._pid)
        self._start = float(words[4]) if words[4:] else stat.start if stat else GONE
        self._words = (*words[:4], repr(self._start))

    def tell_standby(self, fd: int) -> None:
        """Write the words for the standby guard, which asks if the primary guard is killed.

        Not for Firefox: its driver is killed with the primary guard, and the port may be another
        program's by then.
        """
        if not self._port:
            ignore_errors(lambda: os.write(fd, " ".join(self._words).encode()))

    def run(self) -> None:
        """Ask, and block until the browser has ended, or its seconds are over.

        Raises OSError where the driver of a Firefox cannot be asked: it has ended, or hangs.
        """
        age = self._guard.report.age
        began = age()
        until = began + self._seconds
        if self._browser() is None:
            return
        if self._start == HIDDEN and not self._port:
            raise OSError(errno.ESRCH, "/proc hid it, so that it cannot be told from another process")
        self._guard.downloads.look(self._guard.members.living)  # those that the quit will cut off
        connection = self._send_delete() if self._port else None
        is_asked = bool(self._port)
        impatient = began + min(PATIENCE, self._seconds / PATIENT_PART)
        while (browser := self._browser()) is not None and age() < until:
            is_asked = is_asked or self._interrupt(browser)
            if self._port and age() >= impatient:
                impatient = until
                self._break_command_off()
            self._guard.members.reap()
            self._guard.signals.wait(PAUSE)
        if connection is not None:
            connection.close()
        self._guard.report.seconds["quitting"] = age() - began
        if browser is not None:
            self._guard.report.notes.append(
                f"the browser did not quit within {self._seconds:g} s when asked; its profile lacks "
                "what it had not written yet"
            )

    def _browser(self) -> Stat | None:
        """The browser's main process, None where it has ended.

        A process of its number that cannot be read at the moment, since ``/proc`` hides it or no file
        can be opened, may be the browser: it is returned without its start time.
        """
        stat = self._guard.containment.stat(self._pid)
        if stat is None and exists(self._pid):
            stat = unreadable(self._pid)
        if stat is None or stat.state in ("Z", "X") or self._start == GONE:
            return None
        return stat if stat.start == self._start or HIDDEN in (stat.start, self._start) else None

    def _interrupt(self, browser: Stat) -> bool:
        """Ask a Chromium; False where it cannot be told at the moment whether this is the browser."""
        if browser.start == HIDDEN:
            return False
        for number in (signal.SIGINT, signal.SIGCONT):
            self._signal(browser, number)
        return True

    def _send_delete(self) -> Any:
        """The connection; the answer comes when Firefox has quit, and is not read."""
        import _socket

        if self._guard.command.has_ended():  # the port may be another program's by now
            raise ProcessLookupError("its driver has ended")
        connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        request = f"DELETE {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n"
        connection.settimeout(self._seconds / PATIENT_PART)
        connection.connect(("127.0.0.1", self._port))
        connection.sendall(request.encode())
        return connection

    def _break_command_off(self) -> None:
        """Kill the processes that show pages: Firefox itself writes the profile."""
        for stat in self._guard.containment.find():
            words = (read_bytes(f"/proc/{stat.pid}/cmdline") or b"").rstrip(b"\0").replace(b"\0", b" ")
            if words.endswith(b" tab") and f"-parentPid {self._pid} ".encode() in words:
                self._signal(stat, signal.SIGKILL)

    def _signal(self, stat: Stat, number: int) -> None:
        if stat.parent == os.getpid() or not os.path.exists("/proc/self"):
            ignore_errors(lambda: os.kill(stat.pid, number))
        else:
            signal_descendant(stat.pid, stat.parent, number)


def asked_by_standby(guard: Guard, fd: int) -> Quitting | None:
    """What the primary guard wrote into the pipe before it was killed; None where it wrote nothing."""
    os.set_blocking(fd, False)
    try:
        return Quitting(guard, os.read(fd, 4096).decode().split())
    except BlockingIOError:
        return None


__all__ = ["Quitting", "asked_by_standby"]
