"""A profile that is kept has its cookies and its local storage after every end at which the browser can
write them.

The witness reads the files of the profile, so that most tests start one browser only.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import SessionClosed, SessionTimeout, browser
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.support.guards import BOTH
from tests.support.owners import ROOT, Owner
from tests.support.waiting import wait_until

PATIENT = 120.0
"""Seconds; Firefox takes 1 to 3 for its quit on a quiet machine."""
LOG_IN = """
document.cookie = 'login=me; max-age=86400';
localStorage.setItem('place', 'written-by-the-page');
"""
PROGRAM = f"""
import signal, sys
from browserkeeper import browser
name, profile, url, address = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
with browser(name, profile=profile, close_timeout=120) as driver:
    driver.get(url)
    driver.execute_script({LOG_IN!r})
    print("ready", flush=True)
    if address == "loop":
        driver.execute_script("fetch('/in-a-loop'); for (;;);")
    driver.get(address)
"""


def written(name: str, profile: Path) -> set[str]:
    """What the profile has of "cookie" and "storage"."""
    found = set()
    if name == "firefox":
        cookies, query = profile / "cookies.sqlite", "select name from moz_cookies where expiry > 0"
        storage = list(profile.glob("storage/default/http+++127*/ls/data.sqlite*"))
    else:
        cookies, query = profile / "Default/Cookies", "select name from cookies where is_persistent"
        storage = list(profile.glob("Default/Local Storage/leveldb/*.l*"))
    if cookies.exists():
        with sqlite3.connect(cookies) as database:
            found |= {"cookie" for row in database.execute(query) if row == ("login",)}
        database.close()
    if any(b"written-by-the-page" in path.read_bytes() for path in storage):
        found.add("storage")
    return found


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.leaves_zombies(2, "the guards' own, where their owner was killed")
def test_a_signal_to_the_program_in_mid_command_loses_no_login(
    number: signal.Signals, name: str, site: Site, tmp_path: Path, state_dir: Path
) -> None:
    """SIGTERM becomes SystemExit, SIGINT KeyboardInterrupt.  At SIGKILL the guards end the session, here
    one whose page is in an endless loop."""
    address = "loop" if number == signal.SIGKILL else site.url_for("never")
    words = (name, str(tmp_path), site.url, address)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = Owner(sys.executable, "-c", PROGRAM, *words, env=env)
    owner.wait_for("ready")
    wanted = "GET /in-a-loop" if number == signal.SIGKILL else "GET /never"
    assert wait_until(lambda: wanted in site.requests)
    owner.process.send_signal(number)
    owner.wait()
    assert wait_until(lambda: not list(state_dir.glob("live/*")))
    assert written(name, tmp_path) == {"cookie", "storage"}


@pytest.mark.parametrize("name", BOTH)
def test_a_deadline_in_mid_command_loses_no_login(name: str, site: Site, tmp_path: Path) -> None:
    session = browser(name, profile=tmp_path, close_timeout=PATIENT)
    with pytest.raises(SessionTimeout), session as driver:
        driver.get(site.url)
        driver.execute_script(LOG_IN)
        session.set_deadline(1)
        driver.execute_async_script("/* never calls back */")
    assert session.report
    assert (session.report.reason, session.report.clean, session.report.notes) == ("timeout", True, ())
    assert written(name, tmp_path) == {"cookie", "storage"}
    with browser(name, profile=tmp_path) as driver:
        driver.get(site.url)
        assert [cookie["value"] for cookie in driver.get_cookies()] == ["me"]
        assert driver.execute_script("return localStorage.getItem('place')") == "written-by-the-page"


@pytest.mark.parametrize("name", BOTH)
def test_the_timeout_loses_no_login_of_a_profile_that_the_arguments_name(
    name: str, site: Site, tmp_path: Path
) -> None:
    """The page has an alert open, and would ask before it is left.  The limit has to be long enough for
    the login, so a longer one follows where it was not."""
    arguments: dict[str, Any] = {"arguments": ("-profile", str(tmp_path))}
    if name == "chrome":
        options = webdriver.ChromeOptions()
        options.add_argument(f"--user-data-dir={tmp_path}")
        arguments = {"options": options}
    for timeout in (4, 30, 200):
        session = browser(name, timeout=timeout, close_timeout=PATIENT, **arguments)
        is_logged_in = False
        with pytest.raises(SessionTimeout, match=f"timeout of {timeout}"), session as driver:
            driver.get(site.url)
            driver.find_element("css selector", "body").click()
            driver.execute_script(LOG_IN)
            driver.execute_script("onbeforeunload = event => { event.preventDefault(); return 'stay' }")
            driver.execute_script("setTimeout(() => alert('wait'), 0)")
            is_logged_in = True
            while driver.current_window_handle:
                time.sleep(0.05)
        if (report := session.report) is None:
            continue  # it has passed before anything was started
        assert (report.clean, report.notes) == (True, ())
        if is_logged_in:
            assert report.seconds["quitting"] > 0
            break
    assert is_logged_in
    assert written(name, tmp_path) == {"cookie", "storage"}


@pytest.mark.firefox
def test_a_firefox_whose_driver_has_ended_is_not_waited_for(site: Site, tmp_path: Path) -> None:
    """Nothing can ask it.  Its login is lost, and the end does not take the time for the asking."""
    session = browser("firefox", profile=tmp_path, close_timeout=PATIENT)
    driver = session.start()
    driver.get(site.url)
    driver_process = control_of(session).attempt.driver_process  # type: ignore[union-attr]
    assert driver_process
    os.kill(driver_process.pid, signal.SIGKILL)
    report = session.close()
    assert report.clean
    assert report.seconds.get("quitting", 0.0) < PATIENT / 4


@pytest.mark.chrome
@pytest.mark.leaves_zombies(1, "the primary guard, which the test kills")
def test_the_standby_guard_asks_a_chromium_to_quit(site: Site, tmp_path: Path) -> None:
    session = browser(profile=tmp_path, close_timeout=PATIENT)
    driver = session.start()
    driver.get(site.url)
    driver.execute_script(LOG_IN)
    spawned = control_of(session).attempt.guard.event("spawned")  # type: ignore[union-attr]
    assert spawned
    os.kill(spawned["primary"], signal.SIGKILL)
    report = session.close()
    assert (report.reason, report.clean, report.notes) == ("guard-died", True, ())
    assert written("chrome", tmp_path) == {"cookie", "storage"}


@pytest.mark.parametrize("name", BOTH)
def test_the_end_of_a_block_with_another_threads_command_in_flight_loses_no_login(
    name: str, site: Site, tmp_path: Path
) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            driver.get(site.url_for("never"))
        except BaseException as error:
            errors.append(error)

    session = browser(name, profile=tmp_path, close_timeout=PATIENT)
    with session as driver:
        driver.get(site.url)
        driver.execute_script(LOG_IN)
        thread = threading.Thread(target=work)
        thread.start()
        assert wait_until(lambda: "GET /never" in site.requests)
    thread.join()
    assert isinstance(errors[0], SessionClosed)
    assert written(name, tmp_path) == {"cookie", "storage"}


@pytest.mark.chrome
def test_a_session_that_is_dropped_loses_no_login(site: Site, tmp_path: Path) -> None:
    driver = browser(profile=tmp_path, close_timeout=PATIENT).start()
    driver.get(site.url)
    driver.execute_script(LOG_IN)
    with pytest.warns(ResourceWarning, match="never closed"):
        del driver
    assert written("chrome", tmp_path) == {"cookie", "storage"}


@pytest.mark.parametrize("name", BOTH)
def test_control_a_browser_that_is_killed_at_once_loses_what_it_had_not_written(
    name: str, site: Site, tmp_path: Path
) -> None:
    for number in range(5):
        profile = tmp_path / str(number)
        session = browser(name, profile=profile, close_timeout=PATIENT)
        with session as driver:
            driver.get(site.url)
            began = time.monotonic()
            driver.execute_script(LOG_IN)
            assert session.pid
            os.kill(session.pid, signal.SIGKILL)
            seconds = time.monotonic() - began
        if seconds < 2:
            break  # else it had the time to write: Firefox does so after 5 s
    assert written(name, profile) != {"cookie", "storage"}
