"""The remote control commands ``browserkeeper.ps`` and ``browserkeeper.sweep``: the worker's side.

Their answers go over the broker, which others may read.  So they are made of the fields that are named
here, and have no command line and nothing that was read from an invalid file: the command of a
``browserkeeper run`` may have a token or a proxy's password.

They run in the worker's main process, between its other work.  They take milliseconds, except for a
sweep that has to kill processes which do not end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..errors import BrowserkeeperError

if TYPE_CHECKING:
    from ..cleanup.sweeper import Finding
    from ..state.documents import BadRecord
    from ..status.host_gate import HostGate
    from ..status.snapshot import SessionStatus

logger = logging.getLogger("browserkeeper")

COMMAND_PS = "browserkeeper.ps"
COMMAND_SWEEP = "browserkeeper.sweep"
REPLY_TIMEOUT = 2.0
"""Seconds to wait for answers.  The whole time is waited, since the number of workers is not known;
Celery's own ``inspect`` waits 1 s.  A sweep that takes longer goes on, and is in the worker's log."""


def register() -> None:
    """Add the commands to Celery's table of them, which the process has once.  Idempotent."""
    from celery.worker.control import control_command, inspect_command

    inspect_command(name=COMMAND_PS, default_timeout=REPLY_TIMEOUT)(ps)
    control_command(name=COMMAND_SWEEP, default_timeout=REPLY_TIMEOUT)(sweep_host)


def ps(state: Any, **_: Any) -> dict[str, Any]:
    """List the browser sessions of the worker's host."""
    from ..status.snapshot import snapshot

    try:
        found = snapshot()
    except BrowserkeeperError as error:
        return {"error": str(error)}
    return {
        "ok": found.ok,
        "sessions": [_session_facts(status) for status in found.sessions],
        "pools": [pool.to_dict() for pool in found.pools],
        "bad_records": [
            {"path": str(record.path), "why": _why(record), "foreign": not record.corrupt}
            for record in found.bad_records
        ],
        "host": None if found.host is None else _host_facts(found.host),
    }


def _host_facts(host: HostGate) -> dict[str, Any]:
    """Numbers, and no text of ``limits.toml``, which may be any file."""
    limits, waiting = host.state.limits, len(host.state.waiting) + len(host.state.standby)
    return {
        "browsers": host.browsers,
        "max_browsers": limits.max_browsers and limits.max_browsers.value,
        "grid_sessions": host.grid_sessions,
        "max_grid_sessions": limits.max_grid_sessions and limits.max_grid_sessions.value,
        "waiting": waiting,
        "draining": bool(host.state.draining),
        "problem": bool(host.state.problem),
    }


def _session_facts(status: SessionStatus) -> dict[str, Any]:
    session, facts = status.record.session, status.to_dict()
    return {
        "id": session.id,
        "kind": session.kind,
        "browser": session.browser,
        "label": status.label,
        "containment": session.containment,
        "created": session.created,
        "deadline": session.deadline,
        "tmpdir": session.tmpdir,
        "state": status.state,
        "owner": facts["owner"],
        "guards": facts["guards"],
        "age": facts["age"],
        "deadline_left": facts["deadline_left"],
        "memory": facts["memory"],
        "processes": facts["processes"],
        "zombies": facts["zombies"],
    }


def _why(record: BadRecord) -> str:
    """``record.why`` may quote what the file has."""
    kind = "corrupt" if record.corrupt else "not to be trusted, or of another version"
    return f"{kind}; `browserkeeper ps` on that host says more"


def sweep_host(state: Any, yes: bool = False, older_than: float = 0.0, **_: Any) -> dict[str, Any]:
    """Find, and with ``yes`` remove, what dead owners left on the worker's host; ``older_than`` is in
    seconds."""
    from ..cleanup.sweeper import sweep

    try:
        findings = sweep(dry_run=not yes, older_than=older_than)
    except BrowserkeeperError as error:
        return {"error": str(error)}
    for finding in findings if yes else ():
        logger.info("swept: %s %s, %s", finding.kind, finding.session, finding.what)
    return {"findings": [_to_dict(finding) for finding in findings]}


def _to_dict(finding: Finding) -> dict[str, Any]:
    quotes_a_file = finding.kind == "record" and finding.what.startswith(finding.files)
    ended = finding.report.processes if finding.report else finding.processes
    return {
        "kind": finding.kind,
        "session": finding.session,
        "what": "not a valid record" if quotes_a_file else finding.what,
        "processes": [{"pid": process.pid, "name": process.name} for process in ended],
        "files": list(finding.files),
        "removed": finding.removed,
        "problem": finding.problem,
    }


__all__ = ["COMMAND_PS", "COMMAND_SWEEP", "REPLY_TIMEOUT", "ps", "register", "sweep_host"]
