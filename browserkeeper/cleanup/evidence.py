"""Evidence about a session, its owner and its files.  Functions here read; they change nothing.

Each function names its witness: the record in the state directory, the recorded process identities,
the lock on the session's directory, or the marker in the environment of processes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..guard.files import is_private_directory
from ..process import Platform, is_alive, system
from ..process.containment import leaf_name
from ..process.identity import ProcessIdentity
from ..process.leftover_processes import MARKER, LeftoverProcesses
from ..state.records import Record, Session
from ..state.tmpdirs import roots, session_of

State = Literal["live", "unguarded", "orphaned", "ending", "foreign"]
OwnerState = Literal["alive", "dead", "foreign"]


def state_of(record: Record) -> State:
    """Whether the session's owner and guards live, by the identities in its record.

    - ``live``: the owner and a guard live.
    - ``unguarded``: the owner lives, both guards are dead.
    - ``ending``: the owner is dead and a guard lives, which ends the session.
    - ``orphaned``: owner and guards are dead.
    - ``foreign``: the record is of another machine (a home directory on NFS) or of another pid
      namespace of this boot (a container that shares the state directory).  Its pids mean
      other processes here, so the session cannot be judged.
    """
    owner = owner_state(record.session.host, record.session.owner)
    if owner == "foreign":
        return "foreign"
    if not is_of_this_boot(record):
        return "orphaned"
    guard = any(is_alive(guard, platform_of(record.session)) for guard in record.guards)
    if owner == "alive":
        return "live" if guard else "unguarded"
    return "ending" if guard else "orphaned"


def owner_state(host: str, owner: ProcessIdentity) -> OwnerState:
    """Whether a process that was recorded on ``host`` (a ``system.host_id()``) lives; ``foreign``
    as in :func:`state_of`."""
    machine, boot, namespace = f"{host}//".split("/")[:3]
    our_machine, our_boot, our_namespace = system.host_id().split("/")[:3]
    if machine != our_machine or (boot == our_boot and namespace != our_namespace):
        return "foreign"
    return "alive" if boot == our_boot and is_alive(owner) else "dead"


def is_of_this_boot(record: Record) -> bool:
    """Whether the record's pids are of this machine, boot and pid namespace."""
    return record.session.host == system.host_id()


def platform_of(session: Session) -> Platform:
    """The platform functions whose clock the session's start times were read from."""
    if session.containment != "portable":
        return system
    from ..process import portable  # imports psutil: 35 ms that other sessions need not pay

    return portable


def leftover_processes_of(record: Record) -> LeftoverProcesses:
    """How to find and end the processes of a session.  Use only where :func:`is_of_this_boot`."""
    session = record.session
    # Every process in the cgroup will be killed, so its name must be one that a guard gives,
    # whatever the record says.
    cgroup = session.cgroup if os.path.basename(session.cgroup) == leaf_name(session.id) else ""
    recorded = [identity for identity, _ in record.processes]
    return LeftoverProcesses(session.id, recorded, cgroup, platform_of(session), record.guards)


def has_marked_process(session: str) -> bool:
    """Whether a process of this machine has the session's id in its environment.  O(host)."""
    marker = f"{MARKER}={session}"
    return any(system.bears_marker(process.pid, marker) for process in system.everyone())


def session_directories() -> Iterator[Path]:
    """Directories with the name, owner and mode that a guard gives to a session's TMPDIR."""
    for root in roots():
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            path = Path(root, name)
            if session_of(name) and is_private_directory(str(path)):
                yield path


def is_held(directory: Path) -> bool:
    """Whether a guard holds the lock on this session directory.

    The lock is seen across pid namespaces, and containers may share ``/dev/shm``.  True as well
    where the lock cannot be asked; False for a directory that cannot be opened.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def is_empty_cgroup(leaf: Path) -> bool:
    """Whether the kernel says that no process is in this cgroup or below it."""
    try:
        return "populated 0" in (leaf / "cgroup.events").read_text()
    except OSError:
        return False


def age_of(path: Path) -> float:
    """Seconds since the file was last changed; 0 where it no longer exists."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
