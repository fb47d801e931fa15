"""What plain Selenium has left: drivers and browsers whose program is dead, and their profiles.

``foreign_evidence.py`` has the rules and the checks.  Here: which processes and directories are judged,
the verdict, and the end of an orphan.  Each is judged anew right before it is ended or removed, and each
signal goes to a pidfd whose start time is compared (``process.linux.send_signal``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from ..errors import ContainmentError
from ..guard.procfs import hidden_processes
from ..guard.trees import try_to_remove
from ..process import require_own_proc, system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.leftover_processes import MARKER, LeftoverProcesses
from ..state.ledger import Ledger
from ..state.records import Record
from .browser_programs import DRIVERS, kind_of
from .foreign_evidence import (
    Check,
    browsers_below,
    checks_of_browser,
    checks_of_driver,
    is_driven,
    places_of,
)
from .foreign_profiles import ProfileUsers, checks_of_profile, no_listener
from .temporary_profiles import PROFILES, profiles_of

USUAL_AGE = 600.0
"""Seconds for which a driver is left alone, unless the caller says otherwise."""
PROFILE_AGE = 60.0
"""Seconds for which a profile is left alone in any case: it is made before a browser locks it."""
KILL_DEADLINE = 10.0
"""Seconds that the processes of one driver may take to end."""
USERS_PATIENCE = 5.0
"""Seconds after that for which a profile may still be in use."""
USERS_PAUSE = 0.1
"""Seconds between two looks at who uses it."""

Kind = Literal["driver", "browser", "profile", "zombie"]
Verdict = Literal["orphan", "listed only"]


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A driver with all that is below it, a browser without a driver, a profile, or a zombie.

    ``checks`` are those that were made: all of them hold where the ``verdict`` is ``orphan``; else the
    last one does not, and ``why`` repeats what it has seen.  ``age`` is in seconds.  ``removed``: the
    processes were ended and the files removed; ``problem`` says why they, or a part of them, were not.
    """

    kind: Kind
    what: str
    age: float
    verdict: Verdict
    why: str
    checks: tuple[Check, ...]
    root: ProcessFacts | None = None
    processes: tuple[ProcessFacts, ...] = ()
    files: tuple[str, ...] = ()
    removed: bool = False
    problem: str = ""


class ForeignSweep:
    """One pass.  ``not_seen`` names what could not be looked at, as sentences.

    Raises ContainmentError where the processes cannot be judged from here, and LedgerError where the
    state directory, which names the processes of browserkeeper's own sessions, cannot be used.
    """

    def __init__(self, ledger: Ledger, older_than: float = USUAL_AGE):
        if sys.platform != "linux":
            raise ContainmentError("What other code has left can be judged on Linux only.")
        require_own_proc()
        self._older_than = older_than
        self._ours = _recorded(ledger)
        self.not_seen: list[str] = [hidden] if (hidden := hidden_processes()) else []

    # -- finding

    def find(self) -> list[Foreign]:
        """All drivers, driven browsers, unused profiles and zombies, with their verdicts.  O(host).

        Not among them: what bears a marker of browserkeeper's, a browser that takes no commands of
        programs, a profile that a process uses.
        """
        everyone = list(system.everyone())
        return [*self._processes(everyone), *self._profiles(), *_zombies(everyone)]

    def _processes(self, everyone: Iterable[ProcessFacts]) -> Iterator[Foreign]:
        living = [(p, kind_of(p)) for p in everyone if not p.is_zombie]
        drivers = [p for p, kind in living if kind == "driver"]
        below = {p.pid for driver in drivers for p in system.tree(driver.pid)}
        others = [p for p, kind in living if kind == "browser" and is_driven(p.pid)]
        kinds: tuple[tuple[Literal["driver", "browser"], list[ProcessFacts]], ...]
        kinds = ("driver", drivers), ("browser", others)
        for kind, processes in kinds:
            for process in processes:
                if process.pid in below or self._is_ours(process):
                    continue
                found = self.judge(process, kind)
                if _is_same(process):  # else it has ended while it was looked at
                    yield found

    def _is_ours(self, process: ProcessFacts) -> bool:
        """Whether browserkeeper manages it: the ordinary sweep judges that."""
        is_recorded = any(map(process.identity.is_same_as, self._ours))
        return is_recorded or system.marker_value(process.pid, MARKER) is not None

    def judge(self, process: ProcessFacts, kind: Literal["driver", "browser"]) -> Foreign:
        """The verdict on a driver, or on a browser that descends from none."""
        checks_of = checks_of_driver if kind == "driver" else checks_of_browser
        checks = _until_one_fails(checks_of(process, self._older_than))
        tree = (process, *system.tree(process.pid))
        if checks[-1].holds and not _is_same(process):
            checks = *checks, Check("process", False, "it has ended while it was looked at")
        browsers = [process] if kind == "browser" else browsers_below(process.pid)
        places = places_of(process.pid)
        files = {str(path): None for one in browsers for path in profiles_of(one.pid, places)}
        return Foreign(
            kind,
            f"{system.program(process.pid) or process.name} (pid {process.pid})",
            max(0.0, system.now() - process.identity.start),
            *_verdict(checks),
            checks,
            process,
            tree,
            tuple(files) if checks[-1].holds else (),
        )

    def _profiles(self) -> Iterator[Foreign]:
        paths = [path for place in places_of(os.getpid()) for path in _candidates(place)]
        users = ProfileUsers(paths)
        if users.unreadable:
            number = len(users.unreadable)
            self.not_seen.append(f"the open files of {number} processes of this user cannot be read")
        for path in paths:
            found = self._judge_profile(path, users)
            if found is None:
                continue
            last = found.checks[-1]
            is_used = last.holds is False and last.name in ("processes", "socket")
            if not is_used:
                yield found

    def _judge_profile(self, path: Path, users: ProfileUsers) -> Foreign | None:
        """None where it is gone."""
        limit, now = max(self._older_than, PROFILE_AGE), time.time()
        try:
            age = max(0.0, now - path.lstat().st_mtime)
            checks = _until_one_fails(checks_of_profile(path, limit, users, now))
        except OSError as error:
            if not os.path.lexists(path):
                return None
            age, checks = 0.0, (Check("content", None, f"it could not be looked at: {error}"),)
        return Foreign("profile", str(path), age, *_verdict(checks), checks, files=(str(path),))

    # -- ending

    def end(self, found: Foreign) -> Foreign:
        """End an orphan: SIGKILL to its processes, then its profiles are removed.

        Blocks for about KILL_DEADLINE and USERS_PATIENCE at most.  It is judged anew first; where it is
        no orphan any more, what is returned says why, and nothing was done.
        """
        if found.verdict != "orphan":
            return found
        if found.root is None:
            return self._remove_profile(Path(found.what))
        now = system.facts(found.root.pid)
        if now is None or now.is_zombie or not found.root.identity.is_same_as(now.identity):
            return dataclasses.replace(found, verdict="listed only", why="it has ended by itself")
        again = self.judge(now, "driver" if found.kind == "driver" else "browser")
        if again.verdict != "orphan":
            return _kept(again)
        # Only the root: those below it are found anew, since their pids may be others' by now.
        leftovers = LeftoverProcesses([found.root.identity])
        survivors = leftovers.end(KILL_DEADLINE)
        ended = tuple(process for process in leftovers.seen.values() if process is not None)
        again = dataclasses.replace(again, processes=ended)
        if survivors:
            names = ", ".join(f"{process.name} (pid {process.pid})" for process in survivors[:3])
            problem = f"still alive: {names}; its files are kept"
            return dataclasses.replace(again, problem=problem)
        with _opened([Path(name) for name in again.files]) as directories:
            return _without(again, directories)

    def _remove_profile(self, path: Path) -> Foreign:
        with _opened([path]) as directories:
            again = self._judge_profile(path, ProfileUsers([path]))
            if again is None or path not in directories:
                gone = Check("content", False, "it is gone")
                return Foreign("profile", str(path), 0.0, "listed only", gone.seen, (gone,))
            return _without(again, directories) if again.verdict == "orphan" else _kept(again)


def _kept(found: Foreign) -> Foreign:
    """What was an orphan in the list, and is none in the judgement right before its end."""
    return dataclasses.replace(found, problem=f"not ended any more: {found.why}")


def _is_same(process: ProcessFacts) -> bool:
    now = system.facts(process.pid)
    return now is not None and process.identity.is_same_as(now.identity)


def _recorded(ledger: Ledger) -> list[ProcessIdentity]:
    """The processes of browserkeeper's sessions, drivers included that it has adopted."""
    records = [record for record in ledger.records() if isinstance(record, Record)]
    return [identity for record in records for identity, _ in record.processes]


def _until_one_fails(checks: Iterator[Check]) -> tuple[Check, ...]:
    made = []
    for check in checks:
        made.append(check)
        if not check.holds:
            break
    return tuple(made)


def _verdict(checks: tuple[Check, ...]) -> tuple[Verdict, str]:
    return ("orphan", "") if checks[-1].holds else ("listed only", checks[-1].seen)


def _candidates(place: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return []
    paths = [place / name for name in names if PROFILES.fullmatch(name)]
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


@contextlib.contextmanager
def _opened(paths: list[Path]) -> Iterator[dict[Path, int]]:
    """Descriptors of those that are there, no link and this user's: another directory that is put in the
    place of one is left alone."""
    with contextlib.ExitStack() as stack:
        found = {}
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            stack.callback(os.close, fd)
            if os.fstat(fd).st_uid == os.geteuid():
                found[path] = fd
        yield found


def _without(found: Foreign, directories: dict[Path, int]) -> Foreign:
    """Remove its files; those that a process uses are kept."""
    users = _lasting_users(list(directories))
    problems = []
    for path, fd in directories.items():
        try:
            listener = no_listener(path)
        except OSError as error:  # it is gone, or another thing is in its place
            problems.append(f"{path} was not removed: {error}")
            continue
        if pids := users.of(path):
            problems.append(f"{path} is kept: process {pids[0]} uses it")
        elif not listener.holds:
            problems.append(f"{path} is kept: {listener.seen}")
        elif left := try_to_remove(str(path), fd)[2]:
            problems.append(f"{path} was not removed: {left}")
    return dataclasses.replace(found, removed=not problems, problem="; ".join(problems))


def _lasting_users(paths: list[Path]) -> ProfileUsers:
    """Who uses these directories, also after USERS_PATIENCE: some processes that a browser has started,
    and that are no descendants of it, end after it."""
    until = time.monotonic() + USERS_PATIENCE
    while True:
        users = ProfileUsers(paths)
        if not any(map(users.of, paths)) or time.monotonic() > until:
            return users
        time.sleep(USERS_PAUSE)


def _zombies(everyone: Iterable[ProcessFacts]) -> Iterator[Foreign]:
    """Those of this user that are named like a driver or a browser and are still there, by parent."""
    by_parent: dict[int, list[ProcessFacts]] = {}
    for process in everyone:
        if not process.is_zombie or not (process.name.endswith(DRIVERS) or kind_of(process)):
            continue
        now = system.facts(process.pid)
        is_there = now is not None and process.identity.is_same_as(now.identity)
        if now is not None and is_there and system.users(process.pid) == {os.geteuid()}:
            by_parent.setdefault(now.parent, []).append(now)
    for pid, zombies in by_parent.items():
        parent = system.facts(pid)
        who = f"{parent.name} (pid {pid})" if parent else f"its parent (pid {pid})"
        check = Check("zombie", False, f"ended already, so no signal helps: {who} has to reap")
        first = min(zombies, key=lambda zombie: zombie.identity.start)
        more = f" and {len(zombies) - 1} more" if len(zombies) > 1 else ""
        what = f"{first.name} (pid {first.pid}){more}"
        age = max(0.0, system.now() - first.identity.start)
        yield Foreign("zombie", what, age, "listed only", check.seen, (check,), processes=tuple(zombies))


__all__ = ["KILL_DEADLINE", "USUAL_AGE", "Foreign", "ForeignSweep"]
