"""Task id, session id and host on each line of the logger ``browserkeeper``, and of others on request.

Nothing here holds a lock or an open file, so all of it works after a fork.
"""

from __future__ import annotations

import logging
import os

from .task_browser import TaskBrowser, active_browsers


class TaskFilter(logging.Filter):
    """Gives each log record the attributes ``task_id``, ``session_id`` and ``host``; the ids are ""
    outside of tasks.  In a task also the fields of lines of JSON (``add_fields``).

    For a handler of your own, with ``%(task_id)s %(session_id)s %(host)s`` in its format:
    ``handler.addFilter(TaskFilter())``.  Celery's own formatter sets ``task_id`` too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        browser = next(active_browsers(), None)
        record.task_id = browser.task_id if browser else ""
        record.session_id = browser.session_id if browser else ""
        record.host = os.uname().nodename
        add_fields(record, browser)
        return True


class SuffixFilter(logging.Filter):
    """Appends task id, session id and host to the message, so that they show in any format, and adds the
    fields.  Lines that are logged outside of tasks stay as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        browser = next(active_browsers(), None)
        if browser is not None:
            add_fields(record, browser)
            facts = {"task": browser.task_id, "session": browser.session_id, "host": os.uname().nodename}
            words = [f"{word}={value or '-'}" for word, value in facts.items()]
            head, *rest = record.getMessage().split("\n")
            record.msg, record.args = "\n".join([f"{head} [{' '.join(words)}]", *rest]), ()
        return True


def add_fields(record: logging.LogRecord, browser: TaskBrowser | None) -> None:
    """``celery.task.id`` and ``browserkeeper.session.id``, as far as they are known and the record has
    none."""
    if browser is not None:
        ids = {"celery.task.id": browser.task_id, "browserkeeper.session.id": browser.session_id}
        for name, value in ids.items():
            if value:
                vars(record).setdefault(name, value)


def attach(logger: logging.Logger) -> None:
    """Add a SuffixFilter to ``logger``, if it has none.  (Filters of a logger apply to what is logged
    on that logger, not on its children.)"""
    if not any(isinstance(found, SuffixFilter) for found in logger.filters):
        logger.addFilter(SuffixFilter())


__all__ = ["SuffixFilter", "TaskFilter", "attach"]
