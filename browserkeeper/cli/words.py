"""What the commands that show sessions have to say of states, of pools, and of a session's processes."""

from __future__ import annotations

from ..cleanup.evidence import State
from ..process.identity import ProcessFacts
from ..state.pool_state import STATES, PoolState
from ..status.snapshot import Row
from . import output

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

    counts = ", ".join(f"{number(f'pool_{state}')} {state}" for state in STATES)
    return (
        f"Pool of {pool.owner_name} ({pool.owner.pid}), {pool.browser}: {counts}, "
        f"of {number('pool_max')}; {number('requests_waiting')} waiting."
    )


def tree_of(row: Row) -> output.Node:
    """Roots are those whose parents are none of the session's: the guard's children, or orphans."""
    below: dict[int, list[ProcessFacts]] = {}
    pids = {process.pid for process in row.processes}
    for process in row.processes:
        below.setdefault(process.parent if process.parent in pids else 0, []).append(process)

    def node(process: ProcessFacts) -> output.Node:
        children = tuple(map(node, below.get(process.pid, ())))
        style = "red" if process.pid in row.zombies else ""
        return output.Node(line(row, process), style, children)

    session = row.record.session
    guards = " and ".join(str(guard.pid) for guard in row.record.guards)
    head = f"{session.browser} session {session.id}: {row.state}, guarded by {guards}"
    return output.Node(head, STYLES.get(row.state, "bold"), tuple(map(node, below.get(0, ()))))


def line(row: Row, process: ProcessFacts) -> str:
    mark = " ZOMBIE" if process.pid in row.zombies else ""
    size = output.megabytes(row.memory[process.pid])
    return f"{process.pid} {process.name} {process.state} {size}{mark}"
