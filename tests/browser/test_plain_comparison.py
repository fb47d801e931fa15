"""A managed driver against a plain one of Selenium: the same calls, the same outcome.

What must differ is named in :data:`MUST_DIFFER`, and in one table of docs/plain-selenium.md.
"""

from __future__ import annotations

import gc
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.remote.shadowroot import ShadowRoot
from selenium.webdriver.remote.webelement import WebElement

from browserkeeper import browser
from fixtures.server import Site
from tests.browser.plain_cases import BOTH, CHROMIUM, ENDS, FIREFOX, Bench, Case

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINES = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]
NAMES = "`repr(driver)`, `type(driver)`"
CASTING = "casting (`get_sinks()`, `start_tab_mirroring()` …)"
LAST_WINDOW = "a command after the last window was closed"
ADDRESS = '`capabilities["goog:chromeOptions"]`'
MUST_DIFFER = {
    "representation": NAMES,
    "unknown_attribute": NAMES,
    "error_handler": "`driver.error_handler`, `driver.command_executor`",
    "executor": "`driver.error_handler`, `driver.command_executor`",
    "service_url": "`driver.service.service_url`",
    "service_process": "`driver.service.process`",
    "service_environment": "`driver.service.env`",
    "debugger_address": ADDRESS,
    "chrome_options": ADDRESS,
    "devtools": "`bidi_connection()`, `start_devtools()`",
    "sink_none": CASTING,
    "mirror_none": CASTING,
    "stop_none": CASTING,
    "after_last_window": LAST_WINDOW,
    "handles_after_last_window": LAST_WINDOW,
    "after_quit": "a command after `quit()`",
}
"""The cases that must differ, with the row of the docs' table that says how."""
ONLY_CHROMIUM = {"devtools"}
"""Of these, the cases that must be equal with Firefox."""
TESTED_ELSEWHERE = {
    "a command after the browser's death": "test_a_killed_driver_or_browser_is_browser_died",
    "a command after the driver's death": "test_a_killed_driver_or_browser_is_browser_died",
    "no answer": "test_a_timeout_is_none_of_seleniums_errors",
    "`quit()`": "test_the_callers_own_errors_leave_the_session_at_rest",
    "`driver.service.start()`": "test_the_service_starts_and_stops_nothing_but_the_session",
    "`driver.service.stop()`, `send_remote_shutdown_command()`": (
        "test_the_service_starts_and_stops_nothing_but_the_session"
    ),
    "`pickle.dumps(driver)`, `copy.deepcopy(driver)`": (
        "test_a_session_its_driver_and_its_elements_cannot_be_sent_to_another_process"
    ),
    "where a command runs": "test_context_variables_and_the_threads_name_are_the_callers",
}
"""Rows that need more than one call, with their tests."""


def plain_options(name: str) -> Any:
    options: Any
    if name == "firefox":
        options = webdriver.FirefoxOptions()
        options.add_argument("-headless")
    else:
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
    options.enable_bidi = True
    # With BiDi, ChromeDriver would close a dialog as soon as it opens.
    options.unhandled_prompt_behavior = "ignore"
    return options


def start_plain(name: str) -> Any:
    if name == "firefox":
        return webdriver.Firefox(
            options=plain_options(name), service=webdriver.FirefoxService(shutil.which("geckodriver"))
        )
    return webdriver.Chrome(
        options=plain_options(name), service=webdriver.ChromeService(shutil.which("chromedriver"))
    )


@contextmanager
def benches(name: str, site: Site, tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """A plain driver and a managed one."""
    plain = start_plain(name)
    try:
        with browser(name, options=plain_options(name)) as managed:
            pair = Bench(plain, site, tmp_path), Bench(managed, site, tmp_path)
            yield pair
            pair[0].driver._websocket_connection = None
    finally:
        plain.quit()
        with warnings.catch_warnings():  # of a websocket that the plain driver has left open
            warnings.simplefilter("ignore", ResourceWarning)
            del plain
            gc.collect()


def outcome(bench: Bench, function: Case) -> Any:
    """What a case returned, raised and warned of, in a form that can be compared."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result: Any = shape(function(bench))
        except Exception as error:
            text = str(getattr(error, "msg", None) or error)
            result = (f"raised {type(error).__name__}", shape(text.partition("\n")[0]))
    return result, sorted(w.category.__name__ for w in warned if w.category is not ResourceWarning)


def shape(value: Any) -> Any:
    """The value without what no two sessions have in common: ids, ports, times."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items() if key != "expiry"}
    if isinstance(value, (list, tuple)):
        return [shape(one) for one in value]
    if isinstance(value, str):
        value = re.sub(r"\b[0-9A-Fa-f]{32}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", value)
        value = re.sub(r"from renderer: -?\d.*", "from renderer", value)
        return re.sub(r"0x[0-9a-f]+|(?<=localhost:)\d+|f\.\w+\.[\w.]+", "N", value)
    if value is None or isinstance(value, (bool, int, float, bytes)):
        return value
    kinds = {WebElement: "an element", ShadowRoot: "a shadow root"}
    return next((text for kind, text in kinds.items() if isinstance(value, kind)), type(value).__name__)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.leaves_zombies(60, "the plain driver has no guard")
def test_each_call_has_the_same_outcome_as_with_a_plain_driver(
    name: str, site: Site, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state_dir / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(state_dir / "t"))  # for what the plain browser leaves
    cases = {**BOTH, **(FIREFOX if name == "firefox" else CHROMIUM)}
    differences = {}
    with benches(name, site, tmp_path) as (plain, managed):
        for each, function in {**cases, **ENDS}.items():
            outcomes = []
            for bench in (plain, managed):
                if each in cases:
                    bench.begin()
                outcomes.append(outcome(bench, function))
            if outcomes[0] != outcomes[1]:
                differences[each] = outcomes
    report = "\n".join(
        f"{each}\n  plain   {one[0]}\n  managed {one[1]}" for each, one in differences.items()
    )
    may = set(MUST_DIFFER) & {*cases, *ENDS}
    expected = may - ONLY_CHROMIUM if name == "firefox" else may
    assert set(differences) == expected, report


def test_what_must_differ_is_in_one_table_of_the_docs() -> None:
    page = (ROOT / "docs" / "plain-selenium.md").read_text()
    table = page.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0]
    rows = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()]
    assert len(rows) == len(set(rows))
    assert set(rows) == {*MUST_DIFFER.values(), *TESTED_ELSEWHERE}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for test in TESTED_ELSEWHERE.values():
        assert f"def {test}(" in tests, test
