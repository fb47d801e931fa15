"""Fixtures of all tests of the shop.  Copy this folder as a start for your own.

pytest examples/tests
pytest examples/tests --keeper-isolation context -n 2
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fixtures.server import Site


@pytest.fixture(scope="session")
def shop() -> Iterator[Site]:
    """The site under test: here a local one; yours may be a URL."""
    with Site() as site:
        yield site


@pytest.fixture(scope="session")
def keeper_browser_args(keeper_browser_args: dict[str, Any]) -> dict[str, Any]:
    """Gives every browser of this suite the same window size."""
    return {**keeper_browser_args, "window_size": (1200, 900)}
