"""``expect_download`` and ``downloads`` of a session, with real browsers and a server of our own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserDied,
    BrowserSession,
    ConfigError,
    DownloadError,
    DownloadFailed,
    DownloadTimeout,
    DownloadTooLarge,
    SessionClosed,
    browser,
    expect_download,
    session_of,
)
from browserkeeper.drivers.transfers import RETRY
from tests.support import witness
from tests.support.download_site import (
    LARGE,
    DownloadSite,
    download_site,
    partial_files,
    stop_chromium,
)
from tests.support.guards import BOTH
from tests.support.owners import Owner
from tests.support.waiting import wait_until

SHORT = 2.0
"""Seconds that a test waits for a download that does not come."""
MB = 10**6


@pytest.fixture(scope="module")
def site() -> Iterator[DownloadSite]:
    with download_site() as site:
        yield site


@dataclasses.dataclass(frozen=True)
class Open:
    """A session that the tests of this module share, and where it saves its downloads."""

    name: str
    session: BrowserSession[Any]
    driver: Any
    directory: Path
    is_told: bool
    """False for a Chromium without BiDi."""

    def click(self, link: str) -> None:
        self.driver.find_element(By.ID, link).click()


KINDS = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("chrome, directory", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[Open]:
    name, _, kind = request.param.partition(", ")
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        given = {"download_dir": directory} if kind else {}
        patch.setenv("BROWSERKEEPER_STATE_DIR", f"{directory}.state")
        with browser(name, **given) as driver:  # type: ignore[call-overload]
            session = session_of(driver)
            place = Path(directory if kind else f"{session.tmpdir}/downloads")
            patch.undo()
            yield Open(name, session, driver, place, is_told=bool(kind) or name == "firefox")
        shutil.rmtree(f"{directory}.state")


@pytest.fixture
def opened(shared: Open, site: DownloadSite) -> Open:
    shared.driver.get(site.url)
    return shared


WHOLE = {
    "file": ("file", ".bin", 1000),
    "empty": ("empty", ".bin", 0),
    "tricks": ("", ".bin", 1000),
    "odd": ("\u00e4", ".txt", 1000),
    "redirect": ("file", ".bin", 1000),
    "program": ("program", ".exe", 1000),
    "popup": ("file", ".bin", 1000),
    "pdf": ("pdf", ".pdf", 14),
    "data": ("data", ".txt", 5),
    "blob": ("blob", ".txt", 6),
}
"""Links, and how the names of their files begin and end, and their bytes."""


@pytest.mark.compat
def test_each_kind_of_download_arrives_whole_and_below_its_directory(
    opened: Open, site: DownloadSite, tmp_path: Path
) -> None:
    before = len(opened.session.downloads)
    for link, (stem, suffix, size) in WHOLE.items():
        if link == "popup" and opened.name == "firefox":
            opened.driver.execute_script("document.getElementById('popup').download = ''")
        with opened.session.expect_download() as download:
            opened.click(link)
        assert download.state == "complete", link
        assert download.size == size, link
        assert download.path is not None
        assert download.path.parent == opened.directory, link
        assert download.path.name == download.name
        assert download.name.startswith(stem), link
        assert download.name.endswith(suffix), link
        assert download.path.stat().st_size == size, link
        ours = ("data:", "blob:")
        assert download.url.startswith(site.url if link not in ("data", "blob") else ours), link
        if link == "redirect" and opened.is_told:
            assert download.url == f"{site.url}file?redirected"
        copy = download.save_as(tmp_path / link / "copy")
        assert copy.read_bytes() == download.path.read_bytes()
    after = opened.session.downloads[before:]
    assert [one.state for one in after] == ["complete"] * len(WHOLE)
    assert len({one.path for one in after}) == len(WHOLE), "files of one name are kept apart"
    assert not Path("/tmp/tricks.bin").exists()


def test_a_download_that_was_not_expected_is_listed_as_well(opened: Open, site: DownloadSite) -> None:
    before = len(opened.session.downloads)
    opened.click("file")
    assert wait_until(lambda: [one.state for one in opened.session.downloads[before:]] == ["complete"])
    (download,) = opened.session.downloads[before:]
    assert download.url == (f"{site.url}file?a=1" if opened.is_told else "")


def test_several_downloads_of_one_block(opened: Open) -> None:
    with expect_download(opened.driver, count=2) as downloads:
        with expect_download(opened.driver) as inner:
            opened.click("file")
        opened.click("data")
    assert [one.size for one in downloads.all] == [1000, 5]
    assert inner.name == downloads.name


def test_a_download_in_a_frame(opened: Open, site: DownloadSite) -> None:
    opened.driver.switch_to.frame("frame")
    with expect_download(opened.driver) as download:
        opened.click("in-frame")
    assert download.size == 1000
    assert download.url == f"{site.url}file?frame"
    opened.driver.switch_to.default_content()


def test_a_download_in_a_new_tab_that_is_closed_meanwhile(opened: Open, site: DownloadSite) -> None:
    first = opened.driver.current_window_handle
    opened.driver.switch_to.new_window("tab")
    opened.driver.get(site.url)
    earlier = len(opened.session.downloads)
    with expect_download(opened.driver) as download:
        opened.click("large")
        # Closed before that, the tab takes its request with it.
        assert wait_until(lambda: len(opened.session.downloads) > earlier)
        opened.driver.close()
        opened.driver.switch_to.window(first)
    assert download.size == LARGE
    assert download.path is not None
    download.path.unlink()


def test_a_download_that_the_server_cuts_off_is_a_typed_error_and_leaves_nothing(opened: Open) -> None:
    given_up = pytest.raises(DownloadFailed, match=r"'cut.bin' has failed: the browser gave it up")
    with given_up as caught, opened.session.expect_download():
        opened.click("cut")
    assert caught.value.name == "cut.bin"
    assert wait_until(lambda: not partial_files(opened.directory))
    if not opened.is_told:
        wait_for_repetitions(opened.directory)
    assert opened.driver.title == "Downloads", "no alert of the browser's is left"
    with opened.session.expect_download() as download:
        opened.click("file")
    assert download.size == 1000


def wait_for_repetitions(directory: Path) -> None:
    """Wait until Chromium, which may repeat a download that was cut off, has given it up.  Looks are
    counted, and not seconds: they stand still while the machine does."""
    looks, pause = 0, 0.05

    def is_over() -> bool:
        nonlocal looks
        looks = 0 if partial_files(directory) else looks + 1
        return looks * pause > RETRY

    assert wait_until(is_over, pause=pause)


def test_no_download_is_a_typed_error(opened: Open) -> None:
    none = pytest.raises(DownloadTimeout, match="No download began in the block, or in 2 s after it")
    with none, opened.session.expect_download(timeout=SHORT) as download:
        opened.driver.find_element(By.ID, "frame")
    with pytest.raises(DownloadError, match="No download has begun"):
        _ = download.name
    is_told_of_failure = opened.is_told and opened.name == "chrome"
    kind, timeout = (DownloadFailed, 60.0) if is_told_of_failure else (DownloadTimeout, SHORT)
    with pytest.raises(kind), opened.session.expect_download(timeout=timeout):
        opened.click("missing")  # the answer is 404


def test_a_download_whose_server_stops_sending_is_a_typed_error(
    opened: Open, site: DownloadSite
) -> None:
    before = len(opened.session.downloads)
    stalled = pytest.raises(DownloadTimeout, match=r"No byte of the download 'endless.*bin' came")
    with stalled as caught, opened.session.expect_download(timeout=SHORT) as download:
        opened.click("endless")
        assert wait_until(lambda: any(one.size > 0 for one in opened.session.downloads[before:]))
    assert download.state == "in_progress"
    assert caught.value.size > 0
    assert download.path is None
    with pytest.raises(DownloadError, match="not complete yet"):
        download.save_as(opened.directory / "never")


def test_the_exception_of_a_block_is_raised_as_it_is(opened: Open) -> None:
    before = len(opened.session.downloads)
    with pytest.raises(KeyError, match="mine"), opened.session.expect_download():
        opened.click("file")
        raise KeyError("mine")
    # Else it could begin in the block of the next test.
    assert wait_until(lambda: [one.state for one in opened.session.downloads[before:]] == ["complete"])


def test_a_copy_replaces_a_file_and_goes_into_a_directory(opened: Open, tmp_path: Path) -> None:
    with opened.session.expect_download() as download:
        opened.click("data")
    (tmp_path / "old").write_text("old")
    assert download.save_as(tmp_path / "old").read_text() == "hello"
    assert download.save_as(tmp_path).name == download.name
    assert sorted(os.listdir(tmp_path)) == sorted(["old", download.name])
    assert download.path is not None
    download.path.unlink()
    with pytest.raises(DownloadFailed, match="is gone"):
        download.save_as(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "hello"


def test_a_copy_may_have_any_name_that_the_file_system_takes(opened: Open, tmp_path: Path) -> None:
    with opened.session.expect_download() as download:
        opened.click("file")
    for name in ("ä" * 127, "中" * 85, "x" * 255, "new\nline", "\udcff"):
        assert os.path.getsize(download.save_as(tmp_path / name)) == 1000
    with pytest.raises(OSError, match="File name too long"):
        download.save_as(tmp_path / ("x" * 256))
    assert len(os.listdir(tmp_path)) == 5


def test_odd_arguments_are_refused(opened: Open) -> None:
    for timeout in (0, -1, "3", True, float("nan")):
        with pytest.raises(ConfigError, match="timeout="):
            opened.session.expect_download(timeout=timeout)  # type: ignore[arg-type]
    for count in (0, 1.5, "1"):
        with pytest.raises(ConfigError, match="count="):
            opened.session.expect_download(count=count)  # type: ignore[arg-type]


def test_dialogs_are_as_without_bidi(opened: Open) -> None:
    opened.driver.execute_script("setTimeout(() => alert('asked'))")
    assert wait_until(lambda: _alert_text(opened.driver) == "asked")
    opened.driver.switch_to.alert.accept()
    assert opened.driver.title == "Downloads"


def _alert_text(driver: Any) -> str:
    with contextlib.suppress(NoAlertPresentException):
        return str(driver.switch_to.alert.text)
    return ""


# ------------------------------------------------------------------ sessions of their own


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_stops_a_download(
    kind: str, site: DownloadSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that tells of its downloads, and can cancel one, goes on.  Any other is ended."""
    monkeypatch.setattr("browserkeeper.session.launch.CANCEL_GRACE", 60.0)
    name, _, _ = kind.partition(", ")
    site.flowing.set()
    given: dict[str, Any] = {"download_dir": tmp_path} if "directory" in kind else {}
    session = browser(name, max_download="1 MB", **given)
    try:
        with contextlib.suppress(DownloadTooLarge), session as driver:
            place = Path(tmp_path if given else f"{session.tmpdir}/downloads")
            driver.get(site.url)
            too_large = pytest.raises(DownloadTooLarge, match=r"max_download=1,000,000 bytes")
            with too_large as caught, expect_download(driver):
                driver.find_element(By.ID, "endless").click()
            assert caught.value.name == "endless.bin"
            assert caught.value.size > 0
            if name == "chrome":
                assert wait_until(lambda: not os.listdir(place))
                with expect_download(driver) as download:
                    driver.find_element(By.ID, "file").click()
                assert download.size == 1000
            else:
                assert caught.value.report is not None
    finally:
        site.flowing.clear()
    assert session.report is not None
    assert session.report.reason == ("closed" if name == "chrome" else "max-download")
    assert session.report.clean
    assert os.listdir(tmp_path) == (["file.bin"] if given and name == "chrome" else [])
    assert pickle.loads(pickle.dumps(caught.value)).name == "endless.bin"


@pytest.mark.parametrize("name", BOTH)
def test_partial_files_of_other_programs_in_the_same_directory_do_not_count_and_stay(
    name: str, site: DownloadSite, tmp_path: Path
) -> None:
    """They have names that the browser's could have, and are older and larger than the bound."""
    (tmp_path / "endless.bin").touch()
    foreign = [
        "endless.bin.crdownload",
        "endless.part",
        "endless.AAAAAAAA.bin.part",
        "12345678.bin.part",
    ]
    for one in foreign:
        with open(tmp_path / one, "wb") as file:
            file.truncate(5 * 10**9)
    with browser(name, download_dir=tmp_path, max_download="50MB") as driver:
        session = session_of(driver)
        driver.get(site.url)
        driver.find_element(By.ID, "endless").click()
        assert wait_until(lambda: any(one.size for one in session.downloads))
        (download,) = session.downloads
        assert (download.state, download.error) == ("in_progress", "")
        assert download.size <= 100_000
        stop_chromium(session)
    assert session.report is not None
    (cut_off,) = session.report.partial_downloads
    assert (cut_off.removed, os.path.basename(cut_off.path) in foreign) == (True, False)
    assert sorted(os.listdir(tmp_path)) == sorted(["endless.bin", *foreign])


@pytest.mark.chrome
def test_a_bound_holds_for_all_downloads_together(
    site: DownloadSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.session.launch.CANCEL_GRACE", 60.0)
    with browser(max_download=2500) as driver:
        driver.get(site.url)
        for _ in range(2):
            with expect_download(driver):
                driver.find_element(By.ID, "file").click()
        with pytest.raises(DownloadTooLarge), expect_download(driver):
            driver.find_element(By.ID, "file").click()
        states = [one.state for one in session_of(driver).downloads]
        assert states == ["complete", "complete", "failed"]


STUCK = """
import os, signal, sys
from browserkeeper import browser
name, url, directory = sys.argv[1:]
session = browser(name, max_download="1MB", **({"download_dir": directory} if directory else {}))
driver = session.start()
driver.get(url)
driver.execute_script("document.getElementById('endless').click()")
print("started", session.pid, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
try:
    driver.title
except Exception as error:
    print("ended", type(error).__name__, session.report.reason, flush=True)
"""


def is_alive(pid: int) -> bool:
    """False for a zombie, too, which the guard reaps at once."""
    return os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_guard_keeps_the_bound_while_the_owner_is_stuck(
    kind: str, site: DownloadSite, tmp_path: Path
) -> None:
    name, _, _ = kind.partition(", ")
    words = (name, site.url, str(tmp_path) if "directory" in kind else "")
    owner = Owner(sys.executable, "-c", STUCK, *words)
    try:
        browser_pid = int(owner.wait_for("started").split()[1])
        assert wait_until(lambda: witness.is_stopped(owner.pid))
        site.flowing.set()  # before that, the owner itself could find the bound passed
        assert wait_until(lambda: not is_alive(browser_pid))
        os.kill(owner.pid, signal.SIGCONT)
        assert owner.wait_for("ended").split()[1:] == ["DownloadTooLarge", "max-download"]
        assert owner.wait() == 0
    finally:
        site.flowing.clear()
        if owner.process.poll() is None:
            owner.kill()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", BOTH)
def test_the_end_of_a_session_names_what_was_unfinished(name: str, site: DownloadSite) -> None:
    session = browser(name)
    with session as driver:
        driver.get(site.url)
        driver.find_element(By.ID, "endless").click()
        assert wait_until(lambda: any(one.size > 0 for one in session.downloads))
        (download,) = session.downloads
        assert (download.state, download.name) == ("in_progress", "endless.bin")
        stop_chromium(session)
    assert session.report is not None
    (cut_off,) = session.report.partial_downloads
    assert (cut_off.name, cut_off.removed) == ("endless.bin", True)
    assert cut_off.bytes > 0
    assert download.state == "failed"


@pytest.mark.chrome
def test_a_session_that_ends_in_the_wait_raises_its_own_error(site: DownloadSite) -> None:
    session = browser()
    with pytest.raises(BrowserDied), session as driver:
        driver.get(site.url)
        with expect_download(driver, timeout=None):
            assert session.pid is not None
            threading.Timer(0.5, os.kill, (session.pid, signal.SIGKILL)).start()
    with pytest.raises((BrowserDied, SessionClosed)):
        session.expect_download().__enter__()


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_another_thread_closes_in_the_wait_says_so(
    kind: str, site: DownloadSite, tmp_path: Path
) -> None:
    name, _, directory = kind.partition(", ")
    given: dict[str, Any] = {"download_dir": tmp_path} if directory else {}
    session = browser(name, **given)
    with pytest.raises(SessionClosed), session as driver:
        driver.get(site.url)
        with session.expect_download(timeout=None):
            driver.find_element(By.ID, "endless").click()
            assert wait_until(lambda: any(one.size for one in session.downloads))
            threading.Timer(0.5, session.close).start()


@pytest.mark.chrome
def test_a_user_who_turns_bidi_off_is_told_what_is_missing(site: DownloadSite, tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    options.set_capability("webSocketUrl", False)
    with browser(options=options, download_dir=tmp_path) as driver:
        assert not driver.capabilities.get("webSocketUrl")
        with pytest.raises(ConfigError, match="webSocketUrl"):
            expect_download(driver)


def test_a_grid_and_an_attached_browser_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"max_download= cannot be used with remote="):
        browser(remote="http://127.0.0.1:9", max_download="1MB")
    for size in ("", "lots", 0, -1, True):
        with pytest.raises(ConfigError, match="max_download="):
            browser(max_download=size)
    with pytest.raises(ConfigError, match="was not started by browserkeeper"):
        expect_download(object())  # type: ignore[arg-type]
