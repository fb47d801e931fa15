"""A visit to the shop, with pytest-playwright."""

from __future__ import annotations

import os
from typing import Any

import pytest

SITE, TESTS = os.environ["SITE"], int(os.environ["TESTS"])


@pytest.mark.parametrize("number", range(TESTS))
def test_visit(page: Any, number: int) -> None:
    page.goto(SITE)
    assert page.title() == "The Leaky Shelf"
    assert page.context.cookies() == []
    page.get_by_role("link", name="Slow Answers").click()
    assert page.locator("h1").text_content() == "Slow Answers"
    page.context.add_cookies([{"name": "visit", "value": str(number), "url": SITE}])
