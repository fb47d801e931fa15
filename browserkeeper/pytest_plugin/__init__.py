"""The pytest plugin: fixtures that give browsers to tests, a capture of failed tests' browsers, and a
check that fails tests which leave browsers running.

In this package: everything that imports pytest.  It uses the layers below; no other package imports it.

    settings.py           command line options and ini keys, checked
    base_url.py           the base URL of relative addresses
    markers.py            the markers, checked
    fixtures.py           the fixtures
    module_fixtures.py    keeper_module_driver, and when its browser is cleaned
    module_tests.py       the running test of a module's driver, and the markers that it may have
    module_driver.py      the browser of a module's tests, and its one driver object
    driver_fixture.py     the fixture `driver`, which other plugins have too
    records.py            the record of the running test
    browser_spec.py       the browser that fixtures and markers ask for
    browsers.py           a test's browsers: opened or leased, and ended
    warm_pools.py         the plugin's pools: warm browsers, keeper_pool
    background_pools.py   the pools whose browsers belong to no single test
    capture.py            what is saved of a failed test's browser
    trace/                the trace of a test: its commands, screenshots, console, requests
    output_folder.py      the folder that it is saved in
    reports.py            what is captured when, and what a test's pytest reports carry
    tracebacks.py         keeps our frames out of pytest's tracebacks
    summary.py            the section at the end of the terminal's output
    leak_hooks.py         when to look for leaks, and what becomes of the test
    leak_warnings.py      the warnings
    leaks.py              finds the browsers that a test has left running; which are the test's own
    holders.py            which Python object holds a process
    orphans.py            drivers and browsers whose parents have died
    leak_ending.py        ends the test's own
    browser_processes.py  how the processes of browsers, drivers and guards are related
    usage.py              whether a run uses the plugin
    run_marker.py         the run's name, in the environment of its processes
    xdist_controller.py   pytest-xdist's controller: the browsers of crashed workers

Every run of pytest imports this module on a machine that has browserkeeper installed.  So it imports
pytest and the standard library only; the rest waits for the first test that needs it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from . import driver_fixture, fixtures, markers, module_fixtures, records, run_marker, settings, usage
from .leak_warnings import LeakedBrowserWarning, SharedBrowserWarning
from .summary import Summary

__all__ = ["LeakedBrowserWarning", "SharedBrowserWarning"]

_OTHER_DRIVER = pytest.StashKey[str]()
"""The plugin whose fixture ``driver`` this run uses, "" for ours."""
_LOOKS_FOR_LEAKS = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    markers.register(config)
    chosen = config.stash[settings.SETTINGS] = settings.read(config)
    run_marker.choose(config)
    _register(config, fixtures, "fixtures")
    module_fixtures.register(config)
    _register(config, Summary(chosen), "summary")
    config.stash[_OTHER_DRIVER] = driver_fixture.other_owner(config)
    if not config.stash[_OTHER_DRIVER]:
        _register(config, driver_fixture, "driver")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Only here is it known whether this is xdist's controller, and its workers are not started yet."""
    if _is_controller(session.config):
        from .xdist_controller import ControllerHooks

        _register(session.config, ControllerHooks(session.config.stash[settings.SETTINGS]), "workers")


def _register(config: pytest.Config, plugin: object, name: str) -> None:
    config.pluginmanager.register(plugin, f"browserkeeper-{name}")


def pytest_unconfigure(config: pytest.Config) -> None:
    run_marker.unmark(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The settings, unless all are defaults; and another plugin that has the name ``driver``."""
    chosen, lines = config.stash[settings.SETTINGS], []
    if chosen != settings.Settings(output=chosen.output):
        leaks = "error" if chosen.leaks == "auto" else chosen.leaks  # auto: something of ours was given
        facts = [", ".join(chosen.browsers), f"isolation {chosen.isolation}", f"leaks {leaks}"]
        facts += ["headed"] * chosen.headed
        facts += [f"timeout {chosen.timeout:g} s"] if chosen.timeout else []
        facts += [f"on {_without_password(chosen.remote)}"] if chosen.remote else []
        facts += [f"from {_without_token(chosen.server)}"] if chosen.server else []
        lines.append(f"browserkeeper: {', '.join(facts)}")
    if other := config.stash[_OTHER_DRIVER]:
        lines.append(f"browserkeeper: the fixture `driver` is left to {other}; ours is `keeper_driver`")
    return lines


def _without_token(address: str) -> str:
    from ..wire.address import ServerAddress

    return str(ServerAddress.parse(address))


def _without_password(url: str) -> str:
    from ..grid.address import Address

    return str(Address.parse(url))


# ---------------------------------------------------------------------------------- collection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    problems = markers.problems(metafunc.definition.iter_markers())
    if not problems:
        markers.parametrize(metafunc, metafunc.config.stash[settings.SETTINGS].browsers)
    elif hasattr(metafunc.config, "workerinput"):
        # A worker cannot end the run with a usage error: xdist would report a crash.
        pytest.fail("\n".join(problems), pytrace=False)


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if hasattr(session.config, "workerinput"):
        return
    wrong = {
        f"{item.nodeid.partition('[')[0]}: {problem}": None
        for item in items
        for problem in markers.problems(item.iter_markers())
    }
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


# ------------------------------------------------------------------------------------- running


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Turn the leak check on, in the process that runs the tests."""
    config, leaks = session.config, session.config.stash[settings.SETTINGS].leaks
    if leaks == "off" or config.option.collectonly or _is_controller(config):
        return
    if leaks != "auto":
        _look_for_leaks(config)
    elif why := usage.of_run(config.stash[settings.SETTINGS].given, session.items):
        _look_for_leaks(config, why)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Turn the leak check on when a test gets a fixture of ours by ``getfixturevalue``."""
    config = request.config
    is_waiting = config.stash[settings.SETTINGS].leaks == "auto" and _LOOKS_FOR_LEAKS not in config.stash
    if is_waiting and usage.is_ours(fixturedef):
        _look_for_leaks(config, f"the fixture {fixturedef.argname}")


def _look_for_leaks(config: pytest.Config, why: str = "") -> None:
    from .leak_hooks import LeakHooks

    config.stash[_LOOKS_FOR_LEAKS] = True
    _register(config, LeakHooks(config, run_marker.mark(config), why), "leaks")


def _is_controller(config: pytest.Config) -> bool:
    return config.pluginmanager.hasplugin("dsession")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    records.start(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None:
        from .tracebacks import hide_own_frames

        hide_own_frames()
    report = yield
    record = item.stash.get(records.RECORD, None)
    if record is not None:
        from . import reports

        reports.complete(record, item, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        from .output_folder import remove_if_empty

        remove_if_empty(session.config.stash[settings.SETTINGS].output)
