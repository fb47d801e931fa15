"""Whether the owner of a published pool lives.  The rules are those of ``evidence.py``.

The file is only a copy of the pool's state.  All the same it is never removed on a guess.
"""

from __future__ import annotations

import time

from ..process import is_alive, system
from ..state.ledger import Ledger
from ..state.locks import ask
from ..state.pool_state import PoolState, path_of
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


__all__ = ["owner_of"]
