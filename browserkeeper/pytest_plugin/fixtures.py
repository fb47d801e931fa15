"""The fixtures.  Light to import: what they need is imported when the first test asks for one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .markers import options_of, skips_of
from .output import remove_stale
from .records import RECORD, RUN, TestRecord
from .settings import SETTINGS, Settings

if TYPE_CHECKING:
    from selenium import webdriver

    from ..pool import BrowserPool
    from .opening import WarmBrowsers

Factory = Callable[..., "webdriver.Remote"]


@pytest.fixture(scope="session")
def keeper_browser_name(pytestconfig: pytest.Config) -> str:
    """The browser's name, as for ``browserkeeper.browser()``.

    Parametrized by ``--keeper-browser`` and by the marker ``keeper_browser``; override it in a
    conftest to say it there.
    """
    return pytestconfig.stash[SETTINGS].browsers[0]


@pytest.fixture(scope="session")
def keeper_browser_args(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Arguments for ``browserkeeper.browser()``, by name.  Override it in a conftest::

    @pytest.fixture(scope="session")
    def keeper_browser_args(keeper_browser_args):
        return {**keeper_browser_args, "window_size": (1280, 800)}
    """
    settings = pytestconfig.stash[SETTINGS]
    args: dict[str, Any] = {"headless": not settings.headed}
    if settings.timeout is not None:
        args["timeout"] = settings.timeout
    if settings.remote is not None:
        args["remote"] = settings.remote
    return args


@pytest.fixture(scope="session")
def keeper_options() -> Any:
    """Selenium's options (ChromeOptions, FirefoxOptions …), or None.  Override it in a conftest."""
    return None


@pytest.fixture(scope="session")
def _keeper_warm_browsers() -> Iterator[WarmBrowsers]:
    from .opening import WarmBrowsers

    warm = WarmBrowsers()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def keeper_pool(
    pytestconfig: pytest.Config,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
) -> Iterator[BrowserPool[Any]]:
    """A ``BrowserPool`` that is open for the whole run: ``with keeper_pool.lease() as lease:``."""
    from .opening import open_pool, wish

    settings = pytestconfig.stash[SETTINGS]
    made = wish(keeper_browser_name, keeper_browser_args, keeper_options, settings)
    with open_pool(made, settings) as pool:
        yield pool


@pytest.fixture
def keeper_factory(
    request: pytest.FixtureRequest,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
) -> Factory:
    """Makes browsers: ``keeper_factory()``, ``keeper_factory("firefox", timeout=30)``.

    Takes the arguments of ``browserkeeper.browser()`` and returns a driver.  Each browser is a
    new one, whatever ``--keeper-isolation`` says, and is closed and verified after the test.
    """
    from . import opening

    record = _record(request)

    def make(name: str | None = None, /, **given: Any) -> webdriver.Remote:
        own = name is None or name == keeper_browser_name
        made = opening.wish(
            name or keeper_browser_name,
            keeper_browser_args,
            keeper_options if own else None,  # Chrome's options are of no use to Firefox
            record.settings,
            **{**options_of(request.node), **given},
        )
        opened = opening.open_fresh(record, made)
        request.addfinalizer(functools.partial(opening.end, record, opened))
        driver: webdriver.Remote = opened.driver
        return driver

    return make


@pytest.fixture
def keeper_driver(
    request: pytest.FixtureRequest,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
) -> Iterator[webdriver.Remote]:
    """A Selenium driver for this test alone: a new browser, or a new context of a warm one
    (``--keeper-isolation``)."""
    from . import opening

    record = _record(request)
    item: pytest.Item = request.node
    name = _browser_for(item, keeper_browser_name)
    _end_before_the_database(request)
    marked = options_of(item)
    if _is_shareable(record.settings, keeper_browser_args, marked):
        warm: WarmBrowsers = request.getfixturevalue("_keeper_warm_browsers")
        made = opening.wish(name, keeper_browser_args, keeper_options, record.settings)
        pool = warm.pool_for(made, record.settings)
        with opening.leased(record, pool, marked.get("timeout")) as opened:
            yield opened.driver
    else:
        made = opening.wish(name, keeper_browser_args, keeper_options, record.settings, **marked)
        with opening.fresh(record, made) as opened:
            yield opened.driver


def _is_shareable(settings: Settings, args: Any, marked: dict[str, Any]) -> bool:
    """Can the worker's warm browser do?  Not for a test with options of its own, nor where a
    profile is to be used."""
    if settings.isolation != "context" or set(marked) - {"timeout"}:
        return False
    return not (isinstance(args, dict) and args.get("profile"))


def _browser_for(item: pytest.Item, name: str) -> str:
    """The fixture's word; the marker's for tests that pytest cannot parametrize (unittest's, and
    those that ask for the driver by ``getfixturevalue``)."""
    mark = item.get_closest_marker("keeper_browser")
    if mark is not None and name not in mark.args:
        name = mark.args[0]
    if name in (skips := skips_of(item)):
        pytest.skip(skips[name])
    return name


def _end_before_the_database(request: pytest.FixtureRequest) -> None:
    """What is asked for first is torn down last: pytest-django must not flush its database, nor
    stop its server, under a browser that still loads a page."""
    for name in ("db", "transactional_db", "live_server"):
        if name in request.fixturenames:
            request.getfixturevalue(name)


_TIDIED = pytest.StashKey[bool]()


def _record(request: pytest.FixtureRequest) -> TestRecord:
    record: TestRecord = request.node.stash[RECORD]
    stash = request.config.stash
    if _TIDIED not in stash:
        stash[_TIDIED] = True
        remove_stale(record.settings.output, stash[RUN])
    return record
