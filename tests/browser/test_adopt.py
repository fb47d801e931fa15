"""Adopted drivers: Selenium's own, and those of libraries made of it, where these are installed.

The control is the same driver, not adopted: it outlives its owner's SIGKILL.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from browserkeeper import ConfigError, LaunchError, SessionTimeout, adopt, browser, sweep
from browserkeeper.state.ledger import Ledger
from tests.browser import foreign_owner
from tests.browser.test_adoptable import have_no_guard_ready
from tests.grid.mock_hub import MockHub
from tests.support import witness
from tests.support.guards import BOTH
from tests.support.owners import Owner
from tests.support.waiting import wait_until

SOON = 60.0
"""Seconds that an end may take on a busy machine; it takes less than one."""
ORPHANS = pytest.mark.leaves_zombies(40, "the orphans of a killed driver belong to PID 1")

OWNER = str(Path(__file__).with_name("foreign_owner.py"))


def owner(how: str, name: str, mode: str, *before: str) -> Owner:
    started = Owner(*before, sys.executable, OWNER, how, name, mode)
    started.wait_for("live")
    return started


OTHERS = [
    pytest.param("selenium", "chrome", marks=pytest.mark.chrome),
    pytest.param("selenium", "firefox", marks=pytest.mark.firefox),
    pytest.param("undetected", "chrome", marks=pytest.mark.chrome),
    pytest.param("seleniumbase", "chrome", marks=pytest.mark.chrome),
]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR for each test, with no file left in it.

    A chromedriver that is killed leaves an empty directory there, which cannot be traced to it.
    """
    place = Path(tempfile.mkdtemp(prefix="tmpadopt"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield place
    left = [path for path in place.rglob("*") if not path.is_dir()]
    shutil.rmtree(place)
    assert not left


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    how = getattr(request.node, "callspec", None) and request.node.callspec.params.get("how")
    module = {"undetected": "undetected_chromedriver", "seleniumbase": "seleniumbase"}.get(str(how))
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed here; docs/remote.md says how it was tried")
    if how == "undetected":
        copy = tmp_path / "chromedriver"
        shutil.copy(os.path.realpath(shutil.which("chromedriver") or ""), copy)
        monkeypatch.setenv("UC_DRIVER", str(copy))


@pytest.mark.compat
@ORPHANS
@pytest.mark.parametrize("name", BOTH)
def test_the_end_of_an_adopted_driver_is_verified(name: str) -> None:
    driver = foreign_owner.selenium(name)
    before = witness.below(driver.service.process.pid)
    with adopt(driver) as session:
        driver.get("data:text/html,<title>hello</title>")
        assert driver.title == "hello"
        assert len(session.processes()) >= len(before) / 2
    report = session.report
    assert report
    assert (report.reason, report.containment, report.certificate) == ("closed", "adopted", "two-scans")
    assert report.clean
    assert not [process for process in before if witness.is_same(process)]
    assert driver.service.process.stdin.closed
    driver.quit()
    assert session.close() is report


@ORPHANS
@pytest.mark.parametrize(("how", "name"), OTHERS)
def test_an_adopted_driver_ends_when_its_owner_is_killed(how: str, name: str) -> None:
    known = {s.pid for s in witness.below(os.getpid())}
    started = owner(how, name, "adopt")
    started.kill()
    assert not witness.wait_until_gone(os.getpid(), known, SOON)


@ORPHANS
@pytest.mark.chrome
def test_control_a_driver_that_was_not_adopted_outlives_its_owner(temporary: Path) -> None:
    known = {s.pid for s in witness.below(os.getpid())}
    started = owner("selenium", "chrome", "leave")
    started.kill()
    time.sleep(2)
    assert len(witness.alive(witness.new_below(os.getpid(), known))) > 3
    # Not rglob(), which fails where the living browser removes a directory meanwhile.
    files = [os.path.join(top, name) for top, _, names in os.walk(temporary) for name in names]
    assert any(map(os.path.isfile, files)), "and its profile"
    witness.clean_up(known)
    shutil.rmtree(temporary)
    temporary.mkdir()


@ORPHANS
@pytest.mark.chrome
def test_the_guard_ends_an_adopted_driver_at_its_timeout() -> None:
    with (
        pytest.raises(SessionTimeout, match="timeout of 2 s"),
        adopt(foreign_owner.selenium("chrome"), timeout=2) as it,
    ):
        assert wait_until(lambda: not it.processes())
    assert it.report
    assert (it.report.reason, it.report.clean) == ("timeout", True)


@ORPHANS
@pytest.mark.chrome
def test_the_owner_ends_the_driver_where_the_guard_was_killed() -> None:
    session = adopt(foreign_owner.selenium("chrome"))
    (record,) = Ledger.open().records()
    os.kill(record.guards[0].pid, signal.SIGKILL)  # type: ignore[union-attr]
    report = session.close()
    assert (report.reason, report.clean) == ("guard-died", True)


@ORPHANS
@pytest.mark.chrome
def test_a_sweep_ends_the_driver_where_owner_and_guard_were_killed() -> None:
    started = owner("selenium", "chrome", "adopt")
    (record,) = Ledger.open().records()
    guard = record.guards[0].pid  # type: ignore[union-attr]
    for pid in (guard, started.pid):
        os.kill(pid, signal.SIGSTOP)
    for pid in (guard, started.pid):
        os.kill(pid, signal.SIGKILL)
    started.wait()
    assert wait_until(lambda: not witness.alive([s for s in [witness.look(guard)] if s]))
    assert [found.removed for found in sweep(dry_run=False) if found.kind == "session"] == [True]


@ORPHANS
@pytest.mark.chrome
def test_drivers_that_cannot_be_adopted_are_refused(temporary: Path) -> None:
    known = {s.pid for s in witness.below(os.getpid())}
    with pytest.raises(ConfigError, match="no driver process"):
        adopt(object())  # type: ignore[type-var]
    with MockHub() as hub, pytest.raises(ConfigError, match="Grid"):
        adopt(webdriver.Remote(hub.url, options=webdriver.ChromeOptions()))
    with browser() as driver, pytest.raises(ConfigError, match="own"):
        adopt(driver)
    other = foreign_owner.selenium("chrome")
    with adopt(other), pytest.raises(ConfigError, match="adopted before"):
        adopt(other)
    other = foreign_owner.selenium("chrome")
    other.quit()
    with pytest.raises(ConfigError, match="gone"):
        adopt(other)
    # The browser's last processes may outlive the quit(), and write there.
    assert not witness.wait_until_gone(os.getpid(), known, SOON)
    shutil.rmtree(temporary)  # even a plain quit() leaves Chromium's socket
    temporary.mkdir()


@ORPHANS
@pytest.mark.chrome
def test_a_real_driver_is_usable_after_an_adoption_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = foreign_owner.selenium("chrome")
    with monkeypatch.context() as patch:
        have_no_guard_ready(patch)
        with pytest.raises(LaunchError, match="left alone"):
            adopt(driver)
    driver.get("data:text/html,<title>hello</title>")
    assert driver.title == "hello"
    with adopt(driver) as session:
        assert driver.title == "hello"
    assert session.report
    assert session.report.clean


@pytest.mark.parametrize(("how", "name"), OTHERS)
@pytest.mark.leaves_zombies(2, "browserkeeper run itself, and its guard, were killed")
def test_browserkeeper_run_contains_a_script_that_does_not_import_it(how: str, name: str) -> None:
    """Also where ``browserkeeper run`` itself, the process in front, is SIGKILLed."""
    known = {s.pid for s in witness.below(os.getpid())}
    run = (sys.executable, "-m", "browserkeeper", "run", "--")
    started = owner(how, name, "leave", *run)
    assert len(witness.alive(witness.new_below(os.getpid(), known))) > 4
    started.kill()
    assert not witness.wait_until_gone(os.getpid(), known, SOON)


SUITE = """
import sys, time
sys.path.insert(0, {folder!r})
from foreign_owner import selenium

def test_theirs():
    selenium("chrome")
    print("live", file=sys.__stdout__, flush=True)
    time.sleep(600)
"""


@pytest.mark.chrome
@pytest.mark.leaves_zombies(2, "browserkeeper run itself, and its guard, were killed")
def test_browserkeeper_run_contains_a_whole_pytest_run(tmp_path: Path) -> None:
    known = {s.pid for s in witness.below(os.getpid())}
    (tmp_path / "test_theirs.py").write_text(SUITE.format(folder=str(Path(OWNER).parent)))
    run = (sys.executable, "-m", "browserkeeper", "run", "--")
    words = [*run, sys.executable, "-m", "pytest", "-sq", "-p", "no:cacheprovider", "test_theirs.py"]
    started = Owner(*words, cwd=tmp_path)
    started.wait_for("live")
    assert len(witness.alive(witness.new_below(os.getpid(), known))) > 4
    started.kill()
    assert not witness.wait_until_gone(os.getpid(), known, SOON)
