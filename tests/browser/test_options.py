"""Options of a real browser: which is started, and that those which are passed on keep the promises."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.proxy import Proxy

from browserkeeper import ConfigError, ResolveError, browser, session_of
from browserkeeper.options.policy import HONOURED
from fixtures.server import Site
from tests.browser.test_endings import kill_both_guards
from tests.pool.pools import patient_pool
from tests.support import witness
from tests.support.guards import BOTH
from tests.support.waiting import wait_until


def recorder(directory: Path, program: str) -> Path:
    """A launcher of the browser that writes down that it was called."""
    path = directory / "launcher"
    path.write_text(f'#!/bin/sh\necho "$@" >> {directory}/calls\nexec {shutil.which(program)} "$@"\n')
    path.chmod(0o755)
    return path


def listening(pid: int) -> set[str]:
    """The addresses of the sockets that a process listens on."""
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    by_inode = {
        row.split()[9]: row.split()[1] for row in tables.splitlines() if row.split()[3:4] == ["0A"]
    }
    links: list[str] = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return {by_inode[link[8:-1]] for link in links if link[8:-1] in by_inode}


@pytest.mark.chrome
@pytest.mark.leaves_zombies(30, "the test kills both guards")
def test_arguments_that_are_passed_on_keep_the_promises(site: Site, tmp_path: Path) -> None:
    """No port, the window as asked for, and the browser ends even where both guards are killed."""
    values = {
        "--log-file": tmp_path / "log",
        "--crash-dumps-dir": tmp_path / "dumps",
        "--disk-cache-dir": tmp_path / "cache",
        "--user-data-dir": tmp_path / "profile",
        "--window-size": "640,480",
    }
    tried = [name for name in HONOURED if name != "--kiosk"]  # which is full size
    options = webdriver.ChromeOptions()
    options.add_experimental_option("minidumpPath", str(tmp_path / "minidumps"))
    session = browser(
        options=options,
        binary=recorder(tmp_path, "chromium"),
        arguments=[f"{name}={values[name]}" if name in values else name for name in tried],
    )
    driver = session.start()
    driver.get(site.url)
    assert driver.execute_script("return outerWidth") == 640
    line = Path(f"/proc/{session.pid}/cmdline").read_bytes().decode()
    assert all(name in line for name in tried)
    assert session.pid
    assert not listening(session.pid)
    kill_both_guards(session)
    assert wait_until(lambda: not witness.alive([s for s in witness.below(1) if s.pid == session.pid]))
    session.close()


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "plain Selenium has no guard that reaps")
def test_control_a_port_of_ones_own_is_another_sessions_browser(tmp_path: Path) -> None:
    """Plain Selenium: two drivers with the same port drive one browser."""
    port = free_port()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def driver() -> webdriver.Chrome:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", f"--remote-debugging-port={port}"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"), env=env)
        return webdriver.Chrome(options=options, service=service)

    first = driver()
    second = None
    try:
        first.get("data:,first")
        second = driver()
        handles = set(first.window_handles)
        assert handles & set(second.window_handles)
    finally:
        for one in (second, first):
            if one is not None:
                one.quit()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "plain Selenium has no guard that reaps")
def test_every_field_of_the_options_arrives_as_with_plain_selenium(tmp_path: Path) -> None:
    """The control is a plain driver, given the same options."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.page_load_strategy = "eager"
    options.unhandled_prompt_behavior = "accept"
    options.accept_insecure_certs = True
    options.strict_file_interactability = True
    options.timeouts = {"implicit": 1, "pageLoad": 2000, "script": 3000}
    options.proxy = Proxy({"proxyType": "direct"})
    options.enable_bidi = True
    options.enable_downloads = True
    options.platform_name = "linux"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": 300, "height": 500}})
    options.add_argument("--lang=de")
    with browser(options=options) as driver:
        ours = dict(driver.capabilities)
        width = driver.execute_script("return screen.width")
    options.add_argument("--headless=new")
    options.add_argument("--no-sandbox")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    plain = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"), env=env))
    try:
        assert width == plain.execute_script("return screen.width") == 300
        theirs = dict(plain.capabilities)
    finally:
        plain.quit()
    own = {"goog:chromeOptions", "chrome", "goog:processID", "webSocketUrl"}
    assert {k: v for k, v in ours.items() if k not in own} == {
        k: v for k, v in theirs.items() if k not in own
    }
    assert "webSocketUrl" in ours


# ------------------------------------------------------------------ which browser


@pytest.mark.parametrize("name", BOTH)
def test_the_browser_of_binary_location_is_started(name: str, site: Site, tmp_path: Path) -> None:
    options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    program = "firefox-esr" if name == "firefox" else "chromium"
    options.binary_location = str(recorder(tmp_path, program))
    with browser(name, options=options) as driver:
        driver.get(site.url)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len([call for call in calls if call != "--version"]) == 1


@pytest.mark.parametrize("name", BOTH)
def test_a_binary_location_that_does_not_work_is_an_error_that_names_it(
    name: str, tmp_path: Path
) -> None:
    """Another browser was started in its place."""
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for path, why in ((tmp_path / "none", "does not exist"), (plain, "is not executable")):
        options: Any = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
        options.binary_location = str(path)
        with pytest.raises(ResolveError, match=f"options.binary_location.*{path} {why}"):
            browser(name, options=options).start()


@pytest.mark.chrome
def test_a_pool_starts_the_browser_of_binary_location(site: Site, tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = str(recorder(tmp_path, "chromium"))
    with patient_pool(max_size=1, options=options) as pool, pool.lease() as lease:
        lease.driver.get(site.url)
    assert "--remote-debugging-pipe" in (tmp_path / "calls").read_text()


@pytest.mark.chrome
@pytest.mark.parametrize("variable", ["SE_BROWSER_PATH", "SE_CHROMEDRIVER"])
def test_a_path_in_seleniums_variables_that_does_not_work_is_an_error(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/no/such/program")
    with pytest.raises(ResolveError, match=f"{variable}: /no/such/program does not exist"):
        browser().start()


@pytest.mark.chrome
def test_another_version_than_the_installed_one_is_refused_and_this_one_is_not(site: Site) -> None:
    options = webdriver.ChromeOptions()
    options.browser_version = "12"
    with pytest.raises(ConfigError, match=r"options.browser_version='12', but .* is version"):
        browser(options=options).start()
    found = subprocess.run(
        [shutil.which("chromium") or "", "--version"], capture_output=True, text=True, check=True
    )
    options.browser_version = found.stdout.split()[1].split(".")[0]
    options.add_argument("--enable-features=Translate")
    with browser(
        options=options, preferences={"download": {"default_directory": "/tmp/mine"}}
    ) as driver:
        session = session_of(driver)
        assert driver.capabilities["browserVersion"].startswith(options.browser_version)
        line = Path(f"/proc/{session.pid}/cmdline").read_bytes().decode()
        disabled = next(a for a in line.split("\0") if a.startswith("--disable-features="))
        assert "Translate" not in disabled
        assert "MediaRouter" in disabled
        profile = Path(driver.capabilities["chrome"]["userDataDir"], "Default", "Preferences")
        assert wait_until(lambda: '"/tmp/mine"' in profile.read_text())
