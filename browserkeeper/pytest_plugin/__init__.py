"""The pytest plugin: fixtures that cannot leak, a capture of what failed, and a look for leaks.

    settings.py        options and ini keys
    markers.py         the markers, checked
    fixtures.py        the fixtures; driver_fixture.py the one whose name others use too
    opening.py         how a test gets its browser, and how it ends
    records.py         what is known of the test that runs now
    capture.py         what is saved of a browser when its test fails
    output.py          where that is put
    results.py         what a test's reports carry of it
    leaks.py           browsers that are left running; leak_hooks.py when to look
    pools.py           pools whose browsers no test starts
    summary.py         the end of the terminal's output
    workers.py         pytest-xdist's controller

This module is imported in every run of pytest on a machine that has browserkeeper installed, so
it imports pytest and the standard library only; all else waits for the first test that needs it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from . import driver_fixture, fixtures, markers, records, settings
from .records import MARK
from .summary import Summary

_BEFORE = pytest.StashKey["str | None"]()
_DRIVER_IS = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    markers.register(config)
    chosen = config.stash[settings.SETTINGS] = settings.read(config)
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    run = os.urandom(8).hex()
    config.stash[records.RUN] = workerinput["testrunuid"] if workerinput else run
    if chosen.leaks != "off":
        _mark_run(config, records.worker_run(workerinput) if workerinput else run)
    _register(config, fixtures, "fixtures")
    _register(config, Summary(chosen), "summary")
    config.stash[_DRIVER_IS] = driver_fixture.owner_of_the_name(config)
    if not config.stash[_DRIVER_IS]:
        _register(config, driver_fixture, "driver")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """xdist has made up its mind by now, and is about to start its workers."""
    if _is_controller(session.config):
        from .workers import Workers

        _register(session.config, Workers(session.config.stash[settings.SETTINGS]), "workers")


def _register(config: pytest.Config, plugin: object, name: str) -> None:
    config.pluginmanager.register(plugin, f"browserkeeper-{name}")


def _mark_run(config: pytest.Config, run: str) -> None:
    """Whatever is started from now on carries the run's name in its environment."""
    before = config.stash[_BEFORE] = os.environ.get(MARK)
    os.environ[MARK] = f"{before}/{run}" if before else run


def pytest_unconfigure(config: pytest.Config) -> None:
    if _BEFORE in config.stash:
        before = config.stash[_BEFORE]
        os.environ.pop(MARK, None)
        if before is not None:
            os.environ[MARK] = before


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Only where there is something to say."""
    chosen, lines = config.stash[settings.SETTINGS], []
    if chosen != settings.Settings(output=chosen.output):
        facts = [", ".join(chosen.browsers), f"isolation {chosen.isolation}", f"leaks {chosen.leaks}"]
        facts += ["headed"] * chosen.headed
        facts += [f"timeout {chosen.timeout:g} s"] if chosen.timeout else []
        facts += [f"on {_without_password(chosen.remote)}"] if chosen.remote else []
        lines.append(f"browserkeeper: {', '.join(facts)}")
    if other := config.stash[_DRIVER_IS]:
        lines.append(f"browserkeeper: the fixture `driver` is left to {other}; ours is `keeper_driver`")
    return lines


def _without_password(url: str) -> str:
    from ..grid.address import Address

    return str(Address.parse(url))


# ---------------------------------------------------------------------------------- collection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    problems = markers.problems(metafunc.definition.iter_markers())
    if not problems:
        markers.parametrize(metafunc, metafunc.config.stash[settings.SETTINGS].browsers)
    elif hasattr(metafunc.config, "workerinput"):
        # A worker has no way to end the run with a usage error (xdist would call it a crash).
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
    """Tests are about to run, here and not in a controller's workers."""
    config = session.config
    looks = config.stash[settings.SETTINGS].leaks != "off" and not config.option.collectonly
    if looks and not _is_controller(config):
        from .leak_hooks import LeakHooks

        run = os.environ[MARK].rpartition("/")[2]
        _register(config, LeakHooks(config.stash[settings.SETTINGS], run), "leaks")


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
    report = yield
    record = item.stash.get(records.RECORD, None)
    if record is not None:
        from . import results

        results.complete(record, item, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        from .output import remove_if_empty

        remove_if_empty(session.config.stash[settings.SETTINGS].output)
