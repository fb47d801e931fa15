"""Tests of a small book shop: plain Selenium code, with browsers from browserkeeper's fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver


def test_the_front_page(keeper_driver: WebDriver) -> None:
    keeper_driver.get("/")
    assert keeper_driver.title == "The Leaky Shelf"


@pytest.mark.parametrize("shelf", ["fiction", "nature"])
def test_every_book_of_a_shelf_has_a_price(keeper_driver: WebDriver, shelf: str) -> None:
    keeper_driver.get(f"/category/{shelf}")
    books = keeper_driver.find_elements(By.CLASS_NAME, "card")
    assert books
    for book in books:
        assert book.find_element(By.CLASS_NAME, "cost").text.startswith("£")


@pytest.mark.keeper_options(window_size=(400, 800))
def test_on_a_narrow_screen(keeper_driver: WebDriver) -> None:
    keeper_driver.get("/")
    assert keeper_driver.find_element(By.TAG_NAME, "nav").is_displayed()


def test_two_visitors(keeper_factory: Callable[[], WebDriver]) -> None:
    one, two = keeper_factory(), keeper_factory()
    one.get("/")
    one.add_cookie({"name": "visitor", "value": "one"})
    two.get("/")
    assert two.get_cookies() == []


@pytest.mark.keeper_timeout(20)
def test_a_page_that_takes_its_time(keeper_driver: WebDriver) -> None:
    keeper_driver.get("/slow")
    assert keeper_driver.find_element(By.TAG_NAME, "nav").is_displayed()
