"""Tasks per second on a real worker: plain Selenium in the task body, BrowserTask fresh and pooled.

    python -m benchmarks.celery_tasks [--tasks N] [--rounds N] [--children N]

One prefork worker with 2 children and a Redis of its own; rivals take turns, each with N tasks sent
at once, timed from the first one sent to the last result.  Writes ``RESULTS-celery.md``.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import tempfile
import time
from collections.abc import Callable

from celery import Celery

from examples.services import celery_worker, redis_server
from fixtures.server import Site

from .__main__ import machine
from .measures import ROOT, in_turn, median

RESULTS = ROOT / "benchmarks" / "RESULTS-celery.md"
RIVALS = ("plain", "fresh", "pooled")
BOUND = 5.0
"""The least ratio of tasks per second, pooled to plain."""
PATIENCE = 300.0


def seconds_for(client: Celery, name: str, url: str, number: int) -> float:
    """From the first task sent to the last result, for so many tasks sent at once."""
    began = time.perf_counter()
    results = [client.send_task(name, args=[url]) for _ in range(number)]
    titles = {result.get(timeout=PATIENCE) for result in results}
    assert len(titles) == 1, titles
    return time.perf_counter() - began


def measure(tasks: int, rounds: int, children: int) -> dict[str, float]:
    """Tasks per second of each rival, by the median round."""
    os.environ["BROWSERKEEPER_OFFLINE"] = "1"
    with (
        redis_server() as redis,
        Site() as site,
        tempfile.TemporaryDirectory(prefix="bkstate-") as state,
        Celery("bench", broker=redis, backend=redis, set_as_current=False) as client,
        celery_worker(
            "benchmarks.celery_app",
            *("-c", str(children)),
            environment={"EXAMPLE_REDIS": redis, "BROWSERKEEPER_STATE_DIR": state},
        ),
    ):
        for name in RIVALS:  # so that each child has run each rival's task, and its pool is warm
            seconds_for(client, name, site.url, 2 * children)
        runs: dict[str, Callable[[], float]] = {
            name: functools.partial(seconds_for, client, name, site.url, tasks) for name in RIVALS
        }
        times = in_turn(runs, rounds)
    return {name: tasks / median(seconds) for name, seconds in times.items()}


def lines(rates: dict[str, float], given: argparse.Namespace) -> list[str]:
    rows = []
    for name, rate in rates.items():
        ratio = rate / rates["plain"]
        bound = f"≥ {BOUND:g} ×, {'met' if ratio >= BOUND else 'MISSED'}" if name == "pooled" else ""
        rows.append(f"| {name} | {rate:.2f} | {ratio:.2f} × | {bound} |")
    today = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
    how = (
        f"Prefork, {given.children} children, {given.tasks} tasks at once, {given.rounds} rounds in turn"
    )
    return [
        "# Celery tasks per second",
        "",
        f"`python -m benchmarks.celery_tasks` on {today}: {machine()}.",
        f"{how}, median. Each task opens one page of the fixture site on Chromium.",
        "",
        "| the task | tasks per second | against plain | bound |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.celery_tasks")
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--children", type=int, default=2)
    given = parser.parse_args()
    text = "\n".join(lines(measure(given.tasks, given.rounds, given.children), given))
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
