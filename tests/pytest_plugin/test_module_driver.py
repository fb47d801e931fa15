"""``keeper_module_driver``: one browser and one driver object for a module, clean in each test."""

from __future__ import annotations

import pytest

from fixtures.server import Site
from tests.support.inner_pytest import InnerPytest, files_in

chrome = pytest.mark.chrome

CLEAN = """
import os, pytest
from browserkeeper import session_of

SITE, SEEN = os.environ["SITE"], []
TRACES = "return [document.cookie, localStorage.length, sessionStorage.length, history.length]"

def soil(driver):
    "Leave traces of every kind."
    driver.get(SITE + "cookies")
    driver.add_cookie({"name": "left", "value": "over"})
    driver.execute_script("localStorage.a = sessionStorage.a = 1; document.title = 'soiled'")
    driver.implicitly_wait(7)
    driver.set_permissions("geolocation", "denied")
    driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    driver.set_network_conditions(offline=True, latency=0, throughput=1)
    driver.switch_to.new_window("tab")
    driver.execute_script("alert('left open')")

def check_clean(driver):
    assert len(driver.window_handles) == 1
    assert driver.timeouts.implicit_wait == 0
    driver.get(SITE + "?" + str(len(SEEN)))
    assert driver.execute_script(TRACES) == ["", 0, 0, 2]  # the blank page and this one
    assert driver.get_cookies() == []
    asked = "return Intl.DateTimeFormat().resolvedOptions().timeZone"
    assert driver.execute_script(asked) != "Asia/Tokyo"
    state = "return navigator.permissions.query({name: 'geolocation'}).then(p => p.state)"
    assert driver.execute_script(state) != "denied"
"""


@chrome
def test_one_browser_and_one_driver_object_is_clean_in_each_test(
    inner_pytest: InnerPytest, site: Site
) -> None:
    inner_pytest.visit(site).write(
        test_a=CLEAN
        + """
@pytest.fixture(scope="module")
def page(keeper_module_driver):
    "What a fixture of a wider scope does in the browser is gone in the first test, too."
    soil(keeper_module_driver)
    return keeper_module_driver

@pytest.fixture
def last_look(keeper_module_driver):
    yield
    assert keeper_module_driver.title == "soiled"

@pytest.mark.parametrize("number", [1, 2])
def test_soils(page, keeper_module_driver, number):
    assert page is keeper_module_driver
    check_clean(page)
    soil(page)
    SEEN.append((id(page), page.session_id, session_of(page).pid))

def test_teardowns_find_the_browser_as_the_test_left_it(last_look, keeper_module_driver):
    keeper_module_driver.get(SITE)
    keeper_module_driver.execute_script("document.title = 'soiled'")

def test_by_getfixturevalue(request):
    driver = request.getfixturevalue("keeper_module_driver")
    check_clean(driver)
    soil(driver)

def test_an_element_of_an_earlier_test_is_stale(page):
    from selenium.common.exceptions import StaleElementReferenceException, NoSuchElementException
    from selenium.webdriver.common.by import By
    page.get(SITE)
    SEEN.append(page.find_element(By.TAG_NAME, "body"))

def test_that_element(page):
    from selenium.common.exceptions import StaleElementReferenceException, NoSuchElementException
    page.get(SITE)
    with pytest.raises((StaleElementReferenceException, NoSuchElementException)):
        SEEN.pop().click()

def test_it_was_one_browser_all_the_time():
    assert len(SEEN) == 2 and len(set(SEEN)) == 1
""",
        test_b="""
import test_a
from browserkeeper import session_of

def test_another_module_has_a_browser_of_its_own(keeper_module_driver):
    assert session_of(keeper_module_driver).pid != test_a.SEEN[0][2]
""",
    )
    inner_pytest.run("-v").assert_outcomes(passed=8)


@chrome
def test_control_a_plain_driver_of_a_module_is_not_clean(inner_pytest: InnerPytest, site: Site) -> None:
    """The detector of the test above finds what a module-wide plain driver keeps."""
    inner_pytest.visit(site).write(
        test_a=CLEAN
        + """
import browserkeeper

@pytest.fixture(scope="module")
def driver():
    with browserkeeper.browser() as driver:
        yield driver

def test_first(driver):
    check_clean(driver)
    driver.get(SITE + "cookies")
    driver.add_cookie({"name": "left", "value": "over"})

def test_second(driver):
    check_clean(driver)
"""
    )
    done = inner_pytest.run("-rf")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["FAILED *::test_second - *AssertionError*"])


@chrome
def test_a_browser_that_died_or_cannot_be_cleaned_is_replaced_and_this_is_said(
    inner_pytest: InnerPytest, site: Site
) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os, signal, pytest
        from browserkeeper import BrowserDied, LeaseEnded, session_of
        SITE, SEEN = os.environ["SITE"], []

        @pytest.fixture(autouse=True)
        def another_browser_each_time(keeper_module_driver):
            SEEN.append((id(keeper_module_driver), session_of(keeper_module_driver).pid))
            yield
            assert len({driver for driver, _ in SEEN}) == 1
            assert len({browser for _, browser in SEEN}) == len(SEEN)

        def test_dies(keeper_module_driver):
            os.kill(session_of(keeper_module_driver).pid, signal.SIGKILL)
            with pytest.raises(BrowserDied):
                keeper_module_driver.get(SITE)

        def test_quits(keeper_module_driver):
            keeper_module_driver.get(SITE)
            keeper_module_driver.quit()

        def test_reaches_beyond(keeper_module_driver):
            keeper_module_driver.execute_cdp_cmd("Browser.getVersion", {})

        @pytest.mark.keeper_timeout(2)
        def test_lasts_too_long(keeper_module_driver):
            keeper_module_driver.get(SITE + "never")

        def test_fails(keeper_module_driver):
            keeper_module_driver.get(SITE)
            raise ValueError("to be captured")
        """
    )
    done = inner_pytest.run("-rfA")
    done.assert_outcomes(passed=3, failed=2)
    done.stdout.fnmatch_lines(["FAILED *test_lasts_too_long - *LeaseTimeout*"])
    said = "keeper_module_driver: test_a.py has another browser now. The one before has ended: "
    assert done.stdout.str().count(said) == 4
    assert files_in(inner_pytest.folder("test_fails")) >= {"screenshot.png", "page.html", "url.txt"}


@chrome
def test_markers_hold_for_a_test_where_a_lease_can_have_them(
    inner_pytest: InnerPytest, site: Site
) -> None:
    inner_pytest.visit(site).write(
        test_a="""
        import os, pytest, unittest
        from browserkeeper import session_of

        pytestmark = pytest.mark.keeper_options(window_size=(640, 480), timezone="Asia/Tokyo")
        ZONE = "return Intl.DateTimeFormat().resolvedOptions().timeZone"

        def test_options_of_the_module(keeper_module_driver):
            assert keeper_module_driver.get_window_size()["width"] == 640
            assert keeper_module_driver.execute_script(ZONE) == "Asia/Tokyo"

        @pytest.mark.keeper_options(locale="de-DE", timeout=500)
        def test_identity_of_the_test(keeper_module_driver):
            assert keeper_module_driver.execute_script("return navigator.language") == "de-DE"

        def test_no_identity(keeper_module_driver):
            assert keeper_module_driver.execute_script("return navigator.language") != "de-DE"
            assert keeper_module_driver.execute_script(ZONE) == "Asia/Tokyo"

        @pytest.mark.keeper_browser("chrome", "chromium")
        def test_browsers(keeper_module_driver, keeper_browser_name):
            assert session_of(keeper_module_driver).name == keeper_browser_name

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def take(self, keeper_module_driver):
                self.driver = keeper_module_driver

            def test_unittest(self):
                self.driver.get(os.environ["SITE"])
        """
    )
    inner_pytest.run("-v").assert_outcomes(passed=6)


def test_markers_that_cannot_hold_are_usage_errors(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a="""
        import pytest

        @pytest.mark.keeper_options(window_size=(640, 480))
        def test_a(keeper_module_driver): pass

        @pytest.mark.keeper_options(arguments=["--kiosk"])
        class TestB:
            def test_b(self, keeper_module_driver): pass
        """
    )
    done = inner_pytest.run()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    problem = "@pytest.mark.keeper_options(%s=…) cannot hold for one %s: the browser of *"
    done.stderr.fnmatch_lines(
        [
            f"ERROR: test_a.py::test_a: {problem % ('window_size', 'test')}",
            f"*test_a.py::TestB::test_b: {problem % ('arguments', 'class')}",
        ]
    )
