"""The BrowserPools of a worker process: opened at the first use, closed when Celery says that the
process ends.

Not opened in ``worker_process_init``: Celery kills and replaces a child that is not up within 4 s
(``worker_proc_alive_timeout``), again and again.  Not opened before the fork: a pool belongs to the
process that opened it.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery import signals

from ..errors import BrowserkeeperError
from ..pool import BrowserPool
from .limits import in_pool_process, is_green, this_worker
from .settings import BrowserSpec

logger = logging.getLogger("browserkeeper")

ONE_AT_A_TIME = 2
"""Browsers for a process that runs one task at a time: one in use, one being made fresh."""


class BrowserPools:
    """The open pools of this process, one for each BrowserSpec.  A forked child starts with none:
    those that it inherits belong to its parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may close the pools in between
        self._open: list[tuple[BrowserSpec, BrowserPool[Any]]] = []
        os.register_at_fork(after_in_child=self._forget)

    def pool_for(self, spec: BrowserSpec) -> BrowserPool[Any]:
        """The open pool for ``spec``, whose ``pool`` must not be None.  Raises ConfigError."""
        with self._lock:
            for known, pool in self._open:
                if known is spec:
                    return pool
            pool = make(spec).open()
            self._open.append((spec, pool))
        # A kind of worker pool sends the one signal or the other.
        signals.worker_process_shutdown.connect(self.close, dispatch_uid="browserkeeper-pools")
        signals.worker_shutdown.connect(self.close, dispatch_uid="browserkeeper-pools")
        return pool

    def close(self, **_: Any) -> None:
        """Close all pools; leaks are logged.  A receiver of Celery's shutdown signals."""
        with self._lock:
            pools, self._open = self._open, []
        for _spec, pool in pools:
            try:
                pool.close()
            except BrowserkeeperError:
                logger.exception("the worker's pool left something")

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._open = []


def make(spec: BrowserSpec) -> BrowserPool[Any]:
    """The pool that ``spec`` describes, not opened yet.  In a process that runs one task at a time it
    has two browsers at most, unless ``spec`` says otherwise."""
    assert spec.pool is not None
    given = {**spec.arguments, **spec.pool}
    if _runs_one_task_at_a_time():
        given.setdefault("max_size", ONE_AT_A_TIME)
    return BrowserPool(spec.name, **given)


def _runs_one_task_at_a_time() -> bool:
    if in_pool_process():
        return True
    concurrency = getattr(this_worker(), "concurrency", None)
    implementation = str(getattr(this_worker(), "pool_cls", ""))
    return not is_green() and (concurrency == 1 or "solo" in implementation)


POOLS = BrowserPools()

__all__ = ["POOLS", "BrowserPools", "make"]
