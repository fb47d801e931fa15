"""Sessions whose driver is isolated, and those where that fails: the session works all the same."""

from __future__ import annotations

import gc
import logging
import shutil
from pathlib import Path

import pytest

from browserkeeper import ConfigError, ContainmentError, browser
from browserkeeper.drivers import network, stand_in
from tests.process.test_driver_isolation import can_be_isolated

pytestmark = pytest.mark.chrome

CHROMEDRIVER = shutil.which("chromedriver") or ""


@pytest.fixture(autouse=True, scope="module")
def needs_namespaces() -> None:
    if not can_be_isolated():
        pytest.skip("no network namespace can be made here")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that cannot reach the guard."""
    monkeypatch.setattr(stand_in, "SCRIPT", "#!/bin/sh\necho 'no pipe there' >&2\nexit 2\n")
    monkeypatch.setattr(stand_in, "VERSION", "of-a-test")
    monkeypatch.setattr(stand_in, "_unusable", {})


@pytest.mark.usefixtures("failing")
def test_a_stand_in_that_fails_costs_one_launch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "browserkeeper"):
        for _ in range(2):
            session = browser("chrome", attempts=1)
            with session as driver:
                driver.get("data:text/html,<title>here</title>")
                assert driver.title == "here"
            assert session.report is not None
            assert session.report.clean
            assert "has failed: " in session.report.driver_isolation
            assert "no pipe there" in session.report.driver_isolation
    failed = [one for one in caplog.records if "stands for the browser has failed" in one.message]
    assert len(failed) == 1, "the second session knows it"


@pytest.mark.usefixtures("failing")
def test_a_stand_in_that_fails_is_an_error_where_the_driver_must_be_isolated() -> None:
    session = browser("chrome", isolate_driver=True)
    with pytest.raises(ContainmentError, match=r"has failed: .*no pipe there.*isolate_driver=True"):
        session.start()


def test_a_script_in_place_of_the_driver_decides_on_the_browsers_surroundings(tmp_path: Path) -> None:
    wrapper = tmp_path / "chromedriver"
    wrapper.write_text(
        f'#!/bin/sh\numask 077\nexec env -i PATH="$PATH" HOME="$HOME" TMPDIR="$TMPDIR" '
        f'{CHROMEDRIVER} "$@"\n'
    )
    wrapper.chmod(0o755)
    session = browser("chrome", driver_path=str(wrapper))
    with session as driver:
        driver.get("data:text/html,<title>here</title>")
        status = Path(f"/proc/{driver.caps['goog:processID']}/status").read_text()
    assert "\nUmask:\t0077\n" in status
    assert session.report is not None
    assert "is a script" in session.report.driver_isolation
    with pytest.raises(ConfigError, match="is a script"):
        browser("chrome", driver_path=str(wrapper), isolate_driver=True).start()


def test_the_sockets_of_a_driver_that_outlives_its_module_are_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the end of the interpreter, for a driver that a thread or a cycle still has."""
    with browser() as driver:
        # Not isinstance: it asks a weak reference whose object is gone, too.
        kept = [one for one in gc.get_objects() if type(one) is network.DriverNetwork]
        assert kept
        assert driver.title == ""
        with monkeypatch.context() as patch:
            for name in vars(network).copy():
                if name.startswith("_") and not name.startswith("__"):
                    patch.setattr(network, name, None)
            for one in kept:
                one.__del__()


def test_an_isolated_browser_is_the_one_that_the_session_names() -> None:
    session = browser("chrome", isolate_driver=True)
    with session as driver:
        pid = driver.caps["goog:processID"]
        assert session.pid == pid
        assert b"chrom" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert driver.service.service_url.startswith("http://driver-is-isolated.browserkeeper.invalid:")
        assert driver.service.is_connectable()
    assert session.report is not None
    assert session.report.driver_isolation == "isolated"
