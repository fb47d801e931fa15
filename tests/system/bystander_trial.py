"""One trial of the bystander campaign: its sessions, its tools, and what its witness looks at."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from browserkeeper import browser
from browserkeeper.cli import main as command_line
from tests.support import witness as processes
from tests.support.waiting import wait_until

from . import bystander_places as places
from .bystander_witness import Process, Witness, changes, picture

NOBODY = 65534
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
"""An interpreter that every user may run."""
PROGRAM = Path(__file__).with_name("bystander_program.py")
SETTLE = 30.0
"""Seconds after the last sweep in which everything of ours must be gone; it takes 0.1."""
BROWSERS = ("chrome", "firefox")
"""Kinds of sessions with a real browser."""
ALLOWED = {"sweep": (0, 1, 4), "watch": (0, 1), "ps": (0, 1), "doctor": (0, 1)}
"""Exit statuses of the tools that are no failure."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """A call of the command line: which, by whom, with which state directory, and where."""

    words: tuple[str, ...]
    user: str
    state: str
    place: str

    def __str__(self) -> str:
        return f"{' '.join(self.words)} ({self.user}, {self.state} state, {self.place})"


class Home:
    """The directories and programs of the campaign, which every user can reach.

    ``settle``: seconds that the processes of a session may take to be gone after the last sweep."""

    def __init__(self, directory: Path, settle: float):
        self.directory, self.settle = directory, settle
        directory.chmod(0o755)
        self.program = directory / "program.py"
        text = PROGRAM.read_text()
        self.program.write_text(text)
        for name in ("chromedriver", "chromium"):
            path = directory / name
            path.write_text(f"#!{PYTHON} -IS\n{text}")
            path.chmod(0o755)
        self.states = {"same": directory / "state", "other": directory / "other-state"}
        self.states["nobody's"] = directory / "nobodys-state"
        for path in self.states.values():
            path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.states["nobody's"], NOBODY, NOBODY)
        self.witness = Witness(directory / "witness")


@dataclasses.dataclass
class Session:
    """A session of ours: ``owner`` is the process that owns it, in the campaign's numbers."""

    kind: str
    label: str
    id: str
    state: Path
    owner: int
    control: int
    leaf: Path | None

    @property
    def record(self) -> Path:
        return self.state / "live" / f"{self.id}.json"

    def guards(self) -> dict[str, list[int]]:
        """The pids of its guards now, by the tree below its owner; without any code of the package."""
        tree = processes.alive(processes.below(self.owner))
        guards = [seen for seen in tree if seen.name == "bk-guard"]
        pids = {seen.pid for seen in guards}
        primary = [seen.pid for seen in guards if seen.parent in pids]
        standby = [seen.pid for seen in guards if seen.parent not in pids]
        return {
            "primary": primary or standby,
            "standby": standby,
            "driver": [s.pid for s in tree if s.parent in (primary or standby) and s.pid not in pids],
        }

    def size(self) -> int:
        """The number of its processes now, without its guards."""
        primary = self.guards()["primary"]
        return len(processes.alive(processes.below(primary[0]))) if primary else 0

    def tmpdirs(self) -> list[Path]:
        return [p for root in ("/tmp", "/dev/shm") if (p := Path(root, f"bk-{self.id}")).exists()]


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that owns a session: a fork of the campaign.

    ``options`` are those of the session's command; ``more`` as in ``Trial.start``.  It writes a byte to
    ``hear`` when the session is live, and ends the session when it reads one from ``told``.
    """

    home: Home
    kind: str
    options: dict[str, str]
    more: dict[str, str]
    told: int
    hear: int

    def run(self) -> int:
        if self.kind.startswith("run"):
            return self._become_run()
        os.environ["BYSTANDER"] = "\n".join(f"{name}={value}" for name, value in self.options.items())
        if self.kind != "container":
            return self._use_browser()
        return places.as_init(self._be_container, self.more.get("place", ""))

    def _become_run(self) -> int:
        """``browserkeeper run``, which executes the guard in this process."""
        words = [PYTHON, "-I", "-S", str(self.home.program), "session"]
        words += [f"{name}={value}" for name, value in self.options.items()]
        sys.argv = ["browserkeeper", *self.kind.split(), "--", *words]
        os.write(self.hear, b"+")
        command_line()

    def _be_container(self) -> int:
        places.in_fork(self._use_browser)
        places.reap_all()
        return 0

    def _use_browser(self) -> int:
        arguments: dict[str, Any] = {name: word for name, word in self.more.items() if name != "place"}
        if self.kind not in BROWSERS:
            arguments["binary"] = str(self.home.directory / "chromium")
            arguments["driver_path"] = str(self.home.directory / "chromedriver")
        name = self.kind if self.kind in BROWSERS else "chrome"
        session = browser(name, attempts=1, offline=True, on_leak="ignore", **arguments)
        session.start()
        os.write(self.hear, b"+")
        os.read(self.told, 1)  # until the campaign wants its end
        session.close()
        return 0


class Trial:
    """``number`` and the campaign's seed make all of its draws.

    Bystanders add what they need to ``options`` of the session's command before it starts.
    """

    def __init__(self, home: Home, number: int, rng: random.Random, death: str, *, portable: bool):
        self.home, self.number, self.rng, self.death = home, number, rng, death
        self.witness = home.witness
        self.options: dict[str, str] = {}
        self.place = home.directory / f"trial-{number}"
        self.place.mkdir(mode=0o755)
        self.sessions: list[Session] = []
        self.innocent: dict[str, list[Process]] = {}
        self.pictures: dict[str, dict[str, str]] = {}
        self.tools: list[str] = []
        self.complaints: list[str] = []
        self._started = 0
        self.leaves = rng.random() < 0.5
        """Whether sessions get cgroups of their own; else they share one with the bystanders."""
        self.cannot_tell_daemons = not self.leaves and (portable or "both guards" in death)
        """Then ``/proc`` shows no difference between a daemon of the session and that of a job server
        (docs/design.md, "What is not closed")."""
        self._stack = contextlib.ExitStack()
        self._children: list[subprocess.Popen[bytes]] = []

    # -- bystanders

    def label(self, name: str) -> str:
        return f"{self.number}: {name}"

    def spawn(self, role: str, name: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a process of bystander_program.py outside of all sessions, in a session of its own."""
        words = {"witness": self.witness.path, "label": self.label(name), **options}
        command = [PYTHON, "-I", "-S", str(self.home.program), role]
        command += [f"{word}={value}" for word, value in words.items()]
        child = subprocess.Popen(command, start_new_session=True, env={"PATH": os.environ["PATH"]})
        self._children.append(child)
        return child

    def expect(self, name: str, number: int = 1) -> list[Process]:
        """Wait for so many bystanders with this name, and count them as innocent from now on."""
        self.innocent[name] = self.witness.wait_for(self.label(name), number)
        return self.innocent[name]

    def watch_files(self, name: str, *tops: Path) -> None:
        for top in tops:
            self.pictures.setdefault(name, {}).update(picture(top))

    def harmed(self) -> list[str]:
        found = []
        for name, there in self.innocent.items():
            dead = [process for process in there if not process.is_alive()]
            stopped = [p for p in there if p not in dead and not p.answers()]
            found += [f"{name}: {len(dead)} of {len(there)} killed"] if dead else []
            found += [f"{name}: {len(stopped)} of {len(there)} stopped"] if stopped else []
        for name, before in self.pictures.items():
            after = {path: line for top in before for path, line in _line_of(Path(top)).items()}
            if lost := changes(before, after):
                found.append(f"{name}: {len(lost)} of {len(before)} files changed or gone: {lost[0]}")
        return found

    # -- sessions

    def start(self, kind: str, **more: str) -> Session:
        """Start the session that will die, and wait until it is live."""
        session = self._start(kind, "same", self.options, more)
        if "both guards" in self.death:
            # A daemon that was never recorded and has no marker is not known to be ours; those of
            # browsers end with the browser.  So the guard may look at all of them first.
            wait_until(lambda: len(record_of(session).get("processes", [])) >= session.size(), 10)
        self.sessions.append(session)
        return session

    def start_other(self, name: str, kind: str, state: str, *options: str, **more: str) -> Session:
        """Start a session that is a bystander: all of it is innocent until :meth:`end_other`."""
        session = self._start(kind, state, dict(option.split("=") for option in options), more)
        self.innocent[name] = self.ours(session)
        self.watch_files(name, *session.tmpdirs())
        for path in session.tmpdirs():  # what the session itself changes
            self.pictures[name].pop(str(path))
            self.pictures[name].pop(str(path / "driver.log"), None)
        return session

    def end_other(self, name: str, session: Session) -> None:
        """Its orderly end; what it leaves counts as left."""
        self.innocent.pop(name)
        self.pictures.pop(name, None)
        self.die(session, "closed")
        self.sessions.append(session)

    def _start(self, kind: str, state: str, options: dict[str, str], more: dict[str, str]) -> Session:
        """``kind``: ``browser()`` (with a small driver), ``run``, ``run --keep-tmpdir``, ``container``,
        ``chrome``, ``firefox``.  ``more``: arguments of ``browser()``, and ``place``."""
        self._started += 1
        label = self.label(f"session {self._started}")
        name = f"bystanders-{os.getpid()}-{self.number}-{self._started}"
        leaf = self._stack.enter_context(processes.leaf(name)) if self.leaves else None
        directory = self.home.states[state]
        before = set(directory.glob("live/*.json"))
        told, tell = os.pipe()
        heard, hear = os.pipe()
        portable = more.get("containment") == "portable"
        given = {"witness": str(self.witness.path), "label": label, **options}
        given |= {"all-marked": "1"} if portable else {}
        owner = Owner(self.home, kind, given, more, told, hear)

        def own() -> int:
            self.witness.in_child()
            os.close(tell)
            os.close(heard)
            if leaf:
                (leaf / "cgroup.procs").write_text("0")
            os.environ["BROWSERKEEPER_STATE_DIR"] = str(directory)
            return owner.run()

        pid = places.in_fork(own)
        os.close(told)
        os.close(hear)
        self._stack.callback(os.close, tell)
        try:
            assert os.read(heard, 1), f"no session {kind} has started"
        finally:
            os.close(heard)
        self.witness.wait_for(label, 0 if kind in BROWSERS else 3 if portable else 4)
        new = set(directory.glob("live/*.json")) - before
        assert len(new) == 1, f"the records of one session: {new}"
        return Session(kind, label, new.pop().stem, directory, pid, tell, leaf)

    def die(self, session: Session, death: str) -> None:
        """Returns when the session's owner has ended."""
        owner = session.owner
        guards = session.guards()
        if session.kind == "container" and guards["standby"]:
            seen = processes.look(guards["standby"][0])
            owner = seen.parent if seen else owner
        both = sorted({*guards["primary"], *guards["standby"]})
        steps = list(DEATHS[death])
        if guards["primary"] == guards["standby"]:  # the portable guard is one process
            steps = [step for step in steps if step != "see the end"]
        for step in steps:
            if step == "close":
                if session.kind.startswith("run"):
                    _signal(guards["driver"], signal.SIGTERM)
                else:
                    os.write(session.control, b"+")
            elif step == "see the end":
                wait_until(lambda: not any(p.is_alive() for p in self.ours(session)), SETTLE)
            else:
                verb, _, target = step.partition(" ")
                pids = {"owner": [owner], "both": both, "all": [owner, *both]}
                number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[verb]
                _signal(pids.get(target) or guards.get(target, []), number)
        if session.kind == "container" and not wait_until(lambda: _has_ended(session.owner), 2):
            # Its PID 1 ends with the last process; where that does not come, the runtime kills it.
            _signal([seen.pid for seen in processes.below(session.owner)][:1], signal.SIGKILL)
        if not wait_until(lambda: _has_ended(session.owner), SETTLE):
            self.complaints.append(f"the owner of {session.kind} does not end")
            _signal([session.owner], signal.SIGKILL)
            os.waitpid(session.owner, 0)

    def die_at_once(self, session: Session) -> None:
        """All of a container, as its runtime kills it."""
        _signal([seen.pid for seen in processes.below(session.owner)][:1], signal.SIGKILL)
        places.status_of(session.owner)

    def ours(self, session: Session) -> list[Process]:
        return self.witness.labelled(session.label)

    def left(self) -> list[str]:
        """What is left of the sessions; waits until nothing is."""

        def find() -> list[str]:
            found = []
            for session in self.sessions:
                alive = [p for p in self.ours(session) if p.is_alive()]
                found += [f"{session.kind}: {len(alive)} processes"] if alive else []
                if members := processes.members(session.leaf):
                    found.append(f"{session.kind}: in its leaf: {[_name(pid) for pid in members]}")
                found += [f"{session.kind}: {path}" for path in session.tmpdirs()]
                if session.record.exists():
                    found.append(f"{session.kind}: its record")
            return found

        until = time.monotonic() + self.home.settle
        while (found := find()) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    # -- tools

    def use(self, tool: Tool, marker: str = "") -> int:
        """Start a tool; returns the process, which :meth:`see_out` waits for."""
        self.tools.append(str(tool))
        return places.in_fork(lambda: self._use(tool, marker))

    def sweep_in(self, pid: int, user: str) -> None:
        """A sweep with the same state directory in the namespaces of this process."""
        tool = Tool(("sweep", "--yes"), "root", "same", "here")
        self.tools.append(f"sweep --yes (root, same state, {user})")
        self.see_out(places.in_fork(lambda: places.join(pid, lambda: self._use(tool, ""))), tool)

    def _use(self, tool: Tool, marker: str) -> int:
        self.witness.in_child()
        log = os.open(self.place / "tools.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(log, f"--- {tool}\n".encode())
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.alarm(300)
        os.environ["BROWSERKEEPER_STATE_DIR"] = str(self.home.states[tool.state])
        if marker:
            os.environ["BROWSERKEEPER_SESSION"] = marker

        def call() -> int:
            if tool.user == "nobody":
                os.environ["HOME"] = "/nonexistent"
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            sys.argv = ["browserkeeper", *tool.words]
            command_line()

        if tool.place == "container":
            return places.as_init(call)
        places.enter(tool.place)
        return call()

    def see_out(self, child: int, tool: Tool) -> None:
        status = places.status_of(child)
        if status not in ALLOWED[tool.words[0]] and not (tool.user == "nobody" and status == 3):
            self.complaints.append(f"{tool}: exit status {status}\n{self.log()}")

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.place / "tools.log").read_text()[-3000:]
        return ""

    # -- the end

    def end_bystanders(self) -> None:
        """Their processes end, as their users would end them."""
        there = [
            processes.look(p.pid) for found in self.innocent.values() for p in found if p.is_alive()
        ]
        for name in self.innocent:
            self.witness.forget(self.label(name))
        self.innocent.clear()
        wait_until(lambda: not any(processes.is_same(seen) for seen in there if seen))

    def close(self) -> None:
        """End all of this trial's processes, unmount what it has mounted, remove its files."""
        for label in {p.label for p in self.witness.processes if p.label.startswith(f"{self.number}: ")}:
            self.witness.forget(label)
        for session in self.sessions:
            for pid in processes.members(session.leaf):
                _signal([pid], signal.SIGKILL)
            if not _has_ended(session.owner):
                _signal([session.owner], signal.SIGKILL)
        for child in self._children:
            child.kill()
            child.wait()
        self.unmount()
        for session in self.sessions:
            for path in session.tmpdirs():
                shutil.rmtree(path, ignore_errors=True)
            session.record.unlink(missing_ok=True)
        self._stack.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def unmount(self) -> None:
        """Unmount what sessions have mounted, and make what is left of them older: a sweep leaves a
        TMPDIR alone for a minute, and a record whose processes it cannot see for ten."""
        self.pictures.pop("tmpfs", None)
        lines = Path("/proc/self/mounts").read_text().splitlines()
        for place in sorted((line.split()[1] for line in lines), reverse=True):
            if any(f"bk-{session.id}/" in place for session in self.sessions):
                subprocess.run(["umount", place], check=False)
        for path in (path for session in self.sessions for path in session.tmpdirs()):
            os.utime(path, (time.time() - 120, time.time() - 120))
        for session in self.sessions:
            lock = session.record.parent.parent / "locks" / session.id
            for path in (session.record, lock):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path, (time.time() - 700, time.time() - 700))


DEATHS = {
    "closed": ("close",),
    "owner": ("kill owner",),
    "primary guard": ("kill primary", "see the end", "close"),
    "standby guard": ("kill standby", "see the end", "close"),
    "both guards": ("kill both", "close"),
    "driver": ("kill driver", "see the end", "close"),
    "owner and both guards": ("kill all",),
    "owner; primary guard stopped": ("stop primary", "kill owner"),
    "owner; both guards stopped": ("stop both", "kill owner"),
}
"""The deaths of sessions, as steps."""


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _has_ended(child: int) -> bool:
    """Reaps it; True as well where it has been reaped."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(child, os.WNOHANG)[0] == child
    return True


def _name(pid: int) -> str:
    seen = processes.look(pid)
    return f"{seen.name} ({pid})" if seen else str(pid)


def _line_of(path: Path) -> dict[str, str]:
    return {name: line for name, line in picture(path).items() if name == str(path)}


def record_of(session: Session) -> dict[str, list[dict[str, float]]]:
    """The record's content; {} where it is gone."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, list[dict[str, float]]] = json.loads(session.record.read_text())
        return content
    return {}


__all__ = ["DEATHS", "Home", "Session", "Tool", "Trial", "record_of"]
