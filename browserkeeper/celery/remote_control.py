"""The remote control commands ``browserkeeper.ps`` and ``browserkeeper.sweep``: the worker's side.

They run in the worker's main process, between its other work.  They take milliseconds, except for a
sweep that has to kill processes which do not end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..errors import BrowserkeeperError

if TYPE_CHECKING:
    from ..cleanup.sweeper import Finding

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
        return snapshot().to_dict()
    except BrowserkeeperError as error:
        return {"error": str(error)}


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
    ended = finding.report.processes if finding.report else finding.processes
    return {
        "kind": finding.kind,
        "session": finding.session,
        "what": finding.what,
        "processes": [{"pid": process.pid, "name": process.name} for process in ended],
        "files": list(finding.files),
        "removed": finding.removed,
        "problem": finding.problem,
    }


__all__ = ["COMMAND_PS", "COMMAND_SWEEP", "REPLY_TIMEOUT", "ps", "register", "sweep_host"]
