"""The identity of ``browser()``, as a site sees it: in pages, frames, popups, workers and requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException, UnexpectedAlertPresentException
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.ui import WebDriverWait

from browserkeeper import ConfigError, IdentityError, SessionClosed, browser
from browserkeeper.drivers.bidi import BidiConnection
from tests.support.guards import BOTH
from tests.support.identity_site import PLACES, IdentitySite, identity_site, strangers, words_for
from tests.support.waiting import wait_until

GAPS: dict[str, set[tuple[str, str]]] = {
    "chrome": set(),
    "firefox": {("shared worker", "extra_headers"), ("service worker", "extra_headers")},
}
"""(place, word) of what a browser does not do; docs/identity.md names each."""


@pytest.fixture(scope="module")
def visited() -> Iterator[IdentitySite]:
    with identity_site() as site:
        yield site


@pytest.mark.parametrize("name", BOTH)
def test_all_five_words_hold_in_every_place(name: str, visited: IdentitySite) -> None:
    words = words_for(name)
    visited.requests.clear()
    with browser(name, **words) as driver:
        found = visited.look(driver)
        driver.switch_to.new_window("tab")
        found |= {"new tab": visited.look(driver, "page")["page"]}
    assert found.keys() == {*PLACES, "new tab"}
    assert strangers(name, found, words) == GAPS[name]
    scripts = {path: headers for path, headers in reversed(visited.requests) if path.endswith(".js")}
    assert len(scripts) == 3
    for path, headers in scripts.items():  # the first request of each
        assert headers["user-agent"] == words["user_agent"], path
        assert headers["accept-language"].startswith("de-DE"), path


@pytest.mark.parametrize("name", BOTH)
def test_without_an_identity_none_of_it_is_there(name: str, visited: IdentitySite) -> None:
    """The control of this file: the same look at a plain browser finds every word to be another."""
    words = words_for(name)
    with browser(name) as driver:
        found = visited.look(driver, "page", "dedicated worker", place=False)
    assert {word for _, word in strangers(name, found, words)} >= {
        *("locale", "locale in requests", "timezone", "user_agent", "user_agent in requests"),
        "extra_headers",
    }


@pytest.mark.parametrize(("name", "user_agent"), [("chrome", words_for("firefox")["user_agent"])])
def test_a_chromium_that_names_itself_otherwise_sends_no_client_hints(
    name: str, user_agent: str, visited: IdentitySite
) -> None:
    with browser(name, user_agent=user_agent) as driver:
        found = visited.look(driver, "page", "shared worker", "service worker", place=False)
    for where, facts in found.items():
        assert facts["agent"] == user_agent, where
        assert not facts["brands"], where
        assert not facts["system"], where
        for request in (facts["fetch"], facts.get("opened", {})):
            assert not [header for header in request if header.startswith("sec-ch-ua")], where


# ------------------------------------------------------------------ a session is the same otherwise


def ask(driver: webdriver.Remote) -> None:
    driver.execute_script("setTimeout(() => { window.answer = confirm('really?') }, 0)")


def open_dialog(driver: webdriver.Remote) -> Any:
    return WebDriverWait(driver, 60, 0.01).until(alert_is_present())


@pytest.mark.parametrize("name", BOTH)
def test_dialogs_and_windows_are_as_without_an_identity(name: str) -> None:
    """The words turn BiDi on, with which a driver would answer dialogs at once, and Chromium gets a
    hidden window."""
    with browser(name, extra_headers={"X-One": "eins"}) as driver:
        assert driver.capabilities["unhandledPromptBehavior"] == "dismiss and notify"
        assert driver.window_handles == [driver.current_window_handle]
        driver.get("data:text/html,<title>asked</title>")
        ask(driver)
        open_dialog(driver).accept()
        assert driver.execute_script("return window.answer") is True
        ask(driver)
        open_dialog(driver)
        with pytest.raises(UnexpectedAlertPresentException):
            _ = driver.title
        with pytest.raises(NoAlertPresentException):
            _ = driver.switch_to.alert.text
        assert driver.execute_script("return window.answer") is False
        driver.close()
        with pytest.raises(SessionClosed, match="last window"):
            wait_until(lambda: not driver.title)


@pytest.mark.parametrize("behaviour", ["accept", "ignore"])
def test_what_the_user_says_of_dialogs_is_done(behaviour: str) -> None:
    options = webdriver.ChromeOptions()
    options.unhandled_prompt_behavior = behaviour
    with browser(options=options, geolocation=(1, 2)) as driver:
        assert driver.capabilities["unhandledPromptBehavior"] == behaviour
        driver.get("data:text/html,<title>asked</title>")
        ask(driver)
        open_dialog(driver)
        if behaviour == "accept":
            assert driver.title == "asked"
            assert driver.execute_script("return window.answer") is True
        else:
            with pytest.raises(UnexpectedAlertPresentException):
                _ = driver.title
            open_dialog(driver).dismiss()


def test_what_the_browser_refuses_is_a_typed_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The autouse fixture looks for leftovers.  The secret is in no text."""
    send = BidiConnection.commands

    def refuse(self: BidiConnection, calls: Any, timeout: float | None = None) -> Any:
        changed = [
            (method, {**params, "headers": [{"name": "s3cret"}]} if "headers" in params else params)
            for method, params in calls
        ]
        return send(self, changed, timeout)

    monkeypatch.setattr(BidiConnection, "commands", refuse)
    session = browser(extra_headers={"X-One": "s3cret"})
    with pytest.raises(IdentityError, match="extra_headers") as caught:
        session.start()
    assert caught.value.word == "extra_headers"
    assert "s3cret" not in str(caught.value)
    assert session.report is not None
    assert session.report.clean


def test_options_that_turn_bidi_off_are_refused_with_the_word_that_needs_it() -> None:
    options = webdriver.ChromeOptions()
    options.set_capability("webSocketUrl", False)
    session = browser(options=options, geolocation=(1, 2))
    with pytest.raises(ConfigError, match=r"webSocketUrl.*geolocation="):
        session.start()
    assert session.report is None  # nothing was started
