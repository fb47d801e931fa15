"""Does a run of tests use this plugin?  ``keeper_leaks = auto`` looks for leaks only if it does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from . import fixtures, markers, module_fixtures

_FIXTURES = frozenset(
    name for module in (fixtures, module_fixtures) for name in vars(module) if name.startswith("keeper_")
)
"""All of ours but ``driver``, overridden ones too."""
_PACKAGE = __name__.rpartition(".")[0]


def of_run(given: Sequence[str], items: Iterable[pytest.Item]) -> str:
    """What of ours the run uses, in words; "" if it uses nothing.

    ``given`` are the options and ini keys that were given.  Of the collected tests the fixtures and the
    markers are looked at.
    """
    if given:
        return given[0]
    return next((used for item in items if (used := of_test(item))), "")


def of_test(item: pytest.Item) -> str:
    """What of ours a test uses, in words; "" if it uses nothing."""
    for mark in item.iter_markers():
        if mark.name in markers.NAMES:
            return f"the marker {mark.name} of {item.nodeid}"
    definitions: Any = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", None) or {}
    for name, chain in definitions.items():
        if name in _FIXTURES or (name == "driver" and _reaches_ours(chain)):
            return f"the fixture {name} of {item.nodeid}"
    return ""


def is_ours(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return str(getattr(fixturedef.func, "__module__", "")).startswith(f"{_PACKAGE}.")


def _reaches_ours(chain: Sequence[pytest.FixtureDef[Any]]) -> bool:
    """Is the fixture ours?  Or does an override of it, such as a conftest's, request ours?"""
    for fixturedef in reversed(chain):
        if is_ours(fixturedef):
            return True
        if fixturedef.argname not in fixturedef.argnames:
            break
    return False
