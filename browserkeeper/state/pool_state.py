"""The state that each pool publishes: one small file in the state directory.

The pool's true state is in the memory of its process.  Other programs (``ps``, ``top``, the metrics
exporter) read this copy, which is up to a second old.  Cleanup does not depend on it.

The pool's process holds a lock (flock(2)) on the file while it lives, which is seen in every container
of the same kernel that shares the directory.  A fork does not keep the lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..options.labels import matches, safe_label
from ..process.identity import Host, ProcessIdentity
from ..report import SCHEMA
from .documents import BadRecord, CorruptRecordError, identity_from, read_document
from .ledger import Ledger
from .locks import ask

STATES = ("available", "leased", "queued", "starting", "renewing")
"""States of a pool's browsers that ``BrowserPool.stats()`` counts, as ``pool_STATE``; the others of
``pool_size`` are closing.  ``queued``: the launch waits for a slot of the host."""


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A pool at the time ``written`` (seconds since the epoch).

    ``number`` counts the pools of the owner's process.  ``sessions`` maps the session id of each
    browser to its state: ``idle``, ``leased``, ``starting``, ``refreshing``, ``checking`` or
    ``closing``.  ``stats`` is ``BrowserPool.stats()``.  ``label`` is the pool's name, or "".  ``labels``
    maps the session ids of leased browsers to the labels of their leases, where these have one.

    ``host``, ``init_start`` and ``uid`` are the parts of ``system.host()``; the last two are None in
    the file of a version that did not write them.  ``nonce`` is random.  ``locked``: the pool's
    process holds the lock on the file while it lives.
    """

    number: int
    browser: str
    owner: ProcessIdentity
    owner_name: str
    host: str
    written: float
    sessions: Mapping[str, str]
    stats: Mapping[str, float]
    init_start: float | None = None
    uid: int | None = None
    nonce: str = ""
    locked: bool = False
    label: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the file, without its suffix.

        Containers that share the state directory have the same pids.  So all that identifies the pool
        is in the name, and a random part, since some of it cannot be read everywhere.
        """
        whole = (self.host, self.init_start, self.uid, self.owner.pid, self.owner.start, self.number)
        digest = hashlib.blake2b(repr((*whole, self.nonce)).encode(), digest_size=8).hexdigest()
        return f"{self.old_name}-{digest}"

    def is_named(self, pattern: str) -> bool:
        """Does the pool's label, or that of one of its leases, fit the pattern?"""
        return any(matches(label, pattern) for label in (self.label, *self.labels.values()))

    @property
    def old_name(self) -> str:
        """The name that earlier versions gave."""
        return f"{self.owner.pid}-{self.number}"

    def place(self, here: Host) -> Host:
        """The host where the owner's pid means something.  ``here`` is used for the parts that the file
        of an earlier version does not have."""
        init_start = here.init_start if self.init_start is None else self.init_start
        return Host.parse(self.host, init_start, here.uid if self.uid is None else self.uid)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class FileLock:
    """The lock on a pool's file.  The kernel lets go of it with the last reference to this object, or
    with the process."""

    def __init__(self, fd: int):
        """``fd`` is closed in the end."""
        self._fd = fd
        _LOCKS.add(self)

    def take(self) -> bool:
        """False on a file system without such locks."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def write(self, text: str) -> None:
        data = text.encode("ascii", "backslashreplace")
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self.close()


_LOCKS: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    for lock in list(_LOCKS):
        lock.close()


os.register_at_fork(after_in_child=_leave_locks_to_parent)


def path_of(ledger: Ledger, state: PoolState) -> Path:
    """Where the file of this state is, also one that an earlier version has written."""
    path = ledger.pools / f"{state.name}.json"
    old = ledger.pools / f"{state.old_name}.json"
    return old if state.nonce == "" and not path.exists() and old.exists() else path


def publish(ledger: Ledger, state: PoolState) -> FileLock:
    """Write the pool's file, in place of the last one.  Raises OSError.

    Returns the lock on the file: keep it until the next state is published, or the file is withdrawn.
    """
    path = ledger.pools / f"{state.name}.json"
    draft = f"{path}.{os.getpid()}.tmp"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    lock = FileLock(os.open(draft, flags, 0o600))
    try:
        # Locked before it has its name: whoever finds the file free knows that its writer is dead.
        state = dataclasses.replace(state, locked=lock.take())
        lock.write(json.dumps({"schema": SCHEMA, "pool": state.to_dict()}))
        os.rename(draft, path)
    except BaseException:
        lock.close()
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    return lock


def published(ledger: Ledger) -> Iterator[PoolState | BadRecord]:
    """The published states of all pools, those of dead owners too, and the files that are no valid
    ones."""
    for path in sorted(ledger.pools.glob("*.json")):
        try:
            yield _read(path)
        except FileNotFoundError:
            continue
        except LedgerError as error:
            yield BadRecord.from_error(path, error)


def withdraw(ledger: Ledger, state: PoolState) -> None:
    """Remove the pool's file; does nothing if it does not exist.  Raises OSError."""
    path_of(ledger, state).unlink(missing_ok=True)


def drafts(ledger: Ledger) -> list[Path]:
    """Half-written files that no process holds locked.  The writer of an old one is dead."""
    return [path for path in sorted(ledger.pools.glob("*.tmp")) if ask(path).state != "held"]


def _read(path: Path) -> PoolState:
    facts = read_document(path)
    try:
        pool = facts["pool"]
        fields = dataclasses.fields(PoolState)
        known = {f.name: pool[f.name] for f in fields if f.name in pool}
        state = PoolState(**{**known, "owner": identity_from(**known["owner"])})
        if not all(isinstance(text, str) for text in (state.label, *state.labels.values())):
            raise TypeError(f"a label is no text: {state.label!r}, {state.labels!r}")
        if path.stem not in (state.name, state.old_name):
            raise CorruptRecordError(f"{path}: its name does not match its content")
        return dataclasses.replace(
            state,
            browser=str(state.browser),
            host=str(state.host),
            written=float(state.written),
            init_start=None if state.init_start is None else float(state.init_start),
            uid=None if state.uid is None else int(state.uid),
            locked=state.locked is True,
            sessions={str(session): str(what) for session, what in state.sessions.items()},
            stats={str(name): float(value) for name, value in state.stats.items()},
            label=safe_label(state.label),
            labels={session: safe_label(label) for session, label in state.labels.items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{path}: not the state of a pool ({error!r})") from error


__all__ = ["STATES", "FileLock", "PoolState", "drafts", "path_of", "publish", "published", "withdraw"]
