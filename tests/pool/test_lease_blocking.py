"""``block=`` of a pool and of a lease: it holds in the lease, and is gone in the next one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from browserkeeper import ConfigError
from tests.pool.pools import patient_pool
from tests.support.blocked_page import IMAGES, blocked_page, visit
from tests.support.guards import BOTH
from tests.support.recording_site import RecordingSite


@pytest.mark.parametrize("name", BOTH)
def test_a_lease_blocks_for_itself_and_leaves_nothing_for_the_next(name: str) -> None:
    with blocked_page() as site, patient_pool(name, max_size=1, isolation="context") as pool:
        with pool.lease() as lease:
            free = visit(lease.driver, site)
            assert free >= IMAGES, "the control"
        with pool.lease(block=["image", "*/api/*"]) as lease:
            assert not visit(lease.driver, site) & (
                IMAGES | {"/api/worker", "/api/shared", "/api/service"}
            )
            lease.driver.switch_to.new_window("tab")
            del site.headers[:]
            lease.driver.get(site.url)
            assert "/style.css" in site.paths
            assert not set(site.paths) & IMAGES
        with pool.lease() as lease:
            assert lease.uses == 3, "blocking has cost the browser"
            assert visit(lease.driver, site) == free
        with pool.lease(block=["*.css"]) as lease:
            found = visit(lease.driver, site)
            assert "/style.css" not in found
            assert "/picture.png" in found


@pytest.mark.parametrize("name", BOTH)
def test_what_a_pool_blocks_a_lease_may_block_otherwise(name: str) -> None:
    with (
        blocked_page() as site,
        patient_pool(name, max_size=1, isolation="context", block=["image"]) as pool,
    ):
        with pool.lease() as lease:
            assert not visit(lease.driver, site) & IMAGES
        with pool.lease(block=["font"]) as lease:
            found = visit(lease.driver, site)
            assert found >= IMAGES
            assert "/font.woff2" not in found
        with pool.lease(block=[]) as lease:
            assert visit(lease.driver, site) >= IMAGES | {"/font.woff2"}
        with pool.lease() as lease:
            assert not visit(lease.driver, site) & IMAGES
        with pytest.raises(ConfigError, match="Write 'image'"), pool.lease(block=["images"]):
            pass


@pytest.mark.parametrize("name", BOTH)
def test_the_users_own_handlers_work_on_beside_the_blocking(name: str) -> None:
    """They see what is blocked, and cannot let it pass; what is not, they handle."""
    page = b"<img src=/picture.png><script src=/code.js></script><link rel=stylesheet href=/style.css>"
    with (
        RecordingSite({"/": ("text/html", page), "/style.css": ("text/css", b"")}) as site,
        patient_pool(name, max_size=1, isolation="context", block=["image"]) as pool,
        pool.lease() as lease,
    ):
        driver: Any = lease.driver
        urls: list[str] = []

        def handle(request: Any) -> None:
            urls.append(request.url)
            with contextlib.suppress(WebDriverException):  # of a request that has ended meanwhile
                if request.url.endswith("/code.js"):
                    request.fail()
                else:
                    request.continue_request()

        handler = driver.network.add_request_handler("before_request", handle)
        driver.browsing_context.navigate(driver.current_window_handle, site.url, "complete")
        driver.network.remove_request_handler("before_request", handler)
        assert {url.rpartition("/")[2] for url in urls} >= {"code.js", "style.css"}
        assert set(site.paths) - {"/favicon.ico"} == {"/", "/style.css"}
