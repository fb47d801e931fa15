"""The name of a run of tests: in the environment of every process that the run starts, and in pytest's
stash.

A driver or browser whose parents have died is found by this name in its environment.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

VARIABLE = "BROWSERKEEPER_PYTEST"
"""The environment variable.  A run inside of another run's test appends its name: ``outer/inner``."""

RUN = pytest.StashKey[str]()
"""The name of the whole run, which xdist's workers share with their controller."""

_BEFORE = pytest.StashKey["str | None"]()
"""What VARIABLE was before this run."""


def choose(config: pytest.Config) -> str:
    """Choose the run's name and store it; return the name of this process's part of the run."""
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[RUN] = workerinput["testrunuid"] if workerinput else os.urandom(8).hex()
    return worker_run(workerinput) if workerinput else config.stash[RUN]


def worker_run(workerinput: dict[str, Any]) -> str:
    """The name of an xdist worker's part of a run, unique on this machine."""
    return f"{workerinput['testrunuid']}.{workerinput['workerid']}"


def mark(config: pytest.Config, run: str) -> None:
    """Add ``run`` to this process's environment, which every process started from now on inherits."""
    before = config.stash[_BEFORE] = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = f"{before}/{run}" if before else run


def unmark(config: pytest.Config) -> None:
    """Restore the environment variable, if :func:`mark` has set it."""
    if _BEFORE in config.stash:
        before = config.stash[_BEFORE]
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def marked_run() -> str:
    """The name that :func:`mark` has added last."""
    return os.environ[VARIABLE].rpartition("/")[2]
