"""The fixture ``keeper_module_driver``, and the moments at which its browser is cleaned.

Light to import.  The browser is cleaned before each test, when all fixtures of a wider scope are set up
and before the first one of the test itself: so what those fixtures have done in the browser is gone in
every test, the first one included.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from . import fixtures
from .module_tests import RUNNING, Running, problem_of
from .settings import SETTINGS

if TYPE_CHECKING:
    from selenium import webdriver

NAME = "keeper_module_driver"
OF_ONE_TEST = "_keeper_module_driver_of_test"
"""The fixture that gives a test the clean browser.  It is put into each test that uses ``NAME``."""


def register(config: pytest.Config) -> None:
    config.stash[RUNNING] = Running()
    config.pluginmanager.register(sys.modules[__name__], "browserkeeper-module-driver")


@pytest.fixture(scope="module")
def keeper_module_driver(
    request: pytest.FixtureRequest,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
) -> Iterator[webdriver.Remote]:
    """One Selenium driver for all tests of a module.  The browser is started once and is clean in each
    test: a new user context, as with ``--keeper-isolation=context``."""
    from .module_driver import open_module_driver

    running = request.config.stash[RUNNING]
    settings = request.config.stash[SETTINGS]
    given = keeper_browser_name, keeper_browser_args, keeper_options
    with open_module_driver(request.node, running, settings, *given) as running.driver:
        try:
            yield running.driver.driver
        finally:
            running.driver.end_test()  # in this frame, from which its caller sees what has failed
    running.driver = None


@pytest.fixture
def _keeper_module_driver_of_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """The clean browser of one test.  It ends before the fixtures of pytest-django do."""
    fixtures.request_django_fixtures_first(request)
    request.getfixturevalue(NAME)
    driver = request.config.stash[RUNNING].driver
    if driver is None:  # the suite has a fixture of this name that does not use ours
        yield
        return
    from .base_url import checked

    record = fixtures.record_of(request.node)
    record.base_url = checked(request.getfixturevalue("keeper_base_url"), "keeper_base_url")
    driver.begin_test()
    driver.driver.base_url = record.base_url
    yield
    driver.end_test()


# ------------------------------------------------------------------------------------- hooks


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Give each test that uses the driver its clean browser before the first fixture of its own.

    Raises UsageError for markers that cannot hold.  In a worker of pytest-xdist, which cannot end the
    run, the test fails.
    """
    wrong: dict[str, None] = {}
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if NAME not in names:
            continue
        if OF_ONE_TEST not in names:
            names.insert(_first_of_test(item, names), OF_ONE_TEST)
        if problem := problem_of(item):
            wrong[f"{item.nodeid.partition('[')[0]}: {problem}"] = None
    if wrong and not hasattr(session.config, "workerinput"):
        raise pytest.UsageError("\n".join(wrong))


def _first_of_test(item: pytest.Item, names: list[str]) -> int:
    """Where the fixtures of the scope of a test begin; pytest has sorted the names by scope."""
    known: Any = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for place, name in enumerate(names):
        if name in known and known[name][-1].scope == "function":
            return place
    return len(names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.config.stash[RUNNING].item = item
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Take the browser back from a test that has got it without its fixture, by ``getfixturevalue`` or
    in a fixture of a wider scope that then failed."""
    running, failed = item.config.stash[RUNNING], True
    try:
        result = yield
        failed = False
    finally:
        try:
            if running.driver is not None:
                running.driver.end_test(failed=failed)  # captures for the test that runs
        finally:
            running.item = None
    return result
