"""What pytest prints of a failing test: the user's lines and Selenium's, none of ours, one exception."""

from __future__ import annotations

import functools
import json
import re

import pytest

from browserkeeper import errors
from fixtures.server import Site
from tests.support.guards import BOTH
from tests.support.inner_pytest import InnerPytest

SUITE = """
from browserkeeper import browser, session_of
from selenium.webdriver.support.ui import WebDriverWait

def look_for_status(driver):
    driver.find_element("id", "connection-status")

def test_plain():
    driver = plain()
    try:
        look_for_status(driver)
    finally:
        driver.quit()

def test_fixture(keeper_driver):
    look_for_status(keeper_driver)

def test_leased(keeper_pool):
    with keeper_pool.lease() as lease:
        look_for_status(lease.driver)

def test_script(keeper_driver):
    keeper_driver.execute_script("throw 'disconnected'")

def test_json(keeper_driver):
    keeper_driver.execute_script("return 1", object())

def test_timeout(keeper_driver):
    session_of(keeper_driver).set_deadline(1)
    keeper_driver.get(SITE + "never")

def test_command_timeout(keeper_factory):
    keeper_factory(command_timeout=1).get(SITE + "never")

def test_died(keeper_factory):
    driver = keeper_factory()
    os.kill(driver.service.process.pid, signal.SIGTERM)
    while True:
        driver.title

def test_closed(keeper_driver):
    keeper_driver.quit()
    keeper_driver.title

def test_wrong_argument():
    browser(timeout=-1)

def test_no_binary():
    browser(binary="/nope").start()

def test_no_start():
    browser(arguments=["--user-data-dir=/proc/none"], attempts=1).start()
"""
SENTENCES = {
    "test_timeout": "and was ended",
    "test_command_timeout": "no answer within command_timeout=1 s during 'get'",
    "test_died": "its guard was",
    "test_closed": "was closed",
    "test_wrong_argument": "timeout=-1",
    "test_no_binary": "/nope does not exist",
}
"""What the first line of an exception's text has, by test."""


def sections(output: str) -> dict[str, list[str]]:
    """The lines of each failure that pytest prints, by the test's name."""
    parts = re.split(
        r"^_{3,} (test_\w+) _{3,}$", output.partition("short test summary")[0], flags=re.MULTILINE
    )
    return {name: text.splitlines() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.chrome
@pytest.mark.leaves_zombies(60, "one of the browsers has no guard")
def test_a_failure_shows_no_line_of_ours_and_one_exception(
    inner_pytest: InnerPytest, site: Site
) -> None:
    """As long as that of a plain driver; the good sentence is the first line of the exception."""
    suite = inner_pytest.visit(site).suite(SUITE)
    done = suite.run("--keeper-capture=never")
    found = sections(done.stdout.str())
    assert set(SENTENCES) < set(found), done.stdout.str()
    for name, lines in found.items():
        frames = [line for line in lines if re.search(r"browserkeeper/\w+/?\w+\.py", line)]
        assert not frames, (name, frames)
        assert not [line for line in lines if "exception" in line and "direct cause" in line], name
        assert not [line for line in lines if "urllib3/" in line], name
    assert length(found["test_fixture"]) == length(found["test_plain"])
    assert length(found["test_leased"]) == length(found["test_plain"])
    for name, sentence in SENTENCES.items():
        first = next(line for line in found[name] if line.startswith("E  "))
        assert sentence in first, (name, first)
        assert length(found[name]) < 60, name


def length(lines: list[str]) -> int:
    """Without ChromeDriver's stack, log lines, and the names of the fixtures."""
    until = next((n for n, line in enumerate(lines) if line.startswith("-----")), len(lines))
    stack = [line for line in lines[:until] if re.match(r"E\s+#\d+ 0x", line)]
    begin = next((n for n, line in enumerate(lines) if line.startswith(">")), 0)
    return until - begin - len(stack)


@pytest.mark.chrome
def test_full_trace_shows_our_lines(inner_pytest: InnerPytest) -> None:
    suite = inner_pytest.suite("def test_a(keeper_driver): keeper_driver.find_element('id', 'x')")
    output = suite.run("--full-trace", "--keeper-capture=never").stdout.str()
    assert "browserkeeper/session/commands.py" in output
    assert "browserkeeper/drivers/managed.py" in output


@pytest.mark.parametrize("name", BOTH)
def test_lines_of_ours_are_hidden_without_the_plugin(name: str, inner_pytest: InnerPytest) -> None:
    """In a session, with dialogs as without BiDi, and in a lease with a context of its own."""
    suite = inner_pytest.suite(
        f"""
        from browserkeeper import BrowserPool, browser
        def test_a():
            with browser("{name}", geolocation=(52, 13)) as driver:
                driver.find_element("id", "x")
        def test_b():
            with BrowserPool("{name}", max_size=1) as pool, pool.driver() as driver:
                driver.find_element("id", "x")
        def test_c():
            with BrowserPool("{name}", max_size=1) as pool, pool.driver() as driver:
                driver.get_cookie(1)
        """
    )
    output = suite.run("-pno:browserkeeper").stdout.str()
    assert "3 failed" in output
    assert "no such element" in output
    for layer in ("session", "drivers", "pool"):
        assert f"browserkeeper/{layer}" not in output


def test_our_own_mistakes_are_not_hidden() -> None:
    """The control is an error of the package's classes, raised by the same function."""

    def hides(error: BaseException, function: object = None) -> bool:
        namespace = {"__builtins__": __builtins__, "error": error}
        code = compile("def fail():\n    raise error\n", errors.__file__, "exec")
        exec(code, namespace)
        with pytest.raises(type(error)) as caught:
            namespace["fail"]()  # type: ignore[operator]
        return errors.hide_frames(caught)

    assert not hides(AttributeError("of None"))
    assert hides(errors.SessionClosed("of a user"))
    code = compile("def call(function):\n    function()\n", errors.__file__, "exec")
    exec(code, namespace := {"__builtins__": __builtins__})
    with pytest.raises(ValueError, match="Expecting") as caught:
        namespace["call"](lambda: json.loads("{"))  # type: ignore[operator]
    assert errors.hide_frames(caught), "a user's function that the package has called"
    with pytest.raises(ValueError, match="Expecting") as caught:
        namespace["call"](functools.partial(json.loads, "{"))  # type: ignore[operator]
    assert not errors.hide_frames(caught), "the standard library, which the package has called"
    with pytest.raises(ValueError, match="users") as caught:
        raise ValueError("of users")
    assert errors.hide_frames(caught)
    assert errors.hide_frames(None)


@pytest.mark.parametrize("version", [(3, 10), (3, 11)])
def test_a_detail_is_below_the_sentence(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.errors.sys.version_info", version)
    error = errors.BrowserDied("the sentence")
    if version < (3, 11) or hasattr(error, "add_note"):
        errors.add_detail(error, "the detail")
    shown = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert shown == "the sentence\nthe detail"
