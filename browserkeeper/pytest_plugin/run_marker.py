"""The name of a run of tests: in the environment of every process that the run starts, and in pytest's
stash.

The name is followed by the scope in which a process was started: ``t7`` for a test, ``f8`` for the
set-up of a fixture of a wider scope; the numbers only tell them apart.  Processes inherit it, so it says
of a driver or browser whose parents have died where the first of them was started.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

VARIABLE = "BROWSERKEEPER_PYTEST"
"""The environment variable: ``RUN:SCOPE``.  A run inside of another run's test appends its own:
``outer:t5/inner:t1``."""

RUN = pytest.StashKey[str]()
"""The name of the whole run, which xdist's workers share with their controller."""

_BEFORE = pytest.StashKey["str | None"]()
"""What VARIABLE was before this run."""


def choose(config: pytest.Config) -> None:
    """Choose the run's name and store it."""
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[RUN] = workerinput["testrunuid"] if workerinput else os.urandom(8).hex()


def own_run(config: pytest.Config) -> str:
    """The name of this process's part of the run."""
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    return worker_run(workerinput) if workerinput else config.stash[RUN]


def worker_run(workerinput: dict[str, Any]) -> str:
    """The name of an xdist worker's part of a run, unique on this machine."""
    return f"{workerinput['testrunuid']}.{workerinput['workerid']}"


def mark(config: pytest.Config) -> str:
    """Add the name of this process's part of the run to the environment, which every process started
    from now on inherits; return the name."""
    config.stash[_BEFORE] = os.environ.get(VARIABLE)
    run = own_run(config)
    set_scope(run, "")
    return run


def set_scope(run: str, scope: str) -> None:
    """Set the scope of the processes that are started from now on."""
    marks = os.environ.get(VARIABLE, "").split("/")
    others = [each for each in marks if each and each.partition(":")[0] != run]
    os.environ[VARIABLE] = "/".join([*others, f"{run}:{scope}"])


def scope_in(value: str | None, run: str) -> str | None:
    """The scope of this run in a value of VARIABLE, "" for none; None if the run is not named there."""
    for each in (value or "").split("/"):
        name, _, scope = each.partition(":")
        if name == run:
            return scope
    return None


def unmark(config: pytest.Config) -> None:
    """Restore the environment variable, if :func:`mark` has set it."""
    if _BEFORE in config.stash:
        before = config.stash[_BEFORE]
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
