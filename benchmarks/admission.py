"""What the host's gate costs: a start that need not wait, and many that wait.

    python -m benchmarks.admission [WAITERS] [SECONDS]

Three parts, in a state directory of its own:

1. A slot taken and given back, without and with a limit, and beside 50 slots that are held; next to it
   the start of a plain guard without and with a slot, in turn, since the load of the machine changes.
2. WAITERS processes wait for one slot: the processor time of all of them, in ms a second.
3. The slot goes from one to the next: from its release to the next holder's answer.
"""

from __future__ import annotations

import functools
import logging
import os
import select
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.waiting import TELL_AFTER
from browserkeeper.process.containment import choose
from browserkeeper.process.guard_process import GuardPlan, GuardProcess
from browserkeeper.state.ledger import Ledger

ROUNDS = 300
GUARD_ROUNDS = 40
WAITERS = 200
SECONDS = 20.0
HANDOVERS = 50
VARIABLE = "BROWSERKEEPER_MAX_BROWSERS"
TICK = os.sysconf("SC_CLK_TCK")


def median_ms(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def a_start_that_need_not_wait(gate: Gate) -> None:
    def take_and_release() -> None:
        gate.acquire(SlotRequest(), 0).release()

    print(f"slot taken and given back, no limit     {median_ms(take_and_release):7.3f} ms")
    os.environ[VARIABLE] = "100"
    print(f"the same with a limit                   {median_ms(take_and_release):7.3f} ms")
    slots = [gate.acquire(SlotRequest(), 0) for _ in range(50)]
    print(f"the same beside 50 slots that are held  {median_ms(take_and_release):7.3f} ms")
    for slot in slots:
        slot.release()
    del os.environ[VARIABLE]


def guards_with_and_without(gate: Gate) -> None:
    def run(path: str) -> float:
        plan = GuardPlan("bench", ("/bin/sleep", "60"), dict(os.environ), choose("subreaper"), slot=path)
        began = time.perf_counter()
        guard = GuardProcess(plan)
        assert guard.wait_for("spawned", deadline=time.monotonic() + 60) is not None
        seconds = time.perf_counter() - began
        guard.end("closed", time.monotonic() + 60)
        return seconds

    without: list[float] = []
    with_one: list[float] = []
    for number in range(GUARD_ROUNDS):
        slot = gate.acquire(SlotRequest(), 0)
        order = [(without, ""), (with_one, slot.path)]
        for seconds, path in order[:: 1 if number % 2 else -1]:
            seconds.append(run(path))
        slot.release()
    medians = [statistics.median(seconds) * 1000 for seconds in (without, with_one)]
    print(f"start of a guard, without a slot        {medians[0]:7.2f} ms")
    print(f"start of a guard, with a slot           {medians[1]:7.2f} ms")
    print(f"ratio                                   {medians[1] / medians[0]:7.3f}")


def start_waiter(write_fd: int) -> int:
    """A process that takes a slot, says so with its pid, and gives it back when it gets SIGUSR1."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        slot = Gate(Ledger.open()).acquire(SlotRequest(), None)
        os.write(write_fd, f"{os.getpid()}\n".encode())
        signal.sigwait({signal.SIGUSR1})
        slot.release()
    finally:
        os._exit(0)


def processor_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def many_that_wait(gate: Gate, waiters: int, seconds: float) -> None:
    os.environ[VARIABLE] = "1"
    read_fd, write_fd = os.pipe()
    slot = gate.acquire(SlotRequest(), 0)
    began = time.perf_counter()
    pids = [start_waiter(write_fd) for _ in range(waiters)]
    try:
        while len(gate.state().waiting) < waiters:
            time.sleep(0.1)
        print(f"{waiters} starts are in the queue after     {time.perf_counter() - began:7.2f} s")
        time.sleep(TELL_AFTER + 2)  # until each has said once what it waits for
        before, began = processor_seconds(pids), time.perf_counter()
        time.sleep(seconds)
        spent = (processor_seconds(pids) - before) / (time.perf_counter() - began)
        print(f"processor time of all {waiters} that wait   {spent * 1000:7.2f} ms a second")
        handovers: list[float] = []
        release: Callable[[], object] = slot.release
        for _ in range(min(HANDOVERS, waiters)):
            began = time.perf_counter()
            release()
            assert select.select([read_fd], [], [], 60)[0]
            pid = int(os.read(read_fd, 64))
            handovers.append(time.perf_counter() - began)
            release = functools.partial(os.kill, pid, signal.SIGUSR1)
        print(f"a slot goes to the next after           {statistics.median(handovers) * 1000:7.2f} ms")
        print(f"at the most                             {max(handovers) * 1000:7.2f} ms")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        del os.environ[VARIABLE]


def main() -> None:
    waiters = int(sys.argv[1]) if len(sys.argv) > 1 else WAITERS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    os.environ.pop(VARIABLE, None)
    logging.getLogger("browserkeeper").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BROWSERKEEPER_STATE_DIR"] = directory
        gate = Gate(Ledger.open())
        a_start_that_need_not_wait(gate)
        guards_with_and_without(gate)
        many_that_wait(gate, waiters, seconds)


if __name__ == "__main__":
    main()
