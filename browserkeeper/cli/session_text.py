"""Sessions, their processes, pools and problems as text: what ``ps`` and ``top`` share."""

from __future__ import annotations

from collections.abc import Iterator

from ..cleanup.evidence import State
from ..process.identity import ProcessFacts
from ..state.pool_state import STATES, PoolState
from ..status.snapshot import Problem, SessionStatus, Snapshot
from . import output
from .host_text import host_lines

STYLES: dict[State, str] = {"orphaned": "red", "unguarded": "yellow", "foreign": "dim"}
"""Rich's styles by the session's state; other states have none."""
REMEDIES = {
    "orphaned": "`browserkeeper sweep --yes` ends what is left of it",
    "unguarded": "its guard was killed; its owner ends it when it notices",
    "zombie": "its parent does not reap it; `browserkeeper doctor` looks at PID 1",
    "bad record": "`browserkeeper sweep --yes` removes it",
    "foreign record": "not ours, or of another version; look at it, then remove it by hand",
    "host": "under a limit no browser starts until that is right; `browserkeeper doctor` says more",
}
"""What happens, or what to do, by the kind of a problem."""


def print_notes(found: Snapshot) -> None:
    """Below the sessions: pools, the host's gate, problems."""
    for pool in found.pools:
        output.print_line(pool_line(pool))
    for line, style in host_lines(found.host) if found.host is not None else ():
        output.print_line(line, style)
    for problem in found.problems:
        output.print_line(problem_line(problem), "red")


def problem_line(problem: Problem) -> str:
    return f"{problem.kind}: {problem.what}; {REMEDIES[problem.kind]}."


def pool_line(pool: PoolState) -> str:
    def number(stat: str) -> int:
        return int(pool.stats.get(stat, 0))

    counts = ", ".join(f"{number(f'pool_{state}')} {state}" for state in STATES)
    name = f'Pool "{pool.label}"' if pool.label else "Pool"
    return (
        f"{name} of {pool.owner_name} ({pool.owner.pid}), {pool.browser}: {counts}, "
        f"of {number('pool_max')}; {number('requests_waiting')} waiting."
    )


def process_tree(status: SessionStatus) -> output.Node:
    """The session, and below it its processes by parentage.

    A process whose parent is not among them hangs below the session itself: it is a child of the
    guard, or an orphan.
    """
    children: dict[int, list[ProcessFacts]] = {}
    pids = {process.pid for process in status.processes}
    for process in status.processes:
        children.setdefault(process.parent if process.parent in pids else 0, []).append(process)

    def nodes_below(pid: int) -> Iterator[output.Node]:
        for process in children.get(pid, ()):
            style = "red" if process.pid in status.zombies else ""
            yield output.Node(process_line(status, process), style, tuple(nodes_below(process.pid)))

    session = status.record.session
    guards = " and ".join(str(guard.pid) for guard in status.record.guards)
    name = f'{session.id} "{status.label}"' if status.label else session.id
    head = f"{session.browser} session {name}: {status.state}, guarded by {guards}"
    return output.Node(head, STYLES.get(status.state, "bold"), tuple(nodes_below(0)))


def process_line(status: SessionStatus, process: ProcessFacts) -> str:
    mark = " ZOMBIE" if process.pid in status.zombies else ""
    size = output.megabytes(status.memory[process.pid])
    return f"{process.pid} {process.name} {process.state} {size}{mark}"
