"""What browserkeeper changes in Selenium's classes, in as few browsers as possible: run on each version
of Selenium in docs/reference/versions.md.

It uses only what the oldest of them has.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver.common.bidi.common import command_builder
from selenium.webdriver.common.by import By

from browserkeeper import SessionClosed, browser
from browserkeeper.drivers.websockets import DirectWebSocketConnection
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.support.guards import BOTH
from tests.support.recording_site import RecordingSite
from tests.support.waiting import wait_until

pytestmark = pytest.mark.compat


def options_with_bidi(name: str) -> Any:
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    return options


def send(driver: Any, method: str, **params: Any) -> Any:
    """A BiDi command that Selenium may have no method for."""
    _ = driver.script
    return driver._websocket_connection.execute(command_builder(method, params))


@pytest.mark.parametrize("name", BOTH)
def test_bidi_of_a_session(name: str) -> None:
    with RecordingSite({"/": ("text/html", b"<title>Shelf</title>")}) as site:
        session = browser(name, options=options_with_bidi(name))
        with session as driver:
            driver.get(site.url)
            assert driver.title == "Shelf"
            with pytest.raises(NoSuchElementException):
                driver.find_element(By.ID, "nothing")
            used_script(driver)
            used_network(driver, site)
            with pytest.raises(WebDriverException, match="unknown command"):
                send(driver, "nonesuch.command")
            connection: Any = driver._websocket_connection
            assert isinstance(connection, DirectWebSocketConnection)
    assert session.report
    assert session.report.clean
    with pytest.raises(SessionClosed):
        connection.execute(command_builder("session.status", {}))


def used_script(driver: Any) -> None:
    """Script and log: an event arrives, until its handler is removed."""
    lines: list[str] = []
    handler = driver.script.add_console_message_handler(lambda entry: lines.append(entry.text))
    driver.execute_script("console.log('first')")
    assert wait_until(lambda: "first" in lines)
    driver.script.remove_console_message_handler(handler)
    found = send(
        driver,
        "script.evaluate",
        expression="1 + 1",
        target={"context": driver.current_window_handle},
        awaitPromise=False,
    )
    assert found["result"]["value"] == 2


def used_network(driver: Any, site: RecordingSite) -> None:
    """A request is held until its handler lets it go on."""
    urls: list[str] = []

    def handle(request: Any) -> None:
        urls.append(request.url)
        request.continue_request()

    handler = driver.network.add_request_handler("before_request", handle)
    driver.browsing_context.navigate(driver.current_window_handle, f"{site.url}?handled", "complete")
    driver.network.remove_request_handler("before_request", handler)
    assert any(url.endswith("?handled") for url in urls)


@pytest.mark.chrome
def test_devtools_of_a_session(site: Site) -> None:
    with browser("chrome", debugging="port") as driver:
        devtools, connection = cast("Any", driver).start_devtools()
        connection.execute(devtools.network.enable())
        answers: list[Any] = []
        number = connection.add_callback(devtools.network.ResponseReceived, answers.append)
        driver.get(site.url)
        assert wait_until(lambda: any(one.response.url.startswith(site.url) for one in list(answers)))
        connection.remove_callback(devtools.network.ResponseReceived, number)


@pytest.mark.parametrize("name", BOTH)
def test_bidi_of_a_lease_acts_on_its_context_and_ends_with_it(name: str, site: Site) -> None:
    look = "return [document.cookie, localStorage.length, typeof window.left]"
    pool = patient_pool(
        name, max_size=1, max_uses=None, isolation="context", options=options_with_bidi(name)
    )
    with pool:
        with pool.lease() as first:
            driver = first.driver
            assert send(driver, "browser.getUserContexts")["userContexts"] == [
                {"userContext": "default"}
            ]
            send(driver, "script.addPreloadScript", functionDeclaration="() => { window.left = 1 }")
            send(driver, "session.subscribe", events=["log.entryAdded"])
            driver.get(site.url)
            driver.add_cookie({"name": "left", "value": "1"})
            driver.execute_script("localStorage.setItem('left', '1')")
            assert driver.execute_script(look) == ["left=1", 1, "number"]
        with pool.lease() as second:
            assert second.browser_id == first.browser_id, "BiDi of a lease costs no browser"
            second.driver.get(site.url)
            assert second.driver.execute_script(look) == ["", 0, "undefined"]
            assert second.driver.get_cookies() == []
