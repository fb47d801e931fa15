"""Fixtures of the tests of ``browserkeeper.celery``."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from celery import Celery, _state

from tests.celery.workers import Redis, running_redis


@pytest.fixture(autouse=True)
def no_tasks_of_other_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The apps of a test have their own tasks and Celery's, no others.

    Celery adds each task that any app of the process has made to every app that is finalized later,
    unless it was made with ``shared=False``.  So a module that makes an app when it is imported, in
    whatever test of this process, would change the apps of the tests here.
    """
    own = {make for make in _state._on_app_finalizers if make.__module__ == "celery.app.builtins"}
    monkeypatch.setattr(_state, "_on_app_finalizers", own)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app without a worker.  Its tasks are not shared: no other app gets them."""
    made = Celery("units", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.task = functools.partial(made.task, shared=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running
