"""Pools of Chromium that share the host's slots with other programs; a witness counts from outside.

The rules one by one are in test_scheduler_host.py, the faults in test_host_share.py.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from browserkeeper import BrowserPool, browser
from browserkeeper.admission import drain
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from tests.pool.pools import LIMIT, patient_pool
from tests.pool.slot_browsers import held, waiting
from tests.support import witness
from tests.support.owners import Owner
from tests.support.waiting import wait_until
from tests.system.host_witness import browsers_at_once

pytestmark = pytest.mark.chrome


class Witness:
    """Counts the browsers of this test again and again, without asking browserkeeper."""

    def __init__(self, executable: str) -> None:
        self.most = 0
        self._executable, self._stop = executable, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, self.count())

    def count(self) -> int:
        ours = {seen.pid for seen in witness.below(os.getpid())}
        return len(ours & browsers_at_once(self._executable).keys())

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def executable_of(pool: BrowserPool[Any]) -> str:
    with pool.lease() as lease:
        return os.readlink(f"/proc/{lease.session.pid}/exe")


def test_a_pool_of_four_under_a_limit_of_two_beside_a_program_that_must_get_its_turn(
    limit: Callable[[int], None],
) -> None:
    """Then the limit is raised while all runs, which lets the pool grow: the control."""
    limit(2)
    stop, served = threading.Event(), []
    with (
        patient_pool(max_size=4, label="crawl", min_idle=0, launch_concurrency=4) as pool,
        Witness(executable_of(pool)) as seen,
    ):

        def work() -> None:
            while not stop.is_set():
                with pool.lease() as lease:
                    lease.driver.get("data:text/html,<title>work</title>")
                    served.append(lease.driver.title)

        workers = [threading.Thread(target=work) for _ in range(4)]
        try:
            for worker in workers:
                worker.start()
            assert wait_until(lambda: len(served) >= 4, LIMIT)
            with browser(wait=LIMIT, start_timeout=LIMIT) as driver:
                driver.get("data:text/html,<title>its turn</title>")
                assert driver.title == "its turn"
                before = len(served)
                assert wait_until(lambda: len(served) > before, LIMIT), "the pool works on beside it"
            assert seen.most == 2
            stats = pool.stats()
            assert stats["retired_yielded"] >= 1
            assert stats["browsers_errors"] == 0
            limit(4)
            assert wait_until(lambda: held() == 4, LIMIT)
            assert wait_until(lambda: seen.most == 4, LIMIT)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        began = time.monotonic()
    assert held() == 0
    assert time.monotonic() - began < LIMIT


def title_of(driver: Any, title: str) -> str:
    driver.get(f"data:text/html,<title>{title}</title>")
    found: str = driver.title
    return found


def test_a_standby_yields_and_a_drain_in_the_middle_of_map(limit: Callable[[int], None]) -> None:
    limit(1)
    ledger = Ledger.open()
    with patient_pool(max_size=2, min_idle=1) as pool:
        pool.wait()
        with browser(wait=LIMIT, start_timeout=LIMIT):
            assert pool.stats()["retired_yielded"] == 1
            assert wait_until(lambda: waiting() == (0, 1), LIMIT)
        executable, titles = executable_of(pool), []
        page = "data:text/html,<title>{}</title>"
        for outcome in pool.map(
            lambda driver, item: (driver.get(page.format(item)), driver.title), "abcd"
        ):
            titles.append(outcome.result()[1])
            if len(titles) == 2:
                who = Operator(
                    user="test", program="test", pid=os.getpid(), at=time.time(), reason="deploy"
                )
                drain.start(ledger, who)
                assert wait_until(lambda: held() == 0, LIMIT)
                assert Witness(executable).count() == 0
                drain.end(ledger)
        assert sorted(titles) == list("abcd")
        assert pool.stats()["retired_host_drained"] >= 1
        program = threading.Thread(
            target=lambda: browser(wait=LIMIT, start_timeout=LIMIT).start().quit()
        )
        program.start()
        program.join()
        assert wait_until(lambda: sum(waiting()) + pool.stats()["pool_available"] >= 1, LIMIT)
    assert (held(), waiting()) == (0, (0, 0)), "close() ends launches that wait, too"


POOL = """
import sys, threading
from browserkeeper import BrowserPool
with BrowserPool("chrome", max_size=3, min_idle=0, launch_concurrency=3, checkout_timeout=300,
                 start_timeout=300) as pool:
    leases = [pool.lease(), pool.lease()]
    print("leased", flush=True)
    threading.Thread(target=pool.lease, daemon=True).start()
    threading.Event().wait()
"""


@pytest.mark.leaves_zombies(2, "the guards of a killed owner")
def test_the_death_of_a_pools_process_gives_back_all_its_slots(limit: Callable[[int], None]) -> None:
    limit(2)
    owner = Owner(sys.executable, "-c", POOL)
    owner.wait_for("leased")
    assert wait_until(lambda: (held(), waiting()) == (2, (1, 0)), LIMIT)
    with patient_pool(max_size=2, min_idle=0, launch_concurrency=2) as pool:
        threads = [threading.Thread(target=lambda: pool.lease().release()) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: waiting() == (3, 0), LIMIT)
        owner.kill()
        for thread in threads:
            thread.join()
        assert wait_until(lambda: waiting() == (0, 0), LIMIT)
        assert pool.stats()["browsers_num"] >= 1
