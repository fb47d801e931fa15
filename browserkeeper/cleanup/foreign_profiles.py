"""Evidence about temporary profiles that other code than browserkeeper has left.  Reads only.

A profile, or a directory of Chrome's socket, is an *orphan* only if each of these checks holds:

- ``user``: it is this user's.
- ``name``: its name is one that a driver gives, and not one that a person may have given.
- ``place``: its file system is not shared with other machines, whose browsers would not be seen here.
- ``content``: it looks like a profile, or has the socket and nothing else.  An empty directory may be
  that of a driver that is at work: nothing names it, so it is listed only.
- ``processes``: no process has a file of it open or mapped, is in it, or names it on its command line.
- ``socket``: the kernel refuses a connection to its socket (ECONNREFUSED), or it has none.  Any other
  answer may be that of a browser, of another container too.  Nothing is sent.
- ``age``: unchanged for so many seconds.
- ``holder``: no browser has its locks, in this container or another (fcntl(2), F_GETLK), and its
  ``SingletonLock`` can be told to be stale.  Where ``/proc`` hides processes, it must have such locks.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ..drivers import profile_holders
from ..guard.files import CHROMIUM_SOCKET
from ..guard.procfs import hidden_processes, living_thread
from ..process import system
from .foreign_evidence import Check
from .temporary_profiles import may_be_a_persons

_CHROMIUM_SIGNS = frozenset({"Local State", "Default", "DevToolsActivePort", "First Run"})
_FIREFOX_SIGNS = frozenset({"prefs.js", "user.js", "times.json", "MarionetteActivePort"})
_SOCKET_NAMES = frozenset({"SingletonSocket", "SingletonCookie"})


class ProfileUsers:
    """One look at all processes: which directories they use, and which of them could not be looked into.

    O(host).  ``unreadable`` are processes of this user only: another user's cannot write to a profile.
    ``hidden`` says why ``/proc`` hides some of this user's, "" where it hides none.
    """

    def __init__(self, paths: list[Path]):
        self.unreadable: list[int] = []
        self.hidden = hidden_processes()
        self._users: dict[Path, list[int]] = {path: [] for path in paths}
        for pid in system.pids() if paths else ():
            self._look(pid)

    def of(self, path: Path) -> list[int]:
        return self._users.get(path, [])

    def _look(self, pid: int) -> None:
        if pid == os.getpid():
            return
        names = [os.fsdecode(system.command_line(pid))]
        place = f"/proc/{pid}"
        try:
            if not (files := os.listdir(f"{place}/fd")) and (thread := living_thread(pid)):
                place, files = thread, os.listdir(f"{thread}/fd")
            links = [f"{place}/fd/{fd}" for fd in files]
            with open(f"{place}/maps", errors="replace") as maps:
                names.append(maps.read())
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return
        except OSError:
            if system.users(pid) == {os.geteuid()}:
                self.unreadable.append(pid)
            links = []
        for link in (*links, f"{place}/cwd", f"{place}/root"):
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
    if may_be_a_persons(path):
        yield Check("name", False, "its name may have been given by a person, and not by a driver")
        return
    yield Check("name", True, "it has a name that drivers give")
    yield _place(path)
    yield _content(path)
    age = max(0.0, now - facts.st_mtime)
    seen = f"it was changed {age:.0f} s ago (the limit is {older_than:.0f} s)"
    yield _no_process(path, users)
    yield no_listener(path)
    yield Check("age", age >= older_than, seen)
    yield _no_holder(path, users)


def _place(path: Path) -> Check:
    if obstacle := profile_holders.obstacle_to_look(path):
        return Check("place", None, f"whether a browser has it cannot be told here: {obstacle}")
    return Check("place", True, "no other machine shares its file system")


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


def no_listener(path: Path) -> Check:
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
    if (users.unreadable or users.hidden) and not profile_holders.has_locks(path):
        number = len(users.unreadable)
        why = users.hidden or f"{number} processes of this user could not be looked into"
        return Check(name, None, f"it has no lock to ask, and {why}")
    return Check(name, True, "no browser has its locks")


__all__ = ["ProfileUsers", "checks_of_profile", "no_listener"]
