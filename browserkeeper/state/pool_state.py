"""What a pool tells the rest of the machine about itself: one small file in the state directory.

A pool's state is in the memory of its process; others (``ps``, ``top``, the exporter) see it a second
late, here.  The file is a notice and no record: nothing that has to be ended hangs on it.
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
from .ledger import BadRecord, CorruptRecordError, Ledger, identity_from, read_document

STATES = ("available", "leased", "starting", "renewing")
"""Of its browsers, ``pool_STATE`` in ``BrowserPool.stats()``; the rest of ``pool_size`` is closing."""


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A pool at the moment ``written`` (epoch seconds).

    ``sessions``: each browser's session id, and what the pool does with it: ``idle``, ``leased``,
    ``starting``, ``refreshing``, ``checking`` or ``closing``.  ``stats``: as ``BrowserPool.stats()``.
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
    """Put it in the place of the last one.  Raises OSError."""
    document = json.dumps({"schema": SCHEMA, "pool": state.to_dict()})
    write_atomically(str(path_of(ledger, state)), document)


def published(ledger: Ledger) -> Iterator[PoolState | BadRecord]:
    """Every pool's file, those of dead processes too."""
    for path in sorted(ledger.pools.glob("*.json")):
        try:
            yield _read(path)
        except FileNotFoundError:
            continue
        except LedgerError as error:
            yield BadRecord(path, str(error), corrupt=isinstance(error, CorruptRecordError))


def withdraw(ledger: Ledger, state: PoolState) -> None:
    """Raises OSError, but not where it is gone already."""
    path_of(ledger, state).unlink(missing_ok=True)


def drafts(ledger: Ledger) -> list[Path]:
    """Half-written ones, whose writer may be dead."""
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
