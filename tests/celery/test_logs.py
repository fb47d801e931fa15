"""Task id, session id and host on log lines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from browserkeeper.celery import (
    TaskFilter,
)
from browserkeeper.celery.logs import SuffixFilter
from browserkeeper.celery.settings import BrowserSpec
from browserkeeper.celery.task_browser import TaskBrowser, run_with_browser
from tests.celery.workers import ROOT, running_redis
from tests.support.waiting import wait_until


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
    assert vars(record)["celery.task.id"] == "t1"
    assert not {"host", "task_id"} & set(vars(record)), "in lines of JSON they would be fields as well"
    assert record.getMessage() == f"ended well [task=t1 session=- host={os.uname().nodename}]\n  more"


def test_a_users_handler_can_use_the_task_filter() -> None:
    record = logging.LogRecord("mine", 20, __file__, 1, "hello", (), None)
    assert TaskFilter().filter(record)
    line = logging.Formatter("%(message)s [%(task_id)s|%(session_id)s|%(host)s]").format(record)
    assert line == f"hello [||{os.uname().nodename}]"


APP = """
import logging, os
from celery import Celery, signals
from browserkeeper.celery import install
from browserkeeper.telemetry import logs

app = Celery("shop", broker=os.environ["BROKER"])
install(app)

@signals.setup_logging.connect  # Celery then installs no handlers of its own
def setup(**_):
    logs.configure("json", logger="")

@app.task(name="shop.check", bind=True)
def check(self, order):
    logging.getLogger("shop").warning("checked", extra={"order_id": order})
    logging.getLogger("browserkeeper").warning("a line of the library's")
"""


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_lines_of_a_real_workers_task_have_its_id_and_name_as_fields(tmp_path: Path, pool: str) -> None:
    (tmp_path / "shop_logs.py").write_text(APP)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with running_redis() as redis, open(tmp_path / "log", "ab") as log:
        environment = {**os.environ, "BROKER": redis.url, "PYTHONPATH": path}
        words = [sys.executable, "-m", "celery", "-A", "shop_logs:app", "worker", "--concurrency", "1"]
        worker = subprocess.Popen([*words, "--pool", pool], env=environment, stdout=log, stderr=log)
        try:
            app = Celery("sender", broker=redis.url)
            ids = {app.send_task("shop.check", args=[order]).id: order for order in (7, 8)}
            assert wait_until(lambda: len(lines_of(tmp_path, "shop")) == 2)
            found = {line["celery.task.id"]: line for line in lines_of(tmp_path, "shop")}
            assert {id: line["order_id"] for id, line in found.items()} == ids
            assert {line["celery.task.name"] for line in found.values()} == {"shop.check"}
            assert wait_until(lambda: len(lines_of(tmp_path, "browserkeeper")) >= 2)
            ours = [
                line for line in lines_of(tmp_path, "browserkeeper") if "library's" in line["message"]
            ]
            assert {line["celery.task.id"] for line in ours} == set(ids)
            assert "celery.task.id" not in lines_of(tmp_path, "celery.apps.worker")[0]
            app.close()
        finally:
            worker.terminate()
            worker.wait()


def lines_of(directory: Path, logger: str) -> list[dict[str, Any]]:
    """The lines of a logger in the worker's log; other output, such as the banner, is no JSON."""
    text = (directory / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if is_whole(line)]
    return [line for line in lines if line["log.logger"] == logger]


def is_whole(line: str) -> bool:
    return line.startswith('{"@timestamp"') and line.endswith("}\n")
