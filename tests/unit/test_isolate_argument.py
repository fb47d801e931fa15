"""``isolate_driver=``: what it may be, and what is refused by name."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from selenium.webdriver import ChromeOptions

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.drivers.network import InsideUrl
from browserkeeper.guard.isolation import explain
from browserkeeper.report.exit_report import ExitReport


def attached() -> ChromeOptions:
    options = ChromeOptions()
    options.debugger_address = "127.0.0.1:9222"
    return options


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "firefox"}, "geckodriver must reach Firefox by TCP"),
        ({"debugging": "port"}, "debugging='port'"),
        ({"containment": "portable"}, "containment='portable' cannot do it"),
        ({"remote": "http://grid:4444"}, r"not on this machine \(remote=\)"),
        ({"server": "unix:/tmp/no-server"}, r"not on this machine \(server=\)"),
        ({"options": attached()}, "debugger_address"),
    ],
)
def test_what_cannot_be_isolated_is_refused_where_it_must_be(given: dict[str, Any], why: str) -> None:
    browser(**given)  # "auto" does without
    browser(isolate_driver=False, **given)
    with pytest.raises(ConfigError, match=why):
        browser(isolate_driver=True, **given)


@pytest.mark.parametrize("value", ["yes", "Auto", 1, None])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="give 'auto', True or False"):
        browser(isolate_driver=value)


def test_a_pool_whose_leases_share_a_browser_refuses_it_by_name() -> None:
    with pytest.raises(ConfigError, match="leases_per_browser="):
        BrowserPool("chromium", leases_per_browser=2, isolate_driver=True)


def test_each_refusal_of_the_system_has_words() -> None:
    assert "max_user_namespaces" in explain(28)
    assert "no network namespaces" in explain(22)
    assert "forbid" in explain(1)
    assert explain(5) == "Input/output error"


def test_an_address_keeps_its_network_in_copies_and_is_plain_text_elsewhere() -> None:
    network: Any = object()
    url = InsideUrl("ws://127.0.0.1:1/session", network)
    assert copy.deepcopy({"webSocketUrl": url})["webSocketUrl"] is url
    assert type(pickle.loads(pickle.dumps(url))) is str


@pytest.mark.parametrize(
    ("isolation", "line"),
    [
        ("isolated", "  the driver's port was closed to other programs"),
        ("a reason", "  the driver's port was open to every local user: a reason"),
        ("", None),  # a guard that died knew it
    ],
)
def test_a_report_says_who_could_connect(isolation: str, line: str | None) -> None:
    report = ExitReport(
        "0123456789ab", "chrome", "closed", "subreaper", "ECHILD", driver_isolation=isolation
    )
    about = [one for one in str(report).splitlines() if "port" in one]
    assert about == ([line] if line else [])
    assert report.log_fields()["browserkeeper.driver_isolation"] == isolation
    assert ExitReport.from_dict(report.to_dict()).driver_isolation == isolation
