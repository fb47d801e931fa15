"""Every argument of the doors to a browser, with a server: sent, or applied here, or refused by name.

The arguments are read from the signatures, so that a new one fails here until it is entered.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.celery import install
from browserkeeper.celery.settings import BrowserSpec, Settings
from browserkeeper.config import BrowserArguments, SessionConfig
from browserkeeper.drivers import server
from browserkeeper.options.identity import IDENTITY_WORDS, IdentityArguments
from browserkeeper.pool.config import OF_WARM_BROWSERS
from browserkeeper.pool.pool import PoolArguments

SOCKET = "/run/browserkeeper.sock"
STATE = {"cookies": [{"name": "a", "value": "b", "domain": "h", "path": "/"}], "origins": []}


def requested(config: SessionConfig) -> dict[str, Any]:
    """The capabilities of the request for a session, as the server reads them."""
    found = {**server.build_options(config).to_capabilities(), **server.capabilities(config, "id")}
    read: dict[str, Any] = json.loads(json.dumps(found))
    return read


def options_with(change: Callable[[Any], None]) -> Any:
    options = webdriver.ChromeOptions()
    change(options)
    return options


def set_strategy(options: Any) -> None:
    options.page_load_strategy = "eager"


IDENTITY = "browserkeeper:identity"
CHROME = "goog:chromeOptions"
SENT: dict[str, list[tuple[Any, Callable[[dict[str, Any]], Any], Any]]] = {
    "name": [
        ("firefox", lambda asked: asked["browserName"], "firefox"),
        ("chromium", lambda asked: asked["browserName"], "chromium"),
    ],
    "options": [(options_with(set_strategy), lambda asked: asked["pageLoadStrategy"], "eager")],
    "arguments": [(["--lang=de"], lambda asked: asked[CHROME]["args"], ["--lang=de"])],
    "preferences": [({"a.b": 1}, lambda asked: asked[CHROME]["prefs"], {"a.b": 1})],
    "window_size": [((90, 70), lambda asked: asked[CHROME]["args"], ["--window-size=90,70"])],
    "label": [("a name", lambda asked: asked["browserkeeper:label"], "a name")],
    "timeout": [(50, lambda asked: asked["browserkeeper:maxLease"] > 50, True)],
    "wait": [
        (7, lambda asked: asked["browserkeeper:timeout"], 7),
        (0, lambda asked: asked["browserkeeper:timeout"], 1),
        (None, lambda asked: "browserkeeper:timeout" in asked, False),
    ],
    "identity": [({"locale": "de-DE"}, lambda asked: asked[IDENTITY], {"locale": "de-DE"})],
    "locale": [("de-DE", lambda asked: asked[IDENTITY]["locale"], "de-DE")],
    "timezone": [("Asia/Tokyo", lambda asked: asked[IDENTITY]["timezone"], "Asia/Tokyo")],
    "user_agent": [("mine/1", lambda asked: asked[IDENTITY]["user_agent"], "mine/1")],
    "geolocation": [((1.5, 2.5), lambda asked: asked[IDENTITY]["geolocation"][:2], [1.5, 2.5])],
    "extra_headers": [({"X-A": "b"}, lambda asked: asked[IDENTITY]["extra_headers"], {"X-A": "b"})],
    "block": [(["image"], lambda asked: asked[IDENTITY]["block"], ["image"])],
    "proxy": [("http://u:p@h:1", lambda asked: asked[IDENTITY]["proxy"]["password"], "p")],
    "storage_state": [
        (STATE, lambda asked: asked[IDENTITY]["storage_state"]["cookies"][0]["value"], "b")
    ],
}
"""Values, and where the request must have them."""
APPLIED: dict[str, Any] = {
    "start_timeout": 7,
    "command_timeout": 7,
    "close_timeout": 7,
    "attempts": 3,
    "on_leak": "warn",
    "server": SOCKET,
}
"""Arguments that this process honours by itself; the value is in the configuration."""
REFUSED: dict[str, tuple[Any, ...]] = {
    "name": ("edge", "chromium-headless-shell", "safari"),
    "headless": (False,),
    "ignore_default_arguments": (True, ["--no-first-run"]),
    "profile": ("/home/u/profile", Path("p")),
    "download_dir": ("/tmp/files",),
    "binary": ("/usr/bin/chromium",),
    "driver_path": ("/usr/bin/chromedriver",),
    "debugging": ("port",),
    "containment": ("cgroup", "subreaper", "portable"),
    "offline": (True,),
    "env": ({"A": "b"}, {"A": None}),
    "log": ("driver.log",),
    "remote": ("http://grid:4444",),
    "max_browsers": (1,),
    "min_memory": ("1GiB", 1),
    "max_download": ("1MB",),
    "display": (":7", "virtual"),
    "isolate_driver": (True, False),
    "arguments": (["--user-data-dir=/home/u/p"], ["--remote-debugging-port=0"]),
}
POOL_APPLIED: dict[str, Any] = {
    "max_size": 3,
    "checkout_timeout": 7,
    "max_waiting": 5,
    "max_lease": 50,
    "leak_warn": 60,
    "launch_concurrency": 2,
    "configure": print,
    "check": print,
    "reset": print,
    "hook_timeout": 7,
}
POOL_REFUSED: dict[str, tuple[Any, ...]] = {
    "min_idle": (1,),
    "max_uses": (1, 0),
    "max_lifetime": (60,),
    "idle_timeout": (60,),
    "max_memory": (10**9, 0),
    "leases_per_browser": (2,),
    "isolation": ("none",),
}
LEASE_WORDS = {"timeout": "the wait", "label": "test_a_pool_leases_from_the_server", "identity": "also"}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROWSERKEEPER_SERVER", "BROWSERKEEPER_OFFLINE", "SE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def parameters(function: Any) -> set[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return {one.name for one in found if one.kind not in kinds} - {"self"}


def test_no_argument_is_left_out_of_these_tables() -> None:
    assert parameters(browser) == {*SENT, *APPLIED, *REFUSED}
    assert {*BrowserArguments.__annotations__, *IDENTITY_WORDS, "name"} == parameters(browser)
    own = parameters(BrowserPool.__init__) - {"name"}
    assert own == {*POOL_APPLIED, *POOL_REFUSED}
    assert own == set(PoolArguments.__annotations__) - set(BrowserArguments.__annotations__)
    assert set(OF_WARM_BROWSERS) <= set(POOL_REFUSED)
    assert set(IdentityArguments.__annotations__) == set(IDENTITY_WORDS) <= set(SENT)
    for method in (BrowserPool.lease, BrowserPool.alease):
        assert parameters(method) == set(LEASE_WORDS)


@pytest.mark.parametrize("name", SENT)
def test_what_the_server_has_to_know_is_in_the_request(name: str) -> None:
    for value, find, expected in SENT[name]:
        given: dict[str, Any] = {name: value}
        assert find(requested(browser(**given, server=SOCKET).config)) == expected
        if name not in ("timeout", "wait"):  # which a pool has not, or of its own
            pool = BrowserPool(**given, server=SOCKET)
            assert find(requested(pool.config.browser)) == expected


def test_a_storage_states_file_is_read_here(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    asked = requested(browser(storage_state=tmp_path / "state.json", server=SOCKET).config)
    assert asked[IDENTITY]["storage_state"]["cookies"][0]["value"] == "b"


@pytest.mark.parametrize("name", APPLIED)
def test_what_this_process_applies_is_in_its_configuration(name: str) -> None:
    given = {"server": SOCKET, name: APPLIED[name]}
    for config in (browser(**given).config, BrowserPool(**given).config.browser):
        assert str(getattr(config, name)).removeprefix("unix:") == str(APPLIED[name])


@pytest.mark.parametrize("name", POOL_APPLIED)
def test_what_the_pool_applies_is_in_its_configuration(name: str) -> None:
    given: dict[str, Any] = {name: POOL_APPLIED[name]}
    config = BrowserPool(server=SOCKET, **given).config
    assert getattr(config, name) is POOL_APPLIED[name]


@pytest.mark.parametrize("isolation", ["context", "fresh"])
def test_the_isolation_is_in_the_request_of_each_lease(isolation: Any) -> None:
    pool = BrowserPool(server=SOCKET, isolation=isolation)
    assert requested(pool.config.browser)["browserkeeper:isolation"] == isolation


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_server_cannot_give_is_refused_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each door, and by the variable as by the argument."""
    word = {"arguments": "user-data-dir|profile|remote-debugging-port"}.get(name, name)
    for value in REFUSED[name]:
        word = value if name == "name" else word
        given: dict[str, Any] = {name: value}
        monkeypatch.delenv("BROWSERKEEPER_SERVER", raising=False)
        for make in (browser, BrowserPool):
            with pytest.raises(ConfigError, match=f"(?i){word}"):
                make(**given, server=SOCKET)
        if name == "remote":
            continue  # it wins over the variable
        monkeypatch.setenv("BROWSERKEEPER_SERVER", SOCKET)
        for make in (browser, BrowserPool):
            with pytest.raises(ConfigError, match=f"(?i){word}"):
                make(**given)


@pytest.mark.parametrize("name", POOL_REFUSED)
def test_what_a_pool_of_a_server_has_not_is_refused_by_name(name: str) -> None:
    for value in POOL_REFUSED[name]:
        given: dict[str, Any] = {name: value}
        with pytest.raises(ConfigError, match=f"{name}=.*server="):
            BrowserPool(server=SOCKET, **given)


def test_the_environments_offline_is_about_this_machines_drivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is set for all browsers of a machine, so it refuses none that has no driver there."""
    monkeypatch.setenv("BROWSERKEEPER_OFFLINE", "1")
    assert browser(server=SOCKET).config.place == "server"
    assert browser(server=SOCKET, offline=False).config.place == "server"


def test_no_token_is_in_the_repr_of_celerys_settings() -> None:
    """Given for the browser, and given for its pool."""
    given = {"server": "http://t0ken-of-server@127.0.0.1:1"}
    for spec in (
        BrowserSpec(arguments=given),
        BrowserSpec(pool=given),
        BrowserSpec(pool={}, arguments=given),
    ):
        assert "t0ken-of-server" not in repr(Settings(spec))
        assert spec.name in repr(Settings(spec))


def test_install_takes_all_arguments_of_browser() -> None:
    """And checks them as browser() does, since it has none of these names itself."""
    assert parameters(install) & parameters(browser) == set()
