"""The trace of a test (``--keeper-trace``), of real browsers, and its page in a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import browser
from fixtures.server import Site
from tests.support.inner_pytest import InnerPytest, files_in

chrome = pytest.mark.chrome
firefox = pytest.mark.firefox

SUITE = """
import os, signal, time, pytest
from browserkeeper import session_of
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.ui import WebDriverWait
SITE = os.environ["SITE"]

FORM = '''data:text/html,<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>
<input id=who><input id=pass type=password><button id=go>Go</button>'''

def test_passes(driver):
    driver.get(SITE)

def test_fails(driver, keeper_factory):
    driver.get(SITE + "console?token=S3cretToken&page=2")
    driver.get(FORM)
    driver.find_element(By.ID, "pass").send_keys("hunter2-password")
    driver.find_element(By.ID, "go").click()
    driver.execute_script("console.error('a <b>bold</b> line'); return 'script-literal'")
    driver.get(SITE)
    driver.add_cookie({"name": "session-cookie", "value": "cookie-value"})
    driver.execute_async_script("const done = arguments[0]; fetch('/missing-page').then(done)")
    driver.find_element(By.ID, "no-such-element")

def test_dialog(driver):
    driver.get(SITE)
    driver.execute_script("setTimeout(() => alert('still here'), 0)")
    WebDriverWait(driver, 60).until(alert_is_present())
    assert driver.switch_to.alert.text == "still here"
    driver.switch_to.alert.accept()
    assert driver.title
    assert 0

def test_dies(driver):
    driver.get(SITE)
    os.kill(session_of(driver).pid, signal.SIGKILL)
    driver.title
"""


class Images(HTMLParser):
    """The addresses of all that a page loads."""

    def __init__(self, page: Path):
        super().__init__()
        self.loads: list[str] = []
        self.text = page.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attributes if name == "src"]
        if tag in ("script", "link", "iframe", "object"):
            self.loads.append(tag)


def test_a_trace_without_jinja2_is_a_usage_error(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        conftest="""
        """,
        no_jinja2="""
        import sys
        sys.modules["jinja2"] = None
        """,
        test_a="def test_a(): pass",
    )
    done = inner_pytest.ini(pythonpath=".").run("-p", "no_jinja2", "--keeper-trace=on")
    assert done.ret == 4
    done.stderr.fnmatch_lines(["ERROR: --keeper-trace needs Jinja2 *browserkeeper[[]html[]]*"])


@chrome
@firefox
@pytest.mark.parametrize(
    ("name", "isolation"), [("chrome", "fresh"), ("chrome", "context"), ("firefox", "context")]
)
def test_a_failed_test_has_a_trace(
    inner_pytest: InnerPytest, site: Site, name: str, isolation: str
) -> None:
    inner_pytest.visit(site).write(test_a=SUITE)
    words = (f"--keeper-browser={name}", f"--keeper-isolation={isolation}", "-rA")
    done = inner_pytest.run("--keeper-trace=retain-on-failure", *words)
    done.assert_outcomes(passed=1, failed=3)
    done.stdout.fnmatch_lines(["FAILED *::test_fails - *NoSuchElementException*"])
    assert len(inner_pytest.folders) == 3
    assert "trace.html" in files_in(inner_pytest.folder("test_fails"))
    page = inner_pytest.folder("test_fails") / "trace.html"
    found = Images(page)
    for shown in ("page=2", "sendKeysToElement", "css selector", "session-cookie", "NoSuchElement"):
        assert shown in found.text, shown
    assert "a &lt;b&gt;bold&lt;/b&gt; line" in found.text
    assert re.search(r"missing-page</td><td>404", found.text)
    for hidden in ("S3cretToken", "hunter2", "script-literal", "cookie-value"):
        shown_by_pytest = found.text.partition('class="failure"')[2].partition("</details>")[0]
        assert hidden not in found.text.replace(shown_by_pytest, ""), hidden
    assert len(found.loads) > 5
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.loads)
    dialog = (inner_pytest.folder("test_dialog") / "trace.html").read_text()
    assert "w3cAcceptAlert" in dialog
    dead = (inner_pytest.folder("test_dies") / "trace.html").read_text()
    assert "browser-died" in dead
    assert f">{site.url}<" in dead
    if isolation == "fresh":
        look_at(page)


def look_at(page: Path) -> None:
    """The page in a browser, from ``file://``: no error in its console; the keyboard opens a part."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with browser("chrome") as driver:
        driver.get(page.as_uri())
        assert "test_fails" in driver.title
        widths = "return [...document.images].map(image => image.naturalWidth)"
        assert all(width > 100 for width in driver.execute_script(widths))
        first = driver.find_element(By.CSS_SELECTOR, "li summary")
        before = first.find_element(By.XPATH, "..").get_attribute("open")
        first.send_keys(Keys.ENTER)
        assert first.find_element(By.XPATH, "..").get_attribute("open") != before
        untyped: Any = driver
        assert untyped.get_log("browser") == []


@chrome
def test_each_browser_has_a_trace_and_a_passed_test_with_on(
    inner_pytest: InnerPytest, site: Site
) -> None:
    """Of two browsers, of a failed teardown, and of a browser without BiDi, whose page says so."""
    inner_pytest.visit(site).write(
        test_a="""
        import os, pytest
        from selenium import webdriver
        SITE = os.environ["SITE"]

        def test_two(keeper_factory):
            keeper_factory().get(SITE)
            options = webdriver.ChromeOptions()
            options.set_capability("webSocketUrl", False)
            keeper_factory(options=options, arguments=["--lang=de"]).get(SITE + "about")

        @pytest.fixture
        def page(driver):
            driver.get(SITE)
            yield driver
            driver.get(SITE + "about")
            raise RuntimeError("in teardown")

        def test_teardown(page):
            pass
        """
    )
    done = inner_pytest.run("--keeper-trace=on", "--keeper-capture=never", "--keeper-screenshot=off")
    done.assert_outcomes(passed=2, errors=1)
    two, teardown = inner_pytest.folder("test_two"), inner_pytest.folder("test_teardown")
    assert files_in(two) == {"trace.html", "trace-2.html"}
    assert "runs without BiDi" not in (two / "trace.html").read_text()
    second = Images(two / "trace-2.html")
    assert "runs without BiDi" in second.text
    assert f"{site.url}about" in second.text
    assert second.loads == []
    page = (teardown / "trace.html").read_text()
    assert "Failure in teardown" in page
    assert f"{site.url}about" in page
    assert "closed, clean" in page
