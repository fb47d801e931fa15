"""Libraries that replace parts of Python: gevent works; eventlet and halves of gevent are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from browserkeeper.status.celery_advice import check

ROOT = Path(__file__).resolve().parent.parent.parent
EVENTLET = "import eventlet; eventlet.monkey_patch({})"
GEVENT = "import gevent.monkey; gevent.monkey.{}"
SESSION = "browserkeeper.browser('chromium').start()"
POOL = "browserkeeper.BrowserPool('chromium').open()"
SAY = """
import browserkeeper
try:
    {}
except browserkeeper.BrowserkeeperError as error:
    print(type(error).__name__, error, flush=True)
except AttributeError as error:
    print("raw", error, flush=True)
import os; os._exit(0)"""


def said_by(*lines: str, **environment: str) -> str:
    words = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("patch", "use", "reason"),
    [
        (EVENTLET.format(""), SESSION, "does not work under eventlet"),
        (EVENTLET.format(""), POOL, "does not work under eventlet"),
        (EVENTLET.format("socket=True"), POOL, "eventlet, which has replaced socket"),
        (
            GEVENT.format("patch_all(thread=False)"),
            SESSION,
            "but not thread: call gevent",
        ),
        (GEVENT.format("patch_all(select=False)"), POOL, "but not select: call gevent"),
        (GEVENT.format("patch_socket()"), SESSION, "but not select, subprocess, thread"),
        ("import select; del select.poll", SESSION, "has removed select.poll"),
    ],
)
def test_a_process_where_no_browser_can_work_is_refused_by_name(
    patch: str, use: str, reason: str
) -> None:
    said = said_by(patch, SAY.format(use))
    assert said.startswith("ConfigError"), said
    assert reason in said


@pytest.mark.leaves_zombies(4, "the error leaves the guards without a parent that waits")
def test_control_without_the_check_a_raw_error_comes() -> None:
    without = """
from browserkeeper.process import containment, guard_process
containment.require_usable = guard_process.require_usable = lambda: None"""
    said = said_by(EVENTLET.format(""), without, SAY.format(SESSION))
    assert "no attribute 'poll'" in said


@pytest.mark.parametrize(
    "patch", ["", GEVENT.format("patch_all()"), GEVENT.format("patch_all(os=False)")]
)
def test_gevent_with_all_its_patches_is_accepted(patch: str) -> None:
    look = "from browserkeeper.process.monkey_patches import obstacle_to"
    assert said_by(patch, look, "print([obstacle_to(), obstacle_to(pool=True)])") == "['', '']\n"


def test_a_worker_on_eventlet_does_not_start_and_says_why() -> None:
    """A worker on gevent is among the WORKER_POOLS of the other tests."""
    rig = {"redis": "memory://", "install": {}, "conf": {}}
    words = ["-m", "celery", "-A", "tests.celery.celery_app", "worker", "-P", "eventlet"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "CELERY_RIG": json.dumps(rig)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode
    assert "browserkeeper does not work under eventlet" in done.stdout + done.stderr


def test_a_worker_on_eventlet_that_a_program_starts_does_not_start_either() -> None:
    program = """
from celery import Celery
from browserkeeper.celery import install
app = Celery("program", broker="memory://")
install(app)
print("installed")
app.Worker(pool="eventlet").start()
print("runs")"""
    said = said_by(EVENTLET.format(""), program)
    assert "installed" in said  # a program that only sends tasks is allowed
    assert "browserkeeper: browserkeeper does not work under eventlet" in said
    assert "runs" not in said


def test_the_check_names_eventlet_as_an_unusable_worker_pool(app: Celery) -> None:
    assert "celery worker pool" not in {found.name for found in check(app)}
    app.conf.worker_pool = "eventlet"
    (found,) = (found for found in check(app) if found.name == "celery worker pool")
    assert (found.status, "prefork" in found.remedy) == ("fail", True)
