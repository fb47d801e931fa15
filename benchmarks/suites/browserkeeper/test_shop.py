"""A visit to the shop, with browserkeeper's plugin."""

from __future__ import annotations

import os

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

SITE, TESTS = os.environ["SITE"], int(os.environ["TESTS"])


@pytest.mark.parametrize("number", range(TESTS))
def test_visit(keeper_driver: webdriver.Remote, number: int) -> None:
    driver = keeper_driver
    driver.get(SITE)
    assert driver.title == "The Leaky Shelf"
    assert driver.get_cookies() == []
    driver.find_element(By.LINK_TEXT, "Slow Answers").click()
    assert driver.find_element(By.TAG_NAME, "h1").text == "Slow Answers"
    driver.add_cookie({"name": "visit", "value": str(number)})
