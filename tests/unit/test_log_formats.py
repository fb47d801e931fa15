"""Log formats: every field that a program adds, formatters of other libraries, ids of spans."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ecs_logging
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pythonjsonlogger.json import JsonFormatter as TheirJsonFormatter

from browserkeeper import ConfigError
from browserkeeper.telemetry import logs
from tests.support.cli import CLI, ROOT

NAME = "browserkeeper.tests.formats"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger(NAME)
    yield found
    found.handlers, found.propagate = [], True
    found.setLevel(logging.NOTSET)


class Target:
    """A file, or a pipe, to log to; ``lines()`` are those written since the last call."""

    def __init__(self, read: int, write: int):
        self.read, self.fd = read, write

    def lines(self) -> list[bytes]:
        return os.read(self.read, 1 << 20).splitlines(keepends=True)

    def one(self) -> dict[str, Any]:
        (line,) = self.lines()
        facts: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
        return facts


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Target]:
    with open(tmp_path / "log", "ab") as write, open(tmp_path / "log", "rb") as read:
        yield Target(read.fileno(), write.fileno())


@pytest.fixture
def pipe() -> Iterator[Target]:
    target = Target(*os.pipe())
    yield target
    os.close(target.read)
    os.close(target.fd)


# ------------------------------------------------------------------------------------ fields of programs


def test_each_field_that_a_program_adds_is_in_the_line(logger: logging.Logger, file: Target) -> None:
    logs.configure("json", logger=NAME, fd=file.fd)
    extra = {
        "order_id": 4711,
        "user": {"name": "ann", "roles": ["a", "b"]},
        "http.request.method": "GET",
        "task_id": "t1",
        "none": None,
        "event.action": "checked",
        "browserkeeper.session.id": "0123456789ab",
    }
    logging.LoggerAdapter(logger, extra).info("checked")
    facts = file.one()
    assert {name: facts[name] for name in extra} == extra
    assert facts["message"] == "checked"
    assert set(facts) - set(extra) <= {name for name in facts if "." in name} | {"@timestamp", "message"}


def test_a_field_of_a_filter_or_a_record_factory_counts_too(
    logger: logging.Logger, file: Target
) -> None:
    handler = logs.configure("json", logger=NAME, fd=file.fd)

    class Adds(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.request_id = "r1"
            return True

    handler.addFilter(Adds())
    logger.info("x")
    assert file.one()["request_id"] == "r1"


def test_a_value_named_like_an_object_of_the_schema_becomes_a_label(
    logger: logging.Logger, file: Target
) -> None:
    """Elasticsearch refuses a document in which ``host`` is a text and ``host.name`` one as well."""
    logs.configure("json", logger=NAME, fd=file.fd)
    logger.info("x", extra={"host": "a", "event": "b", "error": {"code": "c"}})
    facts = file.one()
    assert (facts["labels.host"], facts["labels.event"]) == ("a", "b")
    assert facts["host.name"] == os.uname().nodename


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {("a", 1): "key"}, {1, 2}, b"\xff", object(), "\ud800\x1b", 10**400],
    ids=repr,
)
def test_a_value_that_json_does_not_have_loses_no_line(
    logger: logging.Logger, file: Target, value: Any
) -> None:
    logs.configure("json", logger=NAME, fd=file.fd)
    circle: list[Any] = []
    circle.append(circle)
    logger.info("x", extra={"odd": value, "circle": circle, "well": 1})
    facts = file.one()
    assert facts["well"] == 1
    assert {"odd", "circle"} <= set(facts)


def test_what_does_not_fit_into_a_pipe_is_named(logger: logging.Logger, pipe: Target) -> None:
    logs.configure("json", logger=NAME, fd=pipe.fd)
    logger.info(
        "m" * 300, extra={"large": "x" * 9000, "larger": ["y" * 9999], "small": "z", "trace.id": "t"}
    )
    (line,) = pipe.lines()
    assert len(line) <= select.PIPE_BUF
    facts = json.loads(line)
    assert facts["browserkeeper.left_out"] == ["larger", "large"]
    assert (facts["small"], facts["trace.id"]) == ("z", "t")
    logger.info("x", extra={f"name-{n}-{'n' * 50}": n for n in range(500)})
    (line,) = pipe.lines()
    assert len(line) <= select.PIPE_BUF
    assert json.loads(line)["message"] == "x"


# ------------------------------------------------------------------------------------- other formatters


def test_set_formatter_is_honoured(logger: logging.Logger, file: Target) -> None:
    handler = logs.configure("json", logger=NAME, fd=file.fd)
    handler.setFormatter(logging.Formatter("%(levelname)s|%(message)s|%(colour)s"))
    logger.warning("hello", extra={"colour": "red"})
    assert file.lines() == [b"WARNING|hello|red\n"]

    class Mine(logs.JsonFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return "mine " + super().format(record)

    handler.setFormatter(Mine())
    logger.warning("hello")
    (line,) = file.lines()
    assert line.startswith(b'mine {"@timestamp"')


def test_our_formatters_work_in_other_handlers(logger: logging.Logger, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    handler.addFilter(logs.ContextFilter())
    handler.setFormatter(logs.JsonFormatter())
    logger.addHandler(handler)
    logger.error("hello", extra={"mine": 1})
    handler.close()
    assert json.loads((tmp_path / "log").read_text())["mine"] == 1


def test_ecs_logging_formats_what_our_handler_writes(logger: logging.Logger, file: Target) -> None:
    extra = {"order_id": 7, "event.action": "x", "browserkeeper.session.id": "0123456789ab"}
    for choice in ({"format": "ecs"}, {"formatter": ecs_logging.StdlibFormatter()}):
        logs.configure(logger=NAME, fd=file.fd, **choice)
        logger.warning("hello", extra=extra)
        facts = file.one()
        assert facts["log.level"] == "warning"
        assert facts["event"]["action"] == "x"
        assert facts["order_id"] == 7
        assert facts["browserkeeper"]["session"]["id"] == "0123456789ab"


def test_python_json_logger_formats_what_our_handler_writes(
    logger: logging.Logger, file: Target
) -> None:
    logs.configure("python-json-logger", logger=NAME, fd=file.fd)
    logger.warning("hello", extra={"order_id": 7, "event.action": "x"})
    facts = file.one()
    assert (facts["message"], facts["levelname"], facts["name"]) == ("hello", "WARNING", NAME)
    assert (facts["order_id"], facts["event.action"], facts["process"]) == (7, "x", os.getpid())
    logs.configure(logger=NAME, fd=file.fd, formatter=TheirJsonFormatter("%(message)s"))
    logger.warning("hello")
    assert file.one() == {"message": "hello"}


@pytest.mark.parametrize("format", ["ecs", "python-json-logger", "json"])
def test_the_watch_logs_in_each_format_that_the_variable_names(format: str) -> None:
    environment = {**os.environ, "BROWSERKEEPER_LOG": format, "BROWSERKEEPER_MAX_BROWSERS": "none"}
    words = [*CLI, "watch", "--once"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert "BROWSERKEEPER_LOG" not in done.stderr
    for line in done.stderr.splitlines():
        assert json.loads(line)["message"]


@pytest.mark.parametrize(
    ("format", "module"), [("ecs", "ecs_logging"), ("python-json-logger", "pythonjsonlogger")]
)
def test_a_format_whose_library_is_missing_names_the_extra(format: str, module: str) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from browserkeeper.telemetry import logs\n"
        f"logs.configure({format!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "ConfigError: The log format" in done.stderr
    assert "pip install 'browserkeeper[logs]'" in done.stderr


def test_a_format_together_with_a_formatter_is_refused() -> None:
    with pytest.raises(ConfigError, match="format= and formatter="):
        logs.configure("json", formatter=logging.Formatter())


# ----------------------------------------------------------------------------------- spans and tasks


@pytest.mark.parametrize("format", ["json", "ecs", "python-json-logger"])
def test_lines_have_the_ids_of_opentelemetrys_current_span(
    logger: logging.Logger, file: Target, format: Any
) -> None:
    logs.configure(format, logger=NAME, fd=file.fd)
    tracer = TracerProvider().get_tracer("tests")
    with tracer.start_as_current_span("job") as span:
        logger.info("inside")
        context = span.get_span_context()
    ids = (trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
    facts = file.one()
    nested = format == "ecs"
    found = (
        (facts["trace"]["id"], facts["span"]["id"]) if nested else (facts["trace.id"], facts["span.id"])
    )
    assert found == ids
    logger.info("outside")
    assert not {"trace.id", "span.id", "trace", "span"} & set(file.one())
    logger.info("given", extra={"trace.id": "mine"})
    given = file.one()
    assert (given["trace"]["id"] if nested else given["trace.id"]) == "mine"


def test_a_program_without_opentelemetry_and_celery_imports_neither_by_logging() -> None:
    script = (
        "import sys\nfrom browserkeeper.telemetry import logs\nimport logging\nlogs.configure('json')\n"
        "logging.getLogger('browserkeeper').info('x')\n"
        "print([n for n in ('opentelemetry', 'celery', 'ecs_logging') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
