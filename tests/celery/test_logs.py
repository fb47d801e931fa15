"""Task id, session id and host on log lines."""

from __future__ import annotations

import logging
import os
import types

from browserkeeper.celery import (
    TaskFilter,
)
from browserkeeper.celery.logs import SuffixFilter
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import TaskBrowser, run_with_browser


def test_only_lines_logged_in_a_task_get_the_suffix() -> None:
    def line() -> logging.LogRecord:
        record = logging.LogRecord("browserkeeper", 20, __file__, 1, "ended %s\n  more", ("well",), None)
        assert SuffixFilter().filter(record)
        return record

    assert line().getMessage() == "ended well\n  more"
    task_browser = TaskBrowser(
        BrowserSpec(), request=types.SimpleNamespace(id="t1", called_directly=True)
    )
    record = run_with_browser(task_browser, line)
    assert record.getMessage() == f"ended well [task=t1 session=- host={os.uname().nodename}]\n  more"


def test_a_users_handler_can_use_the_task_filter() -> None:
    record = logging.LogRecord("mine", 20, __file__, 1, "hello", (), None)
    assert TaskFilter().filter(record)
    line = logging.Formatter("%(message)s [%(task_id)s|%(session_id)s|%(host)s]").format(record)
    assert line == f"hello [||{os.uname().nodename}]"
