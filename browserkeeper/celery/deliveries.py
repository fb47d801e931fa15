"""A bound on how often a message may come back because its worker was lost.

``acks_late`` with ``reject_on_worker_lost`` gives a lost worker's message to the next worker: right
for a machine that dies, and a loop without end for a page that kills each worker that opens it.
Celery 5.7 can bound a lost *child* (``retry_on_worker_lost``, which counts into ``max_retries``);
a worker that dies whole (OOM-killed with its container, main process SIGKILLed) is never counted,
since on Redis a redelivered message says only *that* it came back, not how often.

So we count, where redelivered messages are seen: in the result backend if that can count (Redis),
else in the Redis that is the broker.  A first delivery costs nothing.  Where neither can count
(RabbitMQ without Redis), RabbitMQ's own quorum queues have ``x-delivery-limit``; ``check()`` says so.
"""

from __future__ import annotations

import logging
from typing import Any

from .errors import TooManyDeliveries
from .settings import settings_of

logger = logging.getLogger("browserkeeper")

REMEMBERED = 72 * 3600
"""Seconds that a count is kept after the last delivery; Sidekiq's window for poison pills."""


def check(task: Any, request: Any) -> None:
    """Count a delivery that is not the first.  Raises TooManyDeliveries, whereupon Celery stores the
    failure and acknowledges the message."""
    if (
        request.called_directly
        or request.is_eager
        or not (request.delivery_info or {}).get("redelivered")
    ):
        return
    most = settings_of(task.app).max_redeliveries
    number = count(task, f"browserkeeper-redelivered-{request.id}-{request.retries}")
    if most is None or number is None or number <= most:
        return
    raise TooManyDeliveries(
        f"Task {task.name}[{request.id}] came back {number} times because its worker was lost each "
        f"time; max_redeliveries={most}. Look into what it does to its worker: memory "
        "(worker_max_memory_per_child, the container's limit) or a crash."
    )


def count(task: Any, key: str) -> int | None:
    """One more; None where nobody here can count."""
    try:
        return _count_in_backend(task.backend, key)
    except (NotImplementedError, AttributeError):
        return _count_in_broker(task.app, key)
    except Exception:  # a backend that is away must not keep the task from running
        logger.exception("the redeliveries of task %s cannot be counted", task.name)
        return None


def _count_in_backend(backend: Any, key: str) -> int:
    """Celery's key-value backends have ``incr``; those that cannot count raise."""
    number = int(backend.incr(key))
    backend.expire(key, REMEMBERED)
    return number


def _count_in_broker(app: Any, key: str) -> int | None:
    with app.connection_for_write() as connection:
        if connection.transport.driver_type != "redis":
            return None
        client = connection.default_channel.client
        number = int(client.incr(key))
        client.expire(key, REMEMBERED)
        return number


__all__ = ["check", "count"]
