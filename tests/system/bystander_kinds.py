"""The kinds of bystanders: what is not ours and looks like it.

Each is a generator that is resumed at four moments of a trial: before the session starts, while it is
live, after its death, and at the end.  What it has named to the trial by ``expect`` and ``watch_files``
must be unharmed from then on.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.waiting import wait_until

from . import bystander_places as places
from .bystander_trial import BROWSERS, NOBODY, PYTHON, Tool, Trial, record_of

Kind = Callable[[Trial], Iterator[None]]
ATTEMPTS = 20
"""Containers that are started until one has the inode number of the one before it."""
NAMES = ("chromium", "chrome", "chromedriver", "geckodriver", "firefox", "bk-guard")


def same_names(trial: Trial) -> Iterator[None]:
    """Programs with the names of browsers, drivers and guards, of this user and another."""
    for number in range(3):
        more = {"uid": NOBODY} if trial.rng.random() < 0.4 else {}
        more |= {"daemon": 1} if trial.rng.random() < 0.5 else {}
        trial.spawn("stay", "same name", comm=trial.rng.choice(NAMES), children=1, **more)
        trial.expect("same name", 2 * (number + 1))
    yield
    yield
    yield
    yield


def job_of_a_server(trial: Trial) -> Iterator[None]:
    """A job with the environment of a client below the session, started by a server that is not."""
    path = trial.place / "jobs"
    more = {"uid": NOBODY} if trial.rng.random() < 0.3 else {}
    more |= {"daemon": 1} if trial.rng.random() < 0.7 else {}
    late = trial.rng.random() < 0.4
    more |= {"late": 1} if late else {}
    if trial.cannot_tell_daemons:
        more.pop("daemon", None)
    trial.spawn("server", "job server", path=path, **more)
    trial.expect("job server")
    trial.options |= {"server": str(path), "job": trial.label("job of a server")}
    yield
    for session in trial.sessions:
        if session.kind in BROWSERS:  # no program of ours runs in it
            env = Path(f"/proc/{session.guards()['driver'][0]}/environ").read_bytes().split(b"\0")
            job = [f"witness={trial.witness.path}", f"label={trial.label('job of a server')}", ""]
            lines = [line for line in env if line and b"\n" not in line]
            _tell_server(path, "\n".join(job).encode() + b"\n" + b"\n".join(lines))
    if not late:
        trial.expect("job of a server")
    yield
    if late:  # at(1): the session has ended when its job runs
        _tell_server(path, b"go")
        trial.expect("job of a server")
    yield
    yield


def _tell_server(path: Path, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        link.sendall(text)
        link.shutdown(socket.SHUT_WR)
        link.recv(1)


def application_of_another_user(trial: Trial) -> Iterator[None]:
    """``browserkeeper run --keep-tmpdir`` by root, whose program becomes another user that sweeps."""
    name = "application of another user"
    yield
    session = trial.start_other(name, "run --keep-tmpdir", "other", f"drop={NOBODY}")
    for words in (("sweep", "--yes"), ("watch", "--once")):
        tool = Tool(words, "nobody", "nobody's", "here")
        trial.see_out(trial.use(tool, marker=session.id), tool)
    yield
    yield
    trial.end_other(name, session)
    yield


def live_session(trial: Trial) -> Iterator[None]:
    """A live session of another program, which shares the state directory or has another."""
    kind = trial.rng.choice(["browser()", "run", "run --keep-tmpdir"])
    state = trial.rng.choice(["same", "other", "other"])
    containment = trial.rng.choice(["auto", "subreaper", "portable"])
    more = {} if kind.startswith("run") else {"containment": containment}
    name = f"live session, {state} state"
    yield
    session = trial.start_other(name, kind, state, **more)
    yield
    yield
    trial.end_other(name, session)
    yield


def live_container(trial: Trial) -> Iterator[None]:
    """A live session in a container that shares state directory, ``/tmp`` and ``/dev/shm``."""
    place = trial.rng.choice(["", "", "no boot id", "no machine id"])
    name = f"live container{', ' if place else ''}{place}"
    yield
    session = trial.start_other(name, "container", "same", place=place)
    yield
    yield
    trial.end_other(name, session)
    yield


def recycled_number(trial: Trial) -> Iterator[None]:
    """A daemon whose process session has the number of a recorded guard that was killed."""
    yield
    yield
    for session in list(trial.sessions):
        for guard in record_of(session).get("guards", []):
            for process in trial.ours(session):
                if process.is_alive():  # the kernel keeps a session's number while it has processes
                    os.kill(process.pid, signal.SIGKILL)
            wait_until(lambda: not any(p.is_alive() for p in trial.ours(session)))  # noqa: B023
            time.sleep(0.02)
            if session.kind != "container":
                _take(trial, int(guard["pid"]), "recycled number")
    yield
    yield


def recycled_container(trial: Trial) -> Iterator[None]:
    """The same in a later container with the small numbers of the one in which the session was; the
    kernel gives it the same inode number where that is free."""
    yield
    session = trial.start_other("first container", "container", "same")
    trial.innocent.pop("first container")
    trial.pictures.pop("first container")
    trial.sessions.append(session)
    numbers = [int(guard["pid"]) for guard in record_of(session)["guards"]]
    namespace = _namespace_of(session.owner)
    trial.die_at_once(session)
    assert wait_until(lambda: not any(process.is_alive() for process in trial.ours(session)))
    trial.witness.forget(session.label)  # a connection keeps its peer's pid, and so the namespace
    for _ in range(ATTEMPTS):
        container, start = _empty_container(trial, numbers)
        if _namespace_of(container) == namespace:
            break
        os.close(start)
        _kill_container(container)
    else:
        container, start = _empty_container(trial, numbers)
    os.write(start, b"+")
    os.close(start)
    there = trial.expect("recycled number in a container", len(numbers))
    same = _namespace_of(container) == namespace
    trial.sweep_in(there[0].pid, f"in the next container, {'the same' if same else 'another'} inode")
    yield
    yield
    trial.sweep_in(there[0].pid, "in the next container")
    yield
    _kill_container(container)


def _empty_container(trial: Trial, numbers: list[int]) -> tuple[int, int]:
    """A container whose PID 1 takes the numbers when it reads a byte: (its outer process, where to
    write the byte)."""
    ready, tell = os.pipe()
    heard, start = os.pipe()

    def be_init() -> int:
        os.write(tell, b"+")
        if os.read(heard, 1):
            for number in numbers:
                _take(trial, number, "recycled number in a container", wait=False)
            signal.pause()
        return 0

    def outside() -> int:
        trial.witness.in_child()
        os.close(start)
        return places.as_init(be_init)

    container = places.in_fork(outside)
    os.close(tell)
    os.close(heard)
    os.read(ready, 1)
    os.close(ready)
    return container, start


def _kill_container(outside: int) -> None:
    for child in Path(f"/proc/{outside}/task/{outside}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.waitpid(outside, 0)


def _namespace_of(outside: int) -> str:
    """The pid namespace of the container whose PID 1 is the child of this process."""
    children = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    return str(Path(f"/proc/{children[0]}/ns/pid").readlink()) if children else ""


def _take(trial: Trial, number: int, name: str, *, wait: bool = True) -> None:
    """Start a daemon in a process session of this number, whose leader has exited."""
    words = [PYTHON, "-I", "-S", str(trial.home.program), "stay"]
    words += [f"witness={trial.witness.path}", f"label={trial.label(name)}"]

    def lead() -> int:
        os.setsid()
        if os.fork() == 0:
            os.execve(words[0], words, {})
        return 0

    before = len(trial.witness.labelled(trial.label(name))) if wait else 0
    if places.take_number(number, lead) and wait:
        trial.expect(name, before + 1)


def mounted_below_tmpdir(trial: Trial) -> Iterator[None]:
    """Files of others that the session's program mounted below its TMPDIR: a bind mount, or a tmpfs."""
    precious = trial.place / "precious"
    (precious / "photos").mkdir(parents=True)
    for name in ("letter", "photos/cat"):
        (precious / name).write_text(name * 100)
    kind = trial.rng.choice(["mount", "mount", "tmpfs"])
    trial.options[kind] = str(precious)
    if kind == "mount":
        trial.watch_files("bind mount", precious)
    yield
    mounted = [p / "mounted" for session in trial.sessions for p in session.tmpdirs()]
    for top in mounted:
        if trial.sessions[0].kind in BROWSERS:  # no program of ours runs in it
            top.mkdir()
            source = str(precious) if kind == "mount" else "campaign"
            flags = places.MS_BIND if kind == "mount" else 0
            places.mount(source, str(top), "" if kind == "mount" else "tmpfs", flags)
            if kind == "tmpfs":
                shutil.copytree(precious, top, dirs_exist_ok=True)
    if kind == "tmpfs":
        trial.watch_files("tmpfs", *(path for top in mounted for path in top.iterdir()))
    yield
    yield
    yield


def files_with_our_names(trial: Trial) -> Iterator[None]:
    """Files and directories with our names, or Chromium's, in /tmp and /dev/shm: of another user, older
    than the session, in use, or of a kind that no session makes there."""
    tag = os.urandom(3).hex()
    made = []
    for place in ("/tmp", "/dev/shm"):
        directory = Path(place, f".org.chromium.Chromium.{tag}")
        (directory / "Default").mkdir(parents=True)
        (directory / "Default" / "Cookies").write_text("theirs")
        theirs = Path(place, f".com.google.Chrome.{tag}")
        theirs.write_text("theirs")
        os.chown(theirs, NOBODY, NOBODY)
        older = Path(place, f".org.chromium.Chromium.old{tag}")
        older.write_text("older than the session")
        os.utime(older, (time.time() - 3600, time.time() - 3600))
        link = Path(place, f"bk-{os.urandom(6).hex()}")
        link.symlink_to(directory)
        file = Path(place, f"bk-{os.urandom(6).hex()}")
        file.write_text("a file")
        other = Path(place, f"bk-{os.urandom(6).hex()}")
        other.mkdir(mode=0o700)
        (other / "mail").write_text("theirs")
        os.chown(other, NOBODY, NOBODY)
        public = Path(place, f"bk-{os.urandom(6).hex()}")
        public.mkdir(mode=0o755)
        (public / "page").write_text("for all")
        made += [directory, theirs, older, link, file, other, public]
    long_ago = time.time() - 7200
    for path in made[3:]:
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    yield
    # Younger than the session and in use, by a process that a sweep in a container cannot see.
    used = Path(f"/dev/shm/.org.chromium.Chromium.used{tag}")
    used.write_text("in use")
    file_in_use = used.open()
    trial.watch_files("files with our names", *made, used)
    yield
    yield
    yield
    file_in_use.close()
    for path in (*made, used):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() else inner.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def marker_of_another_user(trial: Trial) -> Iterator[None]:
    """A process of another local user who has put the session's marker into its environment."""
    yield
    words = [PYTHON, "-I", "-S", str(trial.home.program), "stay", f"uid={NOBODY}", "daemon=1"]
    words += [f"witness={trial.witness.path}", f"label={trial.label('marker of another user')}"]
    marker = {"BROWSERKEEPER_SESSION": trial.sessions[0].id}
    places.status_of(places.in_fork(lambda: os.execve(words[0], words, marker)))
    trial.expect("marker of another user")
    yield
    yield
    yield


KINDS: dict[str, tuple[int, Kind]] = {
    "same names": (3, same_names),
    "job of a server": (4, job_of_a_server),
    "application of another user": (2, application_of_another_user),
    "live session": (3, live_session),
    "live container": (3, live_container),
    "recycled number": (2, recycled_number),
    "recycled number in a container": (2, recycled_container),
    "mounted below TMPDIR": (3, mounted_below_tmpdir),
    "files with our names": (3, files_with_our_names),
    "marker of another user": (2, marker_of_another_user),
}
"""And how often each is drawn.  A plain Chrome and a person's browser are there in every trial."""
