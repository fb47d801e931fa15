"""``block=`` of a pool and of a lease: it holds in the lease, and is gone in the next one."""

from __future__ import annotations

import pytest

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
