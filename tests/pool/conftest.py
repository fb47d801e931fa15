"""Fixtures of the tests of pools."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from browserkeeper.state.ledger import Ledger


@pytest.fixture
def limit() -> Callable[[int], None]:
    """Sets the host's limit, for all programs of the test."""

    def set_limit(number: int) -> None:
        path = Ledger.open().directory / "limits.toml"
        draft = path.with_suffix(".new")
        draft.write_text(f"max_browsers = {number}\n")
        draft.replace(path)

    return set_limit
