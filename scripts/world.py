#!/usr/bin/env python3
"""Runs a command in a world of its own, so that tests neither see nor disturb the rest of the machine.

    scripts/world.py [--require] [--die-with-parent] [--keep DIRECTORY]... COMMAND...
    scripts/world.py --probe          says on one line what a world can be made of here; 1 if of nothing

A world is a pid namespace with its own ``/proc``, an empty ``/tmp`` and ``/dev/shm``, and a view of
cgroup v2 whose root is a cgroup of the world's own.  All processes of a world end with the command.
Directories that would be hidden by the new ``/tmp`` or ``/dev/shm`` (the working directory, this
repository, the interpreter, HOME, those of PATH, and what ``--keep`` names) stay visible.

Each part is made where it can be made:

- As root by ``unshare(2)``; as a plain user by ``sudo -n`` if that asks for no password, else in a user
  namespace.  There this user alone is mapped, so what belongs to root seems to belong to ``nobody``.
- Where no namespaces can be had the command runs without a world (with ``--require``: exit status 125).
- The cgroup needs a writable cgroup v2 (``/sys/fs/cgroup``, or ``/sys/fs/cgroup/unified`` beside v1).
  Elsewhere the world shares the machine's cgroups.  cgroup v1 is shared always.

The command finds what it got in ``BROWSERKEEPER_WORLD``: "" or unset, or "pid" or "pid cgroup".

PID 1 of a world is this program.  It reaps orphans (pytest, a child subreaper, gets most of them first)
and passes SIGTERM and SIGHUP on to the command; SIGINT and SIGQUIT come to it from the terminal.
The command starts with default signal dispositions and no signal blocked, whatever the caller ignores.
With ``--die-with-parent`` the death of the caller ends the world.

Standard library only and Python 3.10 or newer: it runs before the virtual environment is there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = ("/tmp", "/dev/shm")
NO_WORLD = 125
"""Exit status with ``--require`` where no world can be made; env(1) and timeout(1) use the same."""
GRACE = 20.0
"""Seconds from a SIGTERM to the command until the whole world is killed."""
OLD = 60.0
"""Seconds after which an empty cgroup of a world is no longer about to be entered."""
MARKER = "BROWSERKEEPER_WORLD"
OF_THE_DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "TMPDIR")
"""Environment variables that lead out of a world."""

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x2000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
RESTORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE)

libc = ctypes.CDLL(None, use_errno=True)


class NoWorldError(Exception):
    """Says which step could not be taken."""


def check(result: int, step: str) -> None:
    if result != 0:
        raise NoWorldError(f"{step}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int, step: str) -> None:
    check(libc.unshare(flags), f"unshare {step}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    given = [word.encode() if word else None for word in (source, target, kind)]
    check(libc.mount(*given, ctypes.c_ulong(flags), options.encode()), f"mount {kind} on {target}")


# ---------------------------------------------------------------------------------- cgroups


def cgroup_mount() -> str:
    """Where cgroup v2 is mounted, "" where it is not."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.split()[2] == "cgroup2"), "")


def delegate(made: Path, user: str) -> None:
    """What a plain user needs to make cgroups below it (cgroups(7), "Delegation")."""
    if user:
        uid, gid = map(int, user.split(":"))
        for directory in (made, made / "init"):
            for path in (directory, directory / "cgroup.procs", directory / "cgroup.subtree_control"):
                os.chown(path, uid, gid)


@contextlib.contextmanager
def cgroup(user: str) -> Iterator[Path | None]:
    """A new cgroup below our own, with a child ``init`` for the world's processes, since a cgroup that
    has processes cannot give controllers to its children (a Docker daemon in the world wants that)."""
    place, made = cgroup_mount(), None
    remove_old_cgroups(place)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        ours = next(line[3:] for line in lines if line.startswith("0::"))
        if place and not ours.startswith("/.."):
            made = Path(place + ours.rstrip("/"), f"bk-world-{os.getpid()}-{os.urandom(3).hex()}")
            made.mkdir()
            (made / "init").mkdir()
            delegate(made, user)
    try:
        yield made if made and (made / "init").is_dir() else None
    finally:
        if made:
            remove_cgroups(made)


def remove_old_cgroups(place: str) -> None:
    """Those of worlds that were killed with SIGKILL, once nothing is in them."""
    for old in Path(place).glob("bk-world-*") if place else ():
        with contextlib.suppress(OSError):
            populated = "populated 1" in (old / "cgroup.events").read_text()
            if not populated and time.time() - old.stat().st_mtime > OLD:
                remove_cgroups(old)


def remove_cgroups(top: Path) -> None:
    """All of them, innermost first; a dying member may hold one for a moment."""
    end = time.monotonic() + 5
    while top.is_dir() and time.monotonic() < end:
        inner: list[Path] = []
        with contextlib.suppress(OSError):  # another world that starts may remove them, too
            inner = sorted(top.rglob("*/"), reverse=True)
        for directory in (*inner, top):
            with contextlib.suppress(OSError):
                directory.rmdir()
        time.sleep(0.01)


def enter_cgroup(own: Path) -> bool:
    """Become a member, and see it as the root of cgroup v2."""
    place = cgroup_mount()
    try:
        # The namespace's root is the cgroup that its maker is in: go there for this call alone.
        (own / "cgroup.procs").write_text("0")
        unshare(CLONE_NEWCGROUP, "cgroup")
        (own / "init" / "cgroup.procs").write_text("0")
        for controller in (own / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (own / "cgroup.subtree_control").write_text(f"+{controller}")
        mount(str(own), place, flags=MS_BIND)  # a new mount would be refused: it is the same file system
    except (NoWorldError, OSError):
        return False
    return True


# ---------------------------------------------------------------------------------- files


def worth_keeping(more: list[str]) -> list[str]:
    """Directories below the places that a world hides, which its command needs; outermost only."""
    named = [os.getcwd(), str(ROOT), str(Path.home()), sys.prefix, sys.base_prefix, *more]
    named += os.environ.get("PATH", "").split(os.pathsep)
    real = {os.path.realpath(name) for name in named if name and os.path.isdir(name)}
    below = [path for path in sorted(real) if any(path.startswith(f"{place}/") for place in HIDDEN)]
    return [path for path in below if not any(path.startswith(f"{other}/") for other in below)]


def lay_out(keep: list[str]) -> None:
    """Empty /tmp and /dev/shm, with what has to stay visible bound back into them."""
    open_directories = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in keep]
    for place in HIDDEN:
        if os.path.isdir(place):
            mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for path, descriptor in open_directories:
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND | MS_REC)
        os.close(descriptor)
    with contextlib.suppress(OSError):
        os.chdir(os.getcwd())  # by its path: the old one is below the hidden mount


# ---------------------------------------------------------------------------------- processes


def restore_signals() -> None:
    """``nohup``, ``cmd &`` in a script and some CI runners start programs that ignore these."""
    for number in RESTORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def die_with_parent(parent: int) -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() not in (parent, 0):
        os._exit(1)


def status_of(wait_status: int) -> int:
    """A shell's: 128 and the signal's number where one ended it."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code


def run(command: list[str], pass_on: tuple[signal.Signals, ...]) -> int:
    """Start it, pass signals on to it, reap whatever else comes, and return its status."""
    child = os.fork()
    if child == 0:
        restore_signals()
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"world.py: {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in pass_on:
        signal.signal(number, lambda received, _: os.kill(child, received))
    while True:
        with contextlib.suppress(ChildProcessError):
            pid, status = os.wait()
            if pid == child:
                return status_of(status)


def be_init(arguments: argparse.Namespace, own: Path | None, keep: list[str], report: int) -> int:
    """PID 1 of the world.  ``report`` gets one byte when the world is there, else the reason why not."""
    try:
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        parts = ["pid"]
        if own and enter_cgroup(own):
            parts.append("cgroup")
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        lay_out(keep)
    except (NoWorldError, OSError) as error:
        os.write(report, f"{error}".encode())
        return NO_WORLD
    os.write(report, b"\0")
    os.close(report)
    if arguments.probe:
        print(" ".join(parts), flush=True)
        return 0
    for name in OF_THE_DESKTOP:
        os.environ.pop(name, None)
    os.environ[MARKER] = " ".join(parts)
    return run(as_caller(arguments), (signal.SIGTERM, signal.SIGHUP))


def as_caller(arguments: argparse.Namespace) -> list[str]:
    """The command; after ``sudo`` as the user who called, with his environment."""
    if not arguments.user:
        return list(arguments.command)
    uid, gid = arguments.user.split(":")
    words = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups", "--inh-caps=-all", "--"]
    return [*words, *arguments.command]


def make_world(arguments: argparse.Namespace) -> tuple[int, str]:
    """(status, "") of the command in a world, or (125, why) where none can be made."""
    keep = worth_keeping(arguments.keep)
    read, write = os.pipe()
    parent = os.getpid()
    with cgroup(arguments.user) as own:
        helper = os.fork()
        if helper == 0:
            # unshare() puts the *next* child in the pid namespace: this process stays outside and waits.
            os.close(read)
            os._exit(_outside(arguments, own, keep, write, parent))
        os.close(write)
        status = attend(helper)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        return status, "" if told == b"\0" else told.decode() or "it ended before it was there"


def _outside(
    arguments: argparse.Namespace, own: Path | None, keep: list[str], write: int, parent: int
) -> int:
    try:
        die_with_parent(parent)
        uid, gid = os.getuid(), os.getgid()
        if uid != 0:
            unshare(CLONE_NEWUSER, "user")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        unshare(CLONE_NEWNS | CLONE_NEWPID, "pid, mount")
    except (NoWorldError, OSError) as error:
        os.write(write, f"{error}".encode())
        return NO_WORLD
    here = os.getpid()
    init = os.fork()
    if init == 0:
        try:
            die_with_parent(here)
            os._exit(be_init(arguments, own, keep, write))
        finally:
            os._exit(1)
    os.close(write)
    return attend(init)


def attend(child: int) -> int:
    """Wait for a child; SIGTERM and SIGHUP go to it, and SIGKILL when it takes too long after one."""

    def pass_on(number: int, _: object) -> None:
        os.kill(child, number)
        signal.alarm(int(GRACE))

    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    return status_of(os.waitpid(child, 0)[1])


# ---------------------------------------------------------------------------------- the command line


def by_sudo() -> list[str]:
    """The start of a command line that runs this program as root, if that needs no password."""
    if os.geteuid() == 0 or not (shutil.which("sudo") and shutil.which("setpriv")):
        return []
    words = ["sudo", "-n", "true"]
    asked = subprocess.run(words, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    if asked.returncode != 0:
        return []
    # sudo changes and removes variables (PATH, HOME, PYTHONPATH, …), whatever it is told to preserve.
    descriptor, path = tempfile.mkstemp(prefix="tmpworld")
    with open(descriptor, "w") as file:
        json.dump(dict(os.environ), file)
    user = f"--user={os.getuid()}:{os.getgid()}"
    return ["sudo", "-n", sys.executable, __file__, user, "--environment", path]


def take_environment(path: Path) -> None:
    """The caller's, which came in a file past sudo."""
    os.environ.clear()
    os.environ.update(json.loads(path.read_text()))
    path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a command in a world of its own.")
    parser.add_argument("--require", action="store_true", help="fail where no world can be made")
    parser.add_argument("--probe", action="store_true", help="say what can be had here")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the caller is killed")
    parser.add_argument("--keep", action="append", default=[], metavar="DIRECTORY")
    parser.add_argument("--environment", help=argparse.SUPPRESS)
    parser.add_argument("--user", default="", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.command[:1] == ["--"]:
        del arguments.command[0]
    if not arguments.command and not arguments.probe:
        parser.error("no command")
    if arguments.die_with_parent:
        die_with_parent(os.getppid())
    if arguments.environment:
        take_environment(Path(arguments.environment))
    if not arguments.user and (again := by_sudo()):
        os.execvp(again[0], [*again, *sys.argv[1:]])
    status, why = make_world(arguments) if sys.platform == "linux" else (NO_WORLD, "only Linux has them")
    if not why:
        return status
    if arguments.probe or arguments.require:
        print(f"world.py: no world can be made here: {why}", file=sys.stderr)
        return 1 if arguments.probe else NO_WORLD
    os.environ[MARKER] = ""
    restore_signals()
    os.execvp(arguments.command[0], arguments.command)
    raise AssertionError("execvp returns only by raising")


if __name__ == "__main__":
    sys.exit(main())
