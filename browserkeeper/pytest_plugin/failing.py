"""How this plugin fails a test whose arguments are wrong."""

from __future__ import annotations

from typing import NoReturn

import pytest

from ..errors import hide_frames as __tracebackhide__  # noqa: F401


def fail(text: str) -> NoReturn:
    """Fail the test with one line."""
    pytest.fail(f"browserkeeper: {text}", pytrace=False)


__all__ = ["fail"]
