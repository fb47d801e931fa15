"""The state that each pool publishes: one small file in the state directory.

The pool's true state is in the memory of its process.  Other programs (``ps``, ``top``, the metrics
exporter) read this copy, which is up to a second old.  Cleanup does not depend on it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import LedgerError
from ..guard.files import write_atomically
from ..process.identity import ProcessIdentity
from ..report import SCHEMA
from .documents import BadRecord, CorruptRecordError, identity_from, read_document
from .ledger import Ledger

STATES = ("available", "leased", "starting", "renewing")
"""States of a pool's browsers that ``BrowserPool.stats()`` counts, as ``pool_STATE``; the others of
``pool_size`` are closing."""


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A pool at the time ``written`` (seconds since the epoch).

    ``number`` counts the pools of the owner's process.  ``sessions`` maps the session id of each
    browser to its state: ``idle``, ``leased``, ``starting``, ``refreshing``, ``checking`` or
    ``closing``.  ``stats`` is ``BrowserPool.stats()``.
    """

    number: int
    browser: str
    owner: ProcessIdentity
    owner_name: str
    host: str
    written: float
    sessions: Mapping[str, str]
    stats: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.owner.pid}-{self.number}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def path_of(ledger: Ledger, state: PoolState) -> Path:
    return ledger.pools / f"{state.name}.json"


def publish(ledger: Ledger, state: PoolState) -> None:
    """Write the pool's file, in place of the last one.  Raises OSError."""
    document = json.dumps({"schema": SCHEMA, "pool": state.to_dict()})
    write_atomically(str(path_of(ledger, state)), document)


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
    """Half-written files.  The writer of an old one is dead."""
    return sorted(ledger.pools.glob("*.tmp"))


def _read(path: Path) -> PoolState:
    facts = read_document(path)
    try:
        known = {field.name: facts["pool"][field.name] for field in dataclasses.fields(PoolState)}
        state = PoolState(**{**known, "owner": identity_from(**known["owner"])})
        if state.name != path.stem:
            raise CorruptRecordError(f"{path}: its name does not match its content")
        return dataclasses.replace(
            state,
            browser=str(state.browser),
            host=str(state.host),
            sessions={str(session): str(what) for session, what in state.sessions.items()},
            stats={str(name): float(value) for name, value in state.stats.items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{path}: not the state of a pool ({error!r})") from error


__all__ = ["STATES", "PoolState", "drafts", "path_of", "publish", "published", "withdraw"]
