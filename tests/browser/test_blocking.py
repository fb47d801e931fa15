"""``browser(block=[...])``: a request that is blocked does not reach the server, wherever it is made."""

from __future__ import annotations

from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import browser
from tests.support.blocked_page import IMAGES, blocked_page, small_page, visit, visit_with_handler
from tests.support.guards import BOTH

ALL = {"/style.css", "/code.js", "/font.woff2", "/film.mp4", "/picture.png", "/photo.jpg?size=9"}


@pytest.mark.parametrize("name", BOTH)
def test_blocked_requests_do_not_reach_the_server_and_others_do(name: str) -> None:
    with blocked_page() as site:
        with browser(name) as driver:
            free = visit(driver, site)
            assert free >= IMAGES | ALL, "the control"
        with browser(name, block=["image", "*/font.woff2", "*/api/*"]) as driver:
            found = visit(driver, site)
            handles: Any = driver.window_handles
            assert len(handles) == 1, "nothing of ours is among the windows"
        api = {path for path in free if path.startswith("/api/")}
        blocked = IMAGES | {"/font.woff2"} | (api if name == "chrome" else {"/api/worker"})
        assert found == free - blocked
        with browser(name, block=["media", "font", "stylesheet"]) as driver:
            found = visit(driver, site)
            assert not found & {"/film.mp4", "/font.woff2", "/style.css", "/back.png"}
            assert found >= {"/picture.png", "/code.js", "/framed.png", "/popped.png"}
            assert driver.execute_script("return window.ran") == 1
        with browser(name, block=["script"]) as driver:
            driver.get(site.url)
            assert driver.execute_script("return window.ran") is None


@pytest.mark.parametrize("name", BOTH)
def test_the_users_own_handlers_work_on_beside_the_blocking(name: str) -> None:
    """They see what is blocked, and cannot let it pass; what is not, they handle."""
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    with small_page() as site, browser(name, options=options, block=["image"]) as driver:
        visit_with_handler(driver, site)
