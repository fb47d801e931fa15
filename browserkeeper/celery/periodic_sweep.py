"""The task ``browserkeeper.sweep``, by which Beat has every worker's host swept.

A task reaches one worker only, so this one broadcasts a remote control command, which all workers get.
"""

from __future__ import annotations

from typing import Any

from .remote_control import COMMAND_SWEEP

TASK = "browserkeeper.sweep"


def register(app: Any, sweep_every: float | None) -> None:
    """Add the task to ``app``, and to Beat's schedule unless ``sweep_every`` (seconds) is None.

    The task is acknowledged early, stores no result, and expires when the next one is due.
    """
    if TASK not in app._tasks:  # noqa: SLF001 # app.tasks would finalize the app too early
        app.task(name=TASK, ignore_result=True, acks_late=False, shared=False)(_sweep_task(app))
    if sweep_every is not None:
        entry = {"task": TASK, "schedule": sweep_every, "options": {"expires": sweep_every}}
        app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), TASK: entry}


def _sweep_task(app: Any) -> Any:
    def sweep(older_than: float = 0.0) -> None:
        """Have each worker sweep its host.  What a worker removes is in its log."""
        app.control.broadcast(COMMAND_SWEEP, arguments={"yes": True, "older_than": older_than})

    return sweep


__all__ = ["TASK", "register"]
