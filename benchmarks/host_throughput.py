"""Sessions per second through the host's gate, against the same number of browsers without it.

    python -m benchmarks.host_throughput [--rounds N] [--jobs N] [--profile]

Three programs with four threads each want twelve browsers; three may run at once.  With the gate
(``max_browsers=3``) the programs know nothing of each other; without it they share a semaphore of three,
which a parent has made for them.  All else is the same, and the rivals take turns, so that other load
disturbs both alike.  A job is a session that opens one page.

``--profile`` says where a session's time goes: waiting, start, use, end.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from typing import Any

from browserkeeper import browser
from fixtures.server import Site

from .measures import in_turn

PROGRAMS, THREADS, LIMIT = 3, 4, 3
BOUND = 0.95
"""The least ratio of sessions per second, with the gate to without it."""
RIVALS = ("gate", "semaphore")


def program(orders: Connection, semaphore: Semaphore, url: str) -> None:
    """One of the programs: does so many jobs in each thread whenever it is told to."""
    while order := orders.recv():
        rival, jobs = order
        phases: list[dict[str, float]] = []
        work = functools.partial(job, rival, semaphore, url, phases)
        threads = [threading.Thread(target=repeat, args=(work, jobs)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        orders.send(phases)


def repeat(action: Callable[[], None], times: int) -> None:
    for _ in range(times):
        action()


def job(rival: str, semaphore: Semaphore, url: str, phases: list[dict[str, float]]) -> None:
    began = time.perf_counter()
    arguments: Any = {"max_browsers": LIMIT, "wait": 600} if rival == "gate" else {}
    with contextlib.nullcontext() if rival == "gate" else semaphore:
        allowed = time.perf_counter()
        session = browser(**arguments)
        with session as driver:
            started = time.perf_counter()
            driver.get(url)
            assert driver.title
            used = time.perf_counter()
    ended = time.perf_counter()
    assert session.report is not None
    start = session.report.seconds["start"]  # of the launch alone, without the wait
    waited = max(0.0, started - allowed - start) if rival == "gate" else allowed - began
    phases.append(
        {"wait": waited, "start": started - began - waited, "use": used - started, "end": ended - used}
    )


def one_round(
    rival: str, jobs: int, pipes: list[Connection], phases: dict[str, list[dict[str, float]]]
) -> float:
    """Sessions per second."""
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send((rival, jobs))
    for pipe in pipes:
        phases[rival] += pipe.recv()
    return PROGRAMS * THREADS * jobs / (time.perf_counter() - began)


def measure(rounds: int, jobs: int) -> tuple[dict[str, list[float]], dict[str, list[dict[str, float]]]]:
    """The sessions per second of each round, and the phases of each session, by rival."""
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    context = multiprocessing.get_context("spawn")
    semaphore = context.Semaphore(LIMIT)
    phases: dict[str, list[dict[str, float]]] = {name: [] for name in RIVALS}
    with Site() as site, tempfile.TemporaryDirectory(prefix="bkstate-") as state:
        os.environ["BROWSERKEEPER_STATE_DIR"] = state
        pipes, processes = [], []
        for _ in range(PROGRAMS):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=program, args=(theirs, semaphore, site.url)))
            processes[-1].start()
            pipes.append(ours)
        rivals: dict[str, Callable[[], float]] = {
            name: functools.partial(one_round, name, jobs, pipes, phases) for name in RIVALS
        }
        rates = in_turn(rivals, rounds)
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
    return rates, phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2, help="of each of the twelve threads in one round")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    rates, phases = measure(given.rounds, given.jobs)
    ratios = [a / b for a, b in zip(rates["gate"], rates["semaphore"], strict=True)]
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratio = statistics.median(ratios)  # each round's rivals ran within the same seconds
    print(json.dumps({name: [round(rate, 3) for rate in values] for name, values in rates.items()}))
    print(
        f"sessions per second: gate {median['gate']:.2f}, semaphore {median['semaphore']:.2f}: "
        f"by round {ratio:.3f} × in the median, {min(ratios):.3f} to {max(ratios):.3f} "
        f"(bound {BOUND}: {'met' if ratio >= BOUND else 'MISSED'})"
    )
    if given.profile:
        for name, sessions in phases.items():
            parts = {part: statistics.median(s[part] for s in sessions) for part in sessions[0]}
            print(name, {part: f"{seconds:.3f} s" for part, seconds in parts.items()})


if __name__ == "__main__":
    main()
