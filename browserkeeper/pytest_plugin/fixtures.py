"""The fixtures.  Light to import: what they need is imported when the first test asks for one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .markers import options_of, skips_of
from .output_folder import remove_stale
from .records import RECORD, TestRecord
from .run_marker import RUN
from .settings import SETTINGS, Settings

if TYPE_CHECKING:
    from selenium import webdriver

    from ..pool import BrowserPool
    from .warm_pools import WarmBrowsers

Factory = Callable[..., "webdriver.Remote"]


@pytest.fixture(scope="session")
def keeper_browser_name(pytestconfig: pytest.Config) -> str:
    """The browser's name, as for ``browserkeeper.browser()``.

    Parametrized by ``--keeper-browser`` and by the marker ``keeper_browser``.  Override it in a
    conftest to name the browser there.
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
    if settings.display is not None:
        args["display"] = settings.display
    if settings.timeout is not None:
        args["timeout"] = settings.timeout
    if settings.remote is not None:
        args["remote"] = settings.remote
    if settings.server is not None:
        args["server"] = settings.server
    return args


@pytest.fixture(scope="session")
def keeper_options() -> Any:
    """Selenium's options (ChromeOptions, FirefoxOptions …), or None.  Override it in a conftest."""
    return None


@pytest.fixture(scope="session")
def keeper_base_url(request: pytest.FixtureRequest) -> str:
    """What relative addresses of ``driver.get`` are relative to; "" without one.

    Override it in a conftest, in any scope::

        @pytest.fixture
        def keeper_base_url(live_server):
            return live_server.url
    """
    from .base_url import of_run

    return of_run(request, request.config.stash[SETTINGS].base_url)


@pytest.fixture(scope="session")
def _keeper_warm_browsers() -> Iterator[WarmBrowsers]:
    from .warm_pools import WarmBrowsers

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
    from .browser_spec import make_spec
    from .warm_pools import open_pool

    settings = pytestconfig.stash[SETTINGS]
    spec = make_spec(keeper_browser_name, keeper_browser_args, keeper_options, settings)
    with open_pool(spec, settings) as pool:
        yield pool


@pytest.fixture
def keeper_factory(
    request: pytest.FixtureRequest,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
    keeper_base_url: str | None,
) -> Factory:
    """Makes browsers: ``keeper_factory()``, ``keeper_factory("firefox", timeout=30)``.

    Takes the arguments of ``browserkeeper.browser()`` and returns a driver.  Each browser is a
    new one, also with ``--keeper-isolation=context``, and is closed and verified after the test.
    """
    from . import browsers
    from .base_url import checked
    from .browser_spec import make_spec

    record = record_of(request.node)
    record.base_url = checked(keeper_base_url, "keeper_base_url")

    def make(name: str | None = None, /, **given: Any) -> webdriver.Remote:
        own = name is None or name == keeper_browser_name
        spec = make_spec(
            name or keeper_browser_name,
            keeper_browser_args,
            keeper_options if own else None,  # another browser needs another class of options
            record.settings,
            **{**options_of(request.node), **given},
        )
        opened = browsers.open_new(record, spec)
        request.addfinalizer(functools.partial(browsers.end, record, opened))
        driver: webdriver.Remote = opened.driver
        return driver

    return make


@pytest.fixture
def keeper_driver(
    request: pytest.FixtureRequest,
    keeper_browser_name: str,
    keeper_browser_args: dict[str, Any],
    keeper_options: Any,
    keeper_base_url: str | None,
) -> Iterator[webdriver.Remote]:
    """A Selenium driver for this test alone: a new browser, or a new context of a warm one
    (``--keeper-isolation``)."""
    from . import browsers
    from .base_url import checked
    from .browser_spec import make_spec

    record = record_of(request.node)
    record.base_url = checked(keeper_base_url, "keeper_base_url")
    item: pytest.Item = request.node
    name = _browser_for(item, keeper_browser_name)
    request_django_fixtures_first(request)
    marked = options_of(item)
    spec = None
    if _can_use_warm_browser(record.settings, keeper_browser_args, marked):
        spec = make_spec(name, keeper_browser_args, keeper_options, record.settings)
    if spec is not None and not browsers.is_of_a_server(spec):  # whose browsers are warm
        warm: WarmBrowsers = request.getfixturevalue("_keeper_warm_browsers")
        pool = warm.pool_for(spec, record.settings)
        own = marked.get("timeout"), marked.get("label")
        with browsers.leased_browser(record, pool, *own) as opened:
            yield opened.driver
    else:
        spec = make_spec(name, keeper_browser_args, keeper_options, record.settings, **marked)
        with browsers.new_browser(record, spec) as opened:
            yield opened.driver


def _can_use_warm_browser(settings: Settings, args: Any, marked: dict[str, Any]) -> bool:
    """False without ``--keeper-isolation=context``, for a test with options of its own (a timeout and a
    label are the lease's), and with a profile."""
    if settings.isolation != "context" or set(marked) - {"timeout", "label"}:
        return False
    return not (isinstance(args, dict) and args.get("profile"))


def _browser_for(item: pytest.Item, name: str) -> str:
    """The browser's name; skips the test if it is not for that browser.

    It is the fixture's value, except for tests that pytest cannot parametrize (those of unittest, and
    those that use ``getfixturevalue``): their marker decides.
    """
    mark = item.get_closest_marker("keeper_browser")
    if mark is not None and name not in mark.args:
        name = mark.args[0]
    if name in (skips := skips_of(item)):
        pytest.skip(skips[name])
    return name


def request_django_fixtures_first(request: pytest.FixtureRequest) -> None:
    """pytest tears down last what was requested first.  So the browser ends before pytest-django
    flushes its database or stops its server, and loads no page meanwhile."""
    for name in ("db", "transactional_db", "live_server"):
        if name in request.fixturenames:
            request.getfixturevalue(name)


_STALE_FOLDERS_REMOVED = pytest.StashKey[bool]()


def record_of(item: pytest.Item) -> TestRecord:
    """The record of a test that gets a browser.  Removes the folders of earlier runs, once."""
    record = item.stash[RECORD]
    stash = item.config.stash
    if _STALE_FOLDERS_REMOVED not in stash:
        stash[_STALE_FOLDERS_REMOVED] = True
        remove_stale(record.settings.output, stash[RUN])
    return record
