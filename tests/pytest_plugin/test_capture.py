"""What is saved of the browsers of failed tests, in real browsers."""

from __future__ import annotations

import json
import os
import re

import pytest

from fixtures.server import Site
from tests.support.inner_pytest import InnerPytest, files_in

chrome = pytest.mark.chrome


firefox = pytest.mark.firefox


@chrome
def test_capture_in_every_browser_state_and_test_phase(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        conftest="""
        from browserkeeper.pytest_plugin import capture

        def pytest_runtest_setup(item):
            "Only the browser that hangs uses all of it."
            capture.PATIENCE = 2.0 if "hangs" in item.name else 120.0
        """,
        test_a="""
        import os, signal, pytest
        from browserkeeper import session_of
        from selenium.webdriver.support.expected_conditions import alert_is_present
        from selenium.webdriver.support.ui import WebDriverWait
        from tests.support.hanging import hang
        SITE = os.environ["SITE"]

        def test_passes(driver):
            driver.get(SITE)

        @pytest.mark.parametrize("path", ["console", "é/../%00\\n" + "x" * 300], ids=lambda p: p)
        def test_call(driver, path):
            driver.get(SITE + "console")
            assert 0

        def test_alert(driver):
            driver.get(SITE)
            driver.execute_script("setTimeout(() => alert('look here'), 0)")
            WebDriverWait(driver, 60).until(alert_is_present())
            assert 0

        def test_dead(driver):
            driver.get(SITE)
            os.kill(session_of(driver).pid, signal.SIGKILL)
            driver.title

        def test_dead_unnoticed(driver):
            os.kill(session_of(driver).pid, signal.SIGKILL)
            assert 0

        def test_crashed_tab(driver):
            driver.get(SITE)
            try:
                driver.get("chrome://crash")
            except Exception:
                pass
            assert 0

        def test_hangs(driver):
            driver.get(SITE)
            hang(driver, SITE)
            assert 0

        @pytest.fixture
        def broken_setup(driver):
            driver.get(SITE + "about")
            raise RuntimeError("in set-up")

        def test_setup(broken_setup):
            pass

        @pytest.fixture
        def broken_teardown(driver):
            yield driver
            raise RuntimeError("in teardown")

        def test_teardown(broken_teardown):
            broken_teardown.get(SITE + "about")

        @pytest.fixture
        def page(keeper_pool):
            with keeper_pool.lease() as lease:
                yield lease.driver

        def test_lease(page):
            page.get(SITE + "about")
            assert 0

        def test_two(keeper_factory):
            keeper_factory().get(SITE)
            keeper_factory().get(SITE + "about")
            assert 0
        """,
    )
    done = inner_pytest.run("-rfE", "--durations=0")
    done.assert_outcomes(passed=2, failed=9, errors=2)
    everything = {"screenshot.png", "page.html", "url.txt", "console.log", "driver.log", "processes.txt"}
    for word in ("console", "setup", "test_teardown", "lease"):
        assert files_in(inner_pytest.folder(word)) == everything, word
    assert "about" in (inner_pytest.folder("test_teardown") / "url.txt").read_text()
    assert "about" in (inner_pytest.folder("test_setup") / "page.html").read_text().lower()
    alert = inner_pytest.folder("alert")
    assert files_in(alert) == everything | {"alert.txt"}
    assert (alert / "alert.txt").read_text() == "look here\n"
    assert files_in(inner_pytest.folder("two")) >= {"screenshot.png", "screenshot-2.png", "driver-2.log"}
    for word in ("test_dead-", "unnoticed", "tab", "hangs"):
        folder = inner_pytest.folder(word)
        assert files_in(folder) >= {"processes.txt", "driver.log", "capture.txt"}, word
        assert "clean" in (folder / "processes.txt").read_text()
    text = (inner_pytest.folder("test_dead-") / "processes.txt").read_text()
    assert "Its last " in text
    assert f"get {site.url}: ok" in text
    # In the failure's traceback, by the error's text, and in its section "browser".
    done.stdout.re_match_lines([rf".*get {re.escape(site.url)}: ok.*", r".*getTitle: in flight for.*"])
    assert (inner_pytest.folder("console") / "screenshot.png").read_bytes().startswith(b"\x89PNG")
    assert "COMMAND" in (inner_pytest.folder("console") / "driver.log").read_text()
    assert len(inner_pytest.folders) == 11
    assert all(len(os.fsencode(path.name)) < 150 for path in inner_pytest.folders)
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_a.py::test_alert*", "*alert.txt*"])


@firefox
def test_capture_of_firefox(inner_pytest: InnerPytest, site: Site) -> None:
    """Of a warm Firefox, whose tests before the one that fails have a context each."""
    inner_pytest.visit(site).write(
        test_a="""
        import os
        import pytest
        from browserkeeper import session_of
        SITE = os.environ["SITE"]
        PIDS = set()

        @pytest.mark.parametrize("number", range(2))
        def test_good(driver, number):
            driver.get(SITE)
            assert driver.get_cookies() == []
            driver.add_cookie({"name": "a", "value": "1"})
            assert len(driver.get_cookies()) == 1
            PIDS.add(session_of(driver).pid)
            assert len(PIDS) == 1

        def test_call(driver):
            driver.get(SITE + "console")
            driver.execute_script("console.error('from firefox')")
            driver.execute_script("setTimeout(() => alert('look here'), 0)")
            assert 0
        """
    )
    words = ("--keeper-browser=firefox", "--keeper-isolation=context")
    inner_pytest.run(*words).assert_outcomes(passed=2, failed=1)
    folder = inner_pytest.folder("test_call")
    assert files_in(folder) >= {"screenshot.png", "page.html", "url.txt", "console.log", "driver.log"}
    assert "from firefox" in (folder / "console.log").read_text()


@chrome
def test_options_choose_what_is_captured(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        def test_good(driver): pass
        def test_bad(driver): assert 0
        """
    )
    inner_pytest.run("--keeper-capture=never", "--keeper-screenshot=off")
    assert inner_pytest.folders == []
    inner_pytest.run("--keeper-capture=never", "--keeper-screenshot=on", "--keeper-output=out/here")
    out = inner_pytest.path / "out" / "here"
    assert [files_in(path) for path in out.iterdir()] == [{"screenshot.png"}] * 2
    inner_pytest.run("--keeper-capture=always")
    assert "screenshot.png" not in files_in(inner_pytest.folder("good"))
    assert "page.html" in files_in(inner_pytest.folder("good"))


@chrome
def test_folders_of_earlier_runs_are_removed_and_others_stay(inner_pytest: InnerPytest) -> None:
    results = inner_pytest.path / "keeper-results"
    for name in ("old", "theirs"):
        (results / name).mkdir(parents=True)
        (results / name / "file").touch()
    (results / "old" / "keeper.json").write_text(json.dumps({"run": "another"}))
    inner_pytest.write(test_a="def test_good(driver): pass")
    inner_pytest.run().assert_outcomes(passed=1)
    assert [path.name for path in inner_pytest.folders] == ["theirs"]
