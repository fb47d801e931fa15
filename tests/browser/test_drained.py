"""A drain in the middle of the work: a session finishes, a start waits, and the host is resumed."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from browserkeeper import HostBusy, browser, drain, resume
from browserkeeper.admission.gate import Gate
from browserkeeper.state.ledger import Ledger
from tests.browser.test_outside import fake_driver, new_session
from tests.grid.mock_hub import MockHub
from tests.support.clock import patience
from tests.support.waiting import wait_until

__all__ = ["fake_driver"]  # a fixture


@pytest.mark.chrome
def test_a_drain_in_the_middle_lets_the_running_session_finish_and_the_next_one_wait() -> None:
    may_end = threading.Event()

    def work(label: str, wait: float) -> str:
        with browser(label=label, wait=wait, start_timeout=patience()) as driver:
            assert may_end.wait(patience())
            driver.get("data:text/html,<title>done</title>")
            return driver.title

    gate = Gate(Ledger.open())
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(work, "running", 0)
        assert wait_until(lambda: list(Ledger.open().records()), patience())
        (left,) = drain("deploy of 12.3")
        assert (left.label, left.owner) == ("running", os.getpid())
        waiting = threads.submit(work, "waiting", patience())
        assert wait_until(lambda: [one.label for one in gate.state().waiting] == ["waiting"])
        with pytest.raises(HostBusy, match="deploy of 12") as caught:
            browser(wait=0).start()
        assert caught.value.reason == "draining"
        may_end.set()
        assert running.result() == "done"
        assert drain(wait=patience()) == []
        assert gate.state().waiting, "it waits, and did not start when the other one ended"
        resume()
        assert waiting.result() == "done"
    assert not gate.state().held


def test_a_session_of_a_grid_is_held_back_and_waited_for_as_well() -> None:
    with MockHub() as hub:
        session = browser(remote=hub.url)
        session.start()
        (left,) = drain()
        assert left.session == session.id
        with pytest.raises(HostBusy, match="is drained by"):
            browser(remote=hub.url, wait=0).start()
        session.close()
        assert drain() == []


def test_a_drain_during_a_start_waits_for_that_start(
    fake_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "silent-session")
    session = new_session(fake_driver, attempts=1)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(session.start)
        assert wait_until(lambda: Gate(Ledger.open()).state().held)
        assert len(drain()) == 1
        session.close()
        assert starting.exception() is not None
    assert drain() == []
