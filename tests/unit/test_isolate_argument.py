"""``isolate_driver=``: what it may be, and what is refused by name."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ChromeOptions

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.config import SessionConfig
from browserkeeper.drivers.network import HOST, InsideUrl
from browserkeeper.drivers.stand_in import SHELLS, give_up, isolation_of, obstacle, write_stand_in
from browserkeeper.guard.isolation import explain
from browserkeeper.report.exit_report import ExitReport, ProcessExit
from browserkeeper.server.settings import ServerSettings


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
    if "server" in given:
        with pytest.raises(ConfigError, match="browserkeeper serve --isolate-driver false"):
            browser(isolate_driver=False, **given)
    else:
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


def test_a_server_takes_it_for_all_its_browsers() -> None:
    assert ServerSettings(isolate_driver=True).isolate_driver is True
    for given, why in (
        ({"isolate_driver": "yes"}, "give 'auto', True or False"),
        ({"isolate_driver": True, "leases_per_browser": 2}, "must reach the debugging port"),
    ):
        with pytest.raises(ConfigError, match=why):
            ServerSettings(**given)


def test_drivers_whose_stand_in_might_fail_are_not_isolated(tmp_path: Path) -> None:
    """A script may start the browser with another environment, umask, priority, or in a sandbox."""
    script, program = tmp_path / "chromedriver", shutil.which("true")
    script.write_text('#!/bin/sh\nexec nice -n 7 /usr/bin/chromedriver "$@"\n')
    assert program
    config = SessionConfig("chrome")
    if os.path.basename(os.path.realpath("/bin/sh")) in SHELLS:
        assert obstacle(config, program, tmp_path) == ""
    assert "is a script" in obstacle(config, str(script), tmp_path)
    assert "cannot be read" in obstacle(config, str(tmp_path / "none"), tmp_path)


def test_a_driver_whose_stand_in_has_failed_is_not_isolated_again(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("true") or "", tmp_path / "driver")
    give_up(str(program), "it has failed")
    assert obstacle(SessionConfig("chrome"), str(program), tmp_path) == "it has failed"


def test_the_script_is_mended_where_it_cannot_be_executed(tmp_path: Path) -> None:
    script = Path(write_stand_in(tmp_path))
    script.chmod(0o600)
    assert write_stand_in(tmp_path) == str(script)
    assert os.access(script, os.X_OK)


def test_a_script_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full disk
    try:
        how, script = isolation_of(SessionConfig("chrome"), shutil.which("true") or "", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in how
    assert not script
    assert not list(tmp_path.iterdir())


def test_each_refusal_of_the_system_has_words() -> None:
    assert "max_user_namespaces" in explain(28)
    assert "no network namespaces" in explain(22)
    assert "forbid" in explain(1)
    assert explain(5) == "Input/output error"


def test_an_address_keeps_its_network_in_copies_and_is_plain_text_elsewhere() -> None:
    network: Any = object()
    url = InsideUrl("ws://127.0.0.1:1234/session", network)
    assert url == f"ws://{HOST}:1234/session", "no other client finds a stranger at that port"
    assert url.authority == "127.0.0.1:1234"
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
    driver = ProcessExit(1, 1.0, "chromedriver", "killed", None, 9, 0.1, False)
    kind: dict[str, Any] = {"driver_isolation": isolation, "processes": (driver,)}
    report = ExitReport("0123456789ab", "chrome", "closed", "subreaper", "ECHILD", **kind)
    about = [one for one in str(report).splitlines() if "port" in one]
    assert about == ([line] if line else [])
    assert report.log_fields()["browserkeeper.driver_isolation"] == isolation
    assert ExitReport.from_dict(report.to_dict()).driver_isolation == isolation
