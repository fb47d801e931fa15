"""The search for browser and driver: its order, versions that do not fit, caches, driver managers."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper import ResolveError, VersionMismatch
from browserkeeper.config import OFFLINE_VARIABLES, SessionConfig
from browserkeeper.drivers import resolve as module
from browserkeeper.drivers.chromium import merge_features
from browserkeeper.drivers.families import FAMILIES
from browserkeeper.drivers.probe import Program, VersionCache, probe
from browserkeeper.drivers.resolve import Resolved, check_fit, resolve
from browserkeeper.status import doctor


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


class Machine:
    """A home, a PATH and usual places that hold only what a test puts there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.monkeypatch = root, monkeypatch
        (root / "bin").mkdir()
        monkeypatch.setenv("HOME", str(root))
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/bin:/usr/bin/env")
        monkeypatch.setattr(module, "DRIVER_PLACES", ())
        for family in FAMILIES.values():
            for name in (*family.environment, *family.driver_environment):
                monkeypatch.delenv(name, raising=False)
        for name, family in list(FAMILIES.items()):
            bare = type(family)(**{**family.__dict__, "places": ()})
            monkeypatch.setitem(FAMILIES, name, bare)
        # /bin holds the real browsers where /bin and /usr/bin are one.
        monkeypatch.setenv("PATH", str(root / "bin"))

    def add(self, where: str, says: str) -> str:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return str(path)

    def resolve(self, name: str = "chrome", **more: object) -> Resolved:
        given: dict[str, object] = {"binary": None, "driver_path": None, "offline": True}
        return resolve(name, **{**given, **more}, directory=self.root)  # type: ignore[arg-type]


def test_path_comes_before_caches(machine: Machine) -> None:
    browser = machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add(".cache/selenium/chromedriver/linux64/120.9/chromedriver", "ChromeDriver 120.9")
    driver = machine.add("bin/chromedriver", "ChromeDriver 120.0.1.2 (abc)")
    found = machine.resolve()
    assert (found.browser.path, found.driver.path) == (browser, driver)
    assert (found.browser.version, found.driver.origin) == ("120.0.1.2", "PATH")


def test_the_environment_comes_before_path(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add("bin/chromedriver", "ChromeDriver 120.0.1.2")
    other = machine.add("elsewhere/chromedriver", "ChromeDriver 120.0.9.9")
    monkeypatch.setenv("SE_CHROMEDRIVER", other)
    assert machine.resolve().driver.path == other
    monkeypatch.setenv("CHROMEWEBDRIVER", str(machine.root / "bin"))
    monkeypatch.delenv("SE_CHROMEDRIVER")
    assert machine.resolve().driver.origin == "CHROMEWEBDRIVER"


def test_the_argument_comes_before_the_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    mine = machine.add("mine/chromedriver", "ChromeDriver 120.0.5.5")
    monkeypatch.setenv("BROWSERKEEPER_CHROMEDRIVER", machine.add("x/chromedriver", "ChromeDriver 120.1"))
    assert machine.resolve(driver_path=mine).driver.path == mine


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        (".cache/selenium/chromedriver/linux64/{}/chromedriver", "Selenium Manager's cache"),
        (
            ".wdm/drivers/chromedriver/linux64/{}/chromedriver-linux64/chromedriver",
            "webdriver-manager's cache",
        ),
    ],
)
def test_the_newest_version_in_a_cache_is_taken(machine: Machine, place: str, origin: str) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add(place.format("120.0.9.0"), "ChromeDriver 120.0.9.0")
    newest = machine.add(place.format("120.0.10.0"), "ChromeDriver 120.0.10.0")
    found = machine.resolve().driver
    assert (found.path, found.origin) == (newest, origin)


def test_a_driver_of_another_version_is_passed_over(machine: Machine) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add("bin/chromedriver", "ChromeDriver 119.0.1.2")
    fits = machine.add(".cache/selenium/chromedriver/linux64/120.0/chromedriver", "ChromeDriver 120.0")
    assert machine.resolve().driver.path == fits


def test_version_mismatch_is_raised_where_no_other_driver_is_found(machine: Machine) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add("bin/chromedriver", "ChromeDriver 119.0.1.2")
    with pytest.raises(VersionMismatch, match=r"ChromeDriver|chromedriver 119.*120") as caught:
        machine.resolve()
    assert (caught.value.browser_version, caught.value.driver_version) == ("120.0.1.2", "119.0.1.2")


def test_the_error_lists_all_places_that_were_tried(machine: Machine) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    machine.add("bin/chromedriver", "no driver at all")
    with pytest.raises(ResolveError) as caught:
        machine.resolve()
    text = str(caught.value)
    assert "bin/chromedriver: " in text
    assert "apt install chromium chromium-driver" in text
    assert "since offline=True" in text
    assert caught.value.tried


def test_the_error_names_what_has_forbidden_the_download(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("bin/chromium", "Chromium 120.0.1.2")
    for name in OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not SessionConfig.build().offline
    assert SessionConfig.build(offline=True).offline_because == "offline=True"
    for name in reversed(OFFLINE_VARIABLES):
        monkeypatch.setenv(name, "1")
        config = SessionConfig.build()
        with pytest.raises(
            ResolveError, match=f"downloaded, since {name}=1 is set; where that is allow"
        ):
            machine.resolve(offline=config.offline, offline_because=config.offline_because)
    assert not SessionConfig.build(offline=False).offline
    assert doctor.browser("chrome", machine.root).remedy.count("since doctor downloads nothing") == 1


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_remedies_for_a_missing_program_help(name: str, machine: Machine) -> None:
    """What the error says is done here; the packages are looked up below."""
    says = {"edge": "Microsoft Edge 120.0.1.2", "firefox": "Mozilla Firefox 140.0"}
    drivers = {
        "chromedriver": "ChromeDriver 120.0.1.2",
        "msedgedriver": "Microsoft Edge WebDriver 120.0.1.2",
        "geckodriver": "geckodriver 0.36.0",
    }
    family = FAMILIES[name]
    browser = machine.add("elsewhere/b", says.get(name, "Chromium 120.0.1.2"))
    driver = machine.add("elsewhere/d", drivers[family.driver])
    with pytest.raises(ResolveError) as caught:
        machine.resolve(name)
    variable = re.search(r"set (\w+) to its path, or pass binary=", str(caught.value))
    assert variable
    machine.monkeypatch.setenv(variable.group(1), browser)
    with pytest.raises(ResolveError) as caught:
        machine.resolve(name)
    variable = re.search(r"set (\w+) to its path, or pass driver_path=", str(caught.value))
    assert variable
    assert machine.resolve(name, driver_path=driver).driver.path == driver
    machine.monkeypatch.setenv(variable.group(1), driver)
    assert machine.resolve(name).driver.path == driver
    machine.monkeypatch.delenv(variable.group(1))
    on_path = machine.add(f"bin/{family.driver}", drivers[family.driver])  # a release, unpacked
    assert machine.resolve(name).driver.path == on_path


def test_a_missing_geckodriver_is_not_looked_for_in_debian(machine: Machine) -> None:
    firefox = machine.add("bin/firefox", "Mozilla Firefox 140.0esr")
    with pytest.raises(ResolveError, match="Debian has no package of it") as caught:
        machine.resolve("firefox")
    assert "apt install" not in str(caught.value)
    assert "`cargo install geckodriver`" in str(caught.value)
    machine.monkeypatch.setattr(module, "DRIVER_PLACES", ("~/.cargo/bin",))
    built = machine.add(".cargo/bin/geckodriver", "geckodriver 0.36.0")  # where cargo puts it
    found = machine.resolve("firefox")
    assert (found.browser.path, found.driver.path) == (firefox, built)


def test_a_download_that_failed_is_not_called_offline(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("bin/firefox", "Mozilla Firefox 140.0esr")
    monkeypatch.setattr(module.Resolver, "_managed_drivers", lambda self, browser: iter(()))
    with pytest.raises(ResolveError, match="could not be downloaded either") as caught:
        machine.resolve("firefox", offline=False)
    assert "offline" not in str(caught.value)


def test_no_browser_is_an_error_with_the_variable_to_set(machine: Machine) -> None:
    with pytest.raises(ResolveError, match=r"No firefox found.*BROWSERKEEPER_FIREFOX"):
        machine.resolve("firefox")


def test_a_geckodriver_that_needs_a_newer_firefox_is_refused(machine: Machine) -> None:
    machine.add("bin/firefox", "Mozilla Firefox 102.1")
    machine.add("bin/geckodriver", "geckodriver 0.36.0 (abc)")
    with pytest.raises(VersionMismatch, match="needs Firefox 128"):
        machine.resolve("firefox")
    machine.add("bin/firefox", "Mozilla Firefox 128.0esr")
    assert machine.resolve("firefox").driver.version == "0.36.0"


@pytest.mark.parametrize(
    ("gecko", "firefox", "fits"), [("0.33.0", 102, True), ("0.33.0", 91, False), ("0.37.1", 153, True)]
)
def test_geckodriver_and_firefox_versions_that_fit(gecko: str, firefox: int, fits: bool) -> None:
    pair = Program("f", f"{firefox}.0", ""), Program("g", gecko, "")
    if fits:
        check_fit(FAMILIES["firefox"], *pair)
    else:
        with pytest.raises(VersionMismatch):
            check_fit(FAMILIES["firefox"], *pair)


# ------------------------------------------------------------------ versions are remembered


def test_a_version_is_cached_until_the_file_changes(machine: Machine) -> None:
    path = machine.add("bin/chromedriver", "ChromeDriver 1.0")
    cache = VersionCache(machine.root / "versions.json")
    assert probe(path, "chromedriver", "", cache).version == "1.0"
    Path(path).write_text("#!/bin/sh\nexit 1\n# as long as it was before ..........\n")
    with pytest.raises(ResolveError):
        probe(path, "chromedriver", "", cache)
    path = machine.add("bin/chromedriver", "ChromeDriver 2.0")
    assert probe(path, "chromedriver", "", cache).version == "2.0"
    again = VersionCache(machine.root / "versions.json")
    assert again.get(next(k for k, v in again._load().items() if v == "2.0")) == "2.0"


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '"x"', "\x00"])
def test_a_corrupt_version_cache_is_ignored(machine: Machine, rubbish: str) -> None:
    machine.add("bin/chromium", "Chromium 120.0")
    machine.add("bin/chromedriver", "ChromeDriver 120.0")
    (machine.root / "versions.json").write_text(rubbish)
    assert machine.resolve().driver.version == "120.0"


# ------------------------------------------------------------------ the managers


def test_selenium_manager_runs_while_the_lock_is_held(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("bin/chromium", "Chromium 120.0")
    driver = machine.add("fetched/chromedriver", "ChromeDriver 120.0")
    answer = json.dumps({"logs": [], "result": {"code": 0, "driver_path": driver}})
    monkeypatch.setenv("SE_MANAGER_PATH", machine.add("manager", answer))
    found = machine.resolve(offline=False).driver
    assert (found.path, found.origin) == (driver, "Selenium Manager")


def test_without_a_network_the_error_quotes_the_managers(machine: Machine) -> None:
    machine.monkeypatch.setenv("PATH", f"{machine.root / 'bin'}")
    machine.add("bin/chromium", "Chromium 120.0")
    machine.monkeypatch.setenv("SE_MANAGER_PATH", machine.add("manager", "no network"))
    machine.monkeypatch.setattr(module, "DOWNLOAD_TIMEOUT", 20.0)
    with pytest.raises(ResolveError) as caught:
        machine.resolve(offline=False)
    assert "Selenium Manager: status 0: no network" in str(caught.value)
    assert "webdriver-manager: " in str(caught.value)


def webdriver_manager_in(machine: Machine) -> str:
    """What the error of a failed search says of webdriver-manager."""
    machine.add("bin/chromium", "Chromium 120.0")
    machine.monkeypatch.setenv("SE_MANAGER_PATH", machine.add("manager", "no network"))
    machine.monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # no download in a test
    with pytest.raises(ResolveError) as caught:
        machine.resolve(offline=False)
    (said,) = (why for what, why in caught.value.tried if what == "webdriver-manager")
    return said


def test_webdriver_manager_runs_as_root_only_where_that_is_allowed(machine: Machine) -> None:
    machine.monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "BROWSERKEEPER_WEBDRIVER_MANAGER=1 allows it" in webdriver_manager_in(machine)
    machine.monkeypatch.setenv("BROWSERKEEPER_WEBDRIVER_MANAGER", "1")
    assert webdriver_manager_in(machine).startswith("status 1: ")


def test_webdriver_manager_runs_for_a_plain_user_unless_it_is_switched_off(machine: Machine) -> None:
    machine.monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert webdriver_manager_in(machine).startswith("status 1: ")
    machine.monkeypatch.setenv("BROWSERKEEPER_WEBDRIVER_MANAGER", "0")
    assert "switched off by BROWSERKEEPER_WEBDRIVER_MANAGER=0" in webdriver_manager_in(machine)


def test_webdriver_manager_may_be_missing(machine: Machine) -> None:
    machine.monkeypatch.setitem(sys.modules, "webdriver_manager", None)
    with pytest.raises(ImportError):
        importlib.import_module("webdriver_manager")
    assert "not installed" in webdriver_manager_in(machine)


def test_a_held_download_lock_is_waited_for_up_to_a_limit(machine: Machine) -> None:
    machine.add("bin/chromium", "Chromium 120.0")
    machine.monkeypatch.setattr(module, "DOWNLOAD_TIMEOUT", 0.3)
    with (machine.root / "download.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResolveError, match="locked by another process for"):
            machine.resolve(offline=False)


def test_the_lock_of_a_killed_process_is_released(machine: Machine) -> None:
    lock = machine.root / "download.lock"
    script = f"""
import fcntl, time
f = open({str(lock)!r}, "w"); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    machine.add("bin/chromium", "Chromium 120.0")
    driver = machine.add("fetched/chromedriver", "ChromeDriver 120.0")
    answer = json.dumps({"result": {"driver_path": driver}})
    machine.monkeypatch.setenv("SE_MANAGER_PATH", machine.add("manager", answer))
    machine.monkeypatch.setattr(module, "DOWNLOAD_TIMEOUT", 60.0)
    assert machine.resolve(offline=False).driver.path == driver


def test_feature_lists_are_merged_into_one_argument() -> None:
    merged = merge_features(["--a", "--disable-features=X,Y", "--b=1", "--disable-features=Y,Z"])
    assert merged == ["--a", "--disable-features=X,Y,Z", "--b=1"]


def test_resolve_does_not_change_the_environment() -> None:
    before = dict(os.environ)
    with pytest.raises(ResolveError):
        resolve("edge", binary="/no/edge", driver_path=None, offline=True, directory=Path("/tmp"))
    assert dict(os.environ) == before
