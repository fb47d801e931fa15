"""The guard: the one program that starts a driver and proves that nothing of it is left.

Imported and run by ``python -I -S -c``, alone in its process::

    python -I -S -c 'import sys; sys.path.append(...); from guard.guard import main; main()' \
        [options] -- chromedriver --port=0

Imported, not run as a script: so its bytecode is cached, which halves its start.

It stands on the ground floor: the standard library's C modules only (``json``, ``socket``
and ``signal`` would double its start), nothing of the package's other layers.

The story is in :func:`main`: arm, prepare, spawn, watch, tear down, retire.  The kernel
rules it stands on:

* ``prctl(PR_SET_CHILD_SUBREAPER)``: an orphaned descendant is re-parented to the nearest
  living subreaper among its ancestors (prctl(2)).  So every process started below the guard
  stays below it, however it daemonises, and when ``waitpid(-1)`` says ``ECHILD`` there is no
  descendant left.  That answer is the certificate.
* ``prctl(PR_SET_PDEATHSIG)`` fires when the *thread* that forked dies, and is lost when the
  parent died before the call (prctl(2)).  So only this single-threaded program sets it, and
  the child compares ``getppid()`` afterwards.
* A pid cannot be recycled before it is reaped, so a direct child may be signalled by number;
  anything deeper is signalled through a pidfd (pidfd_open(2)).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import sys
import time

from .files import (
    discard,
    is_private_directory,
    read_status_file,
    remove_tree,
    stray_shared_memory,
    write_atomically,
)
from .procfs import Stat, descendants, own_memory, read_bytes, read_stat, signal_descendant

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn
else:
    # The C half of ``signal``: the Python half builds enums, and costs 10 ms of a 20 ms start.
    import _signal as signal

SCHEMA = 1
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
SAMPLES = (0.25, 1.0, 2.0, 5.0)  # seconds between looks at the tree; the last one repeats
WEIGHINGS = 120  # looks at memory that a report holds; at that number they are thinned out
TIMED_OUT, CANNOT_RUN, NOT_FOUND = 124, 126, 127  # exit statuses of timeout(1) and the shell
PAST_LIMIT = 300  # ended processes that a report names; a pipe takes 64 KiB at once
LOG_TAIL = 2000  # bytes of the command's log that the report quotes
FREEZING_ROUNDS = 200  # each takes milliseconds; a fork bomb of 2,000 needs a dozen
SI_KERNEL = 0x80  # siginfo's si_code of a signal that the terminal sent (sigaction(2))
OWNER_PATIENCE = 0.02  # seconds from an owner's EOF to its death; only the report depends on it
LAST_WORDS = 10.0  # seconds that a lead whose standby was killed may take before we go
FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)


# ------------------------------------------------------------------------------- JSON


def to_json(value: Any) -> str:
    """JSON of None, bool, int, float, str, list and dict: all that a report holds."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(round(value, 6))
    if isinstance(value, str):
        return f'"{"".join(_json_character(c) for c in value)}"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(str(k))}:{to_json(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(to_json, value)) + "]"


def _json_character(character: str) -> str:
    if " " <= character <= "~" and character not in '"\\':
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


# ---------------------------------------------------------------------------- the guard itself


class Failure(Exception):
    """The session cannot be started: where it stopped and the operating system's reason."""

    def __init__(self, where: str, error: OSError):
        super().__init__(where, error)
        self.where, self.error = where, error


class Member:
    """One process that was seen below the guard, and how it ended."""

    __slots__ = ("adopted", "code", "ended", "killed", "name", "outcome", "pid", "signal", "start")

    def __init__(self, stat: Stat):
        self.pid, self.start, self.name = stat.pid, stat.start, stat.name
        self.adopted = self.killed = False
        self.outcome: str | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.ended: float | None = None

    def facts(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.__slots__ if key != "killed"}


class Options:
    """The command line: ``--name value`` pairs up to ``--``, then the command to guard."""

    def __init__(self, argv: list[str]):
        split = argv.index("--")
        given = dict(zip(argv[:split:2], argv[1:split:2], strict=True))

        def number(name: str, default: float) -> float:
            return float(given.pop(name, default))

        self.command = argv[split + 1 :]
        self.owner = int(number("--owner", 0))  # pid; 0: nobody, we are an init
        self.control_fd = int(number("--control-fd", -1))  # EOF here: the owner let go
        self.status_fd = int(number("--status-fd", -1))  # one JSON object a line goes out here
        self.timeout = number("--timeout", 0)  # seconds from now to the end; 0: none
        self.grace = number("--grace", 0)  # seconds between SIGTERM and SIGKILL at a timeout
        self.farewell = number("--farewell", 0)  # seconds between SIGTERM and SIGKILL at any end
        self.kill_deadline = number("--kill-deadline", 10)  # seconds until survivors are reported
        self.foreground = bool(number("--foreground", 0))  # a command of the user's, not a driver
        self.tmpdir = given.pop("--tmpdir", "")  # made, exported as TMPDIR, removed
        self.record = given.pop("--record", "")  # the ledger's file while we live
        self.history = given.pop("--history", "")  # and the one that takes its place
        self.log = given.pop("--log", "")  # where the command's output goes
        self.keep_log = given.pop("--keep-log", "")  # where that is appended in the end
        self.account = given.pop("--account", "")  # where the command says how its own part ended
        self.cgroup = given.pop("--cgroup", "")  # a leaf to make, use and remove
        if given:
            raise SystemExit(f"guard: unknown options {sorted(given)}")


class Guard:
    """Owns one command and everything that comes of it."""

    certificate = "ECHILD"

    def __init__(self, options: Options):
        self.options = options
        self.containment = "cgroup" if options.cgroup else "subreaper"
        self.pid = os.getpid()
        self.born = time.monotonic()
        self.born_epoch = time.time()
        self.document = os.environ.pop("BROWSERKEEPER_DOCUMENT", "null")
        self.at_parents_death: Callable[[int], object] = lambda number: None
        self.standby = 0
        self.made_tmpdir = False
        self.members: dict[int, Member] = {}
        self.forgotten = 0
        self.past: list[Member] = []  # ended members, so that a recycled pid is a new one
        self.main_pid = 0
        self.main_status: int | None = None
        self.reason = "failed"
        self.deadline = 0.0  # in seconds of our age, moved by the owner; 0: none
        self.deadline_reason = ""
        self.tearing_down = False
        self.reaped = 0
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.phases: dict[str, float] = {}
        self.recorded: set[int] = set()
        self.memory: list[list[float]] = []  # [our age, bytes]
        self.weighing_pause = 0.0
        self.next_weighing = 0.0
        self.owner_fd = -1
        self.wakeup_fd = -1
        self.terminal_group = 0
        self.failed: int | None = None
        ignored = [n for n in FORWARDED if signal.getsignal(n) == signal.SIG_IGN]
        self.ignored = ignored if options.foreground else []  # nohup, and a shell's `&`

    # -- arm: from here on the owner may die at any moment

    def arm(self) -> None:
        """Leave the owner's session, turn deaf to its terminal, become subreaper, watch it."""
        if self.options.foreground:
            _try(lambda: os.setpgid(0, 0))  # a session of our own would cost the command its tty
        else:
            _try(os.setsid)
        self.session = os.getsid(0)
        for fd in (self.options.control_fd, self.options.status_fd):
            if fd >= 0:
                os.set_inheritable(fd, False)
        self._listen_to_signals()
        self._become_subreaper()
        self._watch_owner()

    def become_primary(self, standby: int) -> None:
        """Be the other half of the pair: a fork keeps neither the subreaper nor the wake-up pipe.

        Asks for SIGTERM at the standby's death; its ``getppid()`` tells the two apart.
        """
        self.standby = standby
        self.pid = os.getpid()
        self._listen_to_signals()
        self._become_subreaper()
        self.at_parents_death(signal.SIGTERM)

    def _become_subreaper(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NAME, b"bk-guard", 0, 0, 0)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise Failure("subreaper", OSError(ctypes.get_errno(), "prctl refused"))
        self.at_parents_death = lambda number: libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)

    def _listen_to_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the owner's thread may block them all
        self.wakeup_fd, write_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd)  # each signal arrives as a byte: its number
        heard = FORWARDED if self.options.foreground else (signal.SIGTERM,)
        for number in {*FORWARDED, signal.SIGTTOU, signal.SIGCHLD} - {signal.SIGCONT}:
            listens = number in heard or number == signal.SIGCHLD
            signal.signal(number, (lambda *_: None) if listens else signal.SIG_IGN)

    def _watch_owner(self) -> None:
        """The pipe alone is not enough: any fork of the owner holds a copy of its other end."""
        if not self.options.owner:
            return
        try:
            self.owner_fd = os.pidfd_open(self.options.owner)
        except (
            OSError,
            AttributeError,
        ):  # before Linux 5.3, or gone already: ``owner_is_dead`` asks getppid()
            pass
        if os.getppid() != self.options.owner:  # gone, and the pidfd may name its pid's next user
            raise Failure("owner", ProcessLookupError(3, "the owner died during the launch"))

    def owner_is_dead(self) -> bool:
        """By the pidfd.  Without one, by the parent's pid, which only the standby can ask for."""
        if self.owner_fd >= 0:
            return _readable(self.owner_fd)
        return bool(self.options.owner) and not self.standby and os.getppid() != self.options.owner

    def standby_is_dead(self) -> bool:
        return bool(self.standby) and os.getppid() != self.standby

    # -- prepare: what the guard makes, the guard removes

    def prepare(self) -> None:
        """The record first, so that whatever comes after it can be found by a sweep."""
        if self.options.record:
            self._step("record", self.write_record)
        if self.options.tmpdir:
            self._step("tmpdir", lambda: os.mkdir(self.options.tmpdir, 0o700))
            self.made_tmpdir = True
            self._hold(self.options.tmpdir)
            os.environ["TMPDIR"] = self.options.tmpdir
        if self.options.cgroup:
            self._step("cgroup", lambda: os.mkdir(self.options.cgroup, 0o755))

    def _hold(self, directory: str) -> None:
        """A sweep in another pid namespace sees no process of ours, but it sees this lock."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        _try(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))

    def _step(self, where: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise Failure(where, error) from error

    def write_record(self) -> None:
        members = [[m.pid, m.start, m.name] for m in self.members.values()]
        stats = [self._stat(pid) for pid in (self.pid, self.standby) if pid]
        guards = to_json([{"pid": stat.pid, "start": stat.start} for stat in stats if stat])
        write_atomically(
            self.options.record,
            f'{{"schema":{SCHEMA},"session":{self.document},'
            f'"guards":{guards},"processes":{to_json(members)},"memory":{to_json(self.memory)}}}\n',
        )
        self.recorded = set(self.members)

    # -- spawn

    def spawn(self) -> None:
        """Start the command, bound to our life by PDEATHSIG; an exec that fails is a Failure."""
        read_fd, write_fd = os.pipe()
        try:
            self.main_pid = os.fork()
        except OSError as error:
            raise Failure("fork", error) from error
        if self.main_pid == 0:
            self._become_command(write_fd)
        os.close(write_fd)
        failure = os.read(read_fd, 64)
        os.close(read_fd)
        if failure:
            where, number = failure.decode().split()
            raise Failure(where, OSError(int(number), os.strerror(int(number))))
        self.sample()

    def _become_command(self, error_fd: int) -> NoReturn:
        where = "exec"
        try:
            # One that has to say farewell elsewhere does it for us, too, when we are killed.
            self.at_parents_death(signal.SIGTERM if self.options.farewell else signal.SIGKILL)
            if os.getppid() != self.pid:
                os._exit(1)
            if self.options.cgroup:
                where = "cgroup"
                _write(f"{self.options.cgroup}/cgroup.procs", b"0")
            if self.options.foreground:
                self._join_job()
            where = "log"
            self._redirect()
            where = "exec"
            signal.set_wakeup_fd(-1)
            ours = {signal.SIGTTOU, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ}
            for number in {*FORWARDED, *ours} - {*self.ignored}:
                signal.signal(number, signal.SIG_DFL)  # SIG_IGN would outlive the exec
            for number in self.ignored:
                signal.signal(number, signal.SIG_IGN)
            os.execvp(self.options.command[0], self.options.command)
        except OSError as error:
            os.write(error_fd, f"{where} {error.errno}".encode())
        finally:
            os._exit(NOT_FOUND)

    def _redirect(self) -> None:
        if self.options.foreground:
            return
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        target = self.options.log or os.devnull
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log = os.open(target, flags, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _join_job(self) -> None:
        """Into the group of the process in front, so that the shell's job control, ^C and ^Z
        reach both.  Without one we are an init: the command is the terminal's only job."""
        if self.options.owner:
            _try(lambda: os.setpgid(0, os.getpgid(self.options.owner)))
            return
        os.setpgid(0, 0)
        if os.isatty(0):
            _try(lambda: os.tcsetpgrp(0, os.getpid()))

    # -- watch

    def watch(self) -> str:
        """Block until the session is over; the reason."""
        self._remember_terminal()
        poller = select.poll()
        for fd in (self.options.control_fd, self.owner_fd, self.wakeup_fd):
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        looks = iter(SAMPLES)
        next_look = self.age() + next(looks)
        pause = SAMPLES[-1]
        while True:
            ready = {fd for fd, _ in poller.poll(self._patience(next_look) * 1000)}
            if reason := self._what_happened(ready):
                return reason
            if self.age() >= next_look:
                self.sample()
                pause = next(looks, pause)
                next_look = self.age() + pause

    def _remember_terminal(self) -> None:
        """A command that is killed may not give back the terminal that it gave to its own jobs."""
        if not (self.options.foreground and self.options.owner):
            return
        try:
            job = os.getpgid(self.options.owner)
            if os.tcgetpgrp(0) == job:
                self.terminal_group = job
        except OSError:  # no terminal of ours, or no owner any more
            pass

    def _patience(self, next_look: float) -> float:
        waits = [next_look - self.age()]
        waits += [end - self.age() for end in (self.options.timeout, self.deadline) if end]
        return max(0.0, min(waits))

    def _what_happened(self, ready: set[int]) -> str | None:
        """The reason to end now, most telling first, or None."""
        signals = self.signals() if self.wakeup_fd in ready else b""
        self.reap()
        if self.options.control_fd in ready and (reason := self._hear_owner()):
            return reason
        if self.owner_fd in ready or self.owner_is_dead():
            return "owner-died"
        if self.standby_is_dead():
            return "guard-died"
        if self.main_status is not None:
            return "exited"
        if self.options.timeout and self.age() >= self.options.timeout:
            return "timeout"
        if self.deadline and self.age() >= self.deadline:
            return self.deadline_reason
        if self.options.foreground:
            self._forward(signals)
        elif signal.SIGTERM in signals:
            return "terminated"
        return None

    def _hear_owner(self) -> str | None:
        """Lines of ``deadline SECONDS REASON`` or ``deadline 0`` (none), of ``started SECONDS`` (for
        the report: how long the owner's start took), or a reason to end now.

        Whole lines come in: each is one write below PIPE_BUF, which is atomic (pipe(7)).
        """
        text = os.read(self.options.control_fd, 65536).decode("ascii", "replace")
        for words in filter(None, map(str.split, text.splitlines())):
            if words[0] not in ("deadline", "started"):
                return words[0]
            seconds = float(words[1])
            if words[0] == "started":
                self.phases["start"] = seconds
                continue
            self.deadline = self.age() + seconds if seconds else 0.0
            self.deadline_reason = words[2] if seconds else ""
        return None if text else self._why_let_go()

    def _why_let_go(self) -> str:
        """EOF without a word.  A dying process closes its files a moment before its pidfd fires."""
        dead = _readable(self.owner_fd, OWNER_PATIENCE) if self.owner_fd >= 0 else self.owner_is_dead()
        return "owner-died" if dead else "abandoned"

    def signals(self) -> bytes:
        try:
            return os.read(self.wakeup_fd, 4096)
        except BlockingIOError:
            return b""

    def _forward(self, signals: Iterable[int]) -> None:
        for number in signals:
            if number != signal.SIGCHLD:
                _try(lambda number=number: os.kill(self.main_pid, number))  # type: ignore[misc]

    # -- what we have seen

    def sample(self) -> None:
        """Look at the whole tree once; the record learns of it, for the day we are killed."""
        living = self._below()
        for pid in living:
            self.note(pid)
        for pid in [pid for pid in self.members if pid not in living]:
            self._ended(pid, "gone")  # reaped by its own parent: how it ended is not ours to know
        weighed = self.weigh()
        if self.options.record and (weighed or set(self.members) != self.recorded):
            _try(self.write_record)

    def weigh(self) -> bool:
        """Add the tree's memory to what was seen of it before, unless it is too early for that.

        Of each pair of looks the higher one stays when there are too many: peaks are what people
        look for.
        """
        if self.age() < self.next_weighing:
            return False
        self.memory.append([self.age(), sum(map(self._memory, self.members))])
        if len(self.memory) >= WEIGHINGS:
            pairs = zip(self.memory[::2], self.memory[1::2], strict=True)
            self.memory = [max(pair, key=lambda look: look[1]) for pair in pairs]
            self.weighing_pause = self.weighing_pause * 2 or 2 * SAMPLES[-1]
        self.next_weighing = self.age() + self.weighing_pause
        return True

    def _memory(self, pid: int) -> int:
        return own_memory(pid)

    def _below(self) -> list[int]:
        return [pid for pid, _ in descendants(self.pid)]

    def _stat(self, pid: int) -> Stat | None:
        return read_stat(pid)

    def note(self, pid: int) -> Member | None:
        stat = self._stat(pid)
        if stat is None:
            return None
        member = self.members.get(pid)
        if member is None or member.start != stat.start:
            if member is not None:
                self._ended(pid, "gone")
            member = self.members[pid] = Member(stat)
        member.name = stat.name  # an exec changes it
        if stat.parent == self.pid and pid != self.main_pid:
            member.adopted |= not self.tearing_down or stat.session != self.session
        return member

    def _ended(self, pid: int, outcome: str, code: int | None = None, by: int | None = None) -> None:
        member = self.members.pop(pid)
        member.outcome = "killed" if member.killed and outcome == "gone" else outcome
        member.code, member.signal, member.ended = code, by, self.age()
        self.past.append(member)
        if len(self.past) > PAST_LIMIT:
            del self.past[0]
            self.forgotten += 1

    def reap(self) -> bool:
        """Collect every child that has exited; False when there is no child at all (ECHILD).

        ``WNOWAIT`` first: a zombie still has a name, and a stranger's zombie is worth naming.
        """
        while True:
            try:
                ready = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ready is None:
                    return True
                self._reap_one(ready.si_pid)
            except ChildProcessError:
                return False

    def _reap_one(self, pid: int) -> None:
        member = self.note(pid)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if pid == self.main_pid:
            self.main_status = code
        else:
            self.reaped += 1
        if member is None:
            return
        if code >= 0:
            self._ended(pid, "exited", code=code)
        else:
            ours = member.killed and -code == signal.SIGKILL
            self._ended(pid, "killed" if ours else "signalled", by=-code)

    # -- tear down

    def tear_down(self) -> None:
        """Kill and reap until ECHILD.  Never returns early: to exit would give up the adoption."""
        if self.reason == "timeout" and self.options.grace:
            self._ask_to_end()
        if self.options.farewell:
            self._wait_for_farewell()
        began = self.age()
        self.sample()
        self.tearing_down = True  # orphans from here on are of our own making
        told, pause, known = False, 0.002, set(self.members)
        while True:
            hit = self._signal_everything(signal.SIGKILL)
            if hit - known:  # born since we looked: killing alone may never catch up with it
                self._freeze()
                hit |= self._signal_everything(signal.SIGKILL)
            known |= hit
            if not self._reap_for(pause):
                break
            pause = min(pause * 2, 0.25 if told else 0.02)
            if not told and self.age() - began > self.options.kill_deadline:
                self.tell("stuck", report=self.report(self.survivors()))
                told = True
        for pid in list(self.members):
            self._ended(pid, "gone")
        self.phases["killing"] = self.age() - began

    def _freeze(self) -> None:
        """Stop all before killing any: each death would make room for the next fork."""
        stopped: set[int] = set()
        for _ in range(FREEZING_ROUNDS):
            fresh = self._signal_everything(signal.SIGSTOP, but=stopped)
            if not fresh:
                return
            stopped |= fresh

    def _ask_to_end(self) -> None:
        _try(lambda: os.kill(self.main_pid, signal.SIGTERM))
        until = self.age() + self.options.grace
        while self.main_status is None and self.age() < until:
            self._reap_for(0.02)

    def _wait_for_farewell(self) -> None:
        """The command has something to end that no process of ours is: a session on another machine.

        Our only descendant, so ours by birth, or by adoption where we are the standby of a lead
        that was killed; the kernel has told it to end in that case.
        """
        began = self.age()
        for pid in self._below():
            _try(lambda pid=pid: os.kill(pid, signal.SIGTERM))  # type: ignore[misc]
            _try(lambda pid=pid: os.kill(pid, signal.SIGCONT))  # type: ignore[misc]
        while self._reap_for(0.02) and self.age() < began + self.options.farewell:
            pass
        self.phases["farewell"] = self.age() - began

    def _signal_everything(self, number: int, but: Iterable[int] = ()) -> set[int]:
        """One round over the tree; the pids that were hit.

        A child of ours may be signalled by number, since nobody but us can reap it.
        """
        if self.options.cgroup and number == signal.SIGKILL:
            _try(lambda: _write(f"{self.options.cgroup}/cgroup.kill", b"1"))
        hit = set()
        for pid, parent in descendants(self.pid):
            if pid in but:
                continue
            member = self.members.get(pid) or self.note(pid)
            if parent == self.pid:
                _try(lambda pid=pid: os.kill(pid, number))  # type: ignore[misc] # EPERM: it is sudo's
            elif not signal_descendant(pid, parent, number):
                continue
            hit.add(pid)
            if member is not None and number == signal.SIGKILL:
                member.killed = True
        return hit

    def _reap_for(self, seconds: float) -> bool:
        """Reap as exits come in, for so long; False at once on ECHILD."""
        poller = select.poll()
        poller.register(self.wakeup_fd, select.POLLIN)
        until = self.age() + seconds
        while self.reap():
            left = until - self.age()
            if left <= 0:
                return True
            poller.poll(max(1, left * 1000))
            self.signals()
        return False

    def survivors(self) -> list[dict[str, Any]]:
        """What SIGKILL has not ended yet, with the kernel function it sleeps in."""
        found = []
        for pid, _ in descendants(self.pid):
            if stat := read_stat(pid):
                where = (read_bytes(f"/proc/{pid}/wchan") or b"").decode("ascii", "replace")
                found.append({"pid": pid, "name": stat.name, "state": stat.state, "wchan": where})
        return found

    # -- retire

    def retire(self) -> None:
        """Only now, with the certificate in hand: the files, the record, the report."""
        began = self.age()
        log_tail = (read_bytes(self.options.log) or b"")[-LOG_TAIL:] if self.options.log else b""
        account = read_status_file(self.options.account) if self.options.account else None
        if self.options.keep_log:
            self._keep_log()
        files = self._remove_files()
        if self.options.cgroup:
            self._mend("cgroup", lambda: os.rmdir(self.options.cgroup))
        self.phases["files"] = self.age() - began
        report = self.report([])
        report["files"], report["bytes"] = files
        report["account"] = account
        if self.options.history:
            line = f'{{"schema":{SCHEMA},"session":{self.document},"exit":{to_json(report)}}}\n'
            try:
                write_atomically(self.options.history, line)
            except OSError as error:  # a full disk: nothing is left over because of that
                self.notes.append(f"no history was written: {error}")
        if self.options.record:
            discard(self.options.record)
        report["log_tail"] = log_tail.decode("utf-8", "replace")  # never kept: it may hold addresses
        self.tell("ended", report=report)

    def _keep_log(self) -> None:
        """Only now: two sessions that write one file at a time would read each other's ports."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
            fd = os.open(self.options.keep_log, flags, 0o600)
            try:
                os.write(fd, read_bytes(self.options.log) or b"")
            finally:
                os.close(fd)
        except OSError as error:
            self.notes.append(f"the log was not kept: {error}")

    def _remove_files(self) -> tuple[int, int]:
        files = size = 0
        if self.made_tmpdir and os.path.lexists(self.options.tmpdir):
            try:
                files, size = remove_tree(self.options.tmpdir)
            except Exception as error:
                self.problems.append(f"TMPDIR not removed: {error!r}")
        for path in stray_shared_memory(self.born_epoch):
            self._mend("shared memory", lambda path=path: os.unlink(path))  # type: ignore[misc]
            files += 1
        return files, size

    def _mend(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except FileNotFoundError:
            pass
        except OSError as error:
            self.problems.append(f"{what}: {error}")

    def report(self, survivors: list[dict[str, Any]]) -> dict[str, Any]:
        everyone = sorted([*self.past, *self.members.values()], key=lambda m: (m.start, m.pid))
        return {
            "reason": self.reason,
            "containment": self.containment,
            "certificate": None if survivors else self.certificate,
            "status": self.main_status,
            "processes": [member.facts() for member in everyone],
            "survivors": survivors,
            "zombies_reaped": self.reaped,
            "files": 0,
            "bytes": 0,
            "memory": self.memory,
            "seconds": {"lifetime": self.age(), **self.phases},
            "ended_at": time.time(),
            "problems": self.problems,
            "notes": [*self.notes, *([f"{self.forgotten} more processes"] if self.forgotten else [])],
        }

    def give_up(self, failure: Failure) -> None:
        missing = failure.where == "exec" and failure.error.errno == 2
        self.failed = NOT_FOUND if missing else CANNOT_RUN
        if self.options.foreground:
            text = f"browserkeeper run: {self.options.command[0]}: {failure.where}: {failure.error}\n"
            _try(lambda: os.write(2, text.encode("utf-8", "surrogateescape")))
        self.tell("failed", where=failure.where, errno=failure.error.errno, text=str(failure.error))

    def finish(self) -> int:
        """Tear down and retire; the status that a shell would give for the command."""
        self.tear_down()
        self.retire()
        if self.terminal_group:
            _try(lambda: os.tcsetpgrp(0, self.terminal_group))
        if not self.options.foreground:
            return 0
        if self.reason == "timeout":
            return TIMED_OUT
        if self.failed is not None:
            return self.failed
        if self.reason == "guard-died" and self.main_status is None:
            return 128 + signal.SIGKILL
        status = self.main_status if self.main_status is not None else CANNOT_RUN
        return status if status >= 0 else 128 - status

    # -- small things

    def age(self) -> float:
        return time.monotonic() - self.born

    def tell(self, event: str, **facts: Any) -> None:
        """One line to the owner; never blocks for long on one that does not read."""
        if self.options.status_fd < 0:
            return
        data = (to_json({"event": event, **facts}) + "\n").encode()
        os.set_blocking(self.options.status_fd, False)
        poller = select.poll()
        poller.register(self.options.status_fd, select.POLLOUT)
        until = self.age() + 5
        while data and self.age() < until and not self.owner_is_dead():
            try:
                data = data[os.write(self.options.status_fd, data) :]
            except BlockingIOError:
                poller.poll(100)
            except OSError:  # EPIPE: nobody wants to know
                return


def _try(action: Callable[[], object]) -> None:
    try:
        action()
    except OSError:
        pass


def _readable(fd: int, seconds: float = 0) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def guard_session(guard: Guard) -> int:
    """The whole life of a session, once the guard is armed; the exit status of it all."""
    try:
        guard.prepare()
        guard.spawn()
        guard.tell("spawned", guard=guard.pid, pid=guard.main_pid)
        guard.reason = guard.watch()
        guard.tell("ending", reason=guard.reason)
    except Failure as failure:
        guard.give_up(failure)
    except Exception as error:  # a bug of ours must not become a leak
        guard.problems.append(f"guard: {error!r}")
    return guard.finish()


def guard_as_a_pair(guard: Guard) -> int:
    """Two processes, so that a SIGKILL to either of them leaves nothing.

    The lead does the work.  The standby is its parent and a subreaper too: what a killed lead
    leaves comes to it, and it ends that.  A killed standby ends the session through the lead.
    """
    try:
        guard.arm()
    except Failure as failure:
        guard.give_up(failure)
        return guard.finish()
    try:
        standby, lead = os.getpid(), os.fork()
    except OSError as error:  # the limit of processes
        guard.give_up(Failure("fork", error))
        return guard.finish()
    if lead == 0:
        run_primary(guard, standby)
    return run_standby(guard, lead)


def run_primary(guard: Guard, standby: int) -> NoReturn:
    """A lead that breaks dies by a signal, so that its standby knows that it has to finish."""
    try:
        guard.become_primary(standby)
        status = guard_session(guard)
        if not guard.standby_is_dead():
            _try(lambda: os.kill(standby, signal.SIGCONT))  # it may be stopped
        os._exit(status)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def run_standby(guard: Guard, lead: int) -> int:
    """Wait for the lead, pass signals on, wake it when it is stopped, finish for it if killed."""
    poller = select.poll()
    poller.register(guard.wakeup_fd, select.POLLIN)
    while True:
        pid, status = os.waitpid(lead, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            os.kill(lead, signal.SIGCONT)
        elif pid and os.WIFEXITED(status) and not guard.reap():
            return os.WEXITSTATUS(status)
        elif pid:
            guard.reason = "guard-died"
            guard.made_tmpdir = is_private_directory(guard.options.tmpdir)
            guard.tell("ending", reason=guard.reason)
            return guard.finish()
        poller.poll(None if guard.owner_fd >= 0 else 1000)
        for number in guard.signals():
            if number != signal.SIGCHLD:
                os.kill(lead, number)
        if guard.owner_fd < 0 and guard.owner_is_dead():
            os.kill(lead, signal.SIGTERM)


def stand_in_front(argv: list[str]) -> int:
    """Be the process that others see and signal: the guard behind us outlives our SIGKILL.

    Forks; the child becomes the guard with us as its owner.  Signals go through to the command,
    but for the terminal's own: those reach our whole group, and the command is in it.
    """
    owner = os.getpid()
    read_fd, write_fd = os.pipe()
    awaited = {*FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    guard = os.fork()
    if guard == 0:
        os.close(write_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os._exit(run(["--owner", str(owner), "--control-fd", str(read_fd), *argv]))
    os.close(read_fd)
    while True:
        heard = signal.sigwaitinfo(awaited)
        if heard.si_signo != signal.SIGCHLD:
            if heard.si_code != SI_KERNEL:
                os.kill(guard, heard.si_signo)
            continue
        pid, status = os.waitpid(guard, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                _wait_for_readers(write_fd)
            return code if code >= 0 else 128 - code


def _wait_for_readers(write_fd: int) -> None:
    """The standby was killed: its lead, which holds the pipe's other end, is ending the session."""
    poller = select.poll()
    poller.register(write_fd, 0)  # POLLERR comes unasked, when the last reader has gone
    poller.poll(LAST_WORDS * 1000)


def run(argv: list[str]) -> int:
    """Guard a command to its end.  As PID 1 there is no pair: nothing outlives PID 1 anyway."""
    guard = Guard(Options(argv))
    if os.getpid() != 1:
        return guard_as_a_pair(guard)
    guard.arm()
    return guard_session(guard)


def main(argv: list[str] | None = None) -> NoReturn:
    """``--front 1`` stands a process of its own before the guard; see :func:`stand_in_front`."""
    arguments = sys.argv[1:] if argv is None else argv
    front = arguments[:2] == ["--front", "1"]
    try:
        status = stand_in_front(arguments[2:]) if front else run(arguments)
    except SystemExit as error:  # a command line that makes no sense
        sys.exit(error.code)
    os._exit(status)  # the owner waits for us, and the interpreter's own end takes 5 ms


if __name__ == "__main__":
    main()
