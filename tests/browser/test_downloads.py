"""Downloads that are under way at the end of a session, with real browsers.

``tests/process/test_downloads.py`` has the rules, with a program in the place of the browser.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, adopt, browser, sweep
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.locks import ask
from browserkeeper.state.records import Record
from tests.support.download_site import stop_chromium
from tests.support.guards import BOTH
from tests.support.owners import Owner
from tests.support.waiting import wait_until

ENDLESS, WHOLE, EMPTY = "endless.tar.gz", "whole.bin", "empty.bin"
SIZES = {ENDLESS: 10**9, WHOLE: 5, EMPTY: 0}


class Handler(BaseHTTPRequestHandler):
    """A page with three downloads, one of which never ends."""

    def do_GET(self) -> None:
        name = os.path.basename(self.path)
        page = "".join(f"<a id={n.split('.')[0]} href=/{n}>{n}</a> " for n in (ENDLESS, WHOLE, EMPTY))
        if name == "favicon.ico":
            self.send_error(404)
            return
        self.send_response(200)
        if not name:
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())
            return
        size = SIZES[name]
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.send_header("Content-Length", str(size))
        self.end_headers()
        try:
            self.wfile.write(b"x" * min(size, 100_000))
            self.wfile.flush()
            while name == ENDLESS and not self.server.over.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x" * 1000)
        except OSError:  # the browser is gone
            pass

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.over = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


PARTIAL_OF_A_LEASE = re.compile(r"[0-9a-f-]{36}\.crdownload")


def partial_in(directory: Path) -> list[str]:
    """The partial file of the endless download, if it is there; a lease's has an id for its name."""
    names = [n for n in os.listdir(directory) if n != ENDLESS]
    return [n for n in names if n.startswith("endless.") or PARTIAL_OF_A_LEASE.fullmatch(n)]


def has_bytes(directory: Path) -> bool:
    """True if the partial file of the endless download is there, and not empty any more."""
    with contextlib.suppress(FileNotFoundError):  # Chromium has renamed it meanwhile
        return any((directory / name).stat().st_size for name in partial_in(directory))
    return False


def download(driver: Any, page: str, directory: Path, *names: str) -> None:
    """Start these downloads, one after the other; returns when the whole ones are there, and of the
    endless one some bytes in the partial file."""
    for name in names:
        driver.get(page)  # Firefox holds up a click after a download
        driver.execute_script("location = arguments[0]", f"/{name}")
        arrived = functools.partial(is_whole, directory, name)
        wanted = (lambda: has_bytes(directory)) if name == ENDLESS else arrived
        assert wait_until(wanted), os.listdir(directory)


def is_whole(directory: Path, name: str) -> bool:
    """True if a download is there, and no more to come.  While it is under way, Firefox has an empty
    file in its place, and a partial one beside it."""
    partial = directory.glob(f"{name.partition('.')[0]}.*.part")
    if {path.name for path in partial} - OF_USER:
        return False
    path = directory / name
    return path.exists() and path.stat().st_size == SIZES[name]


OF_USER = {"mine.part", "mine.crdownload", "empty.aB3dE6gH.bin.part"}
"""Names of files that look like partial downloads, and are somebody else's."""


def put_files_of_the_user(directory: Path) -> set[str]:
    for name in OF_USER:
        (directory / name).touch()
    return OF_USER


@pytest.mark.parametrize("name", BOTH)
def test_the_report_names_the_downloads_that_an_end_cuts_off(
    name: str, page: str, tmp_path: Path
) -> None:
    session = browser(name, download_dir=tmp_path)
    with session as driver:
        of_user = put_files_of_the_user(tmp_path)
        download(driver, page, tmp_path, WHOLE, EMPTY, ENDLESS)
        stop_chromium(session)
    assert session.report is not None
    (cut_off,) = [one for one in session.report.partial_downloads if one.removed]
    assert Path(cut_off.path).name.startswith("endless.")
    assert cut_off.bytes > 0
    assert bool(cut_off.placeholder) == (name == "firefox")
    assert set(os.listdir(tmp_path)) == {WHOLE, EMPTY, *of_user}
    assert (tmp_path / WHOLE).stat().st_size == 5
    assert str(cut_off) in str(session.report)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(20, "plain Selenium's own, which pytest has to reap")
def test_control_plain_selenium_leaves_the_partial_file_of_a_killed_browser(
    page: str, tmp_path: Path
) -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--headless=new")
    options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    place = tempfile.mkdtemp(prefix="tmpplain-")  # for what a killed browser leaves
    env = {**os.environ, "TMPDIR": place}
    service = webdriver.ChromeService(shutil.which("chromedriver"), env=env)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        with adopt(driver) as adopted:  # it ends the browser, and leaves its files alone
            download(driver, page, tmp_path, ENDLESS)
        assert adopted.report is not None
        assert adopted.report.partial_downloads == ()
    finally:
        driver.service.stop()
        shutil.rmtree(place)
    assert partial_in(tmp_path)


OWNER = """
import sys, time
from pathlib import Path
from browserkeeper import browser
from tests.browser.test_downloads import ENDLESS, download
name, page, directory = sys.argv[1:]
with browser(name, download_dir=directory) as driver:
    download(driver, page, Path(directory), ENDLESS)
    session = driver.command_handler.session
    print("ready", session.tmpdir, session.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(20, "owner and both guards are killed")
def test_a_sweep_finishes_the_downloads_of_a_session_whose_owner_and_guards_were_killed(
    name: str, page: str, tmp_path: Path
) -> None:
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    owner = Owner(sys.executable, "-c", OWNER, name, page, str(tmp_path), env=env)
    _, tmpdir, browser_pid = owner.wait_for("ready").split()
    assert wait_until(lambda: "endless" in Path(tmpdir, ".partial-downloads").read_text())
    os.kill(int(browser_pid), signal.SIGSTOP)  # Chromium removes the file where its driver dies first
    ledger = Ledger.open()
    (record,) = ledger.records()
    assert isinstance(record, Record)
    lock = record.lock
    assert lock is not None
    owner.process.send_signal(signal.SIGSTOP)
    guards = [guard.pid for guard in record.guards]
    for pid in reversed(guards):  # the standby guard is stopped first, so that it finishes nothing
        os.kill(pid, signal.SIGSTOP)
    for pid in guards:
        os.kill(pid, signal.SIGKILL)
    owner.kill()
    assert partial_in(tmp_path)
    assert wait_until(lambda: ask(lock).state == "free")
    (finding,) = sweep(dry_run=False)
    assert finding.report is not None
    assert [one.removed for one in finding.report.partial_downloads] == [True]
    assert os.listdir(tmp_path) == []


@pytest.mark.chrome
def test_a_kept_profile_and_a_pool_leave_no_partial_file(page: str, tmp_path: Path) -> None:
    """The browser of a kept profile is asked to end first: it closes the file before the guard looks."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    session = browser("chrome", profile=tmp_path / "profile", download_dir=downloads)
    with session as driver:
        download(driver, page, downloads, ENDLESS)
    assert not os.listdir(downloads)
    with BrowserPool("chrome", max_size=1, download_dir=downloads) as pool:
        for _ in range(2):
            with pool.lease() as lease:
                download(lease.driver, page, downloads, ENDLESS)
            assert wait_until(lambda: not partial_in(downloads))
        lease = pool.lease().__enter__()
        download(lease.driver, page, downloads, ENDLESS)
    assert not os.listdir(downloads)
