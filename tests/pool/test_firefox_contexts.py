"""Leases of one Firefox that end badly, and what a lease of a Firefox cannot do or must not leave."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchWindowException,
    UnexpectedAlertPresentException,
    WebDriverException,
)

from browserkeeper import BrowserDied, BrowserkeeperError, ConfigError, LeaseTimeout
from browserkeeper.drivers.user_prompts import UserPrompts
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.support.waiting import until_it_fails, wait_until

firefox = pytest.mark.firefox


# ------------------------------------------------------------------ one browser for many leases


def run_for_ever(driver: Any, site: Site) -> None:
    driver.get(site.url)
    driver.execute_script("new Worker(URL.createObjectURL(new Blob(['for (;;);'])))")
    driver.execute_script("addEventListener('pagehide', () => { for (;;); })")  # at the end of the tab


def ask_for_ever(driver: Any, site: Site) -> None:
    """A page, a window that it has opened, and a service worker: all send requests."""
    driver.get(site.url_for("worker"))
    driver.execute_script(
        "setInterval(() => fetch('/about?from-page'), 20);"
        "open('/special').setInterval('fetch(\"/about?from-window\")', 20)"
    )
    assert wait_until(lambda: any("from-window" in line for line in site.requests))


def close_all_windows(driver: Any, site: Site) -> None:
    driver.switch_to.new_window("window")
    for handle in driver.window_handles:
        driver.switch_to.window(handle)
        driver.close()
    assert driver.window_handles == []
    with pytest.raises(NoSuchWindowException):
        _ = driver.title


def raise_an_error(driver: Any, site: Site) -> None:
    driver.get(site.url_for("alert"))
    raise ZeroDivisionError


def install_an_extension(driver: Any, site: Site) -> None:
    with pytest.raises(ConfigError, match="isolation='fresh'"):
        driver.install_addon(__file__)
    with pytest.raises(ConfigError, match="isolation='fresh'"):
        _ = driver.webextension


def ask_for_all_of_firefox(driver: Any, site: Site) -> None:
    """Firefox refuses them in a plain driver as well; nothing has changed."""
    with pytest.raises(WebDriverException, match="System access"):
        driver.set_context("chrome")
    with pytest.raises(WebDriverException, match="not allowed"):
        driver.get("about:config")
    commands = driver.command_executor._commands  # the table of all drivers of this process
    for path in ("moz/nonsense", "moz/context/nonsense", "url"):
        nonsense = ("DELETE", f"/session/$sessionId/{path}")
        driver.command_executor._commands = {**commands, "nonsense": nonsense}
        with pytest.raises(WebDriverException, match=r"not allowed|did not match"):
            driver.execute("nonsense")


def switch_to_the_first_tab(driver: Any, site: Site) -> None:
    """The tab of the default context is none of the lease's, even by its name."""
    contexts = driver.command_handler.browser._contexts
    with pytest.raises(NoSuchWindowException):
        driver.switch_to.window(contexts._first_tabs[0])


LEASES: dict[str, Callable[[Any, Site], None]] = {
    "pages and workers that never pause": run_for_ever,
    "requests without end": ask_for_ever,
    "all windows closed": close_all_windows,
    "an exception, with a dialog open": raise_an_error,
    "extensions": install_an_extension,
    "commands that Firefox refuses": ask_for_all_of_firefox,
    "the first tab": switch_to_the_first_tab,
}


@firefox
def test_after_each_of_these_leases_the_same_browser_serves_the_next(site: Site) -> None:
    with patient_pool("firefox", max_size=1, max_uses=None) as pool:
        numbers: list[int] = []
        with pool.lease() as lease:
            first = lease.browser_id
        for name, use in LEASES.items():
            try:
                with pool.lease() as lease:
                    use(lease.driver, site)
            except ZeroDivisionError:
                pass
            with pool.lease() as lease:
                assert lease.browser_id == first, f"replaced after {name}: {pool.stats()}"
                lease.driver.get(site.url)
                assert lease.driver.title
                assert len(lease.driver.window_handles) == 1
                number = len(lease.session.processes())
            numbers.append(number)
        assert min(numbers[-3:]) <= max(numbers[:2]) + 2, f"processes after each lease: {numbers}"
        before = [line for line in site.requests if "from-" in line]
        with pool.lease() as lease:
            lease.driver.get(site.url)
            lease.driver.get(site.url)
            assert [line for line in site.requests if "from-" in line] == before


# ------------------------------------------------------------------ what costs the browser


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has followed another
        os.kill(pid, signal.SIGKILL)


@firefox
@pytest.mark.parametrize("name", ["geckodriver", "firefox", "Web Content"])
def test_a_sigkill_in_a_lease_is_a_typed_error_and_the_pool_goes_on(name: str, site: Site) -> None:
    """The death of a content process ends Firefox: geckodriver starts it so."""
    with patient_pool("firefox", max_size=1) as pool:
        with pytest.raises(BrowserDied), pool.lease() as lease:
            lease.driver.get(site.url)
            for process in lease.session.processes():
                if process.name.startswith((name, "Isolated" if name == "Web Content" else name)):
                    kill(process.pid)
            until_it_fails(lease.driver)
        with pool.lease() as another:
            assert another.browser_id != lease.browser_id
            another.driver.get(site.url)
            another.driver.add_cookie({"name": "a", "value": "1"})
            assert [cookie["name"] for cookie in another.driver.get_cookies()] == ["a"]


@firefox
def test_a_lease_that_takes_too_long_or_quits_costs_its_browser(site: Site) -> None:
    """In two pools: the limit of the one is too short for a ``quit`` on a busy machine."""
    with patient_pool("firefox", max_size=1, max_lease=3.0) as pool:
        with pytest.raises(LeaseTimeout), pool.lease() as lease:
            until_it_fails(lease.driver)
        with pool.lease() as another:
            assert another.browser_id != lease.browser_id
    with patient_pool("firefox", max_size=1) as pool:
        with pool.lease() as another:
            another.driver.quit()
            with pytest.raises(BrowserkeeperError):
                _ = another.driver.title
        with pool.lease() as third:
            assert third.browser_id != another.browser_id


@firefox
def test_a_lease_that_reached_all_of_firefox_costs_its_browser(site: Site) -> None:
    """With system access a lease can change preferences, for example."""
    env = {"MOZ_REMOTE_ALLOW_SYSTEM_ACCESS": "1"}
    with patient_pool("firefox", max_size=1, env=env) as pool:
        with pool.lease() as first:
            first.driver.get(site.url)
        with pool.lease() as second:
            assert second.browser_id == first.browser_id
            with second.driver.context("chrome"):
                assert second.driver.execute_script("return Services.appinfo.name") == "Firefox"
        with pool.lease() as third:
            assert third.browser_id != second.browser_id
        assert pool.stats()["retired_beyond"] == 1


# ------------------------------------------------------------------ dialogs


class Session:
    """A session with a dialog of a kind: each command fails until the dialog is answered."""

    def __init__(self, kind: str):
        self.kind = kind
        self.answers: list[str] = []

    def run(self, name: str, params: dict[str, Any]) -> None:
        self.answers.append({"w3cAcceptAlert": "accept", "w3cDismissAlert": "dismiss"}[name])

    def title(self) -> str:
        if not self.answers:
            raise UnexpectedAlertPresentException(
                f'Unexpected {self.kind} dialog detected. Performed handler "ignore"', alert_text="Hi"
            )
        return "Title"


@pytest.mark.parametrize(
    ("wanted", "kind", "answers", "fails"),
    [
        (None, "alert", ["dismiss"], True),
        ("dismiss and notify", "prompt", ["dismiss"], True),
        ("accept and notify", "confirm", ["accept"], True),
        ("dismiss", "alert", ["dismiss"], False),
        ("accept", "alert", ["accept"], False),
        ("ignore", "alert", [], True),
        ({"alert": "accept", "default": "ignore"}, "alert", ["accept"], False),
        ({"alert": "accept", "default": "ignore"}, "confirm", [], True),
        ({"alert": "accept"}, "confirm", ["dismiss"], True),
    ],
)
def test_a_dialog_in_the_way_is_answered_as_the_user_wants(
    wanted: Any, kind: str, answers: list[str], fails: bool
) -> None:
    session, options = Session(kind), webdriver.FirefoxOptions()
    if wanted is not None:
        options.set_capability("unhandledPromptBehavior", wanted)
    run = UserPrompts.of(options).around(session.title, session.run)
    if fails:
        word = answers[0] if answers else "ignore"
        with pytest.raises(UnexpectedAlertPresentException, match=f'{kind} .* "{word}"') as caught:
            run()
        assert caught.value.alert_text == "Hi"
    else:
        assert run() == "Title"
    assert session.answers == answers


@firefox
def test_a_lease_answers_dialogs_as_the_options_say(site: Site) -> None:
    options = webdriver.FirefoxOptions()
    options.unhandled_prompt_behavior = "accept"
    with patient_pool("firefox", max_size=1, options=options) as pool:
        assert pool.isolation == "context"
        with pool.driver() as driver:
            assert driver.capabilities["unhandledPromptBehavior"] == "accept"
            driver.get(site.url)
            driver.execute_script("setTimeout(() => { document.title = confirm('Well?') })")
            assert wait_until(lambda: driver.title == "true")
