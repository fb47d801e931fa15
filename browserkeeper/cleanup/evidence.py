"""Evidence about a session, its owner and its files.  Functions here read; they change nothing.

This module decides whether a session is alive, dead, or not ours to judge.  The rules:

1. **Alive means that the lock is held.**  Both guards hold the session's lock (``state/locks.py``), and
   the kernel lets go of it when they die.  The lock is asked first.  A lock that cannot be asked (no
   permission, file missing, no such lock on this file system) means: not ours to judge.
2. **An identity is whole or it says nothing.**  A recorded pid means a process here only where machine,
   boot, pid namespace, the start time of that namespace's PID 1 and the user are all known and equal
   (``process.identity.Host``).  Records of versions without locks are judged by this alone.
3. **Two witnesses before a kill.**  A free lock, and for each process one of: its recorded identity;
   descent from one; the session's marker together with being its orphan
   (``process.leftover_processes.MarkedOrphans``).
4. **A free lock and no pids.**  A session of a killed container has a free lock, but its pids mean
   nothing here.  No process is ended for it: its files and its record are removed.  The same goes for
   an earlier boot of this machine.

What is not ours to judge is left alone, and named with the reason.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..guard.files import is_session_directory
from ..process import Platform, is_alive, system
from ..process.containment import leaf_name
from ..process.identity import INITIAL_NAMESPACE, Host
from ..process.leftover_processes import MARKER, LeftoverProcesses, MarkedOrphans
from ..state.locks import SHORT, Answer, ask, fits, last_look
from ..state.records import Record, Session
from ..state.tmpdirs import roots, session_of

State = Literal["live", "unguarded", "orphaned", "ending", "foreign"]
OwnerState = Literal["alive", "dead", "foreign"]
Scope = Literal["here", "ended-with-boot", "ended-with-namespace", "unseen"]

NEXT_LOOK = 5.0
"""Seconds after a look until the guards look again: the longest pause (``guard.guard.SAMPLES``).  Not
more: what starts later may have started after their death, and then it is not the session's."""


SILENCE = 600.0
"""Seconds without a sign of life after which a session, or a pool, that cannot be seen counts as dead.
Before, whoever can see it comes first: an owner that lives ends a session whose guards were killed, and
so does a sweep in its pid namespace."""

CLOCK_SKEW = 60.0
"""Seconds by which the clocks of two machines with the same id (a copied disk) may differ.  The guards
of a live session write each 5 s at the latest."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of a session.

    ``state``:

    - ``live``: the owner and a guard live.
    - ``unguarded``: the owner lives, both guards are dead.
    - ``ending``: the owner is dead and a guard lives, which ends the session.
    - ``orphaned``: both guards are dead, and so is the owner as far as it can be seen from here.
    - ``foreign``: not ours to judge; ``why`` says the reason.

    ``scope`` says of the processes of an orphaned session: ``here``: they can be looked for;
    ``ended-with-boot`` and ``ended-with-namespace``: the kernel has ended them all, since the machine
    was started anew, or since PID 1 of their pid namespace is gone (pid_namespaces(7)); ``unseen``: they
    are or were in a pid namespace that cannot be looked into.
    """

    state: State
    scope: Scope = "here"
    why: str = ""


def verdict_of(record: Record, patience: float = SHORT) -> Verdict:
    """Whether the session is alive, dead, or not ours to judge.  O(host) for another pid namespace.

    ``patience``: seconds for which its lock is asked again while it is held.
    """
    here, there = system.host(), record.session.place
    answer = ask_lock_of(record, patience)
    if answer.state == "unknown":
        return Verdict("foreign", why=answer.why)
    guarded = answer.state == "held"
    if guarded and not there.is_same_as(here):
        return Verdict("foreign", why="a guard of it lives, which is none of this pid namespace")
    if why := _obstacle(here, there):
        return Verdict("foreign", why=why)
    if there.is_same_as(here):
        # A guard that could not take the lock (a file system without one) has removed the file.  One
        # that lives by its identity all the same is believed to.
        platform = platform_of(record.session)
        guarded = guarded or any(is_alive(guard, platform) for guard in record.guards)
        if is_alive(record.session.owner):
            return Verdict("live" if guarded else "unguarded")
        return Verdict("ending" if guarded else "orphaned")
    if not there.is_same_boot_as(here):
        return _verdict_on_earlier_boot(record)
    return _verdict_on_other_namespace(record, here, there)


def ask_lock_of(record: Record, patience: float = SHORT) -> Answer:
    """Whether a guard holds the session's lock; ``free`` for a record of a version without locks.

    Where the state directory was copied, the copy of a lock is held by no guard.  So the path in the
    record is asked too, where it names another file.
    """
    if record.lock is None:
        return Answer("free")
    answer, recorded = ask(record.lock, patience), Path(record.session.lock)
    if answer.state == "free" and recorded != record.lock and fits(recorded, record.session.id):
        return Answer("held") if ask(recorded).state == "held" else answer
    return answer


def state_of(record: Record) -> State:
    """The state in :func:`verdict_of`."""
    return verdict_of(record).state


def _obstacle(here: Host, there: Host) -> str:
    """Why the two hosts cannot be compared, or are two machines or users; "" where neither is so."""
    if missing := here.missing_parts():
        return f"this process cannot read the {' and the '.join(missing)} of its own host"
    if missing := there.missing_parts():
        return f"its record does not have the {' and the '.join(missing)}"
    if not there.is_same_machine_as(here):
        if here.is_machine_unnamed:
            return "it is of another machine, or of an earlier boot of this one, which has no machine id"
        return "it is of another machine"
    if there.uid not in (-1, here.uid):
        return f"it is of another user (uid {there.uid})"
    return ""


def _verdict_on_earlier_boot(record: Record) -> Verdict:
    """Another boot id alone does not say that the boot is over: a container may have one of its own."""
    if _last_sign(record) < min(system.booted(), time.time() - CLOCK_SKEW):
        return Verdict("orphaned", "ended-with-boot")
    return Verdict(
        "foreign",
        why="it is of another boot, and was written after this machine was started, or a moment ago",
    )


def _verdict_on_other_namespace(record: Record, here: Host, there: Host) -> Verdict:
    if record.lock is None:
        return Verdict("foreign", why="it is of another pid namespace, and has no lock to ask")
    if system.is_namespace_in_use(there.namespace, there.init_start):
        return Verdict("foreign", why="its pid namespace is in use: a sweep in there can end it")
    # Two namespaces never share a number at a time, so one with the number of ours is gone.
    if _sees_all_processes(here) or here.namespace == there.namespace:
        return Verdict("orphaned", "ended-with-namespace")
    if _last_sign(record) > time.time() - SILENCE:
        return Verdict("foreign", why="its owner may live in a pid namespace that cannot be looked into")
    return Verdict("orphaned", "unseen")


def _sees_all_processes(here: Host) -> bool:
    """True for root in the initial pid namespace."""
    return here.namespace == INITIAL_NAMESPACE and here.uid == 0


def _last_sign(record: Record) -> float:
    """When a guard last wrote, in seconds since the epoch; now where a file is gone.

    A guard writes into its lock at each look at its processes.  That can be seen also where the file
    system does not show the locks of other machines.
    """
    try:
        return max(path.stat().st_mtime for path in (record.path, record.lock) if path)
    except OSError:
        return time.time()


def is_of_this_boot(record: Record) -> bool:
    """Whether the record's pids mean the same processes here."""
    return record.session.place.is_same_as(system.host())


def platform_of(session: Session) -> Platform:
    """The platform functions whose clock the session's start times were read from."""
    if session.containment != "portable":
        return system
    from ..process import portable  # imports psutil: 35 ms that other sessions need not pay

    return portable


def leftover_processes_of(record: Record, *, with_guards: bool = False) -> LeftoverProcesses:
    """How to find and end the processes of a session.  Use only where :func:`is_of_this_boot`.

    ``with_guards``: the guards too, for an owner whose guards do not answer.
    """
    session = record.session
    # Every process in the cgroup will be killed, so its name must be one that a guard gives,
    # whatever the record says.
    cgroup = session.cgroup if os.path.basename(session.cgroup) == leaf_name(session.id) else ""
    recorded = [identity for identity, _ in record.processes]
    if with_guards:
        recorded += record.guards
    return LeftoverProcesses(recorded, cgroup, platform_of(session), _marked_orphans(record))


def _marked_orphans(record: Record) -> MarkedOrphans | None:
    """Which marked processes are orphans of the session; None where no marked process is one.

    A cgroup holds all processes of its session, so there is no need of the marker.  The driver that
    :func:`adopt` takes does not bear it.
    """
    session = record.session
    looked = last_look(record.lock) if record.lock is not None else None
    if looked is None or session.cgroup or session.containment == "adopted":
        return None
    # The guards are subreapers: while they live each orphan stays below them, and each look sees it.
    # Only a portable guard may miss one that left the tree between two looks.
    after = session.created if session.containment == "portable" else looked
    before = looked + NEXT_LOOK
    marker = f"{MARKER}={session.id}"
    return MarkedOrphans(marker, after, before, record.cgroups, session.ancestors)


def has_marked_process(session: str) -> bool:
    """Whether a process of this machine has the session's id in its environment.  O(host)."""
    marker = f"{MARKER}={session}"
    return any(system.bears_marker(process.pid, marker) for process in system.everyone())


def session_directories() -> Iterator[Path]:
    """Directories with the name, owner, mode and sign that a guard gives to a session's TMPDIR."""
    for root in roots():
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            path = Path(root, name)
            if session_of(name) and is_session_directory(str(path)):
                yield path


def is_empty_cgroup(leaf: Path) -> bool:
    """Whether the kernel says that no process is in this cgroup or below it."""
    try:
        return "populated 0" in (leaf / "cgroup.events").read_text()
    except OSError:
        return False


def age_of_session(record: Record) -> float:
    """Seconds since the session began.

    Since its first guard started, where that is a process of this host: the kernel counts from the boot
    on, so this is right when the machine's clock is set to another time meanwhile, and it is the time
    that the guard goes by.  Else by the clock, since ``created``, which is a moment earlier.
    """
    started = [guard.start for guard in record.guards]
    if started and is_of_this_boot(record):
        return max(0.0, platform_of(record.session).now() - min(started))
    return max(0.0, time.time() - record.session.created)


def age_of(path: Path) -> float:
    """Seconds since the file was last changed; 0 where it no longer exists."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
