"""The fixtures with real browsers: names, arguments, isolation, timeouts, overriding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support.clock import start_seconds
from tests.support.inner_pytest import InnerPytest, files_in

chrome = pytest.mark.chrome


firefox = pytest.mark.firefox


@chrome
@firefox
def test_every_test_gets_a_browser_of_its_own(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
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
    done = inner_pytest.run("-v", "-rs", "--keeper-browser=chrome", "--keeper-browser=firefox")
    done.assert_outcomes(passed=6, skipped=1)
    done.stdout.fnmatch_lines_random(
        ["*test_fresh[[]chrome-1[]] PASSED*", "*test_fresh[[]firefox-2[]] PASSED*", "*not for it"]
    )
    done.stdout.fnmatch_lines(["browserkeeper: chrome, firefox, isolation fresh, leaks error"])
    assert not (inner_pytest.path / "keeper-results").exists()


@chrome
def test_a_conftest_can_override_the_fixtures(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
        conftest="""
        import pytest
        from selenium import webdriver

        @pytest.fixture(scope="session")
        def keeper_browser_args(keeper_browser_args):
            return {**keeper_browser_args, "window_size": (700, 500), "timeout": 299}

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
            assert session_of(driver).config.timeout == 299

        def test_getfixturevalue(request):
            driver = request.getfixturevalue("driver")
            assert driver.execute_script("return navigator.userAgent") == "ours"

        def test_factory(keeper_factory):
            one, two = keeper_factory(), keeper_factory("chromium-headless-shell", timeout=300)
            three = keeper_factory()
            assert session_of(two).name == "chromium-headless-shell"
            assert len({session_of(d).pid for d in (one, two, three)}) == 3
            three.quit()

        def test_pool(keeper_pool):
            with keeper_pool.lease() as lease:
                assert lease.driver.execute_script("return navigator.userAgent") == "ours"
        """,
    )
    inner_pytest.run("-v").assert_outcomes(passed=4)


@pytest.mark.compat
@chrome
def test_isolation_by_context_keeps_one_browser_warm(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(
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
    done = inner_pytest.run("--keeper-isolation=context", "-rf")
    done.assert_outcomes(passed=5, failed=2)
    done.stdout.fnmatch_lines(["FAILED *test_slow - *LeaseTimeout*"])
    done.stdout.fnmatch_lines(["*LeaseTimeout: * It was the test's, of 0.5 s (keeper_timeout).*"])
    done.stdout.no_fnmatch_line("*(max_lease)*")
    folder = inner_pytest.folder("test_fails")
    assert files_in(folder) >= {"screenshot.png", "page.html", "url.txt", "console.log", "processes.txt"}
    assert "shelf" in (folder / "console.log").read_text().lower()
    assert "lives on" in (folder / "processes.txt").read_text()


@chrome
def test_keeper_pool_has_the_browser_of_the_test(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a="""
        import asyncio

        import pytest

        def test_pool(keeper_pool, keeper_browser_name):
            with keeper_pool.lease() as lease:
                assert lease.session.name == keeper_browser_name

        def test_alease(keeper_pool):
            async def use():
                async with keeper_pool.alease() as lease:
                    assert lease in keeper_pool.given
                    return [info.label for info in keeper_pool.leases()]

            assert asyncio.run(use()) == ["test_a.py::test_alease"]

        @pytest.mark.keeper_browser("chromium")
        def test_marked(keeper_pool, keeper_browser_name):
            with keeper_pool.lease() as lease:
                assert lease.session.name == keeper_browser_name == "chromium"
        """
    )
    done = inner_pytest.run("-v")
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines_random(["*::test_pool PASSED*", "*::test_marked[[]chromium[]] PASSED*"])


@chrome
def test_a_timeout_of_all_tests_and_of_one_test(inner_pytest: InnerPytest, site: Site) -> None:
    limit = 10 * start_seconds()
    inner_pytest.visit(site).ini(keeper_timeout="599").write(
        test_a=f"""
        import os, time, pytest
        from browserkeeper import session_of
        SITE = os.environ["SITE"]

        def test_limit_of_all(driver):
            assert session_of(driver).config.timeout == 599

        @pytest.mark.keeper_timeout({limit})
        def test_limit_of_one(driver):
            driver.get(SITE + "never")

        @pytest.mark.keeper_timeout({limit})
        def test_unnoticed(driver):
            while os.path.exists(f"/proc/{{session_of(driver).pid}}"):
                time.sleep(0.02)
        """
    )
    done = inner_pytest.run("-rfE")
    done.assert_outcomes(passed=2, failed=1, errors=1)
    done.stdout.fnmatch_lines(
        ["FAILED *test_limit_of_one - *SessionTimeout*", "ERROR *test_unnoticed - *SessionTimeout*"]
    )
    assert "timeout, clean" in (inner_pytest.folder("of_one") / "processes.txt").read_text()


@chrome
def test_a_copy_of_the_example_suite_passes(inner_pytest: InnerPytest) -> None:
    """It needs nothing else of the repository."""
    example = Path(__file__).resolve().parent.parent.parent / "examples" / "tests"
    for path in example.glob("*.py"):
        shutil.copy(path, inner_pytest.path)
    inner_pytest.write(
        test_last="""
        import sys
        def test_alone():
            assert not {"fixtures", "examples", "tests"} & set(sys.modules)
        """
    )
    inner_pytest.run("--keeper-isolation=context").assert_outcomes(passed=7)
