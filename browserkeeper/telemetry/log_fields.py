"""A log record's fields by name, for lines of JSON.

Names are those of the Elastic Common Schema 1.x
(https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html); our own fields begin with
``browserkeeper.``.  Each attribute that a program has added to the record (``extra=``, a filter, a
record factory) is a field under its own name, as with ecs-logging and python-json-logger.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

ECS_VERSION = "1.12.0"
OF_LOGGING = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"}
"""Attributes that logging itself gives to a record; taskName since Python 3.12."""
OBJECTS = {"browserkeeper", "celery", "ecs", "error", "event", "host", "log", "process", "span", "trace"}
"""Fields of ours begin with these and a dot.  Elasticsearch takes no document in which such a name has a
value of its own as well."""


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The record's fields by name."""
    when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    return {
        "@timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "log.level": record.levelname.lower(),
        "message": record.getMessage(),
        "ecs.version": ECS_VERSION,
        "log.logger": record.name,
        "log.origin.file.name": record.filename,
        "log.origin.file.line": record.lineno,
        "log.origin.function": record.funcName,
        "process.pid": record.process,
        "process.name": record.processName,
        "process.thread.name": record.threadName,
        "host.name": os.uname().nodename,
        **dict(_error(record)),
        **dict(extras(record)),
    }


def extras(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What a program has added to the record.

    A plain value with the name of one of our objects, such as ``host``, becomes ``labels.host``.
    """
    for name, value in vars(record).items():
        if name in OF_LOGGING:
            continue
        is_in_the_way = name in OBJECTS and not isinstance(value, dict)
        yield (f"labels.{name}" if is_in_the_way else name), value


def _error(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if record.exc_info and record.exc_info[1] is not None:
        kind, error, trace = record.exc_info
        yield "error.type", f"{type(error).__module__}.{type(error).__qualname__}"
        yield "error.message", str(error)
        yield "error.stack_trace", "".join(traceback.format_exception(kind, error, trace))
    elif record.stack_info:
        yield "error.stack_trace", record.stack_info


class ContextFilter(logging.Filter):
    """Gives each record ``trace.id`` and ``span.id`` of OpenTelemetry's current span, and
    ``celery.task.id`` and ``celery.task.name`` of the Celery task that runs.

    For a handler: there the thread is that of the caller.  Without a span or a task, and where a library
    was not imported, the record has no such attribute.  What the record has already stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        attributes = vars(record)
        for name, value in (*span_ids().items(), *task_names().items()):
            attributes.setdefault(name, value)
        return True


def span_ids() -> dict[str, str]:
    """``trace.id`` and ``span.id`` of the current span in hexadecimal; {} without one."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(trace, "get_current_span"):  # or it is being imported just now
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace.id": f"{context.trace_id:032x}", "span.id": f"{context.span_id:016x}"}


def task_names() -> dict[str, str]:
    """Id and name of the Celery task that runs in this thread or greenlet; {} without one.  Celery's own
    log formatter asks the same function."""
    state: Any = sys.modules.get("celery._state")
    task = state.get_current_task() if hasattr(state, "get_current_task") else None
    if task is None or not getattr(task.request, "id", None):
        return {}
    return {"celery.task.id": str(task.request.id), "celery.task.name": str(task.name)}


__all__ = ["ContextFilter", "extras", "fields", "span_ids", "task_names"]
