"""Downloads of leases: each lease has its own, and the next lease sees nothing of them."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserPool,
    ConfigError,
    DownloadTooLarge,
    Lease,
    LeaseEnded,
    expect_download,
)
from tests.pool.pools import patient_pool
from tests.support.download_site import DownloadSite, download_site, partial_files
from tests.support.guards import BOTH
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site() -> Iterator[DownloadSite]:
    with download_site() as site:
        yield site


@pytest.fixture(params=BOTH)
def pool(request: pytest.FixtureRequest) -> Iterator[BrowserPool[Any]]:
    with patient_pool(request.param, max_size=1, isolation="context", max_download="50MB") as pool:
        yield pool


def click(lease: Lease[Any], site: DownloadSite, link: str) -> None:
    lease.driver.get(site.url)
    lease.driver.find_element(By.ID, link).click()


def test_a_lease_has_its_own_downloads_in_the_same_browser(
    pool: BrowserPool[Any], site: DownloadSite, tmp_path: Path
) -> None:
    with pool.lease() as first:
        for way in (first.expect_download(), expect_download(first.driver)):
            with way as download:
                click(first, site, "file")
            assert download.url == f"{site.url}file?a=1"
        kept = first.downloads
        sizes = [each.size for each in kept]
        assert sizes == [1000, 1000], "of one name, and both are there"
        paths = set(map(operator.attrgetter("path"), kept))
        assert len(paths) == 2
        assert all(path is not None and path.parent == first.download_dir for path in paths)
        assert download.save_as(tmp_path / "copy").stat().st_size == 1000
        place, browser = first.download_dir, first.browser_id
        with pytest.raises(ConfigError, match=r"use lease\.downloads"):
            _ = first.session.downloads
    with pool.lease() as second:
        assert second.browser_id == browser, "the browser is the same"
        assert not second.downloads
        assert place is not None
        assert not place.exists()
        assert second.download_dir != place
        with second.expect_download() as download:
            click(second, site, "odd")
        assert [one.name for one in second.downloads] == [download.name]
        with pytest.raises(LeaseEnded):
            _ = first.downloads
        with pytest.raises(LeaseEnded):
            first.expect_download()


def test_what_is_unfinished_at_the_end_of_a_lease_is_given_up(
    pool: BrowserPool[Any], site: DownloadSite
) -> None:
    with pool.lease() as first:
        click(first, site, "endless")
        assert wait_until(lambda: any(one.size > 0 for one in first.downloads))
        (download,) = first.downloads
        assert (download.name, download.state) == ("endless.bin", "in_progress")
        place = first.download_dir
    with pool.lease() as second:
        assert not second.downloads
        assert place is not None
        assert not place.exists()
        assert download.state == "failed"
        click(second, site, "page")


def test_the_report_names_what_the_end_of_a_browser_cuts_off_in_a_lease(
    pool: BrowserPool[Any], site: DownloadSite
) -> None:
    with pool.lease() as lease:
        click(lease, site, "endless")
        assert wait_until(lambda: any(one.size > 0 for one in lease.downloads))
        lease.driver.quit()
        report = lease.session.report
    assert report is not None
    (cut_off,) = report.partial_downloads
    assert (cut_off.name, cut_off.removed) == ("endless.bin", True)


@pytest.mark.parametrize(
    ("name", "isolation"),
    [
        pytest.param("chrome", "context", marks=pytest.mark.chrome),
        pytest.param("chrome", "none", marks=pytest.mark.chrome),
        pytest.param("firefox", "context", marks=pytest.mark.firefox),
        pytest.param("firefox", "fresh", marks=pytest.mark.firefox),
    ],
)
def test_downloads_to_a_directory_of_the_user_stay_and_partial_ones_do_not(
    name: str, isolation: Any, site: DownloadSite, tmp_path: Path
) -> None:
    with patient_pool(name, max_size=1, isolation=isolation, download_dir=tmp_path) as pool:
        with pool.lease() as lease:
            with lease.expect_download() as download:
                click(lease, site, "file")
            assert download.path == tmp_path / "file.bin"
            assert lease.download_dir == tmp_path
        with pool.lease() as lease:
            assert not lease.downloads
            with lease.expect_download() as download:
                click(lease, site, "file")
            assert download.path != tmp_path / "file.bin"
            click(lease, site, "endless")
            assert wait_until(lambda: partial_files(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(["file.bin", download.name])


@pytest.mark.parametrize("name", BOTH)
def test_a_bound_holds_in_a_lease_and_costs_the_next_one_nothing(name: str, site: DownloadSite) -> None:
    site.flowing.set()
    try:
        with patient_pool(name, max_size=1, isolation="context", max_download="1MB") as pool:
            lease = pool.lease().__enter__()
            too_large = pytest.raises(DownloadTooLarge, match=r"max_download=1,000,000 bytes")
            with too_large as caught, lease.expect_download():
                click(lease, site, "endless")
            assert caught.value.name == "endless.bin"
            lease.release()
            with pool.lease() as second:
                with second.expect_download() as download:
                    click(second, site, "file")
                assert download.size == 1000
    finally:
        site.flowing.clear()
