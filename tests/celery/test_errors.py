"""Errors of tasks outlive pickling and JSON."""

from __future__ import annotations

import json
import pickle

import pytest
from celery import Celery

from browserkeeper.celery import (
    TaskTimeout,
    TooManyDeliveries,
)

COMMANDS = "late\nIts last command:\n  get http://h/slow: in flight for 30.00 s when the session ended"


@pytest.mark.parametrize(
    "error", [TaskTimeout("late"), TaskTimeout(COMMANDS), TooManyDeliveries("again")]
)
def test_errors_survive_pickling_and_celerys_json(app: Celery, error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    stored = json.loads(json.dumps(app.backend.prepare_exception(error, "json")))
    back = app.backend.exception_to_python(stored)
    assert (type(back), str(back)) == (type(error), str(error))
