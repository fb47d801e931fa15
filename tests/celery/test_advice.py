"""Advice on the settings of an app: ``check()``, ``recommended_settings()`` and the doctor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from browserkeeper import (
    ConfigError,
)
from browserkeeper.celery import (
    check,
    recommended_settings,
)
from browserkeeper.status.celery_advice import TEARDOWN_BUDGET
from browserkeeper.status.check import Check

OTHER_APP = Celery("other", set_as_current=False)
"""As of a module that another test of this process has imported."""


@OTHER_APP.task(name="hasty_task_of_another_app", time_limit=2, soft_time_limit=1)
def hasty_task_of_another_app() -> None: ...


def statuses(app: Celery) -> dict[str, Check]:
    return {found.name.removeprefix("celery "): found for found in check(app)}


def test_the_check_accepts_the_recommended_settings(app: Celery) -> None:
    app.conf.update(recommended_settings(), broker_url="redis://", result_backend="redis://")
    found = statuses(app)
    assert {check.status for check in found.values()} == {"ok"}
    assert len(found) == 8


def test_tasks_of_another_tests_app_are_not_checked(app: Celery) -> None:
    assert OTHER_APP.tasks["hasty_task_of_another_app"].time_limit == 2
    assert "hasty_task_of_another_app" not in app.tasks
    assert "hasty_task_of_another_app" not in statuses(app)


def test_the_check_warns_of_celerys_defaults(app: Celery) -> None:
    app.conf.update(broker_url="redis://", result_backend=None)
    wanting = {name for name, found in statuses(app).items() if found.status == "warn"}
    assert wanting == {
        *("time limits", "acks_late", "prefetch", "max_tasks_per_child", "max_memory_per_child"),
        *("visibility timeout", "results"),
    }
    assert all(found.remedy for found in check(app) if found.status == "warn")


@pytest.mark.parametrize(
    ("conf", "name", "said"),
    [
        ({"task_soft_time_limit": 115}, "time limits", "soft 115 s, hard 120 s"),
        ({"task_soft_time_limit": None}, "time limits", "without a soft limit"),
        ({"task_time_limit": None}, "time limits", "without a hard limit"),
        ({"task_reject_on_worker_lost": False}, "acks_late", "loses its task all the same"),
        ({"browserkeeper_max_redeliveries": None}, "redeliveries", "without a bound"),
        (
            {"broker_url": "amqp://", "result_backend": "db+sqlite://"},
            "redeliveries",
            "cannot be counted",
        ),
        ({"broker_transport_options": {"visibility_timeout": 60}}, "visibility timeout", "run twice"),
        ({"worker_prefetch_multiplier": 4}, "prefetch", "wait behind long ones"),
        ({"result_backend": "rpc://"}, "results", "rpc"),
    ],
)
def test_the_check_names_each_wrong_setting(
    app: Celery, conf: dict[str, Any], name: str, said: str
) -> None:
    app.conf.update({**recommended_settings(), "broker_url": "redis://", "result_backend": "redis://"})
    app.conf.update(conf)
    wanting = {key: found for key, found in statuses(app).items() if found.status == "warn"}
    assert name in wanting
    assert set(wanting) <= {name, "visibility timeout"}  # which needs a time limit to be above
    assert said in wanting[name].what


def test_the_check_reads_the_limits_of_each_task(app: Celery) -> None:
    app.conf.update({**recommended_settings(), "broker_url": "redis://", "result_backend": "redis://"})

    @app.task(name="hasty", time_limit=20, soft_time_limit=19)
    def hasty() -> None: ...

    @app.task(name="endless", time_limit=7200, soft_time_limit=7000)
    def endless() -> None: ...

    found = statuses(app)
    assert (found["hasty"].status, found["endless"].status) == ("warn", "ok")
    assert "7200 s: they run twice" in found["visibility timeout"].what


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"time_limit": TEARDOWN_BUDGET}, "leaves no time for the task"),
        ({"time_limit": -1}, "time_limit"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child"),
        ({"time_limit": 600, "visibility_timeout": 600}, "run twice"),
    ],
)
def test_recommended_settings_refuse_invalid_arguments(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recommended_settings(**given)


def doctor(tmp_path: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\n"
        "from browserkeeper.celery import recommended_settings\n"
        "good = Celery('good', broker='redis://', backend='redis://')\n"
        "good.conf.update(recommended_settings())\n"
        "bad = Celery('bad', broker='redis://')\n"
    )
    command = [sys.executable, "-m", "browserkeeper", "doctor", "--celery", name, *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)


def test_the_doctor_prints_the_advice(tmp_path: Path) -> None:
    done = doctor(tmp_path, "shop:bad")
    assert done.returncode == 0
    assert "warn  celery time limits" in done.stdout
    assert "Set task_time_limit" in done.stdout
    checks = json.loads(doctor(tmp_path, "shop:good", "--json").stdout)["checks"]
    assert {check["status"] for check in checks} == {"ok"}


def test_the_doctor_reports_an_app_that_cannot_be_loaded(tmp_path: Path) -> None:
    done = doctor(tmp_path, "nowhere:app")
    assert done.returncode == 2
    assert "The Celery app 'nowhere:app' cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_without_celery_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['celery'] = None; from browserkeeper.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor", "--celery", "shop:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "pip install 'browserkeeper[celery]'" in done.stderr
