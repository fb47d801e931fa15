"""The exit of a browser during its launch: noticed by its processes, and described for the error.

ChromeDriver does not notice it when it talks to Chromium by a pipe: it waits for as long as the launch
may take (measured with 156).  geckodriver notices it within 0.1 s.
"""

from __future__ import annotations

import _thread
import dataclasses
import os
import re
import select
import signal
import sys
import time

from ..drivers.stand_in import NAME as STAND_IN
from ..errors import LimitError
from ..guard.options import ISOLATED
from ..guard.procfs import read_bytes
from ..process import system
from ..process.guard_process import GuardProcess
from ..process.identity import ProcessFacts
from ..process.leftover_processes import MARKER

PAUSE = 0.05
"""Seconds between two looks at the processes of a launch."""
SETTLED = 0.15
"""Seconds for which no browser was seen until it counts as ended: a wrapper script that ends, and the
process that it has started, may both be missed by one look."""
PROFILE_IN_USE = 21
"""Chromium's exit status where another browser has its profile (RESULT_CODE_PROFILE_IN_USE)."""
_HELPERS = re.compile(
    r"chrome_crashpad|crashpad_handler|crashhelper|dbus-|at-spi|gvfs|dconf|gpg-agent|cat$|Xvfb$",
    re.IGNORECASE,
)
"""Names of programs that browsers and their wrapper scripts start and that may outlive them."""
_PART = re.compile(rb"(?:^|[\0 ])(?:--type=|-contentproc[\0 ])")
"""In the command line of a browser's renderers and other parts, which end with it."""
_OF_THE_DRIVER = re.compile(
    r"^(?:\[\d+\.\d+\]\[\w+\]|\d{13}\t|Starting ChromeDriver|Starting \w+ ?WebDriver|"
    r"Only local connections|"
    r"Please see https|(?:ChromeDriver|\w+ ?WebDriver) was started|\*\*\* You are running in headless|"
    r"[\s{}\]]|\"|$)"
)
"""Lines of a driver's log that are the driver's own."""
_NOISE = re.compile(r"dbus/|zygote_linux|sandbox_linux|idle_linux|unexpected operator|dbind-WARNING")
"""Lines of a browser that runs well, too."""
LONGEST_WORDS = 300
"""Characters of a browser's last words in an error's first line; the log's end has them all."""
CUT_OFF = 1900
"""Characters of a log's end above which its first line may be half a line (``guard/log.py``, TAIL)."""

_REMEDIES = (
    (
        r"profile appears to be in use|processsingleton|is already running",
        "Close the browser that has the profile, or give each session a profile of its own.",
    ),
    (
        r"error while loading shared libraries: (?P<what>[^:\s]+)",
        "Install the package that has {what} (`ldd` on the browser's binary lists what is missing).",
    ),
    (
        r"cannot open display|can't open display|missing x server|platform failed to initialize",
        "No X server answers: pass display='virtual', set DISPLAY to one that runs, or stay headless.",
    ),
    (r"exec format error|cannot execute binary", "The binary is for another processor."),
    (
        r"running as root without --no-sandbox|no usable sandbox|setuid sandbox",
        "Run as a plain user that may make user namespaces, or pass arguments=['--no-sandbox'].",
    ),
    (r"no space left on device", "Free space, or set BROWSERKEEPER_TMPDIR to another directory."),
    (r"permission denied", "This user may not open or execute it."),
)
"""Patterns of last words, the most telling first, and what to do."""


@dataclasses.dataclass(frozen=True)
class BrowserExit:
    """How a browser ended during its launch.

    ``status`` is the exit status, ``signal`` the number of the signal that has killed it (0: it is not
    known which); None where it was not that, or is not known.  A shell says 128 + N for signal N.
    """

    status: int | None = None
    signal: int | None = None

    @classmethod
    def of_wait_status(cls, wait_status: int) -> BrowserExit:
        """From the status of wait(2), as ``/proc/PID/stat`` has it too."""
        if number := wait_status & 0x7F:
            return cls(signal=number)
        code = wait_status >> 8 & 0xFF
        shown = signal.Signals._value2member_map_
        return cls(signal=code - 128) if code - 128 in shown else cls(status=code)

    @classmethod
    def of_exit_code(cls, code: int) -> BrowserExit:
        """From an exit status that is negative for a signal."""
        return cls.of_wait_status(-code if code < 0 else code << 8)

    @classmethod
    def by_message(cls, message: str) -> BrowserExit | None:
        """From the error of a driver that has noticed it by itself; None where that says something
        else."""
        if found := re.search(r"unexpectedly closed with (?:status (\d+)|unknown status)", message):
            # geckodriver names no signals, only "unknown status".
            return cls.of_wait_status(int(found.group(1)) << 8) if found.group(1) else cls(signal=0)
        return (
            cls() if re.search(r"instance exited|failed to start: (?:exited|crashed)", message) else None
        )

    def may_be_chance(self, log_tail: str) -> bool:
        """True if another launch may go better: after a crash, or where nothing is known.

        A browser that exits with a status, or that names a known cause, will do so again.
        """
        return self.status is None and not self._remedy_for(last_words(log_tail))

    def is_explained(self, log_tail: str) -> bool:
        """True if the browser's last words name a known cause."""
        return bool(self._remedy_for(last_words(log_tail)))

    def describe(self, name: str, log_tail: str) -> str:
        """Sentences for the error: how the browser ended, its last words, and what to do."""
        words = last_words(log_tail)
        if self.signal is not None:
            text = f"{name} was killed by {signal_name(self.signal)} during its launch"
        elif self.status is not None:
            text = f"{name} exited with status {self.status} during its launch"
        else:
            text = f"{name} ended during its launch"
        text += f": {words}" if words else "; it wrote nothing"
        return " ".join(filter(None, (text.rstrip(".") + ".", self._remedy(words))))

    @staticmethod
    def _remedy_for(words: str) -> str:
        for pattern, remedy in _REMEDIES:
            if found := re.search(pattern, words, re.IGNORECASE):
                return remedy.format(**found.groupdict())
        return ""

    def _remedy(self, words: str) -> str:
        if remedy := self._remedy_for(words):
            return remedy
        if self.signal == signal.SIGKILL:
            return "Perhaps the kernel did it for lack of memory: see `dmesg` and the container's limit."
        if self.status == 0:
            return (
                "So does a browser that hands its page to another one, which has the profile open, and "
                "a wrapper script that starts none."
            )
        return ""


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; "a signal" for 0, where it is not known which."""
    if number == 0:
        return "a signal"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_words(log_tail: str) -> str:
    """What the browser itself wrote into the driver's log: the line that names a known cause, or else
    the last line; "" where it wrote none."""
    whole = log_tail.splitlines()[len(log_tail) > CUT_OFF :]
    lines = [line.strip() for line in whole if not _OF_THE_DRIVER.match(line)]
    telling = [line for line in lines if not _NOISE.search(line)] or lines
    for pattern, _ in _REMEDIES:
        for line in reversed(telling):
            if re.search(pattern, line, re.IGNORECASE):
                return line[:LONGEST_WORDS]
    return telling[-1][:LONGEST_WORDS] if telling else ""


class ExitWatch:
    """Looks at the processes of a launch, in a thread of its own, while a ``with`` block waits for the
    driver.

    A look takes about a millisecond of processor time, so there are two or three only: once the
    browser's main process is seen, its pidfd says whether it lives.  The guard could not know it sooner:
    the browser is the driver's child, so that the guard gets no SIGCHLD.

    When no browser is left, has the guard end the session; then the driver's connection breaks, and the
    block raises an error.  ``exit`` says then how the browser has ended.  Where no thread can be
    started, nothing is noticed.
    """

    exit: BrowserExit | None = None

    def __init__(self, guard: GuardProcess, driver: int):
        self._guard, self._driver = guard, driver
        self._is_isolated = (guard.event("spawned") or {}).get("isolation") == ISOLATED
        self._main: ProcessFacts | None = None
        self._how = BrowserExit()
        self._pidfd = -1
        self._stop, self._over = _thread.allocate_lock(), _thread.allocate_lock()
        self._stop.acquire()
        self._over.acquire()

    def __enter__(self) -> ExitWatch:
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            self._over.release()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.release()
        self._over.acquire()

    def combine(self, noticed: BrowserExit | None) -> BrowserExit | None:
        """How the browser ended, where this watch or the driver (``noticed``) has noticed it."""
        known = self._how != BrowserExit()
        return self.exit or (self._how if noticed is not None and known else noticed)

    def _run(self) -> None:
        gone_since = 0.0
        try:
            while not self._stop.acquire(timeout=PAUSE):
                if self._main_lives() or self._may_have_browser():
                    gone_since = 0.0
                    continue
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since >= SETTLED:
                    self.exit = self._how
                    self._guard.tell_to_end("failed")
                    return
        finally:
            if self._pidfd >= 0:
                os.close(self._pidfd)
            self._over.release()

    def _main_lives(self) -> bool:
        """True if the pidfd of the browser's main process says so; False where there is none."""
        if self._pidfd < 0:
            return False
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return not poller.poll(0)

    def _watch_main(self, main: ProcessFacts) -> None:
        """Take a pidfd of the browser's main process, unless the system has none, or this process may
        open no more files, or it is a program that starts the browser and outlives it."""
        if not _may_be_browser(main) or not hasattr(os, "pidfd_open"):
            return
        try:
            fd = os.pidfd_open(main.pid)
        except OSError:
            return
        found = system.facts(main.pid)
        if found is not None and found.identity.is_same_as(main.identity):
            self._pidfd = fd
        else:  # another process has the number by now
            os.close(fd)

    def _may_have_browser(self) -> bool:
        """True as well where this process may open no more files, so that nothing can be seen."""
        try:
            return self._has_browser() or self._runs_elsewhere()
        except LimitError:
            return True

    def _has_browser(self) -> bool:
        """True while there is a browser, or there was none yet."""
        tree = system.tree(self._guard.primary_pid)
        if not any(process.pid == self._driver and not process.is_zombie for process in tree):
            return True  # the driver has ended: the guard ends the session
        # The guard of an isolated driver has started the browser, and tells how it has ended.
        by_guard = (self._guard.event("browser") or {}).get("pid")
        if ended := self._guard.event("browser-ended"):
            self._how = BrowserExit.of_exit_code(ended["code"])
        for child in tree:
            if self._is_isolated and by_guard is None and _is_ended_child(child, self._driver):
                return False  # the stand-in, which has asked for no browser
            if is_stand_in(child) or (child.parent != self._driver and child.pid != by_guard):
                continue
            if self._main is None:
                self._main = child
                self._watch_main(child)
            if child.is_zombie and child.identity.is_same_as(self._main.identity):
                self._how = _how_ended(child.pid)
        if self._main is None and ended is None:
            return True
        return any(process.pid != self._driver and _may_be_browser(process) for process in tree)

    def _runs_elsewhere(self) -> bool:
        """True if the browser may run where :meth:`_has_browser` does not see it: a guard that is no
        subreaper does not get the orphans of a wrapper script.  O(host) there."""
        if self._guard.plan.containment.kind in ("cgroup", "subreaper"):
            return False
        marker, known = f"{MARKER}={self._guard.plan.session}", (self._driver, self._guard.pid)
        candidates = (process for process in system.everyone() if process.pid not in known)
        return any(system.bears_marker(p.pid, marker) and _may_be_browser(p) for p in candidates)


def _may_be_browser(process: ProcessFacts) -> bool:
    """False for a zombie, for a helper, and for a part of a browser that ends with it."""
    if process.state in "ZX" or _HELPERS.search(process.name) or is_stand_in(process):
        return False
    return not _PART.search(system.command_line(process.pid))


def _is_ended_child(process: ProcessFacts, parent: int) -> bool:
    return process.parent == parent and process.is_zombie


def is_stand_in(process: ProcessFacts) -> bool:
    """True for the script that an isolated driver takes for its browser."""
    return process.name == STAND_IN


def _how_ended(pid: int) -> BrowserExit:
    """How a zombie has ended: the last field of ``/proc/PID/stat`` (proc(5), ``exit_code``)."""
    if sys.platform != "linux":
        return BrowserExit()
    raw = read_bytes(f"/proc/{pid}/stat")
    fields = (raw or b"").rpartition(b")")[2].split()
    # Fields after the name begin with the third one; ``exit_code`` is the 52nd.
    return BrowserExit.of_wait_status(int(fields[49])) if len(fields) > 49 else BrowserExit()
