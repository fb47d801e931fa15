"""What the owners of sessions get that an operator has ended (``browserkeeper end``)."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import (
    BrowserDied,
    LaunchError,
    SessionClosed,
    adopt,
    browser,
    end_sessions,
)
from browserkeeper.session import control_of
from browserkeeper.state.ledger import Ledger
from tests.browser.test_outside import fake_driver, new_session
from tests.grid.mock_hub import MockHub
from tests.pool.pools import patient_pool
from tests.support.waiting import wait_until

WHY = "deploy of 12.3"

__all__ = ["fake_driver"]  # a fixture


def in_thread(action: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Call it in a thread; the error that it raises is put into the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # for the test
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def end_one(*names: str, **more: Any) -> str:
    """End the one session that is meant, and return its id."""
    (ended,) = end_sessions(*names, reason=WHY, wait=60, **more)
    assert ended.verified
    assert ended.report is not None
    assert ended.report.reason == "operator"
    return ended.session


def names_the_operator(error: BaseException, what: str = "was ended by an operator") -> bool:
    return what in str(error) and WHY in str(error) and "pid" in str(error)


@pytest.mark.chrome
def test_a_command_in_flight_and_later_ones_raise_the_operators_error() -> None:
    with patient_pool(max_browsers=1, isolation="fresh") as pool:
        with pool.lease() as lease:
            driver: Any = lease.driver
            driver.set_script_timeout(600)
            script = "window.began = true; setTimeout(arguments[0], 600000)"
            thread, raised = in_thread(lambda: driver.execute_async_script(script))
            assert wait_until(lambda: not control_of(lease.session).at_rest)
            first = end_one(lease.browser_id)
            thread.join()
            (error,) = raised
            assert isinstance(error, BrowserDied)
            assert names_the_operator(error)
            assert "during 'w3cExecuteScriptAsync'" in str(error)
            assert error.report is not None
            assert error.report.operator is not None
            assert error.report.operator.reason == WHY
            assert pickle.loads(pickle.dumps(error)).report == error.report
            with pytest.raises(BrowserDied, match="was ended by an operator"):
                _ = driver.title
        with pool.lease() as lease:  # the pool has replaced it
            assert lease.browser_id != first
            _ = lease.driver.title
    reasons = {ended.session.id: ended.report.reason for ended in Ledger.open().ended()}
    assert reasons.pop(first) == "operator"
    assert "operator" not in reasons.values()


def test_the_block_of_a_session_without_a_command_raises_it_too(fake_driver: str) -> None:
    session = new_session(fake_driver, label="nightly")
    with pytest.raises(BrowserDied) as caught, session:
        assert end_one("nightly") == session.id
    assert names_the_operator(caught.value)
    assert session.close().reason == "operator"
    with pytest.raises(BrowserDied, match="was ended by an operator"):
        _ = session.driver
    with pytest.raises(SessionClosed):
        session.start()


def test_an_exception_that_leaves_the_block_is_not_replaced(fake_driver: str) -> None:
    with pytest.raises(ZeroDivisionError), new_session(fake_driver, label="nightly"):
        end_one("nightly")
        _ = 1 / 0


def test_a_command_of_a_hanging_page_raises_it(fake_driver: str) -> None:
    """The control: closed by the owner itself, the same command raises SessionClosed."""
    for close in (False, True):
        session = new_session(fake_driver)
        driver = session.start()
        thread, raised = in_thread(lambda driver=driver: driver.get("http://x/"))  # type: ignore[misc]
        control = control_of(session)
        assert wait_until(lambda control=control: not control.at_rest)  # type: ignore[misc]
        if close:
            session.close()
        else:
            end_one(session.id)
        thread.join()
        assert isinstance(raised[0], SessionClosed if close else BrowserDied)
        assert names_the_operator(raised[0]) != close


def test_a_start_that_is_ended_fails_and_is_not_tried_again(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver, label="nightly", attempts=5)
    thread, raised = in_thread(session.start)
    ledger = Ledger.open()
    assert wait_until(lambda: list(ledger.live.glob("*.json")))
    end_one("nightly")
    thread.join()
    (error,) = raised
    assert isinstance(error, LaunchError)
    assert names_the_operator(error, "did not start: an operator has ended its session")
    assert error.retryable, "a pool may start another one"
    assert "trying again" not in caplog.text


@pytest.fixture
def hub() -> Iterator[MockHub]:
    with MockHub() as running:
        yield running


def test_a_session_on_a_grid_is_ended_on_the_grid_too(hub: MockHub) -> None:
    session = browser(remote=hub.url, label="on the grid")
    with pytest.raises(BrowserDied) as caught, session as driver:
        assert driver.title == "a title"
        end_one("on the grid")
        assert not hub.running
        _ = driver.title
    assert names_the_operator(caught.value)
    assert session.report is not None
    assert session.report.remote is not None
    assert session.report.remote.gone


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "the orphans of a killed driver belong to PID 1")
def test_an_adopted_driver_is_ended_and_its_block_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    with pytest.raises(BrowserDied) as caught, adopt(webdriver.Chrome(options)) as adopted:
        end_one(adopted.id)
        assert not adopted.processes()
    assert names_the_operator(caught.value)
