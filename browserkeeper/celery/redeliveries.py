"""A bound on how often a message may be redelivered because its worker was lost.

``acks_late`` with ``reject_on_worker_lost`` gives a lost worker's message to the next worker: right
if a machine dies, and an endless loop if the page crashes each worker that opens it.  Celery 5.7 can
bound the loss of a *child* (``retry_on_worker_lost``, which counts into ``max_retries``).  The loss of
a whole worker (OOM-killed with its container, main process SIGKILLed) is not counted: on Redis a
redelivered message says that it is one, not how often it has been.

So redeliveries are counted here, in the result backend if it can count (Redis), else in the broker if
that is Redis.  First deliveries are not counted and cost nothing.  RabbitMQ without Redis can count
nowhere; its quorum queues have ``x-delivery-limit`` instead, and the doctor says so.
"""

from __future__ import annotations

import logging
from typing import Any

from .errors import TooManyDeliveries
from .settings import settings_of

logger = logging.getLogger("browserkeeper")

COUNT_LIFETIME = 72 * 3600
"""Seconds that a count is kept after the last delivery, as Sidekiq does for poison pills."""


def check(task: Any, request: Any) -> None:
    """Count this delivery if it is not the message's first.

    Raises TooManyDeliveries above the bound; Celery then stores the failure and acknowledges the
    message.
    """
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
        f"Task {task.name}[{request.id}] was redelivered {number} times because its worker was lost "
        f"each time; max_redeliveries={most}. Find out how it ends its worker: by using too much "
        "memory (worker_max_memory_per_child, the container's limit), or by a crash."
    )


def count(task: Any, key: str) -> int | None:
    """Increase the counter ``key`` and return it; None if neither backend nor broker can count."""
    try:
        return _count_in_backend(task.backend, key)
    except (NotImplementedError, AttributeError):
        return _count_in_broker(task.app, key)
    except Exception:  # a backend that cannot be reached must not keep the task from running
        logger.exception("the redeliveries of task %s cannot be counted", task.name)
        return None


def _count_in_backend(backend: Any, key: str) -> int:
    """Celery's key-value backends have ``incr``; the others raise NotImplementedError, or have no such
    attribute."""
    number = int(backend.incr(key))
    backend.expire(key, COUNT_LIFETIME)
    return number


def _count_in_broker(app: Any, key: str) -> int | None:
    with app.connection_for_write() as connection:
        if connection.transport.driver_type != "redis":
            return None
        client = connection.default_channel.client
        number = int(client.incr(key))
        client.expire(key, COUNT_LIFETIME)
        return number


__all__ = ["check", "count"]
