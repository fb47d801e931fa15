"""Errors that only tasks meet.  They survive pickling, and Celery's JSON: the message is their args."""

from __future__ import annotations

from celery.exceptions import SoftTimeLimitExceeded

from ..errors import BrowserkeeperError, LeaseTimeout


class TaskTimeout(LeaseTimeout, SoftTimeLimitExceeded):  # type: ignore[misc] # celery has no types
    """The task passed a limit that its pool does not keep; the browser's guard ended the browser.

    Both Celery's ``SoftTimeLimitExceeded`` and browserkeeper's ``SessionTimeout``, so that an
    ``except`` for either works with every kind of pool.
    """


class TooManyDeliveries(BrowserkeeperError, RuntimeError):
    """The task's message came back again and again because its worker was lost each time."""


__all__ = ["TaskTimeout", "TooManyDeliveries"]
