"""Whether the owner of a published pool lives, and the pools of living owners.  The rules are those of
``evidence.py``.

The file is only a copy of the pool's state.  All the same it is never removed on a guess.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..process import is_alive, system
from ..state.ledger import Ledger
from ..state.locks import ask
from ..state.pool_state import PoolState, path_of, published
from .evidence import SILENCE, OwnerState


def owner_of(ledger: Ledger, pool: PoolState) -> OwnerState:
    """Whether the pool's process lives; ``foreign`` where that cannot be known.

    - On this host its identity decides, and a lock that is held.
    - In another pid namespace of the same kernel, which has the same boot id, only the lock decides: it
      is seen there.  A file system without such locks, or an unknown boot id, leaves it unknown.
    - A file of an earlier boot of this machine is dead if its last sign of life, which a pool gives once
      a minute, was before this boot.  A container may have a boot id of its own, so the other boot id
      alone does not say so.
    """
    here = system.host()
    there = pool.place(here)
    if there.is_same_as(here) and is_alive(pool.owner):
        return "alive"
    lock = ask(path_of(ledger, pool)).state
    if there.is_same_as(here):
        return "foreign" if lock == "held" else "dead"
    if here.boot and here.boot == there.boot:
        return "dead" if pool.locked and lock == "free" else "foreign"
    if there.is_same_machine_as(here) and here.boot and there.boot and lock != "held":
        is_over = pool.written < min(system.booted(), time.time() - SILENCE)
        return "dead" if is_over else "foreign"
    return "foreign"


def living_pools(ledger: Ledger) -> list[PoolState]:
    """The published states of the pools whose processes live, each up to a second old."""
    return [
        pool
        for pool in published(ledger)
        if isinstance(pool, PoolState) and owner_of(ledger, pool) == "alive"
    ]


def lease_labels(pools: Iterable[PoolState]) -> dict[str, str]:
    """The labels of leases, by the session ids of their browsers.

    Not for a decision about a session: the browser may be another lease's by now.
    """
    return {session: label for pool in pools for session, label in pool.labels.items()}


__all__ = ["lease_labels", "living_pools", "owner_of"]
