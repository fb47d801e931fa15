"""The hooks of a pool: when each is called, and that whatever goes wrong in one costs a browser only."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browserkeeper import (
    ConfigError,
    HookError,
    LaunchError,
    LeaseEnded,
    PoolClosed,
    PoolUnavailable,
    SessionClosed,
    expect_download,
    session_of,
)
from browserkeeper.pool.circuit_breaker import OPENS_AFTER
from browserkeeper.pool.hooks import HOOKS
from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.support.fake_browser import FakePool
from tests.support.guards import BOTH
from tests.support.waiting import SECONDS, wait_until


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.pool.circuit_breaker.FIRST_PAUSE", 0.01)


class Calls:
    """Hooks that keep their calls: the hook's name and the browser's id, and the threads' names."""

    def __init__(self, **actions: Callable[[Any], object]) -> None:
        self.made: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        self._actions = actions

    def hooks(self) -> dict[str, Any]:
        return {name: functools.partial(self._call, name) for name in HOOKS}

    def _call(self, name: str, driver: Any) -> object:
        self.made.append((name, driver.command_handler.session.id))
        self.threads.add(threading.current_thread().name)
        return self._actions.get(name, lambda driver: None)(driver)

    def names(self) -> list[str]:
        return [name for name, _ in self.made]


def hooks(**given: Callable[[Any], object]) -> dict[str, Any]:
    return given


def once(action: Callable[[Any], object]) -> Callable[[Any], object]:
    """The action at the first call, nothing at the later ones."""
    calls: list[Any] = []

    def hook(driver: Any) -> object:
        calls.append(driver)
        return action(driver) if len(calls) == 1 else None

    return hook


def fail(driver: Any) -> None:
    raise ValueError("not today")


def leave(driver: Any) -> None:
    raise SystemExit(3)


# ------------------------------------------------------------------ when they are called


def test_configure_is_called_once_for_a_browser_and_check_and_reset_with_each_lease() -> None:
    calls = Calls()
    with FakePool(max_size=1, **calls.hooks()) as pool:
        for _ in range(3):
            with pool.lease(timeout=60) as lease:
                assert calls.names()[-1] == "check"
        assert wait_until(lambda: calls.names().count("reset") == 3)
        assert calls.names() == ["configure", *["check", "reset"] * 3]
        assert {browser for _, browser in calls.made} == {lease.browser_id}
        assert calls.threads == {f"browserkeeper-{name}" for name in HOOKS}


def test_reset_is_called_after_the_last_lease_of_a_browser_too() -> None:
    """A new browser for each lease, as with ``fresh``: what it would save must not be missed."""
    calls = Calls()
    with FakePool(max_size=1, max_uses=1, **calls.hooks()) as pool:
        for _ in range(2):
            with pool.lease(timeout=60):
                pass
        assert wait_until(lambda: pool.stats().get("retired_max_uses") == 2)
        one, two = dict.fromkeys(browser for name, browser in calls.made if name == "check")
        for browser in (one, two):
            assert [n for n, b in calls.made if b == browser] == ["configure", "check", "reset"]
        assert pool.browsers[0].renewals == 0


@pytest.mark.parametrize("end", ["retired", "quit", "in flight"])
def test_reset_is_not_called_where_the_browser_is_not_to_be_used_again(end: str) -> None:
    calls, stop = Calls(), threading.Event()
    with FakePool(max_size=1, **calls.hooks()) as pool:

        def is_noticed() -> bool:
            """The end after a ``quit`` may be seen before the release."""
            stats = pool.stats()
            return stats["returns_bad"] == 1 or (end == "quit" and stats["browsers_lost"] == 1)

        with pool.lease(timeout=60) as lease:
            if end == "retired":
                lease.retire("banned")
            elif end == "quit":
                lease.driver.quit()
            else:
                started = threading.Event()
                driver = lease.driver

                def command() -> None:
                    started.set()
                    stop.wait(60)

                thread = threading.Thread(target=lambda: driver.execute(command))
                thread.start()
                started.wait(60)
        assert wait_until(is_noticed)
        stop.set()
        with pool.lease(timeout=60) as other:
            assert other.browser_id != lease.browser_id
    assert ("reset", lease.browser_id) not in calls.made


def test_an_idle_browser_that_is_only_asked_for_a_sign_of_life_is_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("browserkeeper.pool.scheduler.PING_EVERY", 0.02)
    pings: list[Any] = []
    with FakePool({"ping": pings.append}, min_idle=1, check=fail) as pool:
        assert wait_until(lambda: len(pings) > 3)
        assert pool.stats()["check_errors"] == 0


def test_the_driver_of_a_hook_is_refused_after_the_hook() -> None:
    kept: list[Any] = []
    with FakePool(max_size=1, configure=kept.append, check=kept.append, reset=kept.append) as pool:
        for _ in range(2):
            with pool.lease(timeout=60):
                pass
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)  # the last hook has returned
        assert len(kept) == 5
        for driver in kept:
            with pytest.raises(LeaseEnded, match="is over, and its driver"):
                driver.execute(lambda: 1)
            driver.quit()  # ends no browser any more
        assert len(pool.browsers) == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_expects_a_download_is_told_that_leases_have_them(hook: str) -> None:
    told: list[BaseException] = []

    def expect(driver: Any) -> None:
        try:
            expect_download(driver)
        except ConfigError as error:
            told.append(error)

    with FakePool(max_size=1, **hooks(**{hook: expect})) as pool:
        with pool.lease(timeout=60):
            pass
        assert wait_until(lambda: told)
    assert f"in the hook {hook}: downloads belong to a lease" in str(told[0])


# ------------------------------------------------------------------ what goes wrong


class WithoutTextError(Exception):
    def __str__(self) -> str:
        raise KeyError("text")


def fail_without_text(driver: Any) -> None:
    raise WithoutTextError


WRONG: dict[str, Callable[[Any], object]] = {
    "an exception": fail,
    "an exception without a text": fail_without_text,
    "SystemExit": leave,
    "quit": lambda driver: driver.quit(),
    "a coroutine": lambda driver: contextlib.aclosing(None).__aexit__(),  # type: ignore[type-var]
    "a generator": lambda driver: (number for number in range(3)),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("what", WRONG)
def test_a_hook_that_fails_costs_its_browser_and_not_the_pool(
    what: str, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakePool(max_size=1, **hooks(**{hook: once(WRONG[what])})) as pool:
        for _ in range(3):
            with pool.lease(timeout=60):
                pass
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
        stats = pool.stats()
        assert {name: stats[f"{name}_errors"] for name in HOOKS} == {
            name: int(name == hook) for name in HOOKS
        }
        assert len(pool.browsers) == 2
        assert not pool.browsers[0].alive
        assert stats["leaks"] == 0
    assert f"The hook {hook}=" in caplog.text


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_hangs_is_given_up_after_hook_timeout(hook: str) -> None:
    stop = threading.Event()
    with FakePool(
        max_size=1, hook_timeout=3.0, **hooks(**{hook: once(lambda driver: stop.wait(120))})
    ) as pool:
        for _ in range(2):
            with pool.lease(timeout=60):
                pass
        assert wait_until(lambda: pool.stats()[f"{hook}_errors"] >= 1)  # more on a busy machine
        assert wait_until(lambda: not pool.browsers[0].alive)
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
    stop.set()


@pytest.mark.parametrize("hook", HOOKS)
def test_the_pool_closes_while_a_hook_hangs(hook: str) -> None:
    """Without the time of ``hook_timeout``, and not as an error of the hook."""
    stop, has_begun = threading.Event(), threading.Event()

    def hang(driver: Any) -> None:
        has_begun.set()
        stop.wait(120)

    pool = FakePool(max_size=1, min_idle=1, hook_timeout=3600, **hooks(**{hook: hang})).open()

    def lease() -> None:
        with contextlib.suppress(PoolClosed), pool.lease(timeout=60):
            pass

    thread = threading.Thread(target=lease)
    thread.start()
    assert has_begun.wait(60)
    assert all(report.clean for report in pool.close())
    assert not pool.browsers[0].alive
    stop.set()
    thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_hook_that_leaves_a_command_in_flight_costs_the_browser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakePool(max_size=1, check=lambda driver: None) as pool:
        pool.wait(60)
        monkeypatch.setattr(type(pool.browsers[0]), "at_rest", False)
        with pytest.raises(PoolUnavailable, match="in flight"):
            pool.lease(timeout=60)


def test_a_configure_that_always_fails_makes_the_pool_unavailable_and_names_the_error() -> None:
    with FakePool(max_size=1, configure=fail, checkout_timeout=60) as pool:
        with pytest.raises(
            PoolUnavailable, match="configure=fail failed with ValueError: not today"
        ) as e:
            pool.lease()
        assert isinstance(e.value.cause, LaunchError)
        assert isinstance(e.value.cause.__cause__, HookError)
        assert e.value.cause.__cause__.hook == "configure"
        assert isinstance(e.value.cause.__cause__.__cause__, ValueError)
        assert pool.stats()["configure_errors"] >= OPENS_AFTER
        assert not any(browser.alive for browser in pool.browsers[:OPENS_AFTER])


@pytest.mark.parametrize("check", [fail, leave, lambda driver: False], ids=["raises", "exits", "False"])
def test_a_check_that_always_fails_makes_the_pool_unavailable_and_does_not_go_on_for_ever(
    check: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePool(max_size=1, check=check, checkout_timeout=60) as pool:
        with pytest.raises(PoolUnavailable, match="No browser passes its check") as caught:
            pool.lease()
        assert isinstance(caught.value.cause, HookError)
        assert caught.value.cause.hook == "check"
        assert pool.stats()["check_errors"] == OPENS_AFTER
        assert len(pool.browsers) <= OPENS_AFTER + 1


def test_a_pool_whose_check_passes_again_serves_again() -> None:
    fails = [True]
    with FakePool(max_size=1, check=lambda driver: not fails[0], checkout_timeout=60) as pool:
        with pytest.raises(PoolUnavailable):
            pool.lease()
        fails[0] = False
        assert wait_until(lambda: pool.stats()["pool_available"])
        for _ in range(3):
            with pool.lease(timeout=60):
                pass


@pytest.mark.parametrize("result", [None, True, 0, "", object()], ids=repr)
def test_results_other_than_false_do_not_fail_a_check(result: object) -> None:
    with FakePool(max_size=1, check=lambda driver: result) as pool, pool.lease(timeout=60):
        assert pool.stats()["check_errors"] == 0


async def coroutine(driver: Any) -> None: ...


def generator(driver: Any) -> Iterator[None]:
    yield


class Awaited:
    async def __call__(self, driver: Any) -> None: ...


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "wrong", [1, "f", (), coroutine, generator, Awaited(), functools.partial(coroutine)]
)
def test_what_is_no_ordinary_function_is_refused(hook: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{hook}="):
        FakePool(**{hook: wrong})


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), "3", None])
def test_a_hook_timeout_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="hook_timeout"):
        FakePool(hook_timeout=wrong)


def test_the_log_has_the_traceback_of_what_a_hook_raised(caplog: pytest.LogCaptureFixture) -> None:
    with FakePool(max_size=1, reset=once(fail)) as pool:
        with pool.lease(timeout=60):
            pass
        assert wait_until(lambda: pool.stats()["reset_errors"])
    records = [one for one in caplog.records if one.exc_info and one.levelno == logging.WARNING]
    assert [type(one.exc_info[1]) for one in records if one.exc_info] == [ValueError]
    assert re.search(r"the hook reset=.* failed", records[0].getMessage())


# ------------------------------------------------------------------ real browsers


COOKIE = {"name": "left", "value": "by a hook"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("chrome", marks=pytest.mark.chrome),
        pytest.param("firefox", marks=pytest.mark.firefox),
    ],
)
def test_hooks_with_contexts_of_a_real_browser(name: str, site: Site) -> None:
    """What configure sets for the session holds for all leases; of its context nothing is left."""
    seen: list[Any] = []

    def configure(driver: Any) -> None:
        driver.set_page_load_timeout(77)
        driver.set_script_timeout(7)
        driver.get(site.url)
        driver.add_cookie(COOKIE)
        if name == "chrome":
            driver.execute_cdp_cmd("Browser.getVersion", {})  # reaches beyond the context

    def reset(driver: Any) -> None:
        seen.append((driver.current_url, [one["name"] for one in driver.get_cookies()]))
        assert session_of(driver).id

    given: dict[str, Any] = {"configure": configure, "check": lambda d: d.title, "reset": reset}
    with patient_pool(name, max_size=1, isolation="context", **given) as pool:
        ids = set()
        for number in range(2):
            with pool.lease() as lease:
                ids.add(lease.browser_id)
                assert lease.driver.timeouts.page_load == 77
                assert lease.driver.timeouts.script == 7
                lease.driver.set_page_load_timeout(55)
                lease.driver.get(site.url)
                assert lease.driver.get_cookies() == []
                lease.driver.add_cookie({"name": f"lease-{number}", "value": "1"})
        assert wait_until(lambda: len(seen) == 2)
        assert len(ids) == 1
        assert pool.stats()["browsers_num"] == 1
    assert seen == [(site.url, ["lease-0"]), (site.url, ["lease-1"])]


@pytest.mark.chrome
@pytest.mark.parametrize("name", BOTH)
def test_requests_of_a_lease_do_not_wait_for_handlers_of_a_hook(name: str, site: Site) -> None:
    """The hook's connection is closed, and what its intercepts hold would never be answered."""
    called: list[Any] = []

    def watch(driver: Any) -> None:
        driver.network.add_request_handler("before_request", lambda request: request.continue_request())
        called.append(driver)

    with patient_pool(name, max_size=1, isolation="context", configure=watch, check=watch) as pool:
        for _ in range(2):
            with pool.lease() as lease:
                lease.driver.set_page_load_timeout(20)
                lease.driver.get(site.url)
                assert lease.driver.current_url == site.url
        assert len(called) == 3
        assert pool.stats()["browsers_num"] == 1


def test_hooks_that_hang_in_a_command_or_quit_cost_real_browsers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.pool.hook_call.GRACE", SECONDS)  # the quit also ends the browser
    raised: list[BaseException] = []

    def hang(driver: Any) -> None:
        try:
            driver.get(site.url_for("/never"))
        except BaseException as error:
            raised.append(error)
            raise

    given: dict[str, Any] = {"check": once(hang), "reset": once(lambda driver: driver.quit())}
    with patient_pool(max_size=1, min_idle=0, hook_timeout=5, **given) as pool:
        for _ in range(2):
            with pool.lease() as lease:
                assert lease.driver.title == ""
        assert pool.stats()["check_errors"] >= 1  # more on a busy machine
        assert wait_until(lambda: pool.stats()["reset_errors"] >= 1)
        assert wait_until(lambda: raised)
        assert isinstance(raised[0], SessionClosed)
    assert all(report.clean for report in pool.close())


@pytest.mark.firefox
def test_hooks_with_a_new_firefox_for_each_lease(site: Site) -> None:
    saved: list[Any] = []

    def configure(driver: Any) -> None:
        driver.get(site.url)
        driver.add_cookie(COOKIE)

    with patient_pool(
        "firefox",
        max_size=1,
        min_idle=0,
        isolation="fresh",
        configure=configure,
        reset=lambda driver: saved.append(driver.get_cookies()),
    ) as pool:
        with pool.lease() as lease:  # such a browser is one lease's own, and so is what configure did
            assert [one["name"] for one in lease.driver.get_cookies()] == ["left"]
            lease.driver.add_cookie({"name": "mine", "value": "1"})
        assert wait_until(lambda: saved)
    assert {one["name"] for one in saved[0]} == {"left", "mine"}
