"""The owner's side of the guard: start one, read its events, send it messages."""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import LaunchError
from ..frozen import (
    NOT_A_GUARD,
    SENTINEL,
    START,
    VARIABLE,
    environment_of_own_program,
    environment_of_programs,
    own_program,
)
from ..guard.descriptors import above_stdio, occupy_stdio, pipe_above_stdio
from ..guard.options import AUTO, REQUIRED
from ..guard.procfs import read_stat
from . import reserve
from .child import ChildProcess
from .containment import Containment
from .interpreter import PACKAGE, has_sources, interpreter
from .leftover_processes import DOCUMENT, LOCK, MARKER
from .monkey_patches import require_usable
from .uninterrupted import Descriptor, uninterrupted

GUARD_DIRECTORY = PACKAGE
_BEGIN = f"import os,sys;os.environ.pop({SENTINEL!r},0);sys.path.append(sys.argv.pop(1))"
# The guard is imported, since Python caches the bytecode of imported modules only: half of the start.
_BOOT = f"{_BEGIN};from guard.boot import main;main()"
_PSUTIL = "import sys;sys.path.append(sys.argv.pop(1));import psutil;del sys.path[-1];"

FINISHING_TIMEOUT = 15.0
"""Seconds that a primary guard whose standby was killed may take to end the session and report it, and
that a standby may take to end after the report."""
COPY_TIMEOUT = 3.0
"""Seconds after the death of both guards for which their pipe is read, if a fork keeps it open."""

MOST_OUTPUT = 65536
"""Bytes of a helper's output that :func:`output_of` returns."""


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
    slot: str = ""
    history: str = ""
    log: str = ""
    keep_log: str = ""
    timeout: float = 0
    kill_deadline: float = 10
    grace: float = 0
    stop_grace_period: float = 0
    status_file: str = ""
    display: str = ""
    screen: str = ""
    profile: str = ""
    downloads: str = ""
    partial_suffix: str = ""
    max_download: int = 0
    max_download_grace: float = 0
    isolation: str = ""
    """``guard.options.AUTO``, ``REQUIRED``, or why the driver is not isolated."""
    browser: str = ""
    """The program that an isolated driver is to start."""

    def options(self) -> list[str]:
        """The guard's command line, without the file descriptors."""
        pairs = {
            "--tmpdir": self.tmpdir,
            "--record": self.record,
            "--lock": self.lock,
            "--slot": self.slot,
            "--history": self.history,
            "--log": self.log,
            "--keep-log": self.keep_log,
            "--cgroup": self.containment.leaf(self.session),
            "--timeout": self.timeout or "",
            "--kill-deadline": self.kill_deadline,
            "--grace": self.grace or "",
            "--stop-grace-period": self.stop_grace_period or "",
            "--status-file": self.status_file,
            "--display": self.display,
            "--screen": self.screen,
            "--profile": self.profile,
            "--downloads": self.downloads,
            "--partial-suffix": self.partial_suffix,
            "--max-download": self.max_download or "",
            "--max-download-grace": self.max_download_grace or "",
            "--isolation": self.isolation,
            "--browser": self.browser,
        }
        return [str(word) for pair in pairs.items() if pair[1] != "" for word in pair]

    def environment(self) -> dict[str, str]:
        """The environment with the marker, the lock's path and the document, which other users can read
        in a command line, but not here; and with the sign that the process is to be a guard, which the
        guard removes."""
        outer = environment_of_programs(self.env)
        outer.pop(LOCK, None)
        if own_program():
            outer = environment_of_own_program(outer)
        lock = {LOCK: self.lock} if self.lock else {}
        return {**outer, MARKER: self.session, **lock, DOCUMENT: self.document, SENTINEL: "guard"}


def isolated_command(module: str, *words: str, psutil: bool = False) -> list[str]:
    """The command line that runs ``main()`` of one of our modules, with these words as its arguments.

    No code is executed but the standard library's, this package's and, with ``psutil``, that of the
    psutil which this process has found.  ``-I -S``: neither the current directory nor PYTHONPATH nor
    site-packages are searched.  The directory of this package comes last, so that a file beside it takes
    the place of no module of the standard library.  A frozen program runs the module itself, where it
    can.  Raises LaunchError where neither is possible.
    """
    if own := own_program():
        return [own, START, module, *words]
    boot = f"{_BEGIN};from {module} import main;main()"
    words = (os.path.dirname(GUARD_DIRECTORY), *words)
    home = _home_of_psutil() if psutil else ""
    if psutil:
        boot, words = _PSUTIL + boot, (home, *words)
    return [interpreter(home), "-I", "-S", "-c", boot, *words]


def _home_of_psutil() -> str:
    """The directory that has psutil.  Raises ModuleNotFoundError where it is not installed."""
    import psutil

    return os.path.dirname(os.path.dirname(os.path.abspath(psutil.__file__)))


def guard_command(plan: GuardPlan) -> list[str]:
    """The command line that starts this plan's guard, up to its options.  Raises LaunchError."""
    if plan.containment.kind == "adopted":
        module = "browserkeeper.cleanup.adopting_guard"
        return isolated_command(module, plan.session, psutil=sys.platform != "linux")
    if plan.containment.kind == "portable":
        return isolated_command("browserkeeper.process.portable_guard", plan.session, psutil=True)
    if own := own_program():
        return [own, START, "browserkeeper.guard.boot"]
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

    Safe to use from several threads, and in a signal handler that interrupts any of its methods.  In a
    fork of this process it only tells what was known before the fork.
    """

    handover: socket.socket | None = None
    """Gets sockets of the driver's network, where the driver is isolated (``guard/isolation.py``)."""
    _status: Descriptor | None = None
    _control: Descriptor | None = None

    def __init__(self, plan: GuardPlan):
        """Start the guard; returns before it has started the command (event ``spawned``).

        Raises OSError where no process can be started, and ConfigError where a library has replaced
        what is needed here.
        """
        require_usable()
        self.plan = plan
        self._owner = os.getpid()
        self._dead_since = 0.0
        self._chunks: list[bytes | None] = []
        """All that was read from the guard, in the order in which it came; b"" is the end."""
        self._parsed: tuple[int, list[dict[str, Any]]] = (0, [])
        """The events in so many of the chunks."""
        self._chunk_sizes = [65536]
        """How many bytes to read at a time; empty once the pipe is closed."""
        self._reading = threading.RLock()
        # A daemon prints to closed streams: not into our pipes, nor into Selenium's connections.
        occupy_stdio()
        reserve.fill()
        control_read, control_write = pipe_above_stdio()
        inherited = [control_read]
        network: list[int] = []
        try:
            self._control = Descriptor(control_write, "w")
            status_read, status_write = pipe_above_stdio()
            inherited.append(status_write)
            self._status = Descriptor(status_read)
            if self.plan.isolation in (AUTO, REQUIRED):
                self.handover, of_guard = _socket_pair()
                inherited.append(of_guard)
                network = [of_guard]
            for fd in (control_write, status_read):
                os.set_blocking(fd, False)
            self.process = ChildProcess(
                subprocess.Popen(
                    [
                        *guard_command(plan),
                        *("--owner", str(os.getpid())),
                        *("--control-fd", "0", "--status-fd", str(status_write)),
                        *(word for fd in network for word in ("--network-fd", str(fd))),
                        *plan.options(),
                        "--",
                        *plan.command,
                    ],
                    stdin=control_read,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=plan.environment(),
                    pass_fds=[status_write, *network],
                )
            )
        except BaseException:
            self.close()
            raise
        finally:
            for fd in inherited:
                os.close(fd)

    @property
    def pid(self) -> int:
        """Our child: the standby guard of a pair, or the single guard."""
        return self.process.pid

    @property
    def primary_pid(self) -> int:
        """The command's parent: the primary guard of a pair, or the single one; 0 before ``spawned``."""
        spawned = self.event("spawned")
        return int(spawned["primary"]) if spawned else 0

    # -- events of the guard

    def event(self, name: str) -> dict[str, Any] | None:
        """The last event of that name that has come in so far, without waiting."""
        self._pump(0)
        return next((e for e in reversed(self._events()) if e["event"] == name), None)

    def wait_for(self, *names: str, deadline: float) -> dict[str, Any] | None:
        """Wait for one of these events, at most until ``deadline`` (``time.monotonic()``).

        None at the deadline, or as soon as no more events can come.
        """
        while True:
            is_over = time.monotonic() >= deadline or self._is_over()
            self._pump(0)
            for event in self._events():
                if event["event"] in names:
                    return event
            if is_over:
                return None
            self._pump(min(max(0.0, deadline - time.monotonic()), 0.05))

    def _is_over(self) -> bool:
        """True when no more events can come: both guards have closed their end of the pipe.

        A fork of this process may hold a copy of that end, so that the pipe stays open.  So no more
        events are expected COPY_TIMEOUT after our child's death.  Where our child was the standby, and
        the primary guard lives, that is FINISHING_TIMEOUT.
        """
        if not self._chunk_sizes or os.getpid() != self._owner:
            return True
        if self.is_alive():
            return False
        self._dead_since = self._dead_since or time.monotonic()
        limit = FINISHING_TIMEOUT if self._primary_lives() else COPY_TIMEOUT
        return time.monotonic() - self._dead_since > limit and not self._pump(0)

    def _primary_lives(self) -> bool:
        """True if our child is the standby of a pair, and the primary guard has not ended."""
        primary = self.primary_pid
        stat = read_stat(primary) if primary not in (0, self.pid) else None
        return stat is not None and stat.state not in "ZX"

    def _events(self) -> list[dict[str, Any]]:
        """All events so far.  Parses all chunks again whenever there is a new one: a signal handler, or
        another thread, that does the same in between gets the same result."""
        number = len(self._chunks)
        if self._parsed[0] != number:
            lines = b"".join(filter(None, self._chunks[:number])).split(b"\n")
            found = []
            for line in lines[:-1]:
                try:
                    found.append(json.loads(line))
                except ValueError as error:  # half a line: the guard was killed while it wrote
                    if not _was_raised_in("json", error):
                        raise
            self._parsed = (number, found)
            return found
        return self._parsed[1]

    def _pump(self, seconds: float) -> bool:
        """Read what has come in within so many seconds; True if there was anything.

        A fork of this process reads nothing: its parent would miss that.
        """
        status, before = self._status, len(self._chunks)
        if status is None or not self._chunk_sizes or os.getpid() != self._owner:
            return False
        if not _readable(status, seconds):
            return False
        # The pipe does not block: another thread may have been faster.
        read = map(status.read, self._chunk_sizes)
        uninterrupted(
            self._reading.acquire, functools.partial(self._chunks.extend, read), self._reading.release
        )
        if b"" in self._chunks[before:]:
            self._close_status()
        return len(self._chunks) > before

    def _close_status(self) -> None:
        if self._status is None:
            return
        if os.getpid() != self._owner:  # a fork: a thread that it does not have may have held the lock
            self._status.close()
            return
        uninterrupted(self._reading.acquire, self._chunk_sizes.clear, self._reading.release)
        self._status.close()

    def is_alive(self) -> bool:
        """True while our child lives.  Reaps it."""
        return self.process.poll() is None

    def check_first_event(self) -> None:
        """Raises LaunchError where our child has ended without any event: it was no guard."""
        status = self.process.poll()
        if status is None or self._pump(0) or self._chunks not in ([], [b""]):
            return
        program = guard_command(self.plan)[0]
        what = "is no Python interpreter" if status == NOT_A_GUARD else "did not run it"
        remedy = f"Set {VARIABLE} to the path of a Python 3.10 or newer."
        if not has_sources() and not own_program():
            what = f"finds no {PACKAGE}/guard: browserkeeper was not imported from files or a zip file"
            remedy = "Install it where Python can read it from files, with pip, or unpack it."
        raise LaunchError(
            f"The browser's guard could not be started: {program} {what} (exit status {status}). "
            f"{remedy}",
            retryable=status < 0,
        )

    # -- messages to the guard

    def tell_to_end(self, reason: str) -> None:
        """Ask for the teardown; returns at once.  Continues a guard that was stopped."""
        self._send(reason)
        self.process.send_signal(signal.SIGCONT)

    def set_deadline(self, seconds: float, reason: str) -> None:
        """Have the guard end the session in ``seconds`` from now, for ``reason``, one word.

        Replaces the deadline of that reason, and only that one; 0 takes it back (with the reason ``*``:
        those of all reasons).  The nearest deadline ends the session, even where this process is stuck.
        """
        self._send(f"deadline {seconds:.6f} {reason}")

    def keep(self) -> None:
        """Answer the ``ready`` of an adopting guard: the driver is the session's from now on."""
        self._send("keep")

    def name_lease(self, label: str) -> None:
        """Have the guard write this label into the history, in place of the session's own, if the
        session ends now; "" takes it back."""
        self._send(f"lease {label.encode().hex()}")

    def tell_started(self, seconds: float, waited: float = 0.0) -> None:
        """Have the guard write into the history how many seconds the session's start took, and how many
        it had waited for its slot; the slot is the guards' alone from now on."""
        self._send(f"started {seconds:.6f} {waited:.6f}")

    def tell_how_to_quit(self, seconds: float, pid: int, port: int, path: str) -> None:
        """Have the guard ask the browser to quit before it ends the session, for so many seconds at
        most (``guard/quitting.py``)."""
        self._send(f"quits {seconds:.6f} {pid} {port} {path}")

    def _send(self, line: str) -> None:
        """Never blocks: a pipe that is full belongs to a guard that has not run for long."""
        if self._control is not None:
            try:
                self._control.write(f"{line}\n".encode())
            except (OSError, ValueError) as error:
                # EPIPE, the guard is dead or on its way; ValueError: the pipe is closed.
                if not _was_raised_in(__name__, error):
                    raise

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
            # The guard goes on for as long as it takes, and has to be reaped after that.  Not by
            # threading.Thread, whose start() takes locks that are not reentrant.
            with contextlib.suppress(RuntimeError):  # no thread can be started: PID 1 reaps it later
                _thread.start_new_thread(self.process.wait, ())
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
        self._close_status()
        if self._control is not None:
            self._control.close()
        if self.handover is not None:
            self.handover.close()
        if (process := vars(self).get("process")) is not None:
            process.close()

    def __del__(self) -> None:
        self.close()  # where the constructor was interrupted: its guard must not wait for ever


def _socket_pair() -> tuple[socket.socket, int]:
    """Two connected unix sockets, with numbers above those of the standard streams; the second one as a
    descriptor."""
    ours, theirs = socket.socketpair()
    return (
        socket.socket(fileno=above_stdio(ours.detach())),
        above_stdio(theirs.detach()),
    )


def _was_raised_in(package: str, error: BaseException) -> bool:
    """False for an exception of a signal handler, which has a frame of its own after ours.

    For short calls.  ``session/call.py`` is for all that may wait, or that libraries may wrap.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return bool(name == package or name.startswith(f"{package}."))


def _readable(file: Descriptor, seconds: float) -> bool:
    poller = select.poll()
    try:
        poller.register(file, select.POLLIN)
    except ValueError as error:  # closed by another thread
        if not _was_raised_in(__name__, error):
            raise
        return False
    return any(event != select.POLLNVAL for _, event in poller.poll(seconds * 1000))


def output_of(
    command: tuple[str, ...],
    *,
    timeout: float,
    containment: Containment,
    env: Mapping[str, str],
    on_start: Callable[[GuardProcess], None] = lambda guard: None,
) -> tuple[int, str]:
    """Run a short-lived helper under a guard: (exit status, stdout and stderr).

    Of the output, MOST_OUTPUT bytes at the most.  ``on_start`` is called with the guard, which another
    thread may tell to end.  All processes that the helper starts are gone afterwards.  Raises
    TimeoutError after ``timeout`` seconds and OSError where it cannot be started.
    """
    import tempfile

    # Named by its path only: kept open it might get a descriptor of the standard streams.
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "output")
        session = f"helper-{os.urandom(4).hex()}"
        plan = GuardPlan(session, command, env, containment, log=log, timeout=timeout)
        guard = GuardProcess(plan)
        try:
            on_start(guard)
            ended = guard.wait_for("ended", deadline=time.monotonic() + timeout + 15)
        finally:
            guard.end("closed", time.monotonic() + 15)
        if failed := guard.event("failed"):
            raise OSError(failed["errno"], failed["text"], command[0])
        guard.check_first_event()
        if ended is None or ended["report"]["reason"] == "timeout":
            raise TimeoutError(f"{command[0]} did not answer within {timeout:g} s")
        with open(log, "rb") as file:
            output = file.read(MOST_OUTPUT).decode("utf-8", "replace")
        return int(ended["report"]["status"] or 0), output
