"""``block=`` of a pool and of a lease: it holds in the lease, and is gone in the next one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from browserkeeper import ConfigError
from tests.pool.pools import patient_pool
from tests.support.blocked_page import IMAGES, blocked_page, small_page, visit, visit_with_handler
from tests.support.guards import BOTH


@pytest.mark.parametrize("name", BOTH)
def test_a_lease_blocks_for_itself_and_leaves_nothing_for_the_next(name: str) -> None:
    with blocked_page() as site, patient_pool(name, max_size=1, isolation="context") as pool:
        with pool.lease() as lease:
            free = visit(lease.driver, site)
            assert free >= IMAGES, "the control"
        with pool.lease(block=["image", "*/api/*"]) as lease:
            # Firefox shows no requests of shared and service workers.
            workers = {"worker", "shared", "service"} if name == "chrome" else {"worker"}
            found = visit(lease.driver, site)
            assert not found & (IMAGES | {f"/api/{worker}" for worker in workers})
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
    with (
        small_page() as site,
        patient_pool(name, max_size=1, isolation="context", block=["image"]) as pool,
        pool.lease() as lease,
    ):
        visit_with_handler(lease.driver, site)


@pytest.mark.firefox
def test_they_do_so_in_a_fresh_browser() -> None:
    with (
        small_page() as site,
        patient_pool("firefox", max_size=1, isolation="fresh", block=["image"]) as pool,
        pool.lease() as lease,
    ):
        visit_with_handler(lease.driver, site)


@pytest.mark.parametrize("name", BOTH)
def test_neither_handlers_nor_blocking_reach_the_page_by_which_a_lease_is_saved(
    name: str,
) -> None:
    with small_page() as site:
        origin = site.url.rstrip("/")
        state = {"origins": [{"origin": origin, "localStorage": [{"name": "k", "value": "v"}]}]}
        words: Any = {"block": [f"{origin}*", "http://127.0.0.1:1/*"], "storage_state": state}
        with patient_pool(name, max_size=1, isolation="context") as pool:
            for _ in range(2):
                with pool.lease(**words) as lease:
                    driver, seen = lease.driver, list[str]()

                    def handle(request: Any, seen: list[str] = seen) -> None:
                        seen.append(request.url)
                        with contextlib.suppress(WebDriverException):
                            request.continue_request()

                    driver.network.add_request_handler("before_request", handle)
                    assert lease.storage_state()["origins"] == state["origins"]
                    assert seen == site.paths == []
                    with pytest.raises(WebDriverException, match=r"BLOCKED_BY_CLIENT|NS_ERROR_ABORT"):
                        driver.browsing_context.navigate(
                            driver.current_window_handle, site.url, "complete"
                        )
                    assert site.paths == [], "it is blocked for the user's own page"
            assert lease.uses == 2


@pytest.mark.firefox
def test_a_hooks_own_handlers_do_not_let_blocked_requests_pass_either() -> None:
    with small_page() as site:

        def configure(driver: Any) -> None:
            visit_with_handler(driver, site)

        given: dict[str, Any] = {"isolation": "fresh", "block": ["image"], "configure": configure}
        with patient_pool("firefox", max_size=1, **given) as pool, pool.lease() as lease:
            assert lease.driver.title == ""
            assert pool.stats()["configure_errors"] == 0
