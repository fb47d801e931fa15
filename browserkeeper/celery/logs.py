"""Task id, session id and host on each line of the logger ``browserkeeper``, and of others on request.

Nothing here holds a lock or an open file, so all of it works after a fork.
"""

from __future__ import annotations

import logging
import os

from .task_browser import active_browsers


class TaskFilter(logging.Filter):
    """Gives each log record the attributes ``task_id``, ``session_id`` and ``host``; the ids are ""
    outside of tasks.

    For a handler of your own, with ``%(task_id)s %(session_id)s %(host)s`` in its format:
    ``handler.addFilter(TaskFilter())``.  Celery's own formatter sets ``task_id`` too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        browser = next(active_browsers(), None)
        record.task_id = browser.task_id if browser else ""
        record.session_id = browser.session_id if browser else ""
        record.host = os.uname().nodename
        return True


class SuffixFilter(TaskFilter):
    """Also appends the three to the message, so that they show in any format.  Lines that are logged
    outside of tasks keep their message."""

    def filter(self, record: logging.LogRecord) -> bool:
        super().filter(record)
        if next(active_browsers(), None) is not None:
            facts = {"task": "task_id", "session": "session_id", "host": "host"}
            words = [f"{word}={getattr(record, name) or '-'}" for word, name in facts.items()]
            head, *rest = record.getMessage().split("\n")
            record.msg, record.args = "\n".join([f"{head} [{' '.join(words)}]", *rest]), ()
        return True


def attach(logger: logging.Logger) -> None:
    """Add a SuffixFilter to ``logger``, if it has none.  (Filters of a logger apply to what is logged
    on that logger, not on its children.)"""
    if not any(isinstance(found, SuffixFilter) for found in logger.filters):
        logger.addFilter(SuffixFilter())


__all__ = ["SuffixFilter", "TaskFilter", "attach"]
