"""Task id, session id and host on each line of the logger ``browserkeeper``, and of yours if you like.

Nothing here has a lock or a file, so nothing breaks in a fork.
"""

from __future__ import annotations

import logging
import os

from .task_browser import running


class TaskFilter(logging.Filter):
    """Gives each record ``task_id``, ``session_id`` and ``host``, "" where there is none.

    On a handler of your own, with ``%(task_id)s %(session_id)s %(host)s`` in its format, every line
    has them: ``handler.addFilter(TaskFilter())``.  Celery's formatter has a ``task_id`` of its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        hold = next(running(), None)
        record.task_id = hold.task_id if hold else ""
        record.session_id = hold.session_id if hold else ""
        record.host = os.uname().nodename
        return True


class SuffixFilter(TaskFilter):
    """The same, and in the line itself, whatever the format: for lines logged during a task."""

    def filter(self, record: logging.LogRecord) -> bool:
        super().filter(record)
        if next(running(), None) is not None:
            facts = {"task": "task_id", "session": "session_id", "host": "host"}
            words = [f"{word}={getattr(record, name) or '-'}" for word, name in facts.items()]
            head, *rest = record.getMessage().split("\n")
            record.msg, record.args = "\n".join([f"{head} [{' '.join(words)}]", *rest]), ()
        return True


def attach(logger: logging.Logger) -> None:
    """To the logger, once.  (A logger's filters see what is logged on it, not on its children.)"""
    if not any(isinstance(found, SuffixFilter) for found in logger.filters):
        logger.addFilter(SuffixFilter())


__all__ = ["SuffixFilter", "TaskFilter", "attach"]
