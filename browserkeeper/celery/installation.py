"""``install()``, and the Celery signals that browserkeeper connects to."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals

from ..process.monkey_patches import obstacle_to, require_usable
from . import limits, logs, periodic_sweep, remote_control, settings

logger = logging.getLogger("browserkeeper")


def install(
    app: Any,
    *,
    browser: str | None = None,
    pool: dict[str, Any] | None = None,
    max_redeliveries: int | str | None = "as configured",
    sweep_every: float | None = None,
    **browser_arguments: Any,
) -> None:
    """Say which browsers this app's tasks use, and how.  The arguments win over ``app.conf``.

    Args:
        app: the Celery app, configured.
        browser: the name, as for :func:`browserkeeper.browser`; ``chrome`` by default.
        pool: arguments for :class:`browserkeeper.BrowserPool`, ``{}`` for its defaults: each worker
            process then keeps warm browsers.  None: a new browser for each task.
        max_redeliveries: how often a message may be redelivered because its worker was lost, before
            its task fails; 3 by default, None for no bound.
        sweep_every: seconds between two sweeps of all workers' hosts by Beat; None: no Beat entry.
        browser_arguments: those of :func:`browserkeeper.browser`.

    Raises:
        ConfigError: an argument, or a setting in ``app.conf``, is not valid; or this is a worker of
            a kind whose tasks cannot use browsers, such as eventlet's.
    """
    if "worker" in sys.argv[1:]:
        require_usable(pool=pool is not None)
    elif obstacle := obstacle_to():
        logger.warning("Tasks cannot use browsers in this process. %s", obstacle)
    given: dict[str, Any] = {}
    if browser is not None:
        given["browser"] = browser
    if browser_arguments:
        given["arguments"] = browser_arguments
    if pool is not None:
        given["pool"] = pool
    if max_redeliveries != "as configured":
        given["max_redeliveries"] = max_redeliveries
    if sweep_every is not None:
        given["sweep_every"] = sweep_every
    chosen = settings.build(app, given)
    periodic_sweep.register(app, chosen.sweep_every)
    connect()


def connect() -> None:
    """Set up this process's logging and signals.  Idempotent."""
    logs.attach(logging.getLogger("browserkeeper"))
    signals.worker_init.connect(_on_worker_init, dispatch_uid="browserkeeper-worker")


def _on_worker_init(sender: Any = None, **_: Any) -> None:
    """A worker starts in this process: remember its limits, and answer remote control.

    Raises SystemExit, which Celery lets through, where its tasks cannot use browsers.
    """
    if obstacle := obstacle_to():
        raise SystemExit(f"browserkeeper: {obstacle}")
    limits.remember_worker(sender)
    remote_control.register()


__all__ = ["connect", "install"]
