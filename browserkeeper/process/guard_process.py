"""The owner's side of the guard: start one, hear what it says, tell it to end."""

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
from .leftover_processes import DOCUMENT, MARKER

GUARD_DIRECTORY = str(Path(__file__).resolve().parent.parent)
# Imported, not run as a script: so its bytecode is cached, which halves its start.
_BOOT = "import sys;sys.path.append(sys.argv.pop(1));from guard.boot import main;main()"
_ADOPTING_BOOT = (
    "import sys;sys.path.append(sys.argv.pop(1));"
    "from browserkeeper.cleanup.adopting_guard import main;main()"
)

LAST_WORDS = 3.0
"""Seconds that a lead whose standby was killed may take to end the session and say so."""


@dataclasses.dataclass(frozen=True)
class GuardPlan:
    """All that a guard is told.  Paths that are "" are left out; seconds that are 0 mean never.

    ``document`` is the JSON that the ledger's record carries; ``env`` is the whole environment.
    """

    session: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    containment: Containment
    document: str = "null"
    tmpdir: str = ""
    record: str = ""
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
        """The environment with the marker, and the document where only our own user can read it."""
        return {**self.env, MARKER: self.session, DOCUMENT: self.document}


def interpreter() -> str:
    """The real Python binary: a pyenv shim costs 80 ms, and under uWSGI ``sys.executable`` is
    not a Python at all."""
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
    process of its own behind ours, so that it outlives our SIGKILL; a container's PID 1, with
    whose death the kernel ends everything, needs none.
    """
    before = ("--front", "1") if front and plan.containment.kind != "portable" else ()
    options = (*before, "--foreground", "1", *plan.options())
    return [*guard_command(plan), *options, "--", *plan.command]


class GuardProcess:
    """A command under a guard of its own.  Safe to use from several threads."""

    _status = _control = -1

    def __init__(self, plan: GuardPlan):
        """Start the guard; returns before it has started the command (see :meth:`wait_spawned`).

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
        return self.process.pid

    # -- hearing

    def event(self, name: str) -> dict[str, Any] | None:
        """The last event of that name which has come in so far, without waiting."""
        self._pump(0)
        return next((e for e in reversed(self._events) if e["event"] == name), None)

    def wait_for(self, *names: str, deadline: float) -> dict[str, Any] | None:
        """Wait for one of these events, at most until ``deadline`` (``time.monotonic()``).

        None at the deadline, or at once when the guard is dead and has nothing more to say.
        """
        while True:
            for event in self._events:
                if event["event"] in names:
                    return event
            left = deadline - time.monotonic()
            if left <= 0 or self._silent():
                self._pump(0)
                return next((e for e in self._events if e["event"] in names), None)
            self._pump(min(left, 0.05))

    def _silent(self) -> bool:
        """Nothing more can come: the pipe was closed by both guards' ends.

        A fork of ours may hold its other end, so that it never closes: then nothing more is
        expected a while after the standby's death, which is the most that the lead takes.
        """
        if self._status < 0:
            return True
        if self.is_alive():
            return False
        self._dead_since = self._dead_since or time.monotonic()
        return time.monotonic() - self._dead_since > LAST_WORDS and not self._pump(0)

    def _pump(self, seconds: float) -> bool:
        """Take in what the guard said; True where something came.  Waits without the lock."""
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
                with contextlib.suppress(ValueError):  # half a line of a guard that was killed
                    self._events.append(json.loads(line))
            return True

    def _close_status(self) -> None:
        os.close(self._status)
        self._status = -1

    def is_alive(self) -> bool:
        return self.process.poll() is None

    # -- telling

    def tell_to_end(self, reason: str) -> None:
        """Ask for the teardown; returns at once.  A guard that was stopped is woken first."""
        try:
            os.write(self._control, f"{reason}\n".encode())
        except OSError:  # EPIPE: it is dead or on its way
            pass
        if self.is_alive():
            self.process.send_signal(signal.SIGCONT)

    def set_deadline(self, seconds: float, reason: str) -> None:
        """End the session for this reason in that many seconds from now, unless told otherwise
        before; 0: no deadline.  The guard keeps it, whatever its owner is stuck in."""
        self._say(f"deadline {seconds:.6f} {reason}")

    def tell_started(self, seconds: float) -> None:
        """How long the start took: only the owner knows, and the history is the guard's to write."""
        self._say(f"started {seconds:.6f}")

    def _say(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # EPIPE, EBADF: it is over already
            os.write(self._control, f"{line}\n".encode())

    def end(self, reason: str, deadline: float) -> dict[str, Any] | None:
        """Tear down and wait for the report, at most until ``deadline`` (``time.monotonic()``).

        The report of a guard that is stuck is returned as it stands; None when the guard is dead
        or does not answer, in which case its standby is killed: the second line goes on.
        """
        self.tell_to_end(reason)
        event = self.wait_for("ended", "stuck", deadline=deadline)
        if event is None or event["event"] == "stuck":
            event = self.event("ended") or event
        if event is not None and event["event"] == "stuck":
            # It goes on trying, for as long as it takes; somebody has to reap it then.
            threading.Thread(target=self.process.wait, daemon=True).start()
            report: dict[str, Any] = event["report"]
            return report
        if event is None:
            self.process.kill()
        try:
            self.process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close()
        return event["report"] if event else None

    def close(self) -> None:
        """Let go of the pipes; a guard that still lives takes it as the owner's end."""
        with self._lock:
            if self._status >= 0:
                self._close_status()
            if self._control >= 0:
                os.close(self._control)
                self._control = -1

    def __del__(self) -> None:
        self.close()  # of a constructor that was interrupted; its guard must not wait for ever


def _readable(fd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return any(event != select.POLLNVAL for _, event in poller.poll(seconds * 1000))


def output_of(
    command: tuple[str, ...], *, timeout: float, containment: Containment, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run a short-lived helper under a guard: (exit status, what it printed).

    Whatever it starts is gone afterwards.  Raises TimeoutError after ``timeout`` seconds and
    OSError where it cannot be started.
    """
    import tempfile

    with tempfile.NamedTemporaryFile() as log:
        session = f"helper-{os.urandom(4).hex()}"
        plan = GuardPlan(session, command, env, containment, log=log.name, timeout=timeout)
        guarded = GuardProcess(plan)
        try:
            ended = guarded.wait_for("ended", deadline=time.monotonic() + timeout + 15)
        finally:
            guarded.end("closed", time.monotonic() + 15)
        if failed := guarded.event("failed"):
            raise OSError(failed["errno"], failed["text"], command[0])
        if ended is None or ended["report"]["reason"] == "timeout":
            raise TimeoutError(f"{command[0]} did not answer within {timeout:g} s")
        return int(ended["report"]["status"] or 0), log.read().decode("utf-8", "replace")
