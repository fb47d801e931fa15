"""The owner's side of the guard: start one, read its events, send it messages."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .containment import Containment
from .leftover_processes import DOCUMENT, LOCK, MARKER

GUARD_DIRECTORY = str(Path(__file__).resolve().parent.parent)
# The guard is imported, since Python caches the bytecode of imported modules only: half of the start.
_BOOT = "import sys;sys.path.append(sys.argv.pop(1));from guard.boot import main;main()"
_ADOPTING_BOOT = (
    "import sys;sys.path.append(sys.argv.pop(1));"
    "from browserkeeper.cleanup.adopting_guard import main;main()"
)

FINISHING_TIMEOUT = 3.0
"""Seconds that a primary guard whose standby was killed may take to end the session and report it."""


@dataclasses.dataclass(frozen=True)
class GuardPlan:
    """The options of a guard (``guard/options.py``).  A path "" means none, 0 seconds mean never.

    ``document`` is the JSON that the ledger's record carries; ``env`` is the whole environment.
    For an adopted driver ``command`` is what ``cleanup/adopting_guard.py`` says.
    """

    session: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    containment: Containment
    document: str = "null"
    tmpdir: str = ""
    record: str = ""
    lock: str = ""
    history: str = ""
    log: str = ""
    keep_log: str = ""
    timeout: float = 0
    kill_deadline: float = 10
    grace: float = 0
    stop_grace_period: float = 0
    status_file: str = ""

    def options(self) -> list[str]:
        """The guard's command line, without the file descriptors."""
        pairs = {
            "--tmpdir": self.tmpdir,
            "--record": self.record,
            "--lock": self.lock,
            "--history": self.history,
            "--log": self.log,
            "--keep-log": self.keep_log,
            "--cgroup": self.containment.leaf(self.session),
            "--timeout": self.timeout or "",
            "--kill-deadline": self.kill_deadline,
            "--grace": self.grace or "",
            "--stop-grace-period": self.stop_grace_period or "",
            "--status-file": self.status_file,
        }
        return [str(word) for pair in pairs.items() if pair[1] != "" for word in pair]

    def environment(self) -> dict[str, str]:
        """The environment with the marker, the lock's path and the document, which other users can read
        in a command line, but not here."""
        outer = {name: value for name, value in self.env.items() if name != LOCK}
        lock = {LOCK: self.lock} if self.lock else {}
        return {**outer, MARKER: self.session, **lock, DOCUMENT: self.document}


def interpreter() -> str:
    """The path of the Python binary.

    Not ``sys.executable``: that may be a pyenv shim, which costs 80 ms, and under uWSGI it is no
    Python at all.
    """
    for candidate in (getattr(sys, "_base_executable", None), sys.executable):
        if candidate and os.path.basename(candidate).lower().startswith(("python", "pypy")):
            return os.path.realpath(candidate)
    beside = os.path.join(sys.base_prefix, "bin", "python3")
    return beside if os.path.exists(beside) else (shutil.which("python3") or sys.executable)


def guard_command(plan: GuardPlan) -> list[str]:
    """The command line that starts this plan's guard, up to its options."""
    if plan.containment.kind == "adopted" and sys.platform != "linux":  # psutil is a site package
        return [sys.executable, "-m", "browserkeeper.cleanup.adopting_guard", plan.session]
    if plan.containment.kind == "adopted":
        home = os.path.dirname(GUARD_DIRECTORY)
        return [interpreter(), "-I", "-S", "-c", _ADOPTING_BOOT, home, plan.session]
    if plan.containment.kind == "portable":
        return [sys.executable, "-m", "browserkeeper.process.portable_guard", plan.session]
    return [interpreter(), "-I", "-S", "-c", _BOOT, GUARD_DIRECTORY]


def foreground_command(plan: GuardPlan, *, front: bool) -> list[str]:
    """The command line of a guard that takes the place of this process, for ``os.execve``.

    The command keeps our terminal, standard streams and signals.  ``front``: the guard gets a
    process of its own behind ours, so that it outlives our SIGKILL.  A container's PID 1 needs none,
    since the kernel ends the whole container with it.
    """
    before = ("--front", "1") if front and plan.containment.kind != "portable" else ()
    options = (*before, "--foreground", "1", *plan.options())
    return [*guard_command(plan), *options, "--", *plan.command]


class GuardProcess:
    """A command and its guard: a pair of processes, or a single one off Linux and for an adopted driver.

    Safe to use from several threads.
    """

    _status = _control = -1

    def __init__(self, plan: GuardPlan):
        """Start the guard; returns before it has started the command (event ``spawned``).

        Raises OSError where no process can be started.
        """
        self.plan = plan
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        self._dead_since = 0.0
        self._lock = threading.RLock()  # a signal handler may close the session in mid-read
        control_read, self._control = os.pipe()
        try:
            self._status, status_write = os.pipe()
        except OSError:
            os.close(control_read)
            raise
        try:
            self.process = subprocess.Popen(
                [
                    *guard_command(plan),
                    *("--owner", str(os.getpid())),
                    *("--control-fd", "0", "--status-fd", str(status_write)),
                    *plan.options(),
                    "--",
                    *plan.command,
                ],
                stdin=control_read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=plan.environment(),
                pass_fds=[status_write],
            )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(control_read)
            os.close(status_write)

    @property
    def pid(self) -> int:
        """Our child: the standby guard of a pair, or the single guard."""
        return self.process.pid

    @property
    def primary_pid(self) -> int:
        """The command's parent: the primary guard of a pair, or the single one; 0 before ``spawned``."""
        # Read from the pipe only once: a fork of this process may ask, and would take the next events.
        known = (event for event in self._events if event["event"] == "spawned")
        spawned = next(known, None) or self.event("spawned")
        return int(spawned["primary"]) if spawned else 0

    # -- events of the guard

    def event(self, name: str) -> dict[str, Any] | None:
        """The last event of that name that has come in so far, without waiting."""
        self._pump(0)
        return next((e for e in reversed(self._events) if e["event"] == name), None)

    def wait_for(self, *names: str, deadline: float) -> dict[str, Any] | None:
        """Wait for one of these events, at most until ``deadline`` (``time.monotonic()``).

        None at the deadline, or as soon as no more events can come.
        """
        while True:
            for event in self._events:
                if event["event"] in names:
                    return event
            left = deadline - time.monotonic()
            if left <= 0 or self._is_over():
                self._pump(0)
                return next((e for e in self._events if e["event"] in names), None)
            self._pump(min(left, 0.05))

    def _is_over(self) -> bool:
        """True when no more events can come: both guards have closed their end of the pipe.

        A fork of this process may hold a copy of that end, so that the pipe stays open.  So it also
        counts as over FINISHING_TIMEOUT after our child's death.
        """
        if self._status < 0:
            return True
        if self.is_alive():
            return False
        self._dead_since = self._dead_since or time.monotonic()
        return time.monotonic() - self._dead_since > FINISHING_TIMEOUT and not self._pump(0)

    def _pump(self, seconds: float) -> bool:
        """Read the events that have come in; True if there were any.  Waits without the lock."""
        fd = self._status
        if fd < 0 or not _readable(fd, seconds):
            return False
        with self._lock:
            if self._status < 0 or not _readable(self._status, 0):
                return False
            data = os.read(self._status, 65536)
            if not data:
                self._close_status()
                return False
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):  # half a line: the guard was killed while it wrote
                    self._events.append(json.loads(line))
            return True

    def _close_status(self) -> None:
        os.close(self._status)
        self._status = -1

    def is_alive(self) -> bool:
        """True while our child lives.  Reaps it."""
        return self.process.poll() is None

    # -- messages to the guard

    def tell_to_end(self, reason: str) -> None:
        """Ask for the teardown; returns at once.  Continues a guard that was stopped."""
        try:
            os.write(self._control, f"{reason}\n".encode())
        except OSError:  # EPIPE: it is dead or on its way
            pass
        if self.is_alive():
            self.process.send_signal(signal.SIGCONT)

    def set_deadline(self, seconds: float, reason: str) -> None:
        """Have the guard end the session in ``seconds`` from now, for ``reason``, one word.

        Replaces the deadline of that reason, and only that one; 0 takes it back (with the reason ``*``:
        those of all reasons).  The nearest deadline ends the session, even where this process is stuck.
        """
        self._send(f"deadline {seconds:.6f} {reason}")

    def tell_started(self, seconds: float) -> None:
        """Have the guard write into the history how many seconds the session's start took."""
        self._send(f"started {seconds:.6f}")

    def _send(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # EPIPE, EBADF: it is over already
            os.write(self._control, f"{line}\n".encode())

    def end(self, reason: str, deadline: float) -> dict[str, Any] | None:
        """Tear down and wait for the report, at most until ``deadline`` (``time.monotonic()``).

        A guard that cannot end all processes goes on trying; then its report names the survivors.
        None when the guard is dead, or does not answer, and is killed for that: then the caller ends
        the session itself (``leftover_processes.py``).
        """
        self.tell_to_end(reason)
        event = self.wait_for("ended", "stuck", deadline=deadline)
        if event is None or event["event"] == "stuck":
            event = self.event("ended") or event
        if event is not None and event["event"] == "stuck":
            # The guard goes on for as long as it takes, and has to be reaped after that.
            threading.Thread(target=self.process.wait, daemon=True).start()
            report: dict[str, Any] = event["report"]
            return report
        if event is None:
            self.process.kill()
        try:
            self.process.wait(FINISHING_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close()
        return event["report"] if event else None

    def close(self) -> None:
        """Close the pipes; a guard that still lives ends the session then."""
        with self._lock:
            if self._status >= 0:
                self._close_status()
            if self._control >= 0:
                os.close(self._control)
                self._control = -1

    def __del__(self) -> None:
        self.close()  # where the constructor was interrupted: its guard must not wait for ever


def _readable(fd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return any(event != select.POLLNVAL for _, event in poller.poll(seconds * 1000))


def output_of(
    command: tuple[str, ...], *, timeout: float, containment: Containment, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run a short-lived helper under a guard: (exit status, its stdout and stderr).

    All processes that it starts are gone afterwards.  Raises TimeoutError after ``timeout`` seconds
    and OSError where it cannot be started.
    """
    import tempfile

    with tempfile.NamedTemporaryFile() as log:
        session = f"helper-{os.urandom(4).hex()}"
        plan = GuardPlan(session, command, env, containment, log=log.name, timeout=timeout)
        guard = GuardProcess(plan)
        try:
            ended = guard.wait_for("ended", deadline=time.monotonic() + timeout + 15)
        finally:
            guard.end("closed", time.monotonic() + 15)
        if failed := guard.event("failed"):
            raise OSError(failed["errno"], failed["text"], command[0])
        if ended is None or ended["report"]["reason"] == "timeout":
            raise TimeoutError(f"{command[0]} did not answer within {timeout:g} s")
        return int(ended["report"]["status"] or 0), log.read().decode("utf-8", "replace")
