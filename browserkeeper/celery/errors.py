"""Errors that only occur in tasks.

Each can be pickled, and stored by Celery as JSON: its only argument is the message.
"""

from __future__ import annotations

from celery.exceptions import SoftTimeLimitExceeded

from ..errors import BrowserkeeperError, LeaseTimeout


class TaskTimeout(LeaseTimeout, SoftTimeLimitExceeded):  # type: ignore[misc] # celery has no types
    """The task passed a time limit that its kind of worker pool does not enforce, so the browser's
    guard ended the browser.

    It is a ``SoftTimeLimitExceeded`` of Celery and a ``SessionTimeout`` of browserkeeper, so that
    ``except`` for either of them works with every kind of worker pool.
    """


class TooManyDeliveries(BrowserkeeperError, RuntimeError):
    """The task's message was redelivered too often: its worker was lost each time."""


__all__ = ["TaskTimeout", "TooManyDeliveries"]
