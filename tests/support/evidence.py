"""Processes that look like a session's and are not, sessions whose guards are dead, and places whose
``/proc`` or machine id is hidden."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from browserkeeper.process import identity_of, own_line, own_name, system
from browserkeeper.process.guard_process import GuardProcess
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.process.leftover_processes import DOCUMENT, LOCK, MARKER
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.locks import ask
from browserkeeper.state.records import Record, Session, new_id, read_record
from browserkeeper.state.tmpdirs import tmpdir_name
from tests.support.guards import start
from tests.support.other_user import NOBODY
from tests.support.waiting import deadline_in, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
DEAD = ProcessIdentity(2**22 - 3, 1.0)


@dataclasses.dataclass
class Guarded:
    """A session in the ledger whose owner is dead by its record, and its guards."""

    ledger: Ledger
    session: Session
    guard: GuardProcess

    @property
    def record(self) -> Record:
        return read_record(self.ledger.record_path(self.session.id))

    @property
    def lock(self) -> Path:
        return self.ledger.lock_path(self.session.id)

    @property
    def environment(self) -> dict[str, str]:
        """That of the session's processes, which a job server may give to its jobs."""
        marks = {MARKER: self.session.id, LOCK: str(self.lock)}
        return {"PATH": "/usr/bin:/bin", **marks}

    def kill_guards(self) -> None:
        """SIGKILL to both at once; returns when both are dead, and their lock is free."""
        spawned = self.guard.wait_for("spawned", deadline=deadline_in())
        assert spawned
        os.kill(self.guard.pid, signal.SIGSTOP)
        os.kill(spawned["primary"], signal.SIGKILL)
        os.kill(self.guard.pid, signal.SIGKILL)
        self.guard.process.wait()
        self.guard.close()
        assert wait_until(lambda: ask(self.lock).state == "free")

    def end(self) -> dict[str, Any]:
        report = self.guard.end("closed", deadline_in())
        assert report
        return report


def guarded(
    ledger: Ledger,
    command: tuple[str, ...],
    *,
    tmpdirs: Path | None = None,
    plan: dict[str, Any] | None = None,
    **changes: Any,
) -> Guarded:
    """Start guards for a command, with a record and a lock.  ``changes`` are those of the record,
    ``plan`` has more fields of the GuardPlan."""
    host, session = system.host(), new_id()
    facts: dict[str, Any] = {
        "owner": DEAD,
        "host": host.id,
        "init_start": host.init_start,
        "uid": host.uid,
        "ancestors": own_line(),
        "lock": str(ledger.lock_path(session)),
        "tmpdir": str(tmpdirs / tmpdir_name(session)) if tmpdirs else "",
    }
    described = Session(
        **{
            "id": session,
            "kind": "session",
            "browser": "chromium",
            "owner_name": own_name(),
            "containment": "subreaper",
            "created": system.now() + system.booted(),
            **facts,
            **changes,
        }
    )
    guard = start(
        command,
        "portable" if described.containment == "portable" else "subreaper",
        session=session,
        document=described.to_json(),
        record=str(ledger.record_path(session)),
        lock=facts["lock"],
        history=str(ledger.history_path(session)),
        tmpdir=facts["tmpdir"],
        **(plan or {}),
    )
    assert guard.wait_for("spawned", deadline=deadline_in())
    return Guarded(ledger, described, guard)


def me() -> ProcessIdentity:
    return identity_of(os.getpid())


# ------------------------------------------------------------------ what sweeps elsewhere


SWEEP = """
import json, os, sys
sys.path[:0] = {path!r}
from browserkeeper.cleanup import evidence
from browserkeeper.cleanup.sweeper import Sweeper
from browserkeeper.state.ledger import Ledger
evidence.roots = lambda: {roots!r}
sweeper = Sweeper(Ledger.open({state!r}), dry_run={dry!r}, older_than=0)
found = [[f.kind, f.session, f.removed, f.problem] for f in sweeper.run()]
print(json.dumps([found, [[t.kind, t.session, t.what, t.why] for t in sweeper.left_alone]]))
"""


def sweep_program(state: Path, *, roots: tuple[Path, ...] = (), dry: bool = False) -> tuple[str, ...]:
    """A program that sweeps with this state directory, and prints what it found and left alone."""
    script = SWEEP.format(
        path=[str(ROOT), *sys.path], state=str(state), roots=[str(root) for root in roots], dry=dry
    )
    return (sys.executable, "-c", script)


def sweep_in(
    place: str, state: Path, *, roots: tuple[Path, ...] = (), dry: bool = False
) -> tuple[list[Any], list[Any]]:
    """Sweep in a mount namespace of its own, in which the shell script ``place`` has run before."""
    words = ["unshare", "--mount", "sh", "-euc", f'{place}\nexec "$@"', "sh"]
    done = subprocess.run(
        [*words, *sweep_program(state, roots=roots, dry=dry)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, left_alone = json.loads(done.stdout)
    return found, left_alone


def call_as_nobody(function: Callable[[], Any]) -> Any:
    """The result of a function, a JSON value, in a fork of this process with the user ``nobody``."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write_fd, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


# ------------------------------------------------------------------ the rules before


def marked_by_the_old_rule() -> Iterator[int]:
    """Pids that a sweep ended before: the marker of a session, this user, and no guard that can be
    seen.  For negative controls."""
    marked: dict[str, list[int]] = {}
    guarded_sessions = set()
    for process in system.everyone():
        session = system.marker_value(process.pid, MARKER)
        if session and system.users(process.pid) <= {os.geteuid()}:
            marked.setdefault(session, []).append(process.pid)
            if system.marker_value(process.pid, DOCUMENT) is not None:
                guarded_sessions.add(session)
    for session, pids in marked.items():
        yield from pids if session not in guarded_sessions else ()


def state_by_the_old_rule(host: str, guards_live: bool) -> str:
    """``state_of`` before, for a session whose owner is dead: parts of hosts were compared as text."""
    machine, boot, namespace = host.split("/")
    our_machine, our_boot, our_namespace = system.host().id.split("/")
    if machine != our_machine or (boot == our_boot and namespace != our_namespace):
        return "foreign"
    if host != system.host().id:
        return "orphaned"
    return "ending" if guards_live else "orphaned"
