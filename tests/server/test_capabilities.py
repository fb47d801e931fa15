"""What the capabilities of a new session mean: validated, merged and matched.  Without a browser."""

from __future__ import annotations

from typing import Any

import pytest
from selenium import webdriver

from browserkeeper.server.capabilities import Launch, Request, Wanted, read
from browserkeeper.server.errors import WireError

CHROME = "goog:chromeOptions"
FIREFOX = "moz:firefoxOptions"
NOT_TIMEOUTS: list[Any] = [
    {"capabilities": {"alwaysMatch": {"timeouts": value}}}
    for value in (
        *(5, {"page": 1}, {"script": 1.5}, {"pageLoad": True}, {"implicit": 2**60}),
        *({"implicit": float("nan")}, {"implicit": float("inf")}),
    )
]


ODD_OPTIONS: list[Any] = [{"args": "x"}, {"args": [1]}, {"args": [""]}, {"prefs": []}, {"prefs": "x"}]
ODD_OPTIONS += [{"extensions": 5}, {"extensions": "x"}, {"extensions": [5]}, {"extensions": {"a": "b"}}]
NOT_OPTIONS: list[Any] = [{"capabilities": {"alwaysMatch": {CHROME: value}}} for value in ODD_OPTIONS]


def asked(always: Any = None, *first: Any) -> Request:
    body: dict[str, Any] = {"alwaysMatch": always or {}}
    if first:
        body["firstMatch"] = list(first)
    return read({"capabilities": body}, headless=True)


def only(always: Any = None, *first: Any) -> Wanted:
    request = asked(always, *first)
    assert len(request.accepted) == 1, request
    return request.accepted[0]


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        ({}, "chrome"),
        ({"browserName": "chrome"}, "chrome"),
        ({"browserName": "chromium"}, "chromium"),
        ({"browserName": "firefox"}, "firefox"),
        ({FIREFOX: {}}, "firefox"),
        (webdriver.ChromeOptions().to_capabilities(), "chrome"),
        (webdriver.FirefoxOptions().to_capabilities(), "firefox"),
    ],
)
def test_the_browser_is_chosen_by_its_name_or_by_the_vendors_options(
    capabilities: Any, name: str
) -> None:
    assert only(capabilities).launch.name == name


@pytest.mark.parametrize(
    "capabilities",
    [
        {"browserName": "chrome", "platformName": "any", "setWindowRect": True},
        {"platformName": "LINUX", "pageLoadStrategy": "normal", "acceptInsecureCerts": False},
        {"browserVersion": "156", "timeouts": {"implicit": 1000}, "browserkeeper:label": "x"},
        {CHROME: {"args": ["--headless=new"], "prefs": {}, "extensions": []}},
        {CHROME: {"args": ["headless"]}, "se:downloadsEnabled": True, "strictFileInteractability": None},
        {"unhandledPromptBehavior": "dismiss and notify", "se:remoteUrl": "http://secret@host/"},
    ],
)
def test_what_changes_nothing_about_the_browser_needs_no_launch_of_its_own(capabilities: Any) -> None:
    assert only(capabilities).launch.key == Launch().key


@pytest.mark.parametrize(
    "capabilities",
    [
        {"pageLoadStrategy": "eager"},
        {"acceptInsecureCerts": True},
        {"unhandledPromptBehavior": {"alert": "accept"}},
        {"goog:loggingPrefs": {"browser": "ALL"}},
        {"browserkeeper:isolation": "fresh"},
        {"proxy": {"proxyType": "pac", "proxyAutoconfigUrl": "http://proxy.test/pac"}},
        {CHROME: {"args": ["--lang=de"]}},
        {CHROME: {"prefs": {"intl.accept_languages": "de"}}},
        {CHROME: {"mobileEmulation": {"deviceName": "Nexus 5"}}},
    ],
)
def test_what_a_browser_must_be_started_with_is_a_launch_and_equal_ones_are_the_same(
    capabilities: Any,
) -> None:
    launch = only(capabilities).launch
    assert launch.key != Launch().key
    assert launch.key == only(dict(reversed(capabilities.items()))).launch.key
    assert launch.selenium_options() is not None


def test_the_first_alternative_that_matches_is_taken_and_all_are_merged_with_the_rest() -> None:
    request = asked(
        {"browserkeeper:label": "both"}, {"browserName": "safari"}, {"browserName": "firefox"}, {}
    )
    assert [one.launch.name for one in request.accepted] == ["firefox", "chrome"]
    assert [one.label for one in request.accepted] == ["both", "both"]
    assert "safari" in request.refused[0]


@pytest.mark.parametrize(
    ("capabilities", "named"),
    [
        ({"browserName": "safari"}, "browserName 'safari'"),
        ({"platformName": "windows"}, "platformName 'windows'"),
        ({"acme:thing": 1}, "'acme:thing'"),
        ({"userAgent": "x"}, "'userAgent'"),
        ({"browserName": "chrome", FIREFOX: {}}, FIREFOX),
        ({CHROME: {"binary": "/bin/sh"}}, "'binary'"),
        ({CHROME: {"debuggerAddress": "127.0.0.1:1"}}, "'debuggerAddress'"),
        ({CHROME: {"detach": True}}, "'detach'"),
        ({CHROME: {"unknownThing": 1}}, "'unknownThing'"),
        ({CHROME: {"w3c": False}}, "'w3c'"),
        ({CHROME: {"args": ["--renderer-cmd-prefix=/bin/sh"]}}, "'--renderer-cmd-prefix=/bin/sh'"),
        ({CHROME: {"args": ["user-data-dir=/root"]}}, "'user-data-dir=/root'"),
        ({CHROME: {"prefs": {"download.default_directory": "/etc"}}}, "'download.default_directory'"),
        ({CHROME: {"prefs": {"download": {"default_directory": "/etc"}}}}, "download.default_directory"),
        ({FIREFOX: {"args": ["-profile", "/root"]}}, "'-profile'"),
        ({FIREFOX: {"env": {"LD_PRELOAD": "x"}}}, "'env'"),
        ({FIREFOX: {"prefs": {"browser.download.dir": "/etc"}}}, "'browser.download.dir'"),
        ({CHROME: {"args": ["--log-net-log=/etc/x"]}}, "'--log-net-log=/etc/x'"),
        ({CHROME: {"args": ["load-extension=~/x"]}}, "'load-extension=~/x'"),
        ({"browserkeeper:identity": {"storage_state": "/etc/shadow"}}, "storage_state"),
        ({"browserkeeper:identity": {"storage_state": ["/etc/shadow"]}}, "storage_state"),
        ({"browserkeeper:timeout": -1}, "browserkeeper:timeout"),
        ({"browserkeeper:maxLease": "long"}, "browserkeeper:maxLease"),
        ({"browserkeeper:isolation": "some"}, "browserkeeper:isolation"),
        ({"browserkeeper:unknown": 1}, "'browserkeeper:unknown'"),
    ],
)
def test_what_matches_nothing_names_the_capability(capabilities: Any, named: str) -> None:
    request = asked(capabilities)
    assert not request.accepted
    error = request.refusal()
    assert error.code == "session not created"
    assert named in error.message


@pytest.mark.parametrize(
    "body",
    [
        *NOT_TIMEOUTS,
        *NOT_OPTIONS,
        {},
        {"capabilities": []},
        {"desiredCapabilities": {"browserName": "chrome"}},
        {"capabilities": {"alwaysMatch": []}},
        {"capabilities": {"alwaysMatch": None, "firstMatch": 1}},
        {"capabilities": {"firstMatch": []}},
        {"capabilities": {"firstMatch": [{}, 1]}},
        {
            "capabilities": {
                "alwaysMatch": {"browserName": "chrome"},
                "firstMatch": [{"browserName": "a"}],
            }
        },
        {"capabilities": {"alwaysMatch": {"noColon": 1}}},
        *(
            {"capabilities": {"firstMatch": [{name: value}]}}
            for name, value in {
                "acceptInsecureCerts": "yes",
                "browserName": 1,
                "browserVersion": [],
                "platformName": {},
                "pageLoadStrategy": "slow",
                "proxy": {"proxyType": "odd"},
                "strictFileInteractability": 1,
                "timeouts": {"implicit": -1},
                "unhandledPromptBehavior": "shout",
                "webSocketUrl": "ws://",
                CHROME: [],
                "se:downloadsEnabled": 1,
                "browserkeeper:identity": "de",
                "browserkeeper:label": 1,
            }.items()
        ),
    ],
)
def test_what_is_not_valid_is_an_invalid_argument(body: Any) -> None:
    with pytest.raises(WireError) as raised:
        read(body, headless=True)
    assert raised.value.code == "invalid argument"
    assert raised.value.status == 400


def test_a_proxy_for_all_requests_is_the_leases_and_any_other_the_browsers() -> None:
    manual = {"proxyType": "manual", "httpProxy": "proxy.test:3128", "sslProxy": "proxy.test:3128"}
    first, second = asked({"proxy": {**manual, "noProxy": ["*.example.com"]}}).accepted
    assert first.launch.key == Launch().key
    assert first.identity["proxy"]["server"] == "http://proxy.test:3128"
    assert {"localhost", "*.example.com"} <= set(first.identity["proxy"]["bypass"])
    assert second.launch.capabilities["proxy"]["noProxy"] == [
        "*.example.com"
    ]  # where contexts have none
    socks = {"proxyType": "MANUAL", "socksProxy": "proxy.test:1080", "socksVersion": 5}
    assert asked({"proxy": socks}).accepted[0].identity["proxy"]["server"] == "socks5://proxy.test:1080"
    for other in (
        {**manual, "sslProxy": "other.test:1"},
        {**manual, "noProxy": ["http://x.test/path"]},
        {"proxyType": "manual", "httpProxy": "proxy.test:3128"},
        {"proxyType": "manual", "socksProxy": "proxy.test:1", "socksVersion": 4},
        {"proxyType": "direct"},
        {"proxyType": "system"},
    ):
        assert only({"proxy": other}).launch.capabilities["proxy"] == other


def test_no_repr_shows_the_identity_of_a_session() -> None:
    given = {"browserkeeper:identity": {"proxy": "http://u:hunter2@proxy.test:1"}}
    assert "hunter2" not in repr(only(given))
    assert "hunter2" not in only(given).launch.key
