"""The pool of a worker process: made at its first use, closed when Celery says that the process ends.

Never in ``worker_process_init``: a child that has not said that it is up within 4 s
(``worker_proc_alive_timeout``) is killed and replaced, for ever.  And never before the fork: a pool
belongs to the process that opened it.
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


class Pools:
    """Those of this process.  A fork begins with none: the inherited ones are its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[tuple[BrowserSpec, BrowserPool[Any]]] = []
        os.register_at_fork(after_in_child=self._forget)

    def pool_for(self, wish: BrowserSpec) -> BrowserPool[Any]:
        """The open pool of a wish that has one.  Raises ConfigError."""
        with self._lock:
            for known, pool in self._open:
                if known is wish:
                    return pool
            pool = make(wish).open()
            self._open.append((wish, pool))
        signals.worker_process_shutdown.connect(self.close, dispatch_uid="browserkeeper-pools")
        signals.worker_shutdown.connect(self.close, dispatch_uid="browserkeeper-pools")
        return pool

    def close(self, **_: Any) -> None:
        """A receiver of both shutdown signals; a kind of pool sends the one or the other."""
        with self._lock:
            pools, self._open = self._open, []
        for _wish, pool in pools:
            try:
                pool.close()
            except BrowserkeeperError:
                logger.exception("the worker's pool left something")

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._open = []


def make(wish: BrowserSpec) -> BrowserPool[Any]:
    """Not open yet.  Where one task runs at a time, two browsers are enough, whatever the machine."""
    assert wish.pool is not None
    given = {**wish.arguments, **wish.pool}
    if _runs_one_task_at_a_time():
        given.setdefault("max_size", ONE_AT_A_TIME)
    return BrowserPool(wish.name, **given)


def _runs_one_task_at_a_time() -> bool:
    if in_pool_process():
        return True
    concurrency = getattr(this_worker(), "concurrency", None)
    implementation = str(getattr(this_worker(), "pool_cls", ""))
    return not is_green() and (concurrency == 1 or "solo" in implementation)


POOLS = Pools()

__all__ = ["POOLS", "Pools", "make"]
