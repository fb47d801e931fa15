"""What is shown of a command: enough to recognise it, and no value that a program has given."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.common.by import By
from selenium.webdriver.firefox.remote_connection import FirefoxRemoteConnection
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.remote_connection import remote_commands

from browserkeeper.session.command_targets import CUT, LONGEST_TARGET, SHOWN, target_of
from browserkeeper.session.last_commands import LONGEST_PARAMETER, LastCommands

SECRET = "hunter2"
PARAMETERS = [
    "url",
    "using",
    "value",
    "text",
    "script",
    "args",
    "cookie",
    "name",
    "handle",
    "id",
    "cmd",
    "params",
    "type",
    "origin",
    "capabilities",
    "alert",
    "descriptor",
    "state",
    "permission",
    "file",
    "path",
    "frame",
    "width",
    "height",
    "windowHandle",
    "timeouts",
    "implicit",
    "actions",
    "sessionId",
    "shadowId",
    "propertyName",
    "authenticatorId",
    "credentialId",
    "credential",
    "privateKey",
    "rpId",
    "userHandle",
    "sinkName",
    "sinkDiscoveryEnabled",
    "accountIndex",
    "delay",
    "password",
    "sql",
    "query",
    "key",
    "context",
    "addon",
    "temporary",
    "network_conditions",
    "pageLoad",
    "orientation",
    "prompt",
    "dialogButton",
    "isUserVerified",
    "fileName",
    "method",
]
"""Names of parameters that commands have; in the test below each command has all of them."""


def every_command() -> set[str]:
    """The names of all commands that Selenium has."""
    found = {value for name, value in vars(Command).items() if name.isupper()}
    for connection in (
        ChromiumRemoteConnection("http://127.0.0.1:1", "goog", "chrome"),
        FirefoxRemoteConnection("http://127.0.0.1:1"),
    ):
        found |= set(connection._commands)
    return found | set(remote_commands) | {"bidi", "devtools", "webextension"}


def shown(name: str, params: Any) -> str:
    """What a report says of a command with these parameters."""
    last = LastCommands()
    last.begin(1, name, params)
    last.end(1, "ok")
    (command,) = last.take().until(0.0)
    return f"{command} {command!r}"


def test_no_parameter_of_any_command_is_shown_as_it_is() -> None:
    names = every_command()
    assert len(names) > 90
    for name in [*names, "aCommandOfTomorrow"]:
        assert SECRET not in shown(name, dict.fromkeys(PARAMETERS, SECRET)), name
        nested = {"a": SECRET, "b": [SECRET, {SECRET: SECRET}]}
        assert SECRET not in shown(name, dict.fromkeys(PARAMETERS, nested)), name
        assert name in shown(name, {})


def test_the_control_of_that_test_sees_a_secret() -> None:
    assert SECRET in shown("findElement", {"using": "tag name", "value": SECRET})
    assert SECRET in shown("get", {"url": f"http://example.com/{SECRET}"})


def test_the_table_names_commands_and_parameters_of_selenium() -> None:
    assert set(SHOWN) <= every_command()
    assert {name for names in SHOWN.values() for name in names} <= set(PARAMETERS)


@pytest.mark.parametrize(
    "name", ["", "x" * 1000, f"get {SECRET}", f"{SECRET}\n\x1b[31m", f"/session/{SECRET}"]
)
def test_the_name_of_a_command_that_is_no_name_is_not_shown(name: str) -> None:
    text = shown(name, {})
    assert SECRET not in text
    assert text.startswith("?: ok")
    assert len(text) < 300


@pytest.mark.parametrize("params", [None, [SECRET], SECRET, {1: SECRET}, {"url": None}, {"url": b"x"}])
def test_parameters_that_are_no_dict_of_texts_show_nothing(params: Any) -> None:
    assert shown("get", params).startswith("get: ok")


# ------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/slow", "http://127.0.0.1:8000/slow"),
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.com/A/b.html", "https://Example.com/A/b.html"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("file:///srv/page.html", "file:///srv/page.html"),
        ("about:blank", "about:blank"),
        ("https://medium.example/@jane/on-forks", "https://medium.example/@jane/on-forks"),
        ("https://example.com/top-10-things-to-do-in-2026", None),
        # What is left out.
        ("http://jane:hunter2@h:80/a", "http://h:80/a"),
        ("http://hunter2@h/a", "http://h/a"),
        ("http://jane:p@ss@hunter2@h/a", "http://h/a"),
        ("https://h/a?q=hunter2&hunter2#hunter2", "https://h/a?...#..."),
        ("https://h#hunter2", "https://h#..."),
        ("https://h/a;jsessionid=hunter2/b", "https://h/a;.../b"),
        ("https://h/token=hunter2/b", "https://h/token=.../b"),
        ("https://h/users/hunter2@example.com/x", "https://h/users/.../x"),
        ("https://h/users/hunter2%40example.com", "https://h/users/..."),
        ("https://h/reset/hunter2hunter2hunter2", "https://h/reset/..."),
        ("https://h/reset/eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2", "https://h/reset/..."),
        ("https://h/orders/550e8400-e29b-41d4-a716-446655440000", "https://h/orders/..."),
        ("data:text/html,hunter2", "data:..."),
        ("javascript:alert('hunter2')", "javascript:..."),
        ("blob:http://h/hunter2", "blob:..."),
        ("view-source:http://jane:hunter2@h/", "view-source:..."),
        ("https://h/token%3Dhunter2/b", "https://h/token%3D.../b"),
        ("https://h/login%3fnext=hunter2", "https://h/login%3f..."),
        ("https://h/%23hunter2", "https://h/%23..."),
        ("https://h/a&key:hunter2", "https://h/a&..."),
        ("https://h/go/http://jane:hunt/er2@h/", "https://h/go/..."),
        ("https://h/go/https%3A%2F%2Fjane:hunter2@h/", "https://h/go/.../"),
        ("https://h/cards/4111-1111-1111-1111", "https://h/cards/..."),
        # Addresses that a browser reads in another way than they look, and mistakes.
        ("http:jane:hunter2@h/", "http:..."),
        ("http:///jane:hunter2@h/", "http:..."),
        ("http:\\\\jane:hunter2@h\\a", "http:..."),
        ("http://jane:hunt/er2@h/hunter2", "http:..."),
        ("http://jane:12/hunter2@h/", "http:..."),
        ("http://jane:hunt?er2@h/", "http:..."),
        ("http://jane:12?hunter2@h/", "http:..."),
        ("http://jane:12#hunter2@h/", "http:..."),
        ("http://h:80/a?to=hunter2@h", "http://h:80/a?..."),
        ("\t http://jane:hunter2@h/\n", "http://h/"),
        ("http://[hunter2/", "http:..."),
        ("hunter2", "?"),
        ("", "?"),
    ],
)
def test_an_address_is_shown_without_credentials_query_and_fragment(
    url: str, expected: str | None
) -> None:
    assert target_of("get", (url,)) == (url if expected is None else expected)


def test_a_target_is_short_and_printable() -> None:
    text = target_of("get", ("http://h\u00e4user.example/\x1b[31m\u202e/" + "a/" * 900 + "end",))
    assert text.startswith("http://h\\xe4user.example/\\x1b[31m\\u202e/a/a/")
    assert text.endswith("/a/a/end")
    assert CUT in text
    assert len(text) == LONGEST_TARGET
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("head", ["http://", "http://jane:", "http://jane:12", "http:"])
def test_a_password_that_is_cut_off_is_not_taken_for_a_host(head: str) -> None:
    text = shown("get", {"url": f"{head}{SECRET * 1000}@h/"})
    assert text.startswith("get http:...: ok")
    assert SECRET not in text


# ------------------------------------------------------------------------------------- selectors

CSS, XPATH = By.CSS_SELECTOR, By.XPATH


@pytest.mark.parametrize(
    ("strategy", "value", "expected"),
    [
        # What names an element is shown.
        (CSS, '[id="login"]', '[id="login"]'),
        (CSS, "form[name=search] > .button:nth-child(2)", "form[name=search] > .button:nth-child(2)"),
        (CSS, "[data-testid='buy'] a.main", "[data-testid='buy'] a.main"),
        (XPATH, "//form[@id='f']//td[3]", "//form[@id='f']//td[3]"),
        (XPATH, "//*[contains(@class, 'btn')]", "//*[contains(@class, 'btn')]"),
        (XPATH, "//a[count(x)=count(y)]/..", "//a[count(x)=count(y)]/.."),
        (By.TAG_NAME, "h1", "h1"),
        # Values are not.
        (CSS, "[value=\"hunter2\"] > a[href^='/hunter2'] b", "[value=\"...\"] > a[href^='...'] b"),
        (CSS, "[value=hunter2]", "[value=...]"),
        (CSS, "[value = my hunter2]", "[value = ...]"),
        (CSS, '[value="hunter2" i], p', '[value="..." i], p'),
        (CSS, '[name="my hunter2"]', '[name="..."]'),
        (CSS, ':is([title="hunter2"])', ':is([title="..."])'),
        (CSS, "p /* hunter2 */ b", "p ... b"),
        (CSS, ':contains("hunter2")', ":contains(...)"),
        (CSS, "a:contains(hunter2)", "a:contains(...)"),
        (CSS, "a:has-text(my 'a)hunter2' text) > b", "a:has-text(...) > b"),
        (CSS, "a:has-text(my (hunter2) hunter2)", "a:has-text(......"),
        (CSS, "a:not(.b:hover)::part(c)", "a:not(.b:hover)::part(c)"),
        (CSS, "[\\000076alue=hunter2]", "[..."),
        (CSS, "[value/**/=hunter2]", "[..."),
        (XPATH, "//*[contains(@pin, 1234)]", "//*[contains(@pin, ...)]"),
        (XPATH, "//*[1234=@pin]", "//*[...=@pin]"),
        (XPATH, "//h1[2]/td[position() = 3]", "//h1[2]/td[position() = ...]"),
        (XPATH, "//a[text()='hunter2']", "//a[text()=...]"),
        (XPATH, '//a[contains(., "hunter2")]', "//a[contains(., ...)]"),
        (XPATH, "//a[. = concat('hun', \"ter2\")]", "//a[. = concat(..., ...)]"),
        (XPATH, "//*[@id='x' and @value='hunter2']", "//*[@id='x' and @value='...']"),
        (XPATH, "//*['hunter2'=@id]", "//*[...=@id]"),
        (XPATH, "//*[@value=12345]", "//*[@value=...]"),
        (By.LINK_TEXT, "hunter2", "..."),
        (By.PARTIAL_LINK_TEXT, "hunter2", "..."),
        (By.ID, "my hunter2", "..."),
        # Mistakes of a program that puts values into selectors.
        (CSS, '[value="hunter2', '[value="..."'),
        (CSS, '[value="a"hunter2"b"]', '[value="..."...'),
        (CSS, "[value='it's hunter2']", "[value='...'..."),
        (CSS, '[value=it"s hunter2]', "[value=......"),
        (XPATH, "//a[text()='it's hunter2']", "//a[text()=......"),
        (XPATH, '//a["\\" and @x="hunter2"]', '//a[... and @x="..."]'),
        (XPATH, "//input[@value=hunter2]", "//input[@value=...]"),
        (XPATH, "//input[@value=my hunter2 text]", "//input[@value=...]"),
        (CSS, "#x1y2z3x1y2z3x1y2z3x1", "#..."),
    ],
)
def test_a_selector_is_shown_without_values(strategy: str, value: str, expected: str) -> None:
    assert target_of("findElement", (strategy, value)) == f"{strategy} {expected}"


@pytest.mark.parametrize("strategy", [CSS, XPATH])
@pytest.mark.parametrize("part", [*"[]()'\"=@:,.1a/\\ ", "[/", ":a(", "@a=", ",.", "[a=b"])
def test_the_longest_selector_does_not_take_minutes(strategy: str, part: str) -> None:
    """A pattern whose time grows with the third power of the length would not come to an end."""
    text = (part * LONGEST_PARAMETER)[:LONGEST_PARAMETER]
    assert target_of("findElement", (strategy, text)).startswith(strategy)


def test_an_unknown_strategy_and_a_missing_value_show_nothing() -> None:
    assert target_of("findElement", (SECRET, SECRET)) == "?"
    assert target_of("findElement", (None, SECRET)) == ""
    assert target_of("findElement", (CSS, None)) == "css selector "


def test_a_devtools_command_shows_its_method_only() -> None:
    assert target_of("executeCdpCommand", ("Network.setCookie",)) == "Network.setCookie"
    assert target_of("executeCdpCommand", (f"Page.navigate {SECRET}",)) == ""
    assert target_of("executeCdpCommand", ("x" * 2000,)) == ""
    assert target_of("bidi", ("goog:cdp.sendCommand",)) == "goog:cdp.sendCommand"
