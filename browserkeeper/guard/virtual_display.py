"""The X server of a session that has a virtual display.  Imported only where a session has one."""

from __future__ import annotations

import errno
import os

from .displays import note_display, noted_display, take_number
from .files import ignore_errors
from .options import Failure
from .procfs import read_bytes
from .signals import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from .containment import Cgroup, Containment
    from .options import Options
    from .signals import Signals
else:
    import _signal as signal

AUTHORITY, LOG = "Xauthority", "display.log"
"""Names of files in the session's TMPDIR: the key of the display (xauth(1)), the X server's messages."""
SHOWN = 300  # characters of the X server's last words that an error has


class VirtualDisplay:
    """An Xvfb that the guard starts, for the command: a child of the guard, in a process session of its
    own.  The kernel kills it when the guard dies.

    It gets a number whose lock its process has made before it executes Xvfb, so that no two sessions
    can have the same one.  Xvfb makes no lock of its own, since it has the option ``-displayfd``, by
    which it says when it is ready (measured with 21.1).
    """

    def __init__(self, options: Options, signals: Signals, containment: Containment, cgroup: Cgroup):
        self.pid = 0
        self.number_fd = -1
        """The command reads from it the display's number, once the X server is ready."""
        self._options, self._signals = options, signals
        self._containment, self._cgroup = containment, cgroup
        self._go = -1

    def start(self) -> None:
        """Fork the child, which waits for :meth:`go`.  Raises OSError."""
        guard = os.getpid()
        go_read, self._go = os.pipe()
        self.number_fd, number_write = os.pipe()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self._go)
                self._run(guard, go_read, number_write)
        finally:
            os.close(go_read)
            os.close(number_write)
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def go(self) -> None:
        """Let the child begin: the record of the session has its pid by now, so that whatever it makes
        can be found by it."""
        ignore_errors(lambda: os.write(self._go, b"!"))
        os.close(self._go)

    def started(self) -> None:
        """Called when the command has been forked, which has a copy of ``number_fd``."""
        os.close(self.number_fd)
        self.number_fd = -1

    def name(self) -> str:
        """``:N``; "" before its process has taken a number."""
        noted = noted_display(self._options.tmpdir)
        return f":{noted[0]}" if noted else ""

    def failure(self) -> Failure:
        """Why it has not started, for the owner."""
        log = read_bytes(f"{self._options.tmpdir}/{LOG}") or b""
        words = _last_words(log.decode("utf-8", "replace"))
        words = words or "it ended before it was ready, and wrote nothing"
        return Failure("display", OSError(errno.EIO, words))

    def _run(self, guard: int, go: int, number_fd: int) -> NoReturn:
        try:
            self._containment.signal_at_parents_death(signal.SIGKILL)
            if os.getppid() != guard or os.read(go, 1) != b"!":
                os._exit(1)
            os.setsid()
            self._cgroup.enter()
            tmpdir, screen = self._options.tmpdir, self._options.screen
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            log = os.open(f"{tmpdir}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            key = f"{tmpdir}/{AUTHORITY}"
            _write_key(key)
            number = take_number()
            note_display(tmpdir, number)
            os.set_inheritable(number_fd, True)
            words = [f":{number}", "-displayfd", str(number_fd), "-auth", key, "-screen", "0", screen]
            words = [self._options.display, *words, "-nolisten", "tcp", "-noreset"]
            self._exec(words)
        except OSError as error:
            os.write(2, f"Error: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(1)

    def _exec(self, words: list[str]) -> NoReturn:
        """Become the X server, with the signals of a new program."""
        self._signals.restore()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(words[0], words)


def _last_words(log: str) -> str:
    """What an X server says about its failure, in its log: its fatal error, or what comes before the
    list of its options, or else the end of the log."""
    lines = [line.removeprefix("(EE)").strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    starts = {line.partition(":")[0]: number for number, line in enumerate(lines)}
    if "Fatal server error" in starts:
        telling = lines[starts["Fatal server error"] + 1 :]
    else:
        telling = lines[: starts.get("use", len(lines))][-3:]
    return " ".join(telling)[:SHOWN]


def read_number(fd: int) -> str:
    """In the command's process: wait for the display's number; "" where the X server has ended."""
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(fd, 16)
        if not part:
            return ""
        text += part
    return text.decode("ascii", "replace").strip()


def _write_key(path: str) -> None:
    """Write a new key (MIT-MAGIC-COOKIE-1), for whatever number and host: 0xFFFF is FamilyWild, and an
    empty number is any (Xau.h).  With it no other user of the machine has access, and without a key
    every one would."""
    name = b"MIT-MAGIC-COOKIE-1"
    entry = b"\xff\xff" + b"\0\0" + b"\0\0" + bytes([0, len(name)]) + name + b"\0\x10" + os.urandom(16)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, entry)
    finally:
        os.close(fd)


__all__ = ["VirtualDisplay", "read_number"]
