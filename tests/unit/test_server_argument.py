"""``server=``: the address, who decides where a browser runs, and what a server cannot give."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.config import NOT_OF_A_SERVER, BrowserArguments, SessionConfig
from browserkeeper.errors import ServerError
from browserkeeper.options.identity import Identity
from browserkeeper.wire.address import LONGEST_PATH, ServerAddress
from browserkeeper.wire.credentials import environment_without_credentials

TOKEN = "sTr0ng-t0ken_of.a-server"
SOCKET = "/run/browserkeeper.sock"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSERKEEPER_SERVER", raising=False)


# ------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("given", "shown", "token"),
    [
        (f"unix:{SOCKET}", f"unix:{SOCKET}", ""),
        (f"unix://{SOCKET}", f"unix:{SOCKET}", ""),
        (SOCKET, f"unix:{SOCKET}", ""),
        (Path(SOCKET), f"unix:{SOCKET}", ""),
        (f"  {SOCKET} ", f"unix:{SOCKET}", ""),
        (f"http://{TOKEN}@127.0.0.1:4444", "http://127.0.0.1:4444", TOKEN),
        ("http://localhost:4444/", "http://localhost:4444", ""),
        (f"http://{TOKEN}@[::1]:4444", "http://[::1]:4444", TOKEN),
        ("http://a%2Bb%2Fc@host", "http://host:80", "a+b/c"),
        ("https://qQ7@host/prefix", "https://host:443/prefix", "qQ7"),
    ],
)
def test_addresses(given: Any, shown: str, token: str) -> None:
    address = ServerAddress.parse(given)
    assert (str(address), address.token) == (shown, token)
    assert address.is_local == shown.startswith("unix:")
    assert not token or token not in repr(address) + str(address)


def test_a_relative_path_and_a_home_directory_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    monkeypatch.setenv("HOME", "/home/u")
    assert str(ServerAddress.parse("unix:a.sock")) == "unix:/tmp/a.sock"
    assert str(ServerAddress.parse("./a.sock")) == "unix:/tmp/a.sock"
    assert str(ServerAddress.parse("~/a.sock")) == "unix:/home/u/a.sock"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "is bool, not a string"),
        (4444, "is int, not a string"),
        (b"/run/a", "is bytes, not a string"),
        ("unix:", "no path of a socket"),
        ("unix:@name", "abstract"),
        ("unix:/a\0b", "abstract"),
        ("/" + "x" * LONGEST_PATH, f"{LONGEST_PATH + 1} bytes"),
        ("localhost:4444", "no scheme"),
        ("browserkeeper.sock", "no scheme"),
        ("ftp://host", "no scheme"),
        ("http://", "no host"),
        ("http://host:port", "port is not a number"),
        ("http://host:99999", "port is not a number"),
        (f"http://{TOKEN}@ho st", "a space"),
        (f"http://{TOKEN}@host?x", "a query"),
        (f"http://user:{TOKEN}@host", "the token stands alone"),
        ("http://a%0Ab@host", "no header can hold"),
        ("http://%C3%BC@host", "no header can hold"),
    ],
)
def test_what_is_no_address_is_refused_without_its_token(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=r"server=") as caught:
        browser(server=given)
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)


# --------------------------------------------------------------------- local, Grid or server


def place(**given: Any) -> tuple[str, str]:
    config = SessionConfig.build(**given)
    return config.place, str(config.server or config.remote or "")


def test_one_owner_decides_where_the_browser_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = "http://grid:4444"
    assert place() == ("here", "")
    assert place(server=SOCKET) == ("server", f"unix:{SOCKET}")
    assert place(remote=grid) == ("grid", grid)
    monkeypatch.setenv("BROWSERKEEPER_SERVER", "unix:/run/of-variable")
    assert place() == ("server", "unix:/run/of-variable")
    assert place(server=None) == ("server", "unix:/run/of-variable")
    assert place(server=SOCKET) == ("server", f"unix:{SOCKET}")
    assert place(server=False) == place(server="") == ("here", "")
    assert place(remote=grid) == ("grid", grid)  # an argument wins over the variable
    assert place(remote=grid, server=False) == ("grid", grid)
    monkeypatch.setenv("BROWSERKEEPER_SERVER", "")
    assert place() == ("here", "")


def test_a_grid_and_a_server_at_once_are_refused() -> None:
    for server in (SOCKET, Path(SOCKET), "http://t@host"):
        with pytest.raises(ConfigError, match="two places"):
            browser(remote="http://grid", server=server)


def test_the_token_may_be_in_the_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_SERVER", f"http://{TOKEN}@host:4444")
    known, other = (SessionConfig.build(server=s).server for s in ("http://host:4444", "http://other:1"))
    assert known
    assert known.token == TOKEN
    assert other
    assert not other.token
    own = SessionConfig.build(server="http://own@host:4444").server
    assert own
    assert own.token == "own"


def test_a_wrong_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_SERVER", "localhost:4444")
    with pytest.raises(ConfigError, match=r"BROWSERKEEPER_SERVER \(in the environment\): no scheme"):
        browser()
    assert browser(server=False).config.is_here


def test_no_program_that_is_started_gets_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_SERVER", f"http://{TOKEN}@host")
    assert "BROWSERKEEPER_SERVER" not in environment_without_credentials()


# ------------------------------------------------------------------ what a server cannot give

VALUES: dict[str, Any] = {
    "profile": "/home/u/profile",
    "download_dir": "/tmp/files",
    "binary": "/usr/bin/chromium",
    "driver_path": "/usr/bin/chromedriver",
    "env": {"A": "b"},
    "log": "driver.log",
    "max_browsers": 2,
    "min_memory": "1GiB",
    "max_download": "1MB",
    "ignore_default_arguments": True,
    "display": ":7",
    "headless": False,
    "debugging": "port",
    "containment": "subreaper",
    "arguments": ["--user-data-dir=/home/u/p"],
    "name": "chromium-headless-shell",
}


@pytest.mark.parametrize("name", VALUES)
def test_what_a_server_cannot_give_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the argument, and by the variable, whose error says how to switch it off for one browser."""
    word = {"name": "chromium-headless-shell", "arguments": "user-data-dir|profile"}.get(name, name)
    for make in (browser, BrowserPool):
        if name == "profile" and make is BrowserPool:
            continue
        with pytest.raises(ConfigError, match=word) as caught:
            make(**{name: VALUES[name]}, server=SOCKET)
        assert "server" in str(caught.value)
    monkeypatch.setenv("BROWSERKEEPER_SERVER", SOCKET)
    with pytest.raises(ConfigError, match=word) as caught:
        browser(**{name: VALUES[name]})
    assert "BROWSERKEEPER_SERVER" in str(caught.value) or name == "arguments"
    if name not in ("headless", "name", "display"):  # the machine may have none; not for headless ones
        browser(**{name: VALUES[name]}, server=False)


def test_all_that_is_refused_is_tested() -> None:
    assert set(NOT_OF_A_SERVER) <= set(VALUES)
    assert set(NOT_OF_A_SERVER) <= set(BrowserArguments.__annotations__)


def test_options_that_need_a_browser_of_ones_own_are_refused() -> None:
    options = webdriver.ChromeOptions()
    options.debugger_address = "127.0.0.1:9222"
    with pytest.raises(ConfigError, match=r"options\.debugger_address cannot be used with server="):
        browser(options=options, server=SOCKET)
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/other"
    with pytest.raises(ConfigError, match="binary= cannot be used with server="):
        browser(options=options, server=SOCKET)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_idle": 1}, "min_idle=1 cannot be used with server="),
        ({"max_uses": 5}, "max_uses=5"),
        ({"max_lifetime": 60}, "max_lifetime=60"),
        ({"idle_timeout": 60}, "idle_timeout=60"),
        ({"max_memory": 10**9}, "max_memory="),
        ({"leases_per_browser": 4}, "leases_per_browser=4"),
        ({"max_uses": 0}, "max_uses=0 cannot be used with server="),
        ({"max_memory": 0}, "max_memory=0"),
        ({"min_idle": False}, "min_idle=False"),
        ({"isolation": "none"}, "isolation='none' cannot be used with server="),
        ({"isolation": "contexts"}, "isolation='contexts' is not known"),
    ],
)
def test_a_pool_of_a_server_keeps_no_browsers(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrowserPool(server=SOCKET, **given)
    assert message in str(caught.value)
    BrowserPool(server=SOCKET, min_idle=0, max_uses=None, max_memory=None)  # what holds in any case
    assert BrowserPool(min_idle=None).config.min_idle == 1


def test_a_pool_of_a_server_takes_words_for_each_lease_and_the_servers_isolation() -> None:
    pool = BrowserPool(server=SOCKET, isolation="context", max_size=3)
    assert (pool.isolation, pool.config.browser.lease_isolation) == ("fresh", "context")
    assert (pool.config.min_idle, pool.config.launch_concurrency) == (0, 3)
    pool.config.check_lease_identity(Identity(locale="de-DE", proxy="http://u:p@proxy:1"))


@pytest.mark.parametrize("what", ["expect_download()", "storage_state()"])
def test_what_needs_a_connection_of_its_own_is_refused_by_name(what: str) -> None:
    session = browser(server=SOCKET)
    control = session._control
    control.downloads.begin_lease()
    control.downloads._config = session.config
    with pytest.raises(ConfigError, match=r"cannot be used with server="):
        session.storage_state() if what == "storage_state()" else control.downloads.required(what)


# --------------------------------------------------------------------------------- secrets


def test_no_token_is_in_texts_pickles_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session = browser(server=f"http://{TOKEN}@127.0.0.1:1", wait=0, attempts=1)
    with pytest.raises(ServerError) as caught:
        session.start()
    error = caught.value
    assert error.reason == "absent"
    assert error.report is not None
    texts = [repr(session), repr(session.config), str(error), repr(error), caplog.text]
    texts += [error.report.to_json(), str(error.report), repr(pickle.loads(pickle.dumps(error)))]
    assert not [text for text in texts if TOKEN in text]
