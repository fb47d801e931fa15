"""What a scrape of the watch costs while many starts wait and many sessions run.

python -m benchmarks.scrape [--waiters 200] [--sessions 50] [--rounds 20]

Prints medians; no browser is started.  The tickets and the slots are real ones, held by this process.
The sessions are records without processes, so these numbers lack the cost of reading processes, which
docs/operations.md has.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import generate_latest

from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import describe_self
from browserkeeper.admission.tickets import Ticket
from browserkeeper.state.ledger import Ledger
from browserkeeper.status.pressure import pressure
from browserkeeper.telemetry.collector import registry
from browserkeeper.telemetry.tally import Tally
from tests.support.ledger import add_live, new_session


def median_of(action: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds on the clock and of processor time."""
    clock, processor = [], []
    for _ in range(rounds + 1):
        began = time.perf_counter(), time.process_time()
        action()
        clock.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return statistics.median(clock[1:]), statistics.median(processor[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BROWSERKEEPER_STATE_DIR"] = directory
        ledger, tally = Ledger.open(directory), Tally()
        limits = Path(directory, "limits.toml")
        limits.write_text(f"max_browsers = {given.sessions or 1}\n")
        os.utime(limits, (1e9, 1e9))
        scraped = registry(tally)
        for sessions, waiters in ((0, 0), (given.sessions, 0), (given.sessions, given.waiters)):
            held = hold(ledger, sessions, waiters)
            for what, action in (
                ("/pressure", lambda: pressure().to_dict()),
                ("/metrics", lambda: generate_latest(scraped)),
            ):
                clock, processor = median_of(action, given.rounds)
                print(
                    f"{sessions:4} sessions, {waiters:4} waiters: {what:10} {clock * 1000:7.1f} ms, "
                    f"{processor * 1000:7.1f} ms of processor time"
                )
            release(ledger, held)


def hold(ledger: Ledger, sessions: int, waiters: int) -> list[object]:
    """Slots, tickets and records; keep what is returned, for as long as they should be there."""
    gate = Gate(ledger)
    held: list[object] = []
    for _ in range(sessions):
        held.append(gate.acquire(SlotRequest(), 0))
        add_live(ledger, new_session())
    for _ in range(waiters):
        held.append(Ticket(ledger.queue, {**describe_self(""), "kind": "browser"}))
    return held


def release(ledger: Ledger, held: list[object]) -> None:
    for one in held:
        getattr(one, "release", getattr(one, "close", None))()  # type: ignore[misc]
    for path in ledger.live.iterdir():
        path.unlink()


if __name__ == "__main__":
    main()
