"""Sessions that are attached to a browser which runs already: it is not theirs, and is never ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from browserkeeper import BrowserDied, LaunchError, SessionTimeout, browser, session_of
from browserkeeper.drivers.browser_handle import AttachedBrowserHandle
from browserkeeper.session import control_of
from browserkeeper.session.launch import Attempt
from fixtures.server import Site
from tests.browser.test_endings import kill_both_guards
from tests.pool.pools import patient_pool
from tests.support import witness
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome


@dataclasses.dataclass
class PersonsChrome:
    """A Chromium with a debugging port, as a person starts it."""

    process: subprocess.Popen[bytes]
    profile: Path
    address: str

    @property
    def options(self) -> webdriver.ChromeOptions:
        options = webdriver.ChromeOptions()
        options.debugger_address = self.address
        return options

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def start_chrome(directory: Path) -> PersonsChrome:
    program = shutil.which("chromium") or shutil.which("google-chrome") or ""
    profile = directory / "profile"
    process = subprocess.Popen(
        [
            *(program, "--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-port=0"),
            *(f"--user-data-dir={profile}", "about:blank"),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    port_file = profile / "DevToolsActivePort"
    assert wait_until(lambda: port_file.exists() and "\n" in port_file.read_text())
    port = port_file.read_text().splitlines()[0]
    return PersonsChrome(process, profile, f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def persons_chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersonsChrome]:
    chrome = start_chrome(tmp_path_factory.mktemp("person"))
    yield chrome
    chrome.end()


@pytest.mark.compat
def test_an_attached_browser_and_its_profile_outlive_the_session(
    persons_chrome: PersonsChrome, site: Site
) -> None:
    before = {s.pid for s in witness.below(persons_chrome.process.pid)}
    with browser(options=persons_chrome.options) as driver:
        session = session_of(driver)
        assert session.pid is None
        assert control_of(session).looks_alive()
        driver.get(site.url)
        assert driver.title
    assert session.report
    assert session.report.clean
    assert persons_chrome.process.poll() is None
    assert before & {s.pid for s in witness.below(persons_chrome.process.pid)}
    assert (persons_chrome.profile / "Local State").exists() or any(persons_chrome.profile.iterdir())
    with browser(options=persons_chrome.options) as again:  # the page is where the first one left it
        assert again.current_url == site.url


@pytest.mark.leaves_zombies(3, "the test kills both guards")
def test_no_kind_of_end_harms_an_attached_browser(persons_chrome: PersonsChrome, site: Site) -> None:
    """A deadline that the guard keeps, the end by the owner after the guards' death, and from a signal
    handler.  The browser is not asked to quit, as one with a kept profile of the session's would be."""
    for end in ("deadline", "guards", "cut off"):
        session = browser(options=persons_chrome.options)
        driver = session.start()
        driver.get(site.url)
        if end == "deadline":
            session.set_deadline(0.05)
            with pytest.raises(SessionTimeout):
                while driver.title:
                    pass
        elif end == "guards":
            kill_both_guards(session)
            session.close()
        else:
            session.cut_off()
            session.close()
        assert session.report
        assert "quitting" not in session.report.seconds
        assert persons_chrome.process.poll() is None
    with browser(options=persons_chrome.options) as again:
        again.get(site.url)
        assert again.title


@pytest.mark.leaves_zombies(30, "the test kills a browser that no guard is the parent of")
def test_an_attached_browser_that_has_ended_is_browser_died(tmp_path: Path) -> None:
    chrome = start_chrome(tmp_path)
    with browser(options=chrome.options) as driver:
        assert driver.title == ""
        chrome.end()
        with pytest.raises(BrowserDied, match="its browser died or was killed"):
            driver.get("data:,x")


def test_only_a_refused_connection_proves_the_end_of_an_attached_browser(
    persons_chrome: PersonsChrome,
) -> None:
    """A driver whose last window was closed has no session any more, but the browser lives."""
    no_session = "InvalidSessionIdException: invalid session id"
    assert not AttachedBrowserHandle(persons_chrome.address).is_lost(no_session)
    assert not AttachedBrowserHandle("no such address").is_lost(no_session)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = "{}:{}".format(*server.getsockname())
    assert AttachedBrowserHandle(free).is_lost("")


def test_a_browser_that_could_not_be_found_is_leased_and_its_death_is_noticed(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    """A pool took it for dead at once, and a session never."""
    monkeypatch.setattr(Attempt, "processes", lambda self: [])
    with patient_pool(max_size=1) as pool:
        with pool.lease() as lease:
            first = lease.session
            assert first is not None
            lease.driver.get(site.url)
            assert first.pid is None
        with pool.lease() as lease:
            assert lease.session is first
            assert first.guard_pid
            for process in witness.below(first.guard_pid):
                if process.name in ("chromium", "chrome"):
                    with contextlib.suppress(ProcessLookupError):  # it has followed its parent
                        os.kill(process.pid, signal.SIGKILL)
            # ChromeDriver says so, or ends itself where it writes into the pipe of the dead browser.
            with pytest.raises(
                BrowserDied, match=r"the driver's to the browser, broke|its driver ended"
            ):
                _ = lease.driver.title


def test_an_address_where_no_browser_listens_is_in_the_text_of_the_error() -> None:
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        options = webdriver.ChromeOptions()
        options.debugger_address = address
        for limit in (2, 20):  # of a busy machine the first may pass before the driver has its port
            with pytest.raises(LaunchError) as caught:
                browser(options=options, start_timeout=limit).start()
            if "opened no port" not in str(caught.value):
                break
        caught.match(f"looked for at {address}")
