"""The same browser and driver as for the others."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def chrome_options(chrome_options: Any) -> Any:
    for argument in ("--headless=new", "--no-sandbox"):
        chrome_options.add_argument(argument)
    return chrome_options
