"""Evidence about drivers and browsers that other code than browserkeeper has started.  Reads only.

Such a process bears no marker, has no record and no lock.  A wrong verdict would end a running test or a
person's browser.  So it is an *orphan* only if each of the checks below holds, each of them by an
answer that cannot be had from a process that is still used; everything else is *listed only*, with
the first check that does not hold.  A check that cannot be made ("could not look") does not hold.

A driver:

1. ``user``: all its user ids are ours.  Root judges root's processes only.
2. ``namespace``: it is in our pid namespace.  A container's own sweep judges what is in there.
3. ``program``: the file that it executes is a driver's.  A process can give itself any other name.
4. ``session``: its environment can be read, and has no marker of browserkeeper's.
5. ``age``: it was started at least so many seconds ago.
6. ``parent``: the kernel has given it to PID 1, or to the user's systemd, since its parent is dead.  The
   process session (setsid(2)) proves that: it has the one that its starter had, and it is neither its
   own nor the adopter's.  One of its own has what a service manager or a daemon starts.  In a container
   all have the same; there PID 1 must be an init that starts one command and nothing else (tini).
7. ``starter``: its standard input is a pipe, as Selenium makes one (``Service``: ``stdin=PIPE``), and
   the kernel says that no process has the other end.  The starter had it, so the starter is dead, and
   so is each fork of it.  What is started by hand, by ``nohup``, cron or a service manager has a
   terminal, a file or ``/dev/null``.
8. ``unit``: it is not all that is left of a service of systemd.  That is for ``systemctl stop``.
9. ``browsers``: each browser below it is headless, and has a profile that a driver makes, in the
   directory for temporary files.  A person may use a window; a profile of the user's may be damaged.
10. ``clients``: no living process has a TCP connection to a port of the driver or its browsers.  The
    kernel closes those of a dead client, and a connection that a fork has inherited is one.

A browser whose driver is gone: 1 to 6, 8 and 10; a standard input that is a pipe must be as in 7; and

- ``switches``: it was started to be driven: debugging, and as drivers start it.
- ``browsers``: it is headless, and has a temporary profile, as in 9.
- ``profile``: it is this very process that has that profile locked.

A temporary profile, or a directory of Chrome's socket:

- ``user``, ``place``: ours, in the directory for temporary files, with the name that drivers give.
- ``content``: it looks like a profile, or has the socket and nothing else.  An empty directory may be
  that of a driver that is at work: nothing names it, so it is listed only.
- ``processes``: no process has a file of it open or mapped, is in it, or names it on its command line.
- ``socket``: the kernel refuses a connection to its socket (ECONNREFUSED), or it has none.  Any other
  answer may be that of a browser, of another container too.  Nothing is sent.
- ``age``: unchanged for so many seconds.
- ``holder``: no browser has its locks, in this container or another (fcntl(2), F_GETLK), and its
  ``SingletonLock`` can be told to be stale.

What these checks cannot know: a client that connects anew for each command, to a driver that another
program has started and left on purpose, is not seen between two commands.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..drivers import profile_holders
from ..guard.files import CHROMIUM_LOCK, CHROMIUM_SOCKET
from ..process import own_line, system
from ..process.clients import clients_of, stdin_of, stdin_writer
from ..process.identity import ProcessFacts
from ..process.leftover_processes import MARKER
from .browser_programs import BROWSERS, DRIVERS, kind_of
from .temporary_profiles import is_temporary, named_profiles

ONE_COMMAND_INITS = frozenset({"tini", "tini-static", "docker-init", "dumb-init", "catatonit"})
"""Programs for PID 1 of a container that start the command on their command line, and no other."""
_UNIT = re.compile(r"^(?:0:|\d+:name=systemd):(\S*\.service)$", re.MULTILINE)
"""The cgroup of a service, in ``/proc/PID/cgroup`` (cgroups(7)); not that of a login session."""
_DEBUGGING = (b"--remote-debugging-", b"-remote-debugging-", b"--marionette", b"-marionette")
_DRIVEN = (b"--test-type=webdriver", b"--enable-automation", b"--marionette", b"-marionette")
_HEADLESS = (b"--headless", b"-headless")


@dataclasses.dataclass(frozen=True)
class Check:
    """One piece of evidence.  ``holds`` is None where it could not be looked at; ``seen`` says what was
    found, as a statement about the process or the directory."""

    name: str
    holds: bool | None
    seen: str


def places_of(pid: int) -> tuple[Path, ...]:
    """The directories for temporary files, as this process and that one have them."""
    other = system.marker_value(pid, "TMPDIR")
    names = dict.fromkeys(filter(None, (tempfile.gettempdir(), other, "/tmp")))
    return tuple(map(Path, names))


def browsers_below(pid: int) -> list[ProcessFacts]:
    """The main processes of the browsers that a driver has started."""
    return [process for process in system.tree(pid) if kind_of(process) == "browser"]


# -------------------------------------------------------------------------- drivers and browsers


def checks_of_driver(process: ProcessFacts, older_than: float) -> Iterator[Check]:
    """Lazily: whoever needs only the first that does not hold pays for no others."""
    yield from _checks_of_any(process, DRIVERS, older_than)
    yield _starter(process.pid, must_be_pipe=True)
    yield _unit(process)
    browsers = browsers_below(process.pid)
    yield _temporary_browsers(browsers)
    yield _clients(process, browsers)


def checks_of_browser(process: ProcessFacts, older_than: float) -> Iterator[Check]:
    """Of a browser that descends from no driver."""
    yield _switches(process.pid)
    yield from _checks_of_any(process, tuple(BROWSERS), older_than)
    yield _starter(process.pid, must_be_pipe=False)
    yield _unit(process)
    yield _temporary_browsers([process])
    yield _own_profile(process.pid)
    yield _clients(process, [process])


def is_driven(pid: int) -> bool:
    """True if the browser takes commands of other programs; a person's browser does not."""
    return _has_word(pid, _DEBUGGING)


def _checks_of_any(
    process: ProcessFacts, programs: tuple[str, ...], older_than: float
) -> Iterator[Check]:
    yield _user(process.pid)
    yield _namespace(process.pid)
    yield _program(process.pid, programs)
    yield _session(process.pid)
    age = system.now() - process.identity.start
    yield Check("age", age >= older_than, f"it is {age:.0f} s old (the limit is {older_than:.0f} s)")
    yield _parent(process)


def _user(pid: int) -> Check:
    users = system.users(pid)
    if not users:
        return Check("user", None, "its user could not be read")
    names = ", ".join(map(str, sorted(users)))
    if users == {os.geteuid()}:
        return Check("user", True, f"it runs as this user (uid {names})")
    return Check("user", False, f"it runs as another user (uid {names}), whose sweep can judge it")


def _namespace(pid: int) -> Check:
    if system.is_in_our_namespace(pid):
        return Check("namespace", True, "it is in this pid namespace")
    try:
        os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return Check("namespace", None, "its pid namespace could not be read")
    return Check("namespace", False, "it is in another pid namespace (a container): sweep in there")


def _program(pid: int, programs: tuple[str, ...]) -> Check:
    name = system.program(pid)
    if not name:
        return Check("program", None, "the file that it executes could not be read")
    if name.endswith(programs):
        return Check("program", True, f"it executes {name}")
    return Check("program", False, f"it executes {name}, which only has another's name")


def _session(pid: int) -> Check:
    if not system.has_readable_environment(pid):
        return Check("session", None, "its environment could not be read")
    if session := system.marker_value(pid, MARKER):
        return Check("session", False, f"it bears the marker of browserkeeper's session {session}")
    return Check("session", True, "it bears no marker of browserkeeper's")


def _parent(process: ProcessFacts) -> Check:
    name = "parent"
    if process.pid in {identity.pid for identity in own_line()}:
        return Check(name, False, "this program descends from it")
    parent = system.facts(process.parent)
    if parent is None:
        return Check(name, None, f"its parent (pid {process.parent}) could not be looked at")
    who = f"{parent.name} (pid {parent.pid})"
    if not _is_adopter(parent):
        return Check(name, False, f"its parent lives: {who}")
    if process.session == process.pid:
        return Check(name, False, f"it has a process session of its own: {who} or a daemon started it")
    if process.session not in (0, parent.session):
        seen = f"its parent is dead: {who} has adopted it from process session {process.session}"
        return Check(name, True, seen)
    words = system.command_line(parent.pid)
    if system.program(parent.pid) in ONE_COMMAND_INITS and not any(d.encode() in words for d in DRIVERS):
        return Check(name, True, f"its parent is dead: {who}, which starts one other command, has it")
    return Check(name, False, f"nothing says that {who} has adopted it: it may have started it")


def _is_adopter(parent: ProcessFacts) -> bool:
    """PID 1, or the user's own systemd, which is a subreaper."""
    if parent.pid == 1:
        return True
    is_systemd = system.program(parent.pid) == "systemd" and system.users(parent.pid) == {os.geteuid()}
    return is_systemd and b"--user" in system.command_line(parent.pid).split(b"\0")


def _starter(pid: int, *, must_be_pipe: bool) -> Check:
    name, writer = "starter", stdin_writer(pid)
    if writer == "unknown":
        return Check(name, None, "its standard input could not be looked at")
    if writer == "none":
        return Check(name, True, "no process has the other end of its standard input any more")
    if writer == "some":
        return Check(name, False, "some process still has the other end of its standard input")
    what = f"its standard input is {stdin_of(pid)}"
    if not must_be_pipe:
        return Check(name, True, f"{what}, as drivers start browsers")
    return Check(name, False, f"{what} and no pipe, so it may have been started to be left alone")


def _unit(process: ProcessFacts) -> Check:
    """Services whose other processes live are no obstacle: a worker of one left the driver."""
    cgroups = system.resources(process.pid)
    if not cgroups:
        return Check("unit", None, "its cgroup could not be read")
    found = _UNIT.search(cgroups)
    if found is None:
        return Check("unit", True, "it is in no service of systemd")
    unit = found[1].rpartition("/")[2]
    tree = {process.pid, *(below.pid for below in system.tree(process.pid))}
    if any(system.resources(pid) == cgroups for pid in system.pids() if pid not in tree):
        return Check("unit", True, f"other processes of its service {unit} live")
    return Check("unit", False, f"it is all that {unit} has: systemctl stop {unit}")


def _temporary_browsers(browsers: list[ProcessFacts]) -> Check:
    name = "browsers"
    for browser in browsers:
        who = f"{browser.name} (pid {browser.pid})"
        if not system.has_readable_environment(browser.pid) or not system.command_line(browser.pid):
            return Check(name, None, f"the command line or environment of {who} could not be read")
        if not _is_headless(browser.pid):
            return Check(name, False, f"{who} has windows, which a person may use")
        profiles, places = named_profiles(browser.pid), places_of(browser.pid)
        if not profiles or not all(is_temporary(profile, places) for profile in profiles):
            which = ", ".join(map(str, profiles)) or "the default one"
            return Check(name, False, f"the profile of {who} was not made by a driver: {which}")
    if not browsers:
        return Check(name, True, "it has no browser")
    return Check(name, True, "each browser is headless and has a temporary profile of a driver's making")


def _is_headless(pid: int) -> bool:
    return (
        _has_word(pid, _HEADLESS)
        or system.program(pid) in ("headless_shell", "chrome-headless-shell")
        or bool(system.marker_value(pid, "MOZ_HEADLESS"))
    )


def _switches(pid: int) -> Check:
    if _has_word(pid, _DEBUGGING) and _has_word(pid, _DRIVEN):
        return Check("switches", True, "it was started by a driver, by its command line")
    return Check("switches", False, "it was not started by a driver, by its command line")


def _has_word(pid: int, beginnings: tuple[bytes, ...]) -> bool:
    return any(word.startswith(beginnings) for word in system.command_line(pid).split(b"\0"))


def _own_profile(pid: int) -> Check:
    """A browser that names a profile need not have it: another one may have been there first."""
    name = "profile"
    for profile in named_profiles(pid):
        try:
            target = os.readlink(profile / CHROMIUM_LOCK)
        except OSError:
            target = ""
        if target == f"{os.uname().nodename}-{pid}":
            return Check(name, True, f"it has locked {profile}")
        try:
            if profile_holders.owner_of_lock(profile / ".parentlock") == pid:
                return Check(name, True, f"it has locked {profile}")
        except OSError:
            continue
    return Check(name, False, "it has not locked the profile that it names")


def _clients(process: ProcessFacts, browsers: list[ProcessFacts]) -> Check:
    required = dict.fromkeys([process.pid, *(browser.pid for browser in browsers)])
    others = [below.pid for below in system.tree(process.pid) if below.pid not in required]
    clients = clients_of(required, others)
    if clients is None:
        return Check("clients", None, "its connections could not be looked at")
    if clients:
        return Check("clients", False, f"it has a living client: {', '.join(clients[:3])}")
    return Check("clients", True, "no living client is connected to it or its browsers")


# ---------------------------------------------------------------------------- temporary profiles

_CHROMIUM_SIGNS = frozenset({"Local State", "Default", "DevToolsActivePort", "First Run"})
_FIREFOX_SIGNS = frozenset({"prefs.js", "user.js", "times.json", "MarionetteActivePort"})
_SOCKET_NAMES = frozenset({"SingletonSocket", "SingletonCookie"})


class ProfileUsers:
    """One look at all processes: which directories they use, and which of them could not be looked into.

    O(host).  ``unreadable`` are processes of this user only: another user's cannot write to a profile.
    """

    def __init__(self, paths: list[Path]):
        self.unreadable: list[int] = []
        self._users: dict[Path, list[int]] = {path: [] for path in paths}
        for pid in system.pids() if paths else ():
            self._look(pid)

    def of(self, path: Path) -> list[int]:
        return self._users.get(path, [])

    def _look(self, pid: int) -> None:
        if pid == os.getpid():
            return
        names = [os.fsdecode(system.command_line(pid))]
        try:
            links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            with open(f"/proc/{pid}/maps", errors="replace") as maps:
                names.append(maps.read())
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return
        except OSError:
            if system.users(pid) == {os.geteuid()}:
                self.unreadable.append(pid)
            links = []
        for link in (*links, f"/proc/{pid}/cwd", f"/proc/{pid}/root"):
            try:
                names.append(os.readlink(link))
            except OSError:
                continue
        text = "\n".join(names)
        for path, users in self._users.items():
            if any(_names(spelling, text) for spelling in {str(path), os.path.realpath(path)}):
                users.append(pid)


def _names(path: str, text: str) -> bool:
    """Whether the text has the path, and not that of a directory whose name begins the same."""
    return path in text and re.search(re.escape(path) + r"(?![\w.-])", text) is not None


def checks_of_profile(path: Path, older_than: float, users: ProfileUsers, now: float) -> Iterator[Check]:
    """``now`` is in seconds since the epoch.  Blocks for up to 3 s where a lock is young."""
    facts = path.lstat()
    uid = facts.st_uid
    if uid != os.geteuid():
        yield Check("user", False, f"it belongs to another user (uid {uid}), whose sweep can judge it")
        return
    yield Check("user", True, f"it belongs to this user (uid {uid})")
    yield _content(path)
    age = max(0.0, now - facts.st_mtime)
    seen = f"it was changed {age:.0f} s ago (the limit is {older_than:.0f} s)"
    yield _no_process(path, users)
    yield _no_listener(path)
    yield Check("age", age >= older_than, seen)
    yield _no_holder(path, users)


def _content(path: Path) -> Check:
    try:
        names = set(os.listdir(path))
    except OSError as error:
        return Check("content", None, f"it could not be looked into ({error.strerror})")
    if not names:
        return Check("content", None, "it is empty, and nothing says whether its driver lives")
    if names & _FIREFOX_SIGNS or names & _CHROMIUM_SIGNS:
        return Check("content", True, "it is a browser's profile")
    if names <= _SOCKET_NAMES:
        return Check("content", True, "it has the socket of a browser, and nothing else")
    return Check("content", False, "it does not look like a browser's profile")


def _no_process(path: Path, users: ProfileUsers) -> Check:
    if pids := users.of(path):
        found = (system.facts(pid) for pid in pids[:3])
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in found if process)
        return Check("processes", False, f"a process uses it: {names or pids}")
    return Check("processes", True, "no process that can be seen uses it")


def _no_listener(path: Path) -> Check:
    """connect(2) follows a link, as a profile has one to the socket; ``/proc/self/fd`` since a path to a
    socket must be short (unix(7))."""
    name = "socket"
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{directory}/{CHROMIUM_SOCKET}")
    except FileNotFoundError:
        return Check(name, True, "it has no socket")
    except ConnectionRefusedError:
        return Check(name, True, "no process listens at its socket")
    except BlockingIOError:  # its queue is full
        return Check(name, False, "a browser listens at its socket")
    except OSError as error:
        return Check(name, None, f"its socket could not be asked ({error.strerror})")
    finally:
        os.close(directory)
    return Check(name, False, "a browser listens at its socket")


def _no_holder(path: Path, users: ProfileUsers) -> Check:
    name = "holder"
    finders: tuple[Callable[[Path], profile_holders.Finding], ...] = (
        profile_holders.chromium,
        profile_holders.firefox,
    )
    for finder in finders:
        if holder := finder(path).holder:
            return Check(name, False, f"{holder} has it")
    try:
        owner = profile_holders.owner_of_databases(path)
    except OSError as error:
        return Check(name, None, f"its locks could not be asked ({error.strerror})")
    if owner is not None:
        return Check(name, False, f"process {owner or 'of another container'} has locked its databases")
    if users.unreadable and not profile_holders.has_locks(path):
        number = len(users.unreadable)
        seen = f"it has no lock to ask, and {number} processes of this user could not be looked into"
        return Check(name, None, seen)
    return Check(name, True, "no browser has its locks")


__all__ = [
    "Check",
    "ProfileUsers",
    "browsers_below",
    "checks_of_browser",
    "checks_of_driver",
    "checks_of_profile",
    "is_driven",
    "places_of",
]
