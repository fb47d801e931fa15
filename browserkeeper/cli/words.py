"""What the commands that show sessions have to say of states and of pools."""

from __future__ import annotations

from ..pool_state import PoolState
from ..sweeper import State

STYLES: dict[State, str] = {"orphaned": "red", "unguarded": "yellow", "foreign": "dim"}
WHAT_TO_DO = {
    "orphaned": "`browserkeeper sweep --yes` ends what is left of it",
    "unguarded": "its guard was killed; its owner ends it when it notices",
    "zombie": "its parent does not reap it; `browserkeeper doctor` looks at PID 1",
    "bad record": "`browserkeeper sweep --yes` removes it",
    "foreign record": "not ours, or of another version; look at it, then remove it by hand",
}


def pool_line(pool: PoolState) -> str:
    def number(stat: str) -> int:
        return int(pool.stats.get(stat, 0))

    states = ("available", "leased", "starting", "renewing")
    counts = ", ".join(f"{number(f'pool_{state}')} {state}" for state in states)
    return (
        f"Pool of {pool.owner_name} ({pool.owner.pid}), {pool.browser}: {counts}, "
        f"of {number('pool_max')}; {number('requests_waiting')} waiting."
    )
