"""Sweeping every worker's host: the task for Beat, and the broadcast behind it.

A task reaches one worker, so the task only broadcasts a remote control command, which all get.
"""

from __future__ import annotations

from typing import Any

TASK = COMMAND_SWEEP = "browserkeeper.sweep"
COMMAND_PS = "browserkeeper.ps"


def register(app: Any, sweep_every: float | None) -> None:
    """The task ``browserkeeper.sweep`` in an app, and its entry in Beat's schedule.

    Not acknowledged late, without a result, and worthless once the next one is due.
    """
    if TASK not in app._tasks:  # noqa: SLF001 # app.tasks would finalize the app too early
        app.task(name=TASK, ignore_result=True, acks_late=False, shared=False)(_sweep(app))
    if sweep_every is not None:
        entry = {"task": TASK, "schedule": sweep_every, "options": {"expires": sweep_every}}
        app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), TASK: entry}


def _sweep(app: Any) -> Any:
    def sweep(older_than: float = 0.0) -> None:
        """Have each worker sweep its host; what they remove is in their logs."""
        app.control.broadcast(COMMAND_SWEEP, arguments={"yes": True, "older_than": older_than})

    return sweep


__all__ = ["COMMAND_PS", "COMMAND_SWEEP", "TASK", "register"]
