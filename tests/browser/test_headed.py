"""Sessions with a virtual display: what the browser sees of it, who reaches it, what is left of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from browserkeeper import BrowserDied, BrowserPool, ConfigError, ResolveError, browser
from tests.process.test_virtual_display import environment_of, files_of_displays
from tests.support.guards import BOTH
from tests.support.other_user import shell_as_nobody
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb")
REACHES = 'if DISPLAY="$1" XAUTHORITY="$2" xdpyinfo >/dev/null 2>&1; then echo yes; else echo no; fi'


@pytest.mark.parametrize("name", BOTH)
def test_a_browser_has_windows_on_a_display_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")  # would be preferred
    before = files_of_displays()
    session = browser(name, headless=False, display="virtual", window_size=(900, 700))
    with session as driver:
        driver.get("data:text/html,<title>there</title>")
        assert driver.execute_script("return [screen.width, screen.height]") == [900, 700]
        assert "Headless" not in driver.execute_script("return navigator.userAgent")
        assert session.pid is not None
        of_browser = environment_of(session.pid)
        assert of_browser["DISPLAY"] == session.display
        assert "WAYLAND_DISPLAY" not in of_browser
        assert os.environ.get("DISPLAY") != session.display
        number = session.display.removeprefix(":")
        assert Path(f"/tmp/.X{number}-lock") in files_of_displays() - before
        if os.geteuid() == 0 and shutil.which("xdpyinfo"):
            key = Path(session.tmpdir, "Xauthority")
            copy = tmp_path / "key"
            assert shell_as_nobody(REACHES, session.display, key) == "no\n"
            shutil.copy(key, copy)
            copy.chmod(0o444)
            readable = Path("/tmp", f"key-{os.getpid()}")
            shutil.move(copy, readable)
            try:  # the control
                assert shell_as_nobody(REACHES, session.display, readable) == "yes\n"
            finally:
                readable.unlink()
    assert files_of_displays() <= before
    assert session.report is not None
    assert session.report.certificate == "ECHILD"
    assert "Xvfb" in {process.name for process in session.report.processes}


@pytest.mark.chrome
def test_the_death_of_xvfb_is_named_by_the_error() -> None:
    before = files_of_displays()
    session = browser(headless=False, display="virtual", on_leak="ignore")
    died = pytest.raises(BrowserDied, match=re.escape("its virtual display (Xvfb) ended or was killed"))
    with died, session as driver:
        (xvfb,) = [process.pid for process in session.processes() if process.name == "Xvfb"]
        os.kill(xvfb, signal.SIGKILL)
        while True:  # until one fails
            driver.get("data:text/html,<title>there</title>")
    assert session.report is not None
    assert (session.report.reason, session.report.clean) == ("display-died", True)
    assert wait_until(lambda: files_of_displays() <= before)


@pytest.mark.chrome
def test_each_browser_of_a_pool_has_a_display_of_its_own() -> None:
    before = files_of_displays()
    pool = BrowserPool(max_size=2, headless=False, display="virtual")
    with pool, pool.lease() as one, pool.lease() as other:
        for lease in (one, other):
            lease.driver.get("data:text/html,<title>there</title>")
        locks = {path for path in files_of_displays() - before if path.name.endswith("-lock")}
        assert len(locks) == 2
    assert files_of_displays() <= before


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"display": "virtual"}, "needs headless=False"),
        ({"display": ":7", "headless": True}, "needs headless=False"),
        ({"display": "screen", "headless": False}, "give 'virtual'"),
        ({"display": 7, "headless": False}, "non-empty string"),
        ({"display": "virtual", "headless": False, "env": {"DISPLAY": ":1"}}, "contradicts display="),
        ({"display": "virtual", "headless": False, "env": {"XAUTHORITY": "/k"}}, "a key of its own"),
        ({"display": ":7", "headless": False, "arguments": ["--display=:8"]}, "contradicts display="),
        (
            {"display": ":7", "headless": False, "arguments": ["--ozone-platform=wayland"]},
            "contradicts display=",
        ),
        ({"display": "virtual", "headless": False, "remote": "http://g:4444"}, "display= cannot be"),
        ({"name": "chromium-headless-shell", "headless": False, "display": ":7"}, "shows no windows"),
    ],
)
def test_a_display_that_cannot_be_used_is_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        browser(**arguments)  # type: ignore[call-overload]


def test_a_display_of_the_users_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    browser(headless=False, display=":7")
    browser("firefox", headless=False, display="host:7.1", env={"DISPLAY": "host:7.1"})


@pytest.mark.chrome
def test_a_missing_xvfb_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match="apt install xvfb"):
        browser(headless=False, display="virtual", env={"PATH": str(tmp_path)}).start()
