"""Evidence about drivers and browsers that other code than browserkeeper has started.  Reads only.

Such a process bears no marker, has no record and no lock.  A wrong verdict would end a running test or a
person's browser.  So it is an *orphan* only if each of the checks below holds, each of them by an
answer that cannot be had from a process that is still used; everything else is *listed only*, with
the first check that does not hold.  A check that cannot be made ("could not look") does not hold.
``foreign_profiles.py`` has those of temporary profiles.

A driver:

1. ``user``: all its user ids are ours.  Root judges root's processes only.
2. ``namespace``: it is in our pid namespace and mount namespace.  A container's own sweep judges what is
   in there, also where containers share the pid namespace (a pod, ``--pid=host``); and in another
   mount namespace the path of a profile may be that of another directory.
3. ``program``: the file that it executes is a driver's.  A process can give itself any other name.
4. ``session``: its environment can be read, and has no marker of browserkeeper's.
5. ``age``: it was started at least so many seconds ago.
6. ``parent``: the kernel has given it to PID 1, or to the user's systemd, since its parent is dead.  The
   process session (setsid(2)) proves that: it has the one that its starter had, and it is neither its
   own nor the adopter's.  One of its own has what a service manager or a daemon starts.  In a container
   all have the same; there PID 1 must be an init that starts one command and nothing else (tini), and
   another process must be that command, the oldest child.
7. ``debugger``: no debugger has attached to it or to its browsers.
8. ``starter``: its standard input is a pipe, as Selenium makes one (``Service``: ``stdin=PIPE``), and
   the kernel says that no process has the other end.  The starter had it, so the starter is dead, and
   so is each fork of it.  What is started by hand, by ``nohup`` or a service manager has a terminal, a
   file or ``/dev/null``.
9. ``port``: its port is on its command line, and is one that the kernel gives when it is asked for a
   free one, as Selenium asks.  cron, and a program that gets its input by a pipe, hand a pipe on to a
   driver that they leave on purpose.  Others can use that one only by a port that they know.
10. ``unit``: it is not all that is left of a service of systemd.  That is for ``systemctl stop``.
11. ``tree``: each process below it is a browser or a part of one.  A driver can start other programs
    (Electron), and a browser the user's, which may have windows and data.
12. ``browsers``: each browser below it is headless, has a profile that a driver makes, in the directory
    for temporary files, and a debugging port that it chose itself.  A person may use a window; a profile
    of the user's may be damaged; other programs may know a fixed port.
13. ``clients``: it listens, and for this machine alone; no living process has a TCP connection to a port
    of the driver or its browsers; and, unless an age of 0 is asked for, none has closed one within the
    last minute, for which the kernel remembers it.  The kernel closes those of a dead client, and a
    connection that a fork has inherited is one.

A browser whose driver is gone: 1 to 7, 10, 11 and 13; a standard input that is a pipe must be as in 8;
and

- ``switches``: it was started to be driven: debugging, and as drivers start it.
- ``browsers``: as in 12.
- ``profile``: it is this very process that has that profile locked.

What these checks cannot know: a client that makes a new connection more than a minute after the last
one, to a driver that another program has started and left on purpose.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..drivers import profile_holders
from ..guard.files import CHROMIUM_LOCK
from ..guard.procfs import descendants, exists, hidden_processes, read_bytes
from ..process import own_line, system
from ..process.clients import connections_of, stdin_of, stdin_writer, tracer_of
from ..process.identity import ProcessFacts
from ..process.leftover_processes import MARKER
from .browser_programs import BROWSERS, DRIVERS, HELPER, kind_of
from .temporary_profiles import is_temporary, may_be_a_persons, named_profiles

ONE_COMMAND_INITS = frozenset({"tini", "tini-static", "docker-init", "dumb-init", "catatonit"})
"""Programs for PID 1 of a container that start the command on their command line, and no other."""
_CGROUP = re.compile(r"^(?:0:|\d+:name=systemd):(\S*)$", re.MULTILINE)
"""The cgroup that systemd gives, in ``/proc/PID/cgroup`` (cgroups(7))."""
_USERS_MANAGER = re.compile(r"user@\d+\.service")
"""The service that has all units of a user."""
_FREE_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
_USUAL_PORTS = (4444, 9515)
"""Those of both drivers where none is given.  A wide range of free ports has them, too."""
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
    yield from _checks_of_any(process, lambda name: name.endswith(DRIVERS), older_than)
    browsers = browsers_below(process.pid)
    yield _debugger([process, *browsers])
    yield _starter(process.pid, must_be_pipe=True)
    yield _port(process.pid)
    yield _unit(process)
    yield _tree(process.pid, browsers)
    yield _temporary_browsers(browsers)
    yield _clients(process, browsers, older_than)


def checks_of_browser(process: ProcessFacts, older_than: float) -> Iterator[Check]:
    """Of a browser that descends from no driver."""
    yield _switches(process.pid)
    yield from _checks_of_any(process, BROWSERS.__contains__, older_than)
    yield _debugger([process])
    yield _starter(process.pid, must_be_pipe=False)
    yield _unit(process)
    yield _tree(process.pid, [process])
    yield _temporary_browsers([process])
    yield _own_profile(process.pid)
    yield _clients(process, [process], older_than)


def is_driven(pid: int) -> bool:
    """True if the browser takes commands of other programs; a person's browser does not."""
    return _has_word(pid, _DEBUGGING)


def _checks_of_any(
    process: ProcessFacts, is_right: Callable[[str], bool], older_than: float
) -> Iterator[Check]:
    yield _user(process.pid)
    yield _namespace(process.pid)
    yield _program(process.pid, is_right)
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
    name = "namespace"
    for kind, what in (("pid", "pid namespace"), ("mnt", "mount namespace")):
        try:
            is_ours = os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        except OSError:
            return Check(name, None, f"its {what} could not be read")
        if not is_ours:
            where = "a container, or a service with its own /tmp" if kind == "mnt" else "a container"
            return Check(name, False, f"it is in another {what} ({where}): sweep in there")
    return Check(name, True, "it is in this pid namespace and mount namespace")


def _program(pid: int, is_right: Callable[[str], bool]) -> Check:
    name = system.program(pid)
    if not name:
        return Check("program", None, "the file that it executes could not be read")
    if is_right(name):
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
    if system.program(parent.pid) in ONE_COMMAND_INITS:
        # An init ends with its command, so that one lives; it is older than all that the init adopts.
        others = system.children(parent.pid)
        first = min(others, key=lambda child: (child.identity.start, child.pid), default=process)
        if first.pid == process.pid:
            return Check(name, False, f"it is the command that {who} was started for")
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


def _debugger(processes: Iterable[ProcessFacts]) -> Check:
    name = "debugger"
    for process in processes:
        who, tracer = f"{process.name} (pid {process.pid})", tracer_of(process.pid)
        if tracer is None:
            return Check(name, None, f"whether a debugger has attached to {who} could not be read")
        if tracer:
            return Check(name, False, f"a debugger (pid {tracer}) has attached to {who}")
    return Check(name, True, "no debugger has attached to it")


def _port(pid: int) -> Check:
    name = "port"
    limits = (read_bytes(_FREE_PORTS) or b"").split()
    if len(limits) != 2:
        return Check(name, None, "the range of the ports that the kernel gives could not be read")
    low, high = map(int, limits)
    words = os.fsdecode(system.command_line(pid)).replace("\0", " ")
    found = re.search(r" --port[= ](\d+)(?= |$)", words)
    port = int(found[1]) if found else 0
    if low <= port <= high and port not in _USUAL_PORTS:
        return Check(
            name, True, f"its port, {port}, is one that the kernel gives, as Selenium asks for one"
        )
    which = f"its port, {port}, is not one that the kernel gives" if port else "it was given no port"
    return Check(name, False, f"{which}, so it may have been started for others, who know its port")


def _unit(process: ProcessFacts) -> Check:
    """Services whose other processes live are no obstacle: a worker of one left the driver."""
    cgroups = system.resources(process.pid)
    if not cgroups:
        return Check("unit", None, "its cgroup could not be read")
    service = _service(cgroups)
    if not service:
        return Check("unit", True, "it is in no service of systemd")
    unit = service.rpartition("/")[2]
    tree = {process.pid, *(below.pid for below in system.tree(process.pid))}
    if any(_service(system.resources(pid)) == service for pid in system.pids() if pid not in tree):
        return Check("unit", True, f"other processes of its service {unit} live")
    return Check("unit", False, f"it is all that {unit} has: systemctl stop {unit}")


def _service(cgroups: str) -> str:
    """The cgroup of the service that a process is in, also below it (``Delegate=``); "" for none."""
    for found in _CGROUP.finditer(cgroups):
        parts = found[1].split("/")
        while parts:
            if parts[-1].endswith(".service") and not _USERS_MANAGER.fullmatch(parts[-1]):
                return "/".join(parts)
            parts.pop()
    return ""


def _tree(pid: int, browsers: list[ProcessFacts]) -> Check:
    name = "tree"
    hidden = [below for below, _ in descendants(pid) if system.facts(below) is None and exists(below)]
    if hidden:
        why = hidden_processes() or "its facts cannot be read"
        return Check(name, None, f"a process below it (pid {hidden[0]}) could not be looked at: {why}")
    browsers = [process for process in browsers if system.program(process.pid) in BROWSERS]
    homes = {os.path.dirname(exe) for process in browsers if (exe := _executable(process.pid))}
    known = {process.pid for process in browsers} | {pid}
    for below in system.tree(pid):
        if below.pid not in known and not below.is_zombie and not _is_helper(below.pid, homes):
            return Check(name, False, f"{below.name} (pid {below.pid}) below it is no part of a browser")
    return Check(name, True, "each process below it is a browser's")


def _is_helper(pid: int, homes: set[str]) -> bool:
    """Whether a process below a browser executes a file of that browser's own directory: renderers,
    crash handlers.  Sandboxed ones do not show theirs; they have the word of a helper."""
    if executable := _executable(pid):
        home = os.path.dirname(executable)
        return home in homes and os.path.basename(home) not in ("bin", "sbin")
    return HELPER.search(system.command_line(pid)) is not None


def _executable(pid: int) -> str:
    """The file that a process executes; "" where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _temporary_browsers(browsers: list[ProcessFacts]) -> Check:
    name = "browsers"
    for browser in browsers:
        who = f"{browser.name} (pid {browser.pid})"
        if not system.has_readable_environment(browser.pid) or not system.command_line(browser.pid):
            return Check(name, None, f"the command line or environment of {who} could not be read")
        if not (place := _namespace(browser.pid)).holds:
            return Check(name, place.holds, f"of {who}: {place.seen}")
        if not _is_headless(browser.pid):
            return Check(name, False, f"{who} has windows, which a person may use")
        if why := _lasting_profile(browser.pid):
            return Check(name, False, f"the profile of {who} {why}")
        if port := _known_port(browser.pid):
            return Check(
                name, False, f"other programs may know the debugging port of {who}: {port.decode()}"
            )
    if not browsers:
        return Check(name, True, "it has no browser")
    return Check(name, True, "each browser is headless and has a temporary profile of a driver's making")


def _lasting_profile(pid: int) -> str:
    """Why a browser's profile is not, or may not be, one that a driver has made to remove it."""
    profiles, places = named_profiles(pid), places_of(pid)
    for profile in profiles:
        if not os.path.lexists(profile):
            return f"is not where its command line says, so nothing shows who made it: {profile}"
        if not is_temporary(profile, places) or may_be_a_persons(profile):
            return f"was not made by a driver: {profile}"
    return "" if profiles else "was not made by a driver: the default one"


def _known_port(pid: int) -> bytes:
    """What was given to Chrome as its debugging port; drivers give 0, with which it takes a free one."""
    words = [word.partition(b"=") for word in system.command_line(pid).split(b"\0")]
    return next(
        (value for key, _, value in words if key == b"--remote-debugging-port" and value != b"0"), b""
    )


def _is_headless(pid: int) -> bool:
    return (
        _has_word(pid, _HEADLESS)
        or system.program(pid) in ("headless_shell", "chrome-headless-shell")
        # Of Firefox alone; Chrome opens windows with it.
        or (system.program(pid).startswith("firefox") and bool(system.marker_value(pid, "MOZ_HEADLESS")))
    )


def _switches(pid: int) -> Check:
    if _has_word(pid, (b"--remote-debugging-pipe",)):
        return Check(
            "switches", False, "it is driven by a pipe, and a browser ends with the other end of that"
        )
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


def _clients(process: ProcessFacts, browsers: list[ProcessFacts], older_than: float) -> Check:
    name = "clients"
    required = dict.fromkeys([process.pid, *(browser.pid for browser in browsers)])
    others = [below.pid for below in system.tree(process.pid) if below.pid not in required]
    found = connections_of(required, others)
    if found is None:
        return Check(name, None, "its connections could not be looked at")
    if process.pid not in {pid for pid, _ in found.listening}:
        return Check(name, None, "no port can be seen at which it listens, so its clients would not be")
    for _, (address, port) in found.listening:
        if not address.is_loopback:
            return Check(name, False, f"it listens for other machines, at {address}, port {port}")
    if found.clients:
        return Check(name, False, f"it has a living client: {', '.join(found.clients[:3])}")
    if found.was_closed and older_than > 0:
        return Check(name, False, "a client has closed a connection to it within the last minute")
    return Check(name, True, "no living client is connected to it or its browsers")


__all__ = [
    "Check",
    "browsers_below",
    "checks_of_browser",
    "checks_of_driver",
    "is_driven",
    "places_of",
]
