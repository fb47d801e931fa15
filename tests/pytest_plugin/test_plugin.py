"""The pytest plugin with real browsers: fixtures, options, markers, isolation, capture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support.inner_pytest import Inner, inner, names

__all__ = ["inner"]

chrome = pytest.mark.chrome
firefox = pytest.mark.firefox


# ------------------------------------------------------------------------ fixtures and options


@chrome
@firefox
def test_every_test_gets_a_browser_of_its_own(inner: Inner, site: Site) -> None:
    inner.visit(site).write(
        test_a="""
        import os, pytest
        from browserkeeper import session_of
        SITE, SEEN = os.environ["SITE"], []

        @pytest.mark.parametrize("number", [1, 2])
        def test_fresh(driver, keeper_browser_name, number):
            driver.get(SITE)
            assert driver.get_cookies() == []
            driver.add_cookie({"name": "left", "value": "over"})
            assert session_of(driver).pid not in SEEN
            SEEN.append(session_of(driver).pid)
            assert driver.capabilities["browserName"] == keeper_browser_name

        @pytest.mark.keeper_skip("firefox", reason="not for it")
        def test_skip(keeper_driver, driver):
            assert keeper_driver is driver
            assert driver.capabilities["browserName"] == "chrome"

        @pytest.mark.keeper_browser("chrome")
        @pytest.mark.keeper_options(window_size=(640, 480))
        def test_marked(driver):
            assert driver.get_window_size()["width"] == 640
        """
    )
    done = inner.run("-v", "-rs", "--keeper-browser=chrome", "--keeper-browser=firefox")
    done.assert_outcomes(passed=6, skipped=1)
    done.stdout.fnmatch_lines_random(
        ["*test_fresh[[]chrome-1[]] PASSED*", "*test_fresh[[]firefox-2[]] PASSED*", "*not for it"]
    )
    done.stdout.fnmatch_lines(["browserkeeper: chrome, firefox, isolation fresh, leaks error"])
    assert not (inner.path / "test-results").exists()


@chrome
def test_fixtures_are_made_to_be_overridden(inner: Inner, site: Site) -> None:
    inner.visit(site).write(
        conftest="""
        import pytest
        from selenium import webdriver

        @pytest.fixture(scope="session")
        def keeper_browser_args(keeper_browser_args):
            return {**keeper_browser_args, "window_size": (700, 500), "timeout": 60}

        @pytest.fixture(scope="session")
        def keeper_options():
            options = webdriver.ChromeOptions()
            options.add_argument("--lang=de")
            options.add_argument("--user-agent=ours")
            return options

        @pytest.fixture(scope="session")
        def keeper_browser_name():
            return "chromium"
        """,
        test_a="""
        import pytest
        from browserkeeper import session_of

        def test_it(driver, keeper_browser_name):
            assert keeper_browser_name == session_of(driver).name == "chromium"
            assert driver.execute_script("return navigator.userAgent") == "ours"
            assert driver.get_window_size()["width"] == 700
            assert session_of(driver).config.timeout == 60

        def test_getfixturevalue(request):
            driver = request.getfixturevalue("driver")
            assert driver.execute_script("return navigator.userAgent") == "ours"

        def test_factory(keeper_factory):
            one, two = keeper_factory(), keeper_factory("chromium-headless-shell", timeout=30)
            three = keeper_factory()
            assert session_of(two).name == "chromium-headless-shell"
            assert len({session_of(d).pid for d in (one, two, three)}) == 3
            three.quit()

        def test_pool(keeper_pool):
            with keeper_pool.lease() as lease:
                assert lease.driver.execute_script("return navigator.userAgent") == "ours"
        """,
    )
    inner.run("-v").assert_outcomes(passed=4)


@chrome
def test_isolation_by_context_keeps_one_browser_warm(inner: Inner, site: Site) -> None:
    inner.visit(site).write(
        test_a="""
        import os, pytest
        from browserkeeper import session_of
        SITE, SEEN = os.environ["SITE"], []

        @pytest.mark.parametrize("number", [1, 2, 3])
        def test_fresh(driver, number):
            driver.get(SITE)
            assert driver.get_cookies() == []
            driver.add_cookie({"name": "left", "value": "over"})
            SEEN.append(session_of(driver).pid)

        @pytest.mark.keeper_options(window_size=(640, 480))
        def test_with_options_of_its_own(driver):
            assert driver.get_window_size()["width"] == 640
            assert session_of(driver).pid not in SEEN

        def test_one_browser():
            assert len(SEEN) == 3 and len(set(SEEN)) == 1

        def test_fails(driver):
            driver.get(SITE + "console")
            assert not driver.title

        @pytest.mark.keeper_timeout(0.5)
        def test_slow(driver):
            driver.get(SITE + "slow?seconds=20")
        """
    )
    done = inner.run("--keeper-isolation=context", "-rf")
    done.assert_outcomes(passed=5, failed=2)
    done.stdout.fnmatch_lines(["FAILED *test_slow - *LeaseTimeout*"])
    folder = inner.folder("test_fails")
    assert names(folder) >= {"screenshot.png", "page.html", "url.txt", "console.log", "processes.txt"}
    assert "shelf" in (folder / "console.log").read_text().lower()
    assert "lives on" in (folder / "processes.txt").read_text()


@chrome
def test_the_pool_is_of_the_browser_that_was_asked_for(inner: Inner) -> None:
    inner.write(
        test_a="""
        import pytest

        def test_pool(keeper_pool, keeper_browser_name):
            with keeper_pool.lease() as lease:
                assert lease.session.name == keeper_browser_name

        @pytest.mark.keeper_browser("chromium")
        def test_marked(keeper_pool, keeper_browser_name):
            with keeper_pool.lease() as lease:
                assert lease.session.name == keeper_browser_name == "chromium"
        """
    )
    done = inner.run("-v")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines_random(["*::test_pool PASSED*", "*::test_marked[[]chromium[]] PASSED*"])


@chrome
def test_timeouts(inner: Inner, site: Site) -> None:
    inner.visit(site).ini(keeper_timeout="3").write(
        test_a="""
        import os, time, pytest
        from browserkeeper import session_of
        SITE = os.environ["SITE"]

        def test_limit_of_all(driver):
            assert session_of(driver).config.timeout == 3

        @pytest.mark.keeper_timeout(1.5)
        def test_limit_of_one(driver):
            driver.get(SITE + "never")

        @pytest.mark.keeper_timeout(1)
        def test_unnoticed(driver):
            time.sleep(1.5)
        """
    )
    done = inner.run("-rfE")
    done.assert_outcomes(passed=2, failed=1, errors=1)
    done.stdout.fnmatch_lines(
        ["FAILED *test_limit_of_one - *SessionTimeout*", "ERROR *test_unnoticed - *SessionTimeout*"]
    )
    assert "timeout, clean" in (inner.folder("of_one") / "processes.txt").read_text()


# ------------------------------------------------------------------------------------- capture


@chrome
def test_capture_in_every_state_and_phase(inner: Inner, site: Site) -> None:
    inner.visit(site).write(
        conftest="""
        from browserkeeper.pytest_plugin import capture
        capture.PATIENCE = 2.0
        """,
        test_a="""
        import os, signal, time, pytest
        from browserkeeper import session_of
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
            time.sleep(0.3)
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
            driver.execute_script("setTimeout(() => { for (;;); }, 300)")
            time.sleep(0.5)
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
    done = inner.run("-rfE", "--durations=0")
    done.assert_outcomes(passed=2, failed=9, errors=2)
    everything = {"screenshot.png", "page.html", "url.txt", "console.log", "driver.log", "processes.txt"}
    for word in ("console", "setup", "test_teardown", "lease"):
        assert names(inner.folder(word)) == everything, word
    assert "about" in (inner.folder("test_teardown") / "url.txt").read_text()
    assert "about" in (inner.folder("test_setup") / "page.html").read_text().lower()
    alert = inner.folder("alert")
    assert names(alert) == everything | {"alert.txt"}
    assert (alert / "alert.txt").read_text() == "look here\n"
    assert names(inner.folder("two")) >= {"screenshot.png", "screenshot-2.png", "driver-2.log"}
    for word in ("test_dead-", "unnoticed", "tab", "hangs"):
        folder = inner.folder(word)
        assert names(folder) >= {"processes.txt", "driver.log", "capture.txt"}, word
        assert "clean" in (folder / "processes.txt").read_text()
    assert (inner.folder("console") / "screenshot.png").read_bytes().startswith(b"\x89PNG")
    assert "COMMAND" in (inner.folder("console") / "driver.log").read_text()
    assert len(inner.folders) == 11
    assert all(len(os.fsencode(path.name)) < 150 for path in inner.folders)
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_a.py::test_alert*", "*alert.txt*"])


@firefox
def test_capture_of_firefox(inner: Inner, site: Site) -> None:
    """Out of a pool, which gives it a new process for each test."""
    inner.visit(site).write(
        test_a="""
        import os
        SITE = os.environ["SITE"]

        def test_call(driver):
            driver.get(SITE + "console")
            driver.execute_script("console.error('from firefox')")
            driver.execute_script("setTimeout(() => alert('look here'), 0)")
            assert 0
        """
    )
    words = ("--keeper-browser=firefox", "--keeper-isolation=context")
    inner.run(*words).assert_outcomes(failed=1)
    folder = inner.folder("test_call")
    assert names(folder) >= {"screenshot.png", "page.html", "url.txt", "console.log", "driver.log"}
    assert "from firefox" in (folder / "console.log").read_text()


@chrome
def test_what_is_captured_can_be_chosen(inner: Inner, site: Site) -> None:
    inner.visit(site).write(
        test_a="""
        def test_good(driver): pass
        def test_bad(driver): assert 0
        """
    )
    inner.run("--keeper-capture=never", "--keeper-screenshot=off")
    assert inner.folders == []
    inner.run("--keeper-capture=never", "--keeper-screenshot=on", "--keeper-output=out/here")
    out = inner.path / "out" / "here"
    assert [names(path) for path in out.iterdir()] == [{"screenshot.png"}] * 2
    inner.run("--keeper-capture=always")
    assert "screenshot.png" not in names(inner.folder("good"))
    assert "page.html" in names(inner.folder("good"))


@chrome
def test_folders_of_earlier_runs_go_and_other_files_stay(inner: Inner) -> None:
    results = inner.path / "test-results"
    for name in ("old", "theirs"):
        (results / name).mkdir(parents=True)
        (results / name / "file").touch()
    (results / "old" / "keeper.json").write_text(json.dumps({"run": "another"}))
    inner.write(test_a="def test_good(driver): pass")
    inner.run().assert_outcomes(passed=1)
    assert [path.name for path in inner.folders] == ["theirs"]


@chrome
def test_the_example_suite(inner: Inner) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    words = ("--rootdir", str(inner.path), "-c", os.devnull, str(root / "examples" / "tests"))
    inner.run(*words, "--keeper-isolation=context").assert_outcomes(passed=6)
