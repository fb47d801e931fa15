"""What a worker answers when it is asked by remote control, and does when it is told to.

These run in the worker's main process, between its other work: milliseconds, but for a sweep that
has to kill what is stuck.
"""

from __future__ import annotations

import logging
from typing import Any

from ..cleanup.sweeper import Finding, sweep
from ..errors import BrowserkeeperError
from ..status.snapshot import snapshot
from .sweeping import COMMAND_PS, COMMAND_SWEEP

logger = logging.getLogger("browserkeeper")

PATIENCE = 2.0
"""Seconds to wait for the workers' answers: all of them, since nobody knows how many there will be.
Celery's own inspect waits for 1.  A sweep that takes longer goes on, and is in the worker's log."""


def register() -> None:
    """In Celery's remote_control, which is one for the process; the second call does nothing new."""
    from celery.worker.control import control_command, inspect_command

    inspect_command(name=COMMAND_PS, default_timeout=PATIENCE)(ps)
    control_command(name=COMMAND_SWEEP, default_timeout=PATIENCE)(sweep_host)


def ps(state: Any, **_: Any) -> dict[str, Any]:
    """List the browser sessions of the worker's host."""
    try:
        return snapshot().to_dict()
    except BrowserkeeperError as error:
        return {"error": str(error)}


def sweep_host(state: Any, yes: bool = False, older_than: float = 0.0, **_: Any) -> dict[str, Any]:
    """Find, and with ``yes`` remove, what dead owners left on the worker's host."""
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


__all__ = ["PATIENCE", "ps", "register", "sweep_host"]
