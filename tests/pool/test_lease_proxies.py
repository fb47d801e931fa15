"""``lease(proxy=...)``: each lease its own proxy, and the next one goes directly again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.common.exceptions import (
    JavascriptException,
    NoAlertPresentException,
    NoSuchElementException,
    WebDriverException,
)
from selenium.webdriver.support.ui import WebDriverWait

from browserkeeper import Identity, ProxyError
from browserkeeper.pool import BrowserPool
from tests.pool.pools import patient_pool
from tests.support.guards import BOTH
from tests.support.proxied_pages import PAGES, QUIET, gather, stun, visit
from tests.support.proxies import RecordingProxy, RecordingTarget
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def proxies() -> Iterator[list[RecordingProxy]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(RecordingProxy("http", "me", "first-password", name="first")),
            stack.enter_context(RecordingProxy("socks5", "me", "second-password", name="second")),
        ]


@pytest.fixture
def target() -> Iterator[RecordingTarget]:
    with RecordingTarget(PAGES) as target:
        yield target


@pytest.fixture(scope="module", params=BOTH)
def pool(request: pytest.FixtureRequest) -> Iterator[BrowserPool[Any]]:
    """One browser, so that all leases have the same."""
    directory = tempfile.mkdtemp(prefix="bkstate-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSERKEEPER_STATE_DIR", directory)
        pool = patient_pool(request.param, max_size=1, min_idle=1, max_uses=None, isolation="context")
        pool.open().wait()
    with pool:
        yield pool
    shutil.rmtree(directory)


def open_page(driver: Any, target: RecordingTarget, path: str) -> None:
    """A page of this lease alone: what an earlier one still sends has another path."""
    target.pages[path] = ("text/html", f"<title>{path}</title>")
    driver.get(target.url + path)
    assert driver.title == path


def test_each_lease_has_its_own_proxy_and_the_next_one_none(
    pool: BrowserPool[Any], proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    first, second = proxies
    browsers = set()
    table: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"proxy": first.url}, "first"),
        ({}, ""),
        ({"proxy": second.url}, "second"),
        ({"identity": Identity(proxy=first.url)}, "first"),
        ({"proxy": {"server": first.url, "bypass": ["127.0.0.1"]}}, ""),
        ({"proxy": first.url, "locale": "de-DE"}, "first"),
        ({}, ""),
    ]
    for number, (words, way) in enumerate(table):
        with pool.lease(**words) as lease:
            open_page(lease.driver, target, f"/lease-{number}")
            browsers.add(lease.browser_id)
        assert target.ways(f"/lease-{number}") == {way}, words
    assert len(browsers) == 1  # the warm browser stays


def test_no_request_of_a_lease_goes_past_its_proxy(
    pool: BrowserPool[Any], proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    """From the first moment, in all kinds of pages and workers, for the loopback, and not by WebRTC."""
    with stun() as (port, packets), pool.lease(proxy=proxies[0].url) as lease:
        for host in ("127.0.0.1", "localhost", "shop.test"):
            visit(lease.driver, target, host)
        assert target.ways() == {"first"}
        assert not gather(lease.driver, port, packets, QUIET)
        assert packets == []


def test_after_the_death_of_the_proxy_a_lease_has_a_typed_error_and_the_next_one_works(
    pool: BrowserPool[Any], target: RecordingTarget
) -> None:
    with RecordingProxy("http", "me", "third-password", name="third") as third:
        with pool.lease(proxy=third.url) as lease:
            open_page(lease.driver, target, "/alive")
            third.close()
            for scheme in ("http", "https"):
                with pytest.raises(ProxyError, match="cannot be reached") as caught:
                    lease.driver.get(target.url_of("127.0.0.1", "/dead", scheme))
                assert isinstance(caught.value, WebDriverException)
                assert "third-password" not in str(caught.value)
            lease.driver.execute_script("setInterval(() => fetch('/dead'), 50)")
            assert not wait_until(lambda: "/dead" in target.paths, seconds=1)
        with pool.lease() as lease:
            open_page(lease.driver, target, "/next")
    assert "/dead" not in target.paths
    assert target.ways("/next") == {""}
    other = RecordingProxy("http", "me", "x")
    with other, pool.lease(proxy=f"http://me:wrong-password@{other.address}") as lease:
        with pytest.raises(ProxyError, match="refuses user 'me'"):
            lease.driver.get(target.url)
        assert "wrong-password" not in repr(lease) + repr(vars(lease))


def test_other_ways_out_of_a_lease_use_its_proxy_too(
    pool: BrowserPool[Any], proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    """A context that the lease makes by itself, and requests of ``driver.request``; with controls."""
    for proxy, way in ((proxies[0].url, "first"), (None, "")):
        url = f"{target.url}/made-{way}"
        target.pages[f"/made-{way}"] = ("text/html", "made")
        with pool.lease(proxy=proxy) as lease:
            driver = lease.driver
            driver.request.get(f"{target.url}/request-{way}", timeout=60)
            driver.request.new_context().get(f"{target.url}/isolated-{way}", timeout=60)
            context = driver.browser.create_user_context()
            window = driver.browsing_context.create(type="tab", user_context=context)
            driver.browsing_context.navigate(context=window, url=url, wait="complete")
        for path in ("request", "isolated", "made"):
            assert target.ways(f"/{path}-{way}") == {way}, path


def test_a_proxy_that_refuses_one_host_is_no_error_of_commands_that_load_no_page_of_it(
    pool: BrowserPool[Any], target: RecordingTarget
) -> None:
    """As a company's proxy does with advertisers: a wait for an element has to go on.  Of two kinds."""
    refused = {"ads.test": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "odd.test": b""}
    for host, reason in (("ads.test", "forbidden"), ("odd.test", "protocol")):
        target.pages["/shop"] = (
            "text/html",
            f"<body><script>fetch('https://{host}/').catch(() => document.title = 'refused')</script>",
        )
        with RecordingProxy(refused=refused) as proxy, pool.lease(proxy=proxy.url) as lease:
            driver = lease.driver

            def is_refused(driver: Any = driver) -> bool:
                return bool(driver.title == "refused")

            driver.get(target.url_of("shop.test", "/shop"))
            assert wait_until(is_refused)
            with pytest.raises(NoSuchElementException):
                driver.find_element("id", "late")
            with pytest.raises(NoAlertPresentException):
                _ = driver.switch_to.alert
            with pytest.raises(JavascriptException):
                driver.execute_script("throw new Error('x')")
            driver.refresh()
            assert wait_until(is_refused)
            driver.execute_script("setTimeout(() => document.body.innerHTML = '<p id=late>', 500)")
            WebDriverWait(driver, 60).until(lambda driver: driver.find_element("id", "late"))
            with pytest.raises(ProxyError) as caught:  # the control: a page of that host
                driver.get(f"https://{host}/")
            assert caught.value.reason == reason


def test_downloads_of_a_lease_with_a_proxy_are_the_lease_s(
    pool: BrowserPool[Any], proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    """A proxy is had by a new context in place of the warm one; with the control."""
    target.pages["/files"] = ("text/html", "<a id=a href=/file download=file.bin>file</a>")
    for proxy in (proxies[0].url, None):
        with pool.lease(proxy=proxy) as lease:
            lease.driver.get(target.url + "/files")
            with lease.expect_download(timeout=60) as download:
                lease.driver.find_element("id", "a").click()
            assert (download.name, download.state) == ("file.bin", "complete")
            assert [one.name for one in lease.downloads] == ["file.bin"]
            assert download.path is not None
            assert download.path.parent == lease.download_dir


def test_the_relay_ends_when_no_lease_has_a_proxy(
    pool: BrowserPool[Any], proxies: list[RecordingProxy]
) -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "browserkeeper-proxy"]

    with pool.lease(proxy=proxies[0].url):
        assert threads()
    with pool.lease():
        assert wait_until(lambda: not threads())


@pytest.mark.chrome
def test_two_browsers_with_two_proxies_at_the_same_time(
    proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    with patient_pool(max_size=2, min_idle=2, isolation="context") as pool:
        barrier = threading.Barrier(2, timeout=120)

        def use(proxy: RecordingProxy) -> None:
            with pool.lease(proxy=proxy.url) as lease:
                barrier.wait()
                for number in range(5):
                    open_page(lease.driver, target, f"/{proxy.name}-{number}")
                barrier.wait()

        users = [threading.Thread(target=use, args=(proxy,)) for proxy in proxies]
        for user in users:
            user.start()
        for user in users:
            user.join()
        for proxy in proxies:
            for number in range(5):
                assert target.ways(f"/{proxy.name}-{number}") == {proxy.name}
        # SIGKILL in mid-lease: nothing goes past the proxy, and the pool has another browser
        with contextlib.suppress(WebDriverException), pool.lease(proxy=proxies[0].url) as lease:
            open_page(lease.driver, target, "/before")
            assert lease.session.pid is not None
            os.kill(lease.session.pid, signal.SIGKILL)
            lease.driver.get(target.url + "/killed")
        assert "/killed" not in target.paths
        with pool.lease(proxy=proxies[1].url) as lease:
            open_page(lease.driver, target, "/after")
        assert target.ways("/after") == {"second"}


@pytest.mark.chrome
def test_the_proxy_of_a_pool_is_that_of_all_its_leases_but_those_with_their_own(
    proxies: list[RecordingProxy], target: RecordingTarget
) -> None:
    first, second = proxies
    for isolation in ("context", "fresh"):
        with patient_pool(max_size=1, isolation=isolation, proxy=first.url) as pool:
            assert "first-password" not in repr(pool)
            with pool.lease() as lease:
                open_page(lease.driver, target, f"/pool-{isolation}")
            if isolation == "context":
                with pool.lease(proxy=second.url) as lease:
                    open_page(lease.driver, target, "/own")
            with pool.lease() as lease:
                open_page(lease.driver, target, f"/again-{isolation}")
        assert target.ways(f"/pool-{isolation}") == target.ways(f"/again-{isolation}") == {"first"}
    assert target.ways("/own") == {"second"}
