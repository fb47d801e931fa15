"""Sessions of a real Chromium and a real Firefox: ways to use them, and their arguments."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserSession,
    ConfigError,
    ExitReport,
    ForkedSessionError,
    SessionClosed,
    browser,
    session_of,
)
from browserkeeper.process import guard_process
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.support import witness
from tests.support.guards import BOTH, altered_guard
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=BOTH)
def shared(request: pytest.FixtureRequest, site: Site) -> Iterator[BrowserSession[webdriver.Remote]]:
    """One session for all tests that do not end or change it."""
    state = os.environ.get("BROWSERKEEPER_STATE_DIR")
    os.environ["BROWSERKEEPER_STATE_DIR"] = f"/tmp/bkstate-shared-{os.getpid()}"
    session = browser(request.param)
    session.start().get(site.url)
    os.environ.pop("BROWSERKEEPER_STATE_DIR")
    if state:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
    yield session
    assert session.close().clean
    import shutil

    shutil.rmtree(f"/tmp/bkstate-shared-{os.getpid()}")


@pytest.mark.parametrize("name", BOTH)
def test_a_driver_whose_port_is_known_before_the_guards_event(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a busy machine: the guard's event, which names the driver's process, comes later."""
    late = "        guard.start()\n        import time; time.sleep(1)\n"
    directory = altered_guard(tmp_path / "guard", ("        guard.start()\n", late))
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", directory)
    with browser(name) as driver:
        session = session_of(driver)
        assert session.pid in {process.pid for process in session.processes()}
        assert control_of(session).looks_alive()


# ------------------------------------------------------------------ it is Selenium, as ever


@pytest.mark.compat
def test_the_driver_is_one_of_selenium(shared: BrowserSession[webdriver.Remote]) -> None:
    kind = webdriver.Firefox if shared.name == "firefox" else webdriver.Chrome
    assert isinstance(shared.driver, kind)
    assert shared.driver.find_elements(By.TAG_NAME, "a")
    assert shared.driver.execute_script("return 6 * 7") == 42
    assert shared.driver.get_screenshot_as_png().startswith(b"\x89PNG")


def test_errors_of_selenium_are_raised_unchanged(shared: BrowserSession[webdriver.Remote]) -> None:
    with pytest.raises(NoSuchElementException):
        shared.driver.find_element(By.ID, "no-such-element")


def test_processes_and_memory_are_those_of_driver_and_browser(
    shared: BrowserSession[webdriver.Remote],
) -> None:
    seen = shared.processes()
    primary = seen[0].parent

    def are_the_same() -> bool:  # at a moment at which the browser starts and ends no helper
        return {p.pid for p in shared.processes()} == {s.pid for s in witness.below(primary)}

    assert wait_until(are_the_same)
    assert shared.pid in {p.pid for p in seen}
    assert seen[0].name in ("chromedriver", "geckodriver")
    assert 50e6 < shared.memory() < 3e9


def test_session_of_returns_the_session_of_a_driver(shared: BrowserSession[webdriver.Remote]) -> None:
    assert session_of(shared.driver) is shared
    with pytest.raises(ConfigError, match="not started by browserkeeper"):
        session_of(object())  # type: ignore[arg-type]


def test_a_driver_works_in_another_thread(shared: BrowserSession[webdriver.Remote]) -> None:
    titles = []
    thread = threading.Thread(target=lambda: titles.append(shared.driver.title))
    thread.start()
    thread.join(30)
    assert titles == [shared.driver.title]


def test_a_fork_can_neither_use_nor_end_the_session(shared: BrowserSession[webdriver.Remote]) -> None:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = b""
        for attempt in (shared.close, shared.driver.quit, lambda: shared.driver.title):
            try:
                attempt()
                outcome += b"worked "
            except ForkedSessionError:
                outcome += b"refused "
            except BaseException as error:
                outcome += repr(error).encode()
        os.write(write_fd, outcome)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write_fd)
    assert os.read(read_fd, 4096) == b"refused " * 3
    os.close(read_fd)
    assert shared.driver.title


def test_the_profile_lies_in_the_tmpdir_of_the_session(shared: BrowserSession[webdriver.Remote]) -> None:
    caps = shared.driver.caps
    profile = caps.get("moz:profile") or caps["chrome"]["userDataDir"]
    assert f"/bk-{shared.id}/" in profile


# ------------------------------------------------------------------ ways to use it


@pytest.mark.compat
@pytest.mark.parametrize("name", BOTH)
def test_a_with_block_ends_with_a_certificate(name: str, site: Site) -> None:
    session = browser(name)
    with session as driver:
        driver.get(site.url)
        pids = [p.pid for p in session.processes()]
    report = session.report
    assert report is not None
    assert (report.reason, report.clean, report.certificate) == ("closed", True, "ECHILD")
    assert set(pids) <= {p.pid for p in report.processes}
    assert report.adopted, "both browsers have a crash handler that daemonises"
    assert report.bytes_freed > 0
    assert {"start", "killing", "files", "close"} <= report.seconds.keys()


@pytest.mark.chrome
def test_a_clean_end_imports_nothing_of_the_cleanup_package() -> None:
    """The guard's report is the exit report; cleanup is for sessions whose guard was killed."""
    script = (
        "import sys\n"
        "from browserkeeper import browser\n"
        "session = browser()\n"
        "with session: pass\n"
        "assert session.report.clean\n"
        "print(*[name for name in sys.modules if name.startswith('browserkeeper.cleanup')])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.chrome
def test_a_session_can_be_started_once_and_closed_twice(site: Site) -> None:
    session = browser()
    driver = session.start()
    driver.get(site.url)
    first = session.close()
    assert first is session.close()
    with pytest.raises(SessionClosed):
        _ = session.driver
    with pytest.raises(SessionClosed):
        _ = driver.title
    with pytest.raises(SessionClosed, match="make a new one"):
        session.start()


@pytest.mark.chrome
def test_quit_inside_the_block_is_a_normal_end(site: Site) -> None:
    session = browser()
    with session as driver:
        driver.get(site.url)
        driver.quit()
        assert session.report is not None
        assert session.report.clean
        driver.quit()
    assert session.report.reason == "closed"


@pytest.mark.chrome
def test_the_decorator_passes_a_driver(site: Site) -> None:
    @browser()
    def title(url: str, driver: webdriver.Chrome, *, upper: bool = False) -> str:
        driver.get(url)
        return driver.title.upper() if upper else driver.title

    assert title(site.url, upper=True) == title(url=site.url).upper()


@pytest.mark.chrome
def test_the_decorator_works_on_methods_and_without_a_driver_parameter(site: Site) -> None:
    class Shop:
        @browser()
        def visit(self, driver: webdriver.Chrome) -> str:
            driver.get(site.url)
            return driver.title

        @browser()
        def idle(self) -> int:
            return drivers()

    def drivers() -> int:
        """A fork of chromedriver has its name until it becomes a browser."""
        found = {s.pid: s for s in witness.below(os.getpid()) if s.name == "chromedriver"}
        return len([seen for seen in found.values() if seen.parent not in found])

    before = drivers()
    assert Shop().visit()
    assert Shop().idle() == before + 1


def test_the_decorator_refuses_coroutines_and_generators() -> None:
    with pytest.raises(ConfigError, match="runs after the call"):

        @browser()
        async def later() -> None: ...

    with pytest.raises(ConfigError, match="runs after the call"):

        @browser()
        def items() -> Iterator[int]:
            yield 1


@pytest.mark.chrome
def test_several_sessions_in_an_exit_stack(site: Site) -> None:
    sessions = [browser(), browser("chromium")]
    with contextlib.ExitStack() as stack:
        for session in sessions:
            stack.enter_context(session).get(site.url)
        groups = [{p.pid for p in session.processes()} for session in sessions]
        assert not groups[0] & groups[1]
    assert all(session.report and session.report.clean for session in sessions)


@pytest.mark.chrome
def test_sessions_in_several_threads(site: Site) -> None:
    reports: list[ExitReport | None] = []

    def work() -> None:
        session = browser()
        with session as driver:
            driver.get(site.url)
        reports.append(session.report)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [report.clean for report in reports if report] == [True] * 3


@pytest.mark.chrome
def test_chromium_headless_shell_works(site: Site) -> None:
    import shutil

    if not shutil.which("chromium-headless-shell"):
        pytest.skip("no chromium-headless-shell")
    session = browser("chromium-headless-shell")
    with session as driver:
        driver.get(site.url)
        assert driver.title
    assert session.report
    assert session.report.clean


# ------------------------------------------------------------------ options


@pytest.mark.compat
@pytest.mark.chrome
def test_chrome_options_are_copied_and_completed(site: Site, tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--disable-features=MyOwn")
    options.page_load_strategy = "eager"
    before = options.to_capabilities()
    session = browser(options=options, window_size=(640, 480), arguments=["--lang=de"])
    with session as driver:
        driver.get(site.url)
        line = Path(f"/proc/{session.pid}/cmdline").read_bytes().decode()
        assert driver.execute_script("return outerWidth") == 640
    assert options.to_capabilities() == before
    for wanted in ("MyOwn", "Translate", "--lang=de", "--headless=new", "--remote-debugging-pipe"):
        assert wanted in line
    assert "--remote-debugging-port" not in line


@pytest.mark.chrome
def test_default_arguments_can_be_left_out(site: Site) -> None:
    session = browser(ignore_default_arguments=["--disk-cache-size", "--disable-breakpad"])
    with session:
        line = Path(f"/proc/{session.pid}/cmdline").read_bytes().decode()
    assert "--disk-cache-size" not in line
    assert "--disable-breakpad" not in line
    assert "--no-first-run" in line


@pytest.mark.compat
@pytest.mark.firefox
def test_firefox_gets_options_preferences_and_window_size(site: Site) -> None:
    options = webdriver.FirefoxOptions()
    options.set_preference("general.useragent.override", "Example/1")
    before = options.to_capabilities()
    session = browser(
        "firefox", options=options, preferences={"intl.accept_languages": "de"}, window_size=(800, 600)
    )
    with session as driver:
        driver.get(site.url)
        assert driver.execute_script("return navigator.userAgent") == "Example/1"
        assert driver.execute_script("return navigator.language") == "de"
        assert driver.get_window_size()["width"] == 800
    assert options.to_capabilities() == before


@pytest.mark.compat
@pytest.mark.parametrize("name", BOTH)
def test_downloads_go_to_the_download_dir(name: str, site: Site, tmp_path: Path) -> None:
    with browser(name, download_dir=tmp_path) as driver:
        driver.set_page_load_timeout(3)
        with contextlib.suppress(WebDriverException):  # a download is no page
            driver.get(site.url_for("download"))
        assert wait_until(lambda: _whole_files(tmp_path))
    assert _whole_files(tmp_path)


def _whole_files(directory: Path) -> list[Path]:
    """None of Chromium's temporary files, which have a dot before the name, and vanish."""
    partial = (".crdownload", ".part")
    names = [n for n in os.listdir(directory) if not n.startswith(".") and not n.endswith(partial)]
    return [directory / name for name in names if (directory / name).stat().st_size]


@pytest.mark.parametrize("name", BOTH)
def test_a_profile_is_used_and_kept(name: str, site: Site, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    for expected in (None, "here"):
        session = browser(name, profile=profile, close_timeout=120)
        with session as driver:
            driver.get(site.url)
            assert driver.execute_script("return localStorage.getItem('kept')") == expected
            driver.execute_script("localStorage.setItem('kept', 'here')")
        assert session.report
        assert session.report.clean
    assert profile.is_dir()


@pytest.mark.chrome
def test_debugging_port_is_noted_in_the_report_where_the_browser_would_outlive_its_driver(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, unbound = browser(debugging="port"), browser(debugging="port")
    with bound as driver:
        assert "debuggerAddress" in driver.caps["goog:chromeOptions"]
    assert bound.report
    assert (bound.report.clean, bound.report.notes) == (True, ())
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "setpriv" else found(name))
    with unbound:
        pass
    assert unbound.report
    assert unbound.report.clean
    assert "outlives owner and guards" in unbound.report.notes[0]


@pytest.mark.parametrize("name", BOTH)
def test_bidi_works(name: str, site: Site) -> None:
    options = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
    options.enable_bidi = True
    session = browser(name, options=options)
    with session as driver:
        driver.get(site.url)
        context = driver.browser.create_user_context()
        assert context in driver.browser.get_user_contexts()  # type: ignore[no-untyped-call]
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_env_sets_and_removes_variables(site: Site) -> None:
    os.environ["UNWANTED"] = "1"
    try:
        session = browser(env={"LANGUAGE": "fr", "UNWANTED": None})
        with session:
            variables = Path(f"/proc/{session.processes()[0].pid}/environ").read_bytes()
    finally:
        del os.environ["UNWANTED"]
    assert b"LANGUAGE=fr\0" in variables
    assert b"UNWANTED" not in variables


@pytest.mark.chrome
def test_the_drivers_log_is_appended_to_the_file(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text("an earlier session\n")
    with browser(log=log) as driver:
        driver.get(site.url)
    assert log.read_text().startswith("an earlier session\n")
    assert "COMMAND Navigate" in log.read_text()


@pytest.mark.chrome
def test_close_in_another_thread_calls_off_the_start() -> None:
    session = browser()
    threading.Thread(target=lambda: wait_until(lambda: session.guard_pid) and session.close()).start()
    with pytest.raises(SessionClosed, match="closed during its start"):
        session.start()
    assert session.close().clean


@pytest.mark.chrome
def test_a_session_that_is_closed_before_its_start_returns_raises_session_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = browser()

    def close_at_start(record: logging.LogRecord) -> bool:
        if "started in" in record.getMessage():
            session.close()
        return True

    logger = logging.getLogger("browserkeeper")
    monkeypatch.setattr(logger, "filters", [close_at_start])
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined] # of isEnabledFor()
    with pytest.raises(SessionClosed, match="This session is closed"):
        session.start()


@pytest.mark.chrome
def test_a_profile_named_in_the_arguments_is_kept(site: Site, tmp_path: Path) -> None:
    """The browser is asked to end by itself, so that it writes its profile."""
    options = webdriver.ChromeOptions()
    options.add_argument(f"--user-data-dir={tmp_path}")
    session = browser(options=options)
    assert not session.config.disposable
    with session as driver:
        driver.get(site.url)
    assert session.report
    assert session.report.clean
    assert not (tmp_path / "SingletonLock").is_symlink()


def test_nothing_is_started_by_the_constructor() -> None:
    before = witness.below(os.getpid())
    session = browser()
    assert "unstarted" in repr(session)
    assert session.close().clean
    assert witness.below(os.getpid()) == before


@pytest.mark.chrome
def test_a_report_pickles_prints_and_is_json(site: Site) -> None:
    session = browser()
    with session:
        pass
    report = session.report
    assert report is not None
    assert pickle.loads(pickle.dumps(report)) == report
    assert ExitReport.from_dict(report.to_dict()) == report
    assert session.id in str(report)
    assert '"schema": 1' in report.to_json()
