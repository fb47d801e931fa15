"""The test that runs, for the driver of its module, and the markers that such a test may have.

Light to import.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import pytest


class ModuleDriver(Protocol):
    """What the hooks need of the driver of a module; :mod:`.module_driver` documents the methods."""

    driver: Any

    def begin_test(self) -> None: ...
    def end_test(self, *, failed: bool = False) -> None: ...


@dataclasses.dataclass
class Running:
    """The test that runs, and the driver of its module; None between tests, or without such a driver."""

    item: pytest.Item | None = None
    driver: ModuleDriver | None = None


RUNNING = pytest.StashKey[Running]()


def arguments_of_a_test() -> frozenset[str]:
    """The arguments of keeper_options that one test may have: those that a lease can."""
    from ..options.identity import IDENTITY_WORDS

    return frozenset(("timeout", "label", *IDENTITY_WORDS))


def problem_of(item: pytest.Item) -> str:
    """Why a test cannot have its markers with a module-wide browser; "" if it can."""
    for node, mark in item.iter_markers_with_node("keeper_options"):
        if not isinstance(node, (pytest.Item, pytest.Class)):
            continue
        if wrong := sorted(set(mark.kwargs) - arguments_of_a_test()):
            of = "class" if isinstance(node, pytest.Class) else "test"
            return (
                f"@pytest.mark.keeper_options({wrong[0]}=…) cannot hold for one {of}: the browser "
                "of keeper_module_driver is the module's. Put it into the module, as `pytestmark = "
                f"pytest.mark.keeper_options(…)`, or use keeper_driver. A {of} may have: "
                f"{', '.join(sorted(arguments_of_a_test()))}."
            )
    return ""
