"""The latch: it wakes waiters, and stays set whatever happens to them."""

from __future__ import annotations

import threading

from browserkeeper.pool.latch import Latch


def test_wait_returns_false_if_the_latch_is_not_set_in_time() -> None:
    latch = Latch()
    assert not latch.wait(0.01)
    assert not latch.is_set()


def test_set_wakes_every_waiting_thread() -> None:
    latch = Latch()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(latch.wait(60))) for _ in range(5)]
    for thread in threads:
        thread.start()
    latch.set()
    latch.set()
    for thread in threads:
        thread.join()
    assert woken == [True] * 5
    assert latch.wait(0)


def test_a_latch_stays_set_after_a_waiter_was_interrupted_with_the_lock_taken() -> None:
    latch = Latch()
    latch.set()
    latch._lock.acquire()  # the waiter was interrupted before it could release the lock
    assert latch.is_set()
    assert latch.wait(0)
    latch.set()
