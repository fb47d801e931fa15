"""What belongs to its process cannot be sent to another one: ``pickle``, ``copy.deepcopy`` and
``multiprocessing`` say so in browserkeeper's own words.  Plain values can be sent."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from selenium.webdriver.common.options import ArgOptions
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

import browserkeeper
from browserkeeper import BrowserkeeperError, LaunchError, LeakError, SessionClosed, browser
from browserkeeper.config import SessionConfig
from browserkeeper.errors import LeaseTimeout, PoolUnavailable, ResolveError, VersionMismatch
from browserkeeper.session import control_of
from browserkeeper.session.adopted import AdoptedSession
from tests.browser.test_limits_named import new_pool
from tests.browser.test_outside import fake_driver, new_session  # noqa: F401

OURS = (
    r"^A {} cannot be pickled or copied: it belongs to the process that has made it\. "
    r"Open one in the child itself: send it the arguments of browser\(\) or BrowserPool\(\)\.$"
)
WAYS: dict[str, Callable[[object], object]] = {
    "pickle": pickle.dumps,
    "pickle, protocol 0": lambda one: pickle.dumps(one, 0),
    "deepcopy": copy.deepcopy,
    "in a list": lambda one: pickle.dumps([{"driver": one}]),
    "spawn, forkserver": lambda one: ForkingPickler.dumps((work, (one,))),
}


def work(given: object) -> None:
    """What a child would run."""


def refuses(one: object, kind: str = "", *, shallow: bool = True) -> None:
    for way in (*WAYS.values(), *([copy.copy] if shallow else [])):
        with pytest.raises(TypeError, match=OURS.format(kind or type(one).__name__)):
            way(one)


def test_a_session_its_driver_and_its_elements_cannot_be_sent_to_another_process(
    fake_driver: str,  # noqa: F811
) -> None:
    session = new_session(fake_driver)
    refuses(session)
    with session as driver:
        element = WebElement(driver, "e1")
        refuses(session)
        refuses(control_of(session))
        refuses(driver, shallow=False)
        refuses(element, type(driver).__name__, shallow=False)
        refuses(driver.switch_to, type(driver).__name__, shallow=False)
        assert driver.title == "done"  # nothing of this has harmed it
    refuses(session)
    refuses(driver, shallow=False)


def test_a_shallow_copy_of_a_driver_drives_the_same_session_as_a_plain_ones_does(
    fake_driver: str,  # noqa: F811
) -> None:
    with new_session(fake_driver) as driver:
        again = copy.copy(driver)
        assert type(again) is type(driver)
        assert again is not driver
        assert (again.session_id, again.title) == (driver.session_id, "done")
        assert copy.copy(WebElement(driver, "e1")).parent is driver
    with pytest.raises(SessionClosed):
        _ = again.title


def test_a_copy_of_a_driver_keeps_the_session_as_long_as_it_lives(fake_driver: str) -> None:  # noqa: F811
    driver = new_session(fake_driver).start()
    again = copy.copy(driver)
    del driver
    assert again.title == "done"
    with pytest.warns(ResourceWarning, match="never closed"):
        del again


def test_control_a_plain_driver_can_be_copied_but_not_pickled() -> None:
    plain = WebDriver.__new__(WebDriver)
    vars(plain).update(session_id="of the session", lock=__import__("threading").Lock())
    assert copy.copy(plain).session_id == "of the session"
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^cannot pickle '_thread.lock' object$"):
            way(plain)
        with pytest.raises(TypeError, match=r"^cannot pickle '_thread.lock' object$"):
            way(WebElement(plain, "e1"))


def test_a_pool_and_its_leases_cannot_be_sent_to_another_process(fake_driver: str) -> None:  # noqa: F811
    pool = new_pool(fake_driver)
    refuses(pool)
    with pool:
        with pool.lease() as lease:
            refuses(pool)
            refuses(lease)
            refuses(lease.session)
            refuses(lease.driver, shallow=False)
            assert lease.driver.title == "done"
        outcomes = pool.map(lambda driver, item: driver.title, [1])
        refuses(outcomes)
        assert [outcome.value for outcome in outcomes] == ["done"]
    refuses(pool)


def test_an_adopted_session_cannot_be_sent_to_another_process() -> None:
    refuses(AdoptedSession.__new__(AdoptedSession))


def test_control_what_was_made_without_a_process_can_be_sent(fake_driver: str) -> None:  # noqa: F811
    """The report, the configuration, what ``pool.map`` has returned, and the facts of processes."""
    with (session := new_session(fake_driver)), new_pool(fake_driver) as pool:
        facts = session.processes()
        (outcome,) = pool.map(lambda driver, item: driver.title, ["item"])
        leases = pool.leases()
        stats = pool.stats()
    for one in (session.report, session.config, pool.config, facts, outcome, leases, stats):
        assert pickle.loads(pickle.dumps(one)) == one
        assert copy.deepcopy(one) == one
    config: SessionConfig = copy.deepcopy(session.config)
    with browser(**{name: getattr(config, name) for name in ("driver_path", "binary")}) as driver:
        assert driver.title == "done"


def test_options_that_a_session_was_given_can_still_be_copied() -> None:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.add_argument("--lang=de")
    session = browser(options=options)
    for one in (copy.deepcopy(options), copy.deepcopy(session.config).options):
        assert isinstance(one, ArgOptions)
        assert one.arguments == ["--lang=de"]


ERRORS = [
    *(kind for name in browserkeeper.errors.__all__ if (kind := getattr(browserkeeper.errors, name))),
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_can_be_sent_to_another_process(
    kind: type[BrowserkeeperError],
    fake_driver: str,  # noqa: F811
) -> None:
    more: dict[type, tuple[Any, ...]] = {VersionMismatch: ("100", "99")}
    error = kind("text", *more.get(kind, ()))
    error.__dict__["noted"] = "of the caller's"
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.__dict__) == (str(error), error.__dict__)


def test_errors_of_a_session_keep_their_report(fake_driver: str) -> None:  # noqa: F811
    session = new_session(fake_driver)
    with session as driver:
        session.close()
        with pytest.raises(SessionClosed) as caught:
            _ = driver.title
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.report == session.report
    for error in (
        LaunchError("text", log_tail="tail", report=session.report),
        LeakError("text", session.report),
        LeaseTimeout("text", session.report),
        PoolUnavailable("text", LaunchError("cause", report=session.report)),
        ResolveError("text", (("place", "reason"),)),
    ):
        same = pickle.loads(pickle.dumps(error))
        assert str(same) == str(error)
        assert {k: repr(v) for k, v in vars(same).items()} == {
            k: repr(v) for k, v in vars(error).items()
        }
