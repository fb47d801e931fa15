"""Pools that share a host with other programs.  Their browsers have no process, but real slots.

The tests with Chromium are in test_pool_on_host.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import ConfigError, HostBusy, LimitError, PoolClosed, PoolTimeout, PoolUnavailable
from browserkeeper.admission import drain
from browserkeeper.admission.files import LockedFile
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import Slot
from browserkeeper.admission.slots import held as held_slots
from browserkeeper.admission.tickets import Ticket
from browserkeeper.pool import BrowserPool
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from tests.pool.slot_browsers import SlotPool, held, waiting
from tests.support.owners import Owner
from tests.support.waiting import SECONDS, wait_until


@pytest.fixture(autouse=True)
def a_quick_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browserkeeper.admission.limits.QUIET", 0.01)


def leases_of(pool: BrowserPool[Any], number: int) -> list[Any]:
    return [pool.lease(timeout=SECONDS) for _ in range(number)]


def ask(pool: BrowserPool[Any], number: int, timeout: float = SECONDS) -> list[Any]:
    """So many requests in threads; each is a future of its lease."""
    executor = ThreadPoolExecutor(number)
    futures = [executor.submit(pool.lease, timeout) for _ in range(number)]
    executor.shutdown(wait=False)
    return futures


class Program:
    """A program outside the pools that wants a slot, in a thread of its own."""

    def __init__(self, priority: Any = "work", **given: Any) -> None:
        self.slot: Slot | None = None
        self._request = SlotRequest(priority=priority, **given)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.slot = Gate(Ledger.open()).acquire(self._request, SECONDS)

    def has_slot(self) -> bool:
        return self.slot is not None

    def end(self) -> None:
        self._thread.join()
        assert self.slot is not None
        self.slot.release()


def operator() -> Operator:
    return Operator(user="test", program="test", pid=os.getpid(), at=time.time(), reason="a deploy")


# ------------------------------------------------------------------ a limit


def test_a_pool_has_as_many_browsers_as_the_host_has_slots(limit: Any) -> None:
    limit(2)
    with SlotPool() as pool:
        futures = ask(pool, 4)
        assert wait_until(lambda: held() == 2 and waiting() == (2, 0))
        assert wait_until(lambda: pool.stats()["pool_queued"] == 2)
        stats = pool.stats()
        assert stats["requests_waiting_for_slots"] == 2
        assert stats["launches_queued"] == 2
        assert stats["browsers_errors"] == 0
        assert "2 queued" in repr(pool)
        limit(3)  # while they wait
        assert wait_until(lambda: held() == 3)
        limit(4)
        assert wait_until(lambda: held() == 4)
        assert wait_until(lambda: pool.stats()["slots_wait_seconds"] > 0)
        for future in futures:
            future.result(SECONDS).release()
    assert held() == 0


def test_control_without_a_limit_it_has_all_and_none_waits() -> None:
    with SlotPool() as pool:
        leases = leases_of(pool, 4)
        assert held() == 4
        assert pool.stats()["launches_queued"] == 0
        for lease in leases:
            lease.release()
    assert held() == 0


def test_the_argument_max_browsers_of_a_pool_counts_all_browsers_of_the_host() -> None:
    with SlotPool() as other, SlotPool(max_browsers=3) as pool:
        leases = leases_of(other, 2)
        futures = ask(pool, 3)
        assert wait_until(lambda: held() == 3 and waiting() == (2, 0))
        for lease in leases:
            lease.release()
        assert wait_until(lambda: held() == 3 and waiting() == (0, 0)), "the idle ones yield"
        for future in futures:
            future.result(SECONDS).release()


@pytest.mark.parametrize("wait", [0, 5.0, None, "start_timeout"])
def test_wait_is_refused_for_a_pool_by_name(wait: Any) -> None:
    with pytest.raises(ConfigError, match=r"wait=.*checkout_timeout="):
        BrowserPool("chrome", wait=wait)


def test_limits_that_are_not_valid_are_named_to_the_requests(limit: Any) -> None:
    limit(2)
    path = Ledger.open().directory / "limits.toml"
    path.write_text("max_browsers = many\n")
    with SlotPool() as pool, pytest.raises(PoolUnavailable, match=r"limits\.toml"):
        pool.lease(timeout=SECONDS)


# ------------------------------------------------------------------ requests that get none


def test_a_time_out_names_the_limit_its_source_and_the_holders(limit: Any) -> None:
    limit(1)
    with SlotPool(label="nightly") as pool:
        lease = pool.lease(timeout=SECONDS)
        other = ask(pool, 1)[0]
        assert wait_until(lambda: pool.stats()["pool_queued"] == 1)
        with pytest.raises(PoolTimeout) as caught:
            pool.lease(timeout=0.5)
        text = str(caught.value)
        assert "max_browsers = 1" in text
        assert "limits.toml" in text
        assert f"pid {os.getpid()}, 'nightly'" in text
        assert "checkout_timeout=" in text
        assert "wait=" not in text
        busy = caught.value.__cause__
        assert isinstance(busy, HostBusy)
        assert (busy.reason, busy.limit, len(busy.holders)) == ("full", 1, 1)
        assert wait_until(lambda: waiting() == (1, 0)), "the launch is cancelled with its request"
        assert pool.stats()["browsers_errors"] == 0
        lease.release()
        other.result(SECONDS).release()


def test_control_a_time_out_of_a_full_pool_does_not_speak_of_the_host() -> None:
    with SlotPool(max_size=1) as pool:
        lease = pool.lease(timeout=SECONDS)
        with pytest.raises(PoolTimeout, match="raise max_size") as caught:
            pool.lease(timeout=0.2)
        assert "slot" not in str(caught.value)
        assert caught.value.__cause__ is None
        lease.release()


def test_wait_names_the_limit_too(limit: Any) -> None:
    limit(1)
    program = Program()
    assert wait_until(program.has_slot)
    with SlotPool(min_idle=1) as pool:
        assert wait_until(lambda: pool.stats()["pool_queued"] == 1)
        with pytest.raises(PoolTimeout, match=r"limits\.toml"):
            pool.wait(0.5)
    program.end()


# ------------------------------------------------------------------ other programs


@pytest.mark.parametrize("programs", [1, 2, 3])
def test_idle_browsers_yield_to_programs_and_come_back_after_them(limit: Any, programs: int) -> None:
    limit(2)
    with SlotPool(min_idle=2) as pool:
        pool.wait(SECONDS)
        others = [Program() for _ in range(programs)]
        assert wait_until(lambda: sum(one.has_slot() for one in others) == min(2, programs))
        assert pool.stats()["retired_yielded"] == min(2, programs)
        assert pool.stats()["pool_available"] == max(0, 2 - programs)
        for one in sorted(others, key=Program.has_slot, reverse=True):  # a third has to wait for one
            one.end()
        assert wait_until(lambda: pool.stats()["pool_available"] == 2)
        assert pool.stats()["retired_yielded"] == min(2, programs), "none came back too early"


@pytest.mark.parametrize("who", ["a standby", "a Grid session", "nobody that must wait"])
def test_control_idle_browsers_do_not_yield(limit: Any, who: str) -> None:
    limit(2)
    given: dict[str, Any] = {"a standby": {"priority": "standby"}, "a Grid session": {"kind": "grid"}}
    with SlotPool(min_idle=2 if who != "nobody that must wait" else 1) as pool:
        pool.wait(SECONDS)
        program = Program(**given.get(who, {}))
        if who == "a standby":
            assert wait_until(lambda: waiting() == (0, 1))
            time.sleep(0.3)
            assert pool.stats()["retired_yielded"] == 0
            pool.close()
        else:
            assert wait_until(program.has_slot)
            assert pool.stats()["retired_yielded"] == 0
        program.end()


def test_a_slot_says_whose_it_is_as_soon_as_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool looks at the slots without the gate's lock."""
    ledger, rename = Ledger.open(), LockedFile.rename
    seen: list[Any] = []

    def look_after(file: LockedFile, path: str) -> None:
        rename(file, path)
        for one in held_slots(ledger.slots, remove=False, details=True):
            seen.append(one.facts.get("pool"))

    monkeypatch.setattr(LockedFile, "rename", look_after)
    Gate(ledger).acquire(SlotRequest(pool="ours"), SECONDS).release()
    assert seen == ["ours"]


def test_a_program_that_goes_ahead_at_this_moment_is_not_held_back(
    limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool's look, which takes no lock, between the program's slot and the end of its ticket."""
    limit(1)
    gate, seen = Gate(Ledger.open()), list[Any]()
    ours = SlotRequest(pool="ours")
    first = gate.acquire(ours, SECONDS)
    program = Program()
    assert wait_until(lambda: len(gate.held_back_outside(ours)) == 1), "the control"
    close = Ticket.close

    def look_and_close(ticket: Ticket) -> None:
        if program.slot is None and held() == 1:
            seen.append(gate.held_back_outside(ours))
        close(ticket)

    monkeypatch.setattr(Ticket, "close", look_and_close)
    first.release()
    assert wait_until(program.has_slot)
    assert seen[0] == []
    program.end()


def test_two_pools_with_standbys_do_not_take_them_from_each_other(limit: Any) -> None:
    limit(1)
    with SlotPool(min_idle=1) as one, SlotPool(min_idle=1) as other:
        assert wait_until(lambda: (held(), waiting()) == (1, (0, 1)))

        def made() -> float:
            return sum(pool.stats()["browsers_num"] for pool in (one, other))

        assert wait_until(lambda: made() == 1)
        time.sleep(0.5)
        assert made() == 1


def test_a_request_takes_the_standby_of_another_pool_of_the_same_process(limit: Any) -> None:
    limit(1)
    with SlotPool(min_idle=1) as idle, SlotPool() as busy:
        idle.wait(SECONDS)
        lease = busy.lease(timeout=SECONDS)
        assert idle.stats()["retired_yielded"] == 1
        lease.release()


def test_a_standby_that_waits_is_promoted_and_then_other_pools_yield_to_it(limit: Any) -> None:
    limit(2)
    with SlotPool(min_idle=1, max_size=2) as pool, SlotPool(min_idle=1) as idle:
        idle.wait(SECONDS)
        first = pool.lease(timeout=SECONDS)
        assert wait_until(lambda: waiting() == (0, 1))
        second = pool.lease(timeout=SECONDS)
        assert idle.stats()["retired_yielded"] == 1
        first.release()
        second.release()


def test_a_program_gets_its_turn_beside_a_pool_that_is_always_busy(limit: Any) -> None:
    limit(1)
    stop = threading.Event()
    with SlotPool() as pool:

        def work() -> None:
            while not stop.is_set():
                with pool.lease(timeout=SECONDS):
                    time.sleep(0.01)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        assert wait_until(lambda: pool.stats()["browsers_num"] >= 1)
        for _ in range(5):
            leases = pool.stats()["requests_num"]
            program = Program()
            assert wait_until(program.has_slot)
            program.end()
            assert wait_until(lambda n=leases: pool.stats()["requests_num"] > n + 3)  # type: ignore[misc]
        stop.set()
        for worker in workers:
            worker.join()


def test_a_busy_pool_keeps_its_browsers_beside_a_program_with_a_lower_limit_of_its_own() -> None:
    with SlotPool(max_size=2) as pool:
        kept = pool.lease()
        program = Program(max_browsers=1)
        assert wait_until(lambda: waiting() == (1, 0))
        for _ in range(20):
            with pool.lease(timeout=SECONDS):
                pass
        assert pool.stats()["browsers_num"] < 10, "not one for each lease"
        kept.release()
        assert wait_until(program.has_slot), "the idle ones are given up in the end"
        program.end()


def test_a_pool_owes_another_one_only_as_many_browsers_as_make_them_equal(limit: Any) -> None:
    """Not one for each start of it that waits: then it would be the one without a browser."""
    limit(2)
    gate = Gate(Ledger.open())
    slots = [gate.acquire(SlotRequest(pool="one"), 0) for _ in range(2)]

    def wait_for_a_slot() -> None:
        gate.acquire(SlotRequest(pool="other"), SECONDS).release()

    starts = [threading.Thread(target=wait_for_a_slot) for _ in range(3)]
    for start in starts:
        start.start()
    assert wait_until(lambda: sum(waiting()) == 3)
    assert [one.is_owed for one in gate.held_back_outside(SlotRequest(pool="one"))] == [
        True,
        False,
        False,
    ]
    for slot in slots:
        slot.release()
    for start in starts:
        start.join()


def test_two_busy_pools_keep_their_browsers_and_both_work(limit: Any) -> None:
    limit(2)
    with SlotPool() as one, SlotPool() as other:
        pools = (one, other)

        def work(pool: SlotPool) -> None:
            for _ in range(30):
                with pool.lease(timeout=SECONDS):
                    time.sleep(0.001)

        workers = [threading.Thread(target=work, args=(pool,)) for pool in pools * 3]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [pool.stats()["requests_num"] for pool in pools] == [90, 90]
        assert [pool.stats()["requests_errors"] for pool in pools] == [0, 0]
        assert sum(pool.stats()["browsers_num"] for pool in pools) < 20, "not one for each lease"


def test_with_a_fresh_browser_for_each_lease_requests_and_programs_take_turns(limit: Any) -> None:
    limit(1)
    order: list[str] = []
    with SlotPool(isolation="fresh", max_size=2) as pool:
        first = pool.lease(timeout=SECONDS)
        turns = []
        for number in range(3):

            def lease(number: int = number) -> None:
                with pool.lease(timeout=SECONDS):
                    order.append(f"pool {number}")

            def run(number: int = number) -> None:
                slot = Gate(Ledger.open()).acquire(SlotRequest(), SECONDS)
                order.append(f"program {number}")
                slot.release()

            for turn in (lease, run):
                turns.append(threading.Thread(target=turn))
                turns[-1].start()
                # One launch of the pool waits, for which there is room, and each program.
                expected = number + 1, 1 + number + (turn is run)
                assert wait_until(
                    lambda n=expected: (pool.stats()["requests_waiting"], sum(waiting())) == n  # type: ignore[misc]
                )
        first.release()
        for thread in turns:
            thread.join(SECONDS)
    assert sorted(order) == sorted(f"{who} {n}" for who in ("pool", "program") for n in range(3))
    for who in ("pool", "program"):
        own = [entry for entry in order if entry.startswith(who)]
        assert own == sorted(own), f"first come, first served: {order}"
    assert order[:2] != ["pool 0", "pool 1"], f"the first program came before: {order}"


def test_a_pool_of_one_browser_is_recycled_under_a_limit_of_one(limit: Any) -> None:
    limit(1)
    with SlotPool(max_size=1, min_idle=1) as pool:
        pool.wait(SECONDS)
        old = pool.browsers[0]
        pool.recycle()
        assert wait_until(lambda: not old.alive)
        with pool.lease(timeout=SECONDS) as lease:
            assert lease.browser_id != old.id


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize("end", ["close", "cut_off", "drop", "exception"])
def test_a_pool_that_ends_while_launches_wait_leaves_no_ticket(limit: Any, end: str) -> None:
    limit(1)
    program = Program()
    assert wait_until(program.has_slot)
    pool = SlotPool(min_idle=2)
    futures: list[Any] = []
    expected: dict[str, Any] = {
        "exception": pytest.raises(KeyboardInterrupt),
        "drop": pytest.warns(ResourceWarning, match="dropped without close"),
    }
    with expected.get(end, contextlib.nullcontext()):
        if end == "exception":
            with pool:
                assert wait_until(lambda: sum(waiting()) == 2)
                raise KeyboardInterrupt
        pool.open()
        if end != "drop":
            futures = ask(pool, 1)
        assert wait_until(lambda: sum(waiting()) >= 2)
        if end == "drop":
            del pool
            gc.collect()
        else:
            getattr(pool, end)()
    assert wait_until(lambda: waiting() == (0, 0))
    for future in futures:
        with pytest.raises(PoolClosed):
            future.result(SECONDS)
    assert held() == 1
    program.end()
    assert wait_until(lambda: not os.listdir(Ledger.open().queue))
    assert wait_until(lambda: not os.listdir(Ledger.open().yields))


def test_a_fork_keeps_no_slot_and_no_ticket_of_a_pool(limit: Any) -> None:
    limit(1)
    pool = SlotPool(min_idle=0)
    with pool:
        lease = pool.lease(timeout=SECONDS)
        future = ask(pool, 1)[0]
        assert wait_until(lambda: waiting() == (1, 0))
        done, hold = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hold)
            os.read(done, 1)
            os._exit(0)
        os.close(done)
        lease.release()
        future.result(SECONDS).release()
        assert wait_until(lambda: waiting() == (0, 0))
    assert held() == 0, "though the fork lives"
    os.close(hold)
    os.waitpid(child, 0)


def test_pools_in_several_processes_share_and_a_death_frees_all(limit: Any) -> None:
    limit(3)
    words = (sys.executable, "-m", "tests.pool.slot_browsers", "3", "3")
    first = Owner(*words)
    for _ in range(3):
        first.wait_for("leased")
    second = Owner(*words)
    assert wait_until(lambda: (held(), waiting()) == (3, (3, 0)))
    third = Owner(*words)
    assert wait_until(lambda: (held(), waiting()) == (3, (6, 0)))
    first.kill()
    assert wait_until(lambda: (held(), waiting()) == (3, (3, 0)))
    second.kill()
    third.kill()
    assert wait_until(lambda: (held(), waiting()) == (0, (0, 0)))


# ------------------------------------------------------------------ a drained host


def wait_until_it_sees_the_drain(pool: SlotPool) -> None:
    controller = pool._controller
    assert controller is not None
    assert wait_until(lambda: pool.stats() and controller.scheduler.host.drained)


def test_a_drained_host_lets_the_pool_finish_its_leases_and_start_no_more() -> None:
    ledger = Ledger.open()
    with SlotPool(min_idle=1, max_size=2) as pool:
        lease = pool.lease(timeout=SECONDS)
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
        drain.start(ledger, operator())
        assert wait_until(lambda: held() == 1), "the idle one is closed"
        with pytest.raises(PoolTimeout, match=r"(?s)drained.*a deploy.*browserkeeper resume") as caught:
            pool.lease(timeout=0.3)
        assert isinstance(caught.value.__cause__, HostBusy)
        assert caught.value.__cause__.reason == "draining"
        lease.release()
        assert wait_until(lambda: held() == 0)
        future = ask(pool, 1)[0]
        drain.end(ledger)
        future.result(SECONDS).release()
        assert wait_until(lambda: pool.stats()["pool_available"] >= 1)
        assert pool.stats()["retired_host_drained"] == 2


def test_a_drain_in_the_middle_of_map_and_its_end() -> None:
    ledger, seen = Ledger.open(), []
    with SlotPool(max_size=2, checkout_timeout=SECONDS) as pool:
        for outcome in pool.map(lambda driver, item: item, range(12)):
            seen.append(outcome.result())
            if len(seen) == 4:
                drain.start(ledger, operator())
                assert wait_until(lambda: held() == 0)
                drain.end(ledger)
    assert sorted(seen) == list(range(12))


def test_items_of_map_that_wait_on_a_drained_host_fail_in_their_time() -> None:
    ledger = Ledger.open()
    with SlotPool(max_size=2, checkout_timeout=0.5) as pool:
        drain.start(ledger, operator())
        wait_until_it_sees_the_drain(pool)
        outcomes = list(pool.map(lambda driver, item: item, range(3)))
    assert [type(outcome.error) for outcome in outcomes] == [PoolTimeout] * 3
    assert all("drained" in str(outcome.error) for outcome in outcomes)
    drain.end(ledger)


# ------------------------------------------------------------------ faults of the files


def test_a_pool_works_where_it_cannot_see_the_host(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Gate) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Gate, "yield_bell", broken)
    with SlotPool() as pool, pool.lease(timeout=SECONDS):
        assert held() == 1
    assert "cannot see which programs wait" in caplog.text


def test_a_request_times_out_as_such_where_the_slots_cannot_be_read(
    limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Gate) -> Any:
        raise LimitError("no more files")

    limit(1)
    with SlotPool() as pool:
        lease = pool.lease(timeout=SECONDS)
        monkeypatch.setattr(Gate, "state", broken)
        with pytest.raises(PoolTimeout, match="No browser came free"):
            pool.lease(timeout=0.3)
        lease.release()


@pytest.mark.parametrize("rubbish", [b"", b"[1]", b'{"pool": [1], "monotonic": "x"}', b"\xff\xfe"])
def test_rubbish_in_a_ticket_does_not_stop_a_pool(limit: Any, rubbish: bytes) -> None:
    """The ticket of a process that lives, since its lock is held."""
    limit(1)
    ledger = Ledger.open()
    with SlotPool(min_idle=1) as pool:
        pool.wait(SECONDS)
        with open(ledger.queue / f"0-{1:015d}-{2:016x}", "wb") as ticket:
            ticket.write(rubbish)
            ticket.flush()
            fcntl.flock(ticket, fcntl.LOCK_EX)
            assert wait_until(lambda: pool.stats()["retired_yielded"] == 1), "it may be one that waits"
            os.unlink(ticket.name)  # before its lock is gone: then the pool itself may remove it
        pool.lease(timeout=SECONDS).release()


def test_a_gate_that_is_removed_under_a_pool_does_not_stop_it(state_dir: Path) -> None:
    with SlotPool(min_idle=1) as pool:
        pool.wait(SECONDS)
        shutil.rmtree(state_dir / "gate")
        with pool.lease(timeout=SECONDS), pool.lease(timeout=SECONDS):
            pass
