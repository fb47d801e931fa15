"""Relative addresses: --keeper-base-url, keeper_base_url, and pytest-base-url beside them."""

from __future__ import annotations

import pytest

from fixtures.server import Site
from tests.pytest_plugin.test_usage_errors import USAGE_ERROR
from tests.support.inner_pytest import InnerPytest

chrome = pytest.mark.chrome

VISIT = """
import os, pytest
from selenium.common.exceptions import InvalidArgumentException
SITE = os.environ["SITE"]

def test_relative_addresses(driver, keeper_factory):
    driver.get("/about")
    assert driver.current_url == SITE + "about"
    driver.get("about?x=1#y")
    assert driver.current_url == SITE + "about?x=1#y"
    for absolute in ("data:,x", "about:blank", SITE + "console"):
        driver.get(absolute)
        assert driver.current_url == absolute
"""


@chrome
@pytest.mark.parametrize("isolation", ["fresh", "context"])
def test_relative_addresses_are_below_the_base_url(
    inner_pytest: InnerPytest, site: Site, isolation: str
) -> None:
    """The control has no base URL, and gets Selenium's own error."""
    factory = (
        '    (other := keeper_factory()).get("/about")\n    assert other.current_url == SITE + "about"\n'
    )
    inner_pytest.visit(site).write(test_a=VISIT + factory * (isolation == "fresh"))
    words = (f"--keeper-isolation={isolation}", "--keeper-capture=never", "--keeper-screenshot=off")
    inner_pytest.run(f"--keeper-base-url={site.url}", *words).assert_outcomes(passed=1)
    done = inner_pytest.run(*words)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*InvalidArgumentException*"])


@chrome
def test_the_fixture_of_pytest_base_url_is_used(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).write(test_a=VISIT)
    inner_pytest.run(f"--base-url={site.url}", plugins=("base-url",)).assert_outcomes(passed=1)
    inner_pytest.write(
        conftest="""
        import os, pytest
        @pytest.fixture(scope="session")
        def base_url():
            return os.environ["SITE"]
        """
    )
    inner_pytest.run(plugins=("base-url",)).assert_outcomes(passed=1)
    # Without the plugin a fixture of that name is the suite's own affair.
    inner_pytest.run("--keeper-screenshot=off").assert_outcomes(failed=1)
    done = inner_pytest.run("--keeper-base-url=http://other", plugins=("base-url",))
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*--keeper-base-url is 'http://other', and the fixture base_url is '*"])


@chrome
def test_the_live_server_of_django_is_a_base_url(inner_pytest: InnerPytest) -> None:
    from tests.pytest_plugin.test_other_plugins import DJANGO

    inner_pytest.ini(DJANGO_SETTINGS_MODULE="settings", pythonpath=".").write(
        settings=DJANGO["settings"],
        urls=DJANGO["urls"],
        conftest="""
        import pytest
        @pytest.fixture
        def keeper_base_url(live_server):
            return live_server.url
        """,
        test_a="""
        def test_a(driver):
            driver.get("/count")
            assert driver.title == "0"
        """,
    )
    inner_pytest.run("-Wdefault", plugins=("django",)).assert_outcomes(passed=1)


def test_two_base_urls_are_a_usage_error_that_names_both(inner_pytest: InnerPytest) -> None:
    """The control gives the same one twice."""
    inner_pytest.ini(base_url="http://b").write(test_a="def test_a(): pass")
    for words, other in (("--base-url=http://c",), "http://c"), ((), "http://b"):
        done = inner_pytest.run("--keeper-base-url=http://a", *words, plugins=("base-url",))
        assert done.ret == USAGE_ERROR
        done.stderr.fnmatch_lines(
            [f"ERROR: --keeper-base-url is 'http://a', and that of pytest-base-url is '{other}' (*"]
        )
    inner_pytest.run("--keeper-base-url=http://b", plugins=("base-url",)).assert_outcomes(passed=1)


@pytest.mark.parametrize("url", ["localhost:8000", "/app", "ftp://x", "http://"])
def test_what_is_no_base_url_is_a_usage_error(inner_pytest: InnerPytest, url: str) -> None:
    inner_pytest.ini(keeper_base_url=url).write(test_a="def test_a(): pass")
    done = inner_pytest.run()
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: keeper_base_url in *: '{url}' is no base URL.*"])


def test_a_fixture_that_returns_no_url_is_one_line(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        conftest="""
        import pytest
        @pytest.fixture
        def keeper_base_url():
            return 7
        """,
        test_a="def test_a(driver): pass",
    )
    done = inner_pytest.run("-rE")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*the fixture keeper_base_url must return a URL as str, not 7.*"])
