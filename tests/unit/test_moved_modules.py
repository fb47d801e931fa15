"""Modules that have moved can be imported by the names under which they were documented, and what was
pickled under the former names can be read."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

from browserkeeper import ExitReport, LaunchError

MOVED = {
    "browserkeeper.logs": "browserkeeper.telemetry.logs",
    "browserkeeper.metrics.collector": "browserkeeper.telemetry.collector",
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """The former names are not imported yet."""
    yield
    for name in ("browserkeeper.metrics", *MOVED):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("former", MOVED)
def test_a_former_name_gives_the_same_module_and_a_warning_at_the_callers_line(former: str) -> None:
    pytest.importorskip("prometheus_client")
    with pytest.warns(DeprecationWarning, match=f"{former} is now {MOVED[former]}") as caught:
        code = compile(f"import {former}", "callers_file.py", "exec")
        exec(code)
    module = importlib.import_module(MOVED[former])
    assert sys.modules[former] is module
    assert [warning.filename for warning in caught] == ["callers_file.py"]
    assert module.__spec__ is not None
    assert (module.__name__, module.__spec__.name) == (MOVED[former], MOVED[former])


def test_the_documented_statements_work() -> None:
    script = """
from browserkeeper import logs
import browserkeeper.metrics.collector
logs.configure()
browserkeeper.metrics.collector.LedgerCollector
"""
    pytest.importorskip("prometheus_client")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_exception_that_was_pickled_before_the_move_can_be_read() -> None:
    """As in the result backend of Celery, or from a worker that was not restarted yet."""
    stored = (
        b"cbrowserkeeper.errors\n_rebuild\n(cbrowserkeeper.errors\nLaunchError\n(Vgone\nt(dVreport\n"
    )
    stored += b"cbrowserkeeper.report\nExitReport\nstR."
    error = pickle.loads(stored)
    assert isinstance(error, LaunchError)
    assert error.args == ("gone",)
    assert vars(error)["report"] is ExitReport


def test_other_missing_modules_are_reported_as_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"browserkeeper\.lgos"):
        importlib.import_module("browserkeeper.lgos")
