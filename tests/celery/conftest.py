"""Fixtures of the tests of ``browserkeeper.celery``."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from celery import Celery

from tests.celery.workers import Redis, running_redis


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app without a worker.  Its tasks are not shared: no other test's app gets them."""
    made = Celery("units", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.task = functools.partial(made.task, shared=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_redis() as running:
        yield running
